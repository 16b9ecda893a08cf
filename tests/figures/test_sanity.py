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
    assert list(figure.layout.xaxis.ticktext) == ["blocks 0<br>x", "blocks 1<br>x", "blocks 2<br>x", "chance"]


def test_a_map_that_is_always_blank_has_no_points() -> None:
    figure = sanity_figure(check(np.full((1, 2, 3), np.nan)))
    assert np.isnan(np.array(figure.data[0].y, float)).all()
    assert "not defined" in figure.data[0].text[0]
