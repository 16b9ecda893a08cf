from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest

from concept_tuning.figures.style import COLOURS, FONT, finish, laid_over, overlay, run_colours


def test_runs_keep_their_colours() -> None:
    names = [f"run-{place}" for place in range(10)]
    colours = run_colours(names)
    assert [colours[name] for name in names[:3]] == list(COLOURS[:3])
    assert run_colours(names[:2]) == {name: colours[name] for name in names[:2]}


def test_an_overlay_is_brightest_where_the_map_is_highest() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    values = np.zeros((4, 4), np.float32)
    values[3, 1] = 2
    shown = overlay(image, values, opacity=1).astype(int).sum(2)
    assert np.unravel_index(shown.argmax(), shown.shape)[0] >= 30
    assert 10 <= np.unravel_index(shown.argmax(), shown.shape)[1] < 20
    assert np.array_equal(overlay(image, values, opacity=0), image)


def test_a_flat_map_has_one_colour() -> None:
    shown = overlay(np.zeros((8, 8, 3), np.uint8), np.ones((2, 2)))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("values", [None, np.ones((2, 2)), np.array([[0, np.nan], [1, 0]])])
def test_a_blank_map_leaves_the_picture_as_it_is(values: np.ndarray | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(laid_over(image, values, side=8), image)
    assert not np.array_equal(laid_over(image, np.eye(2), side=8), image)


def test_the_common_look() -> None:
    figure = finish(go.Figure(), size=300, legend=False)
    assert figure.layout.height == 300
    assert figure.layout.showlegend is False
    look = figure.layout.template.layout
    assert (look.font.family, look.plot_bgcolor, look.xaxis.automargin) == (FONT, "white", True)
    assert len(figure.to_json()) < 2500  # a page has many: Plotly's own look alone takes 7,000
    assert plotly.io.templates["plotly_white"].layout.margin.l is None  # the library's own stays as it was
