from __future__ import annotations

from concept_tuning.figures.cell_grid import MARKED, cell_figure
from concept_tuning.figures.tiles import BOX
from figures.examples import image


def test_every_cell_answers_a_click_with_its_row_and_column() -> None:
    figure = cell_figure("<a>", image(), (2, 3))
    points = next(trace for trace in figure.data if trace.name == "cells")
    assert [tuple(cell) for cell in points.customdata] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert (points.x[1], points.y[1]) == (0.5, 0.25)
    assert points.text[5] == "row 2, column 3<br>&lt;a&gt;"
    # Nothing else takes a click, wherever it falls.
    assert figure.layout.hoverdistance == -1
    assert [trace.name for trace in figure.data if trace.customdata is not None] == ["cells"]
    assert not figure.layout.dragmode


def test_marked_cells_are_framed_and_numbered_where_there_are_several() -> None:
    one = cell_figure("a", image(), (2, 2), marked=[(1, 0)])
    frame = next(trace for trace in one.data if trace.type == "scatter" and trace.line.color == MARKED)
    assert set(frame.x) - {None} == {0, 0.5}
    assert set(frame.y) - {None} == {0.5, 1}
    assert not one.layout.annotations
    two = cell_figure("a", image(), (2, 2), marked=[(1, 0), (0, 0)])
    assert [note.text for note in two.layout.annotations] == ["1", "2"]


def test_patches_stand_on_the_picture() -> None:
    figure = cell_figure("a", image(), (1, 1), patches=[((0.25, 0.25, 0.75, 0.75), "1 4")])
    assert [note.text for note in figure.layout.annotations] == ["1 4"]


def test_patches_and_marked_cells_differ_in_colour_and_line() -> None:
    figure = cell_figure("a", image(), (2, 2), marked=[(0, 0)], patches=[((0, 0, 1, 1), "1")])
    assert {(trace.line.color, trace.line.dash) for trace in figure.data if trace.name is None and trace.line.dash} == {
        (MARKED, "solid"),
        (BOX, "dash"),
    }
