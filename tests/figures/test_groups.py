from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from concept_tuning.diagnostics.groups import GroupTable, group_table
from concept_tuning.figures.groups import cell_figure, group_figure
from concept_tuning.figures.style import COLOURS

CLASSES, GROUPS = ("owl", "tern"), ("land", "sea")
FIRST = {(0, 0): (9, 10), (0, 1): (3, 5), (1, 0): (1, 4)}
SECOND = {(0, 0): (2, 10), (0, 1): (5, 5), (1, 0): (3, 4)}


def table(
    cells: dict[tuple[int, int], tuple[int, int]],
    classes: tuple[str, ...] = CLASSES,
    groups: tuple[str, ...] = GROUPS,
) -> GroupTable:
    rows = np.array([(c, g, c if i < hits else 1 - c) for (c, g), (hits, n) in cells.items() for i in range(n)])
    found = group_table(
        labels=rows[:, 0], predictions=rows[:, 2], groups=rows[:, 1], class_names=classes, group_names=groups
    )
    assert isinstance(found, GroupTable)
    return found


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_each_cell_of_the_matrix_has_its_accuracy_and_count() -> None:
    figure = group_figure({"run a": table(FIRST), "run b": table(SECOND)})
    first, second = figure.data
    assert (first.name, second.name) == ("run a", "run b")
    assert np.array_equal(first.z, [[0.9, 0.6], [0.25, np.nan]], equal_nan=True)
    assert np.array_equal(second.z, [[0.2, 1.0], [0.75, np.nan]], equal_nan=True)
    assert first.text[1][0] == "25.0 %<br>n = 4"
    assert first.text[1][1] == ""
    assert first.customdata[0][1].tolist() == ["owl", "sea"]
    interval = table(FIRST).cells[2].accuracy
    assert f"{interval.low:.3g} to {interval.high:.3g}, n = 4" in first.hovertext[1][0]
    assert "1 of 4 right" in first.hovertext[1][0]
    assert [annotation.text for annotation in figure.layout.annotations] == ["run a", "run b"]


def test_the_worst_cell_of_each_matrix_is_framed() -> None:
    shapes = group_figure({"run a": table(FIRST), "run b": table(SECOND)}).layout.shapes
    middles = [((shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2, shape.xref) for shape in shapes]
    assert middles == [(0, 1, "x"), (0, 0, "x2")]


@pytest.mark.parametrize(("count", "text"), [(2, "<br>n"), (20, ", n"), (60, "")])
def test_a_matrix_of_many_classes_says_less_in_its_cells(count: int, text: str) -> None:
    classes = tuple(f"class {place}" for place in range(count))
    figure = group_figure({"run": table(FIRST, classes)})
    assert text in figure.data[0].text[0][0]
    assert bool(figure.data[0].texttemplate) == bool(text)
    assert len(figure.layout.yaxis.ticktext) <= max(count // 2, 40)
    assert figure.layout.height < 1200


def test_cells_stand_from_the_worst_of_any_run_to_the_best() -> None:
    figure = cell_figure({"run a": table(FIRST), "run b": table(SECOND)})
    assert list(figure.layout.yaxis.ticktext) == ["owl<br>land, n = 10", "tern<br>land, n = 4", "owl<br>sea, n = 5"]
    first, second = named(figure, "run a"), named(figure, "run b")
    assert list(first.x) == [0.9, 0.25, 0.6]
    assert list(second.x) == [0.2, 0.75, 1.0]
    assert [tuple(place) for place in first.customdata] == [("owl", "land"), ("tern", "land"), ("owl", "sea")]
    wilson = table(FIRST).cells[0].accuracy
    assert first.error_x.array[0] == pytest.approx(wilson.high - 0.9)
    assert first.error_x.arrayminus[0] == pytest.approx(0.9 - wilson.low)
    lines = [shape.x0 for shape in figure.layout.shapes]
    assert lines == pytest.approx([13 / 19, 10 / 19])


def test_the_worst_cell_of_each_run_has_a_ring() -> None:
    figure = cell_figure({"run a": table(FIRST), "run b": table(SECOND)})
    rings = [trace for trace in figure.data if trace.name == "worst cell of the run"]
    assert [trace.x[0] for trace in rings] == [0.25, 0.2]
    assert [round(trace.y[0]) for trace in rings] == [1, 0]
    assert [trace.showlegend for trace in rings] == [True, False]


def test_only_the_lowest_are_shown_and_the_others_counted() -> None:
    figure = cell_figure({"run a": table(FIRST)}, most=2)
    assert list(figure.data[0].x) == [0.25, 0.6]
    assert "the 2 lowest of 3 cells" in figure.layout.xaxis.title.text


def test_a_worst_cell_that_is_left_out_has_no_ring_and_the_others_are_named() -> None:
    figure = cell_figure({"run a": table(FIRST), "run b": table(SECOND)}, most=1)
    (ring,) = [trace for trace in figure.data if trace.name == "worst cell of the run"]
    assert (ring.x[0], ring.showlegend) == (0.2, True)


def test_runs_have_the_colour_that_they_have_elsewhere() -> None:
    figure = cell_figure({"run b": table(FIRST)}, runs=["run a", "run b"])
    assert figure.data[0].marker.color == COLOURS[1]


def test_names_of_groups_are_escaped_once_and_wrapped_between_signs() -> None:
    figure = group_figure({"run": table(FIRST, groups=("a<b & c", "&" * 30))})
    lines = [text.split("<br>") for text in figure.layout.xaxis.ticktext]
    assert lines[0] == ["a&lt;b &amp; c"]
    assert lines[1] == ["&amp;" * 9, "&amp;…&amp;&amp;&amp;&amp;&amp;&amp;&amp;", "&amp;&amp;"]
