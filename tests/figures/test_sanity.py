from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.sanity import SanityCheck
from concept_tuning.figures.sanity import sanity_figure


def check(correlation: np.ndarray) -> SanityCheck:
    kinds, stages, count = correlation.shape
    return SanityCheck(
        subject="tuned",
        keys=tuple(str(place) for place in range(count)),
        maps=tuple(f"map-{place}" for place in range(kinds)),
        stages=tuple(f"blocks.{place}_x" for place in range(stages)),
        correlation=correlation,
        similarity=correlation,
        chance=np.linspace(0.1, 0.2, kinds),
        seed=0,
    )


def test_lines_are_means_and_bars_the_middle_half() -> None:
    correlation = np.random.default_rng(0).random((2, 3, 9))
    correlation[1, 2, 4:] = np.nan
    figure = sanity_figure(check(correlation))
    for place in range(2):
        line, chance = figure.data[2 * place : 2 * place + 2]
        means = np.nanmean(correlation[place], 1)
        low, high = np.nanpercentile(correlation[place], [25, 75], axis=1)
        np.testing.assert_allclose(line.y, means)
        np.testing.assert_allclose(line.y + line.error_y.array, high)
        np.testing.assert_allclose(line.y - line.error_y.arrayminus, low)
        assert chance.y[0] == pytest.approx(0.1 + 0.1 * place)
        assert round(chance.x[0]) == 3
    assert "n = 4" in figure.data[2].text[2]
    assert "randomised: blocks.0_x, blocks.1_x" in figure.data[2].text[1]
    ticks = ["head", "half of<br>the<br>layers", "all<br>layers", "chance:<br>other<br>pictures"]
    assert list(figure.layout.xaxis.ticktext) == ticks
    assert len(figure.layout.shapes) == 1
    assert list(figure.layout.yaxis.autorangeoptions.include) == [0, 1]


def test_stages_of_the_usual_number_are_in_words_and_many_keep_their_names() -> None:
    usual, many = (sanity_figure(check(np.zeros((1, count, 2)))).layout.xaxis.ticktext[:-1] for count in (5, 6))
    assert list(usual) == ["head", "last<br>layers", "middle", "early<br>layers", "all<br>layers"]
    assert many[0] == "blocks 0<br>x"


def test_one_kind_of_map_has_a_line_at_chance() -> None:
    shapes = sanity_figure(check(np.zeros((1, 2, 3)))).layout.shapes
    assert [(shape.y0, shape.y1) for shape in shapes if shape.y0 == shape.y1] == [(0.1, 0.1)]


def test_a_map_that_is_always_blank_has_no_points() -> None:
    figure = sanity_figure(check(np.full((1, 2, 3), np.nan)))
    assert np.isnan(np.array(figure.data[0].y, float)).all()
    assert "not defined" in figure.data[0].text[0]
