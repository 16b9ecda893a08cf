from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.figures.clickable import clickable_cells


def heatmap(values: np.ndarray, **options) -> go.Heatmap:
    data = np.moveaxis(np.indices(values.shape), 0, -1)
    hover = [[f"{i} {j}" for j in range(values.shape[1])] for i in range(values.shape[0])]
    return go.Heatmap(z=values, customdata=data, hovertext=hover, **options)


def test_every_filled_cell_has_a_point_with_its_data_and_text() -> None:
    values = np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 0.6]])
    figure = clickable_cells(go.Figure(heatmap(values)))
    points = figure.data[1]
    assert figure.data[0].hoverinfo == "skip"
    assert figure.layout.hoverdistance == -1
    assert [tuple(pair) for pair in points.customdata] == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert list(zip(points.y, points.x, strict=True)) == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert list(points.text) == ["0 0", "0 2", "1 0", "1 1", "1 2"]
    assert points.marker.opacity == 0
    assert points.selected.marker.opacity > 0.3


def test_points_lie_on_the_axes_of_their_panel() -> None:
    figure = make_subplots(rows=1, cols=2)
    figure.add_trace(heatmap(np.ones((2, 2))), row=1, col=1)
    figure.add_trace(heatmap(np.ones((2, 2)), x=[5, 6]), row=1, col=2)
    clickable_cells(figure)
    assert [(trace.xaxis, trace.yaxis) for trace in figure.data] == [("x", "y"), ("x2", "y2")] * 2
    assert list(figure.data[3].x) == [5, 6, 5, 6]


def test_heat_maps_without_data_are_left_alone() -> None:
    figure = clickable_cells(go.Figure(go.Heatmap(z=[[1]])))
    assert len(figure.data) == 1
    assert figure.data[0].hoverinfo is None


def test_only_cells_with_something_to_see_have_points_where_that_is_said() -> None:
    """A matrix of 200 classes has 40,000 cells, and 500 pictures fill 500 of them at most."""
    values = np.array([[1.0, 0.0], [np.nan, 1.0]])
    figure = clickable_cells(go.Figure(heatmap(values)), np.array([[True, False], [True, True]]))
    assert [tuple(pair) for pair in figure.data[1].customdata] == [(0, 0), (1, 1)]
    assert figure.data[0].customdata is None
    assert figure.data[0].hovertext is None
