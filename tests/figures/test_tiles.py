from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.figures.tiles import (
    GAP,
    Box,
    Grid,
    Tile,
    add_boxes,
    merge_equal,
    numbers_label,
    tile_figure,
    title_height,
)
from figures.examples import image, picture


def test_a_tile_holds_its_picture_at_its_place() -> None:
    shown = image()
    figure = tile_figure([Tile(key="a", image=shown, left=1, top=2, side=4)], width=6, height=6)
    trace = figure.data[0]
    np.testing.assert_array_equal(picture(trace), shown)
    # The first pixel's middle is half a pixel inside the tile, the last one's half a pixel before its end.
    assert (trace.x0, trace.y0) == (1.25, 2.25)
    assert trace.x0 + 7 * trace.dx == pytest.approx(5 - 0.25)


def test_every_tile_answers_a_click_with_its_key_empty_ones_too() -> None:
    tiles = [Tile(key="a", image=image(), left=0, top=0), Tile(key="b", image=None, left=1, top=0, hover="gone")]
    figure = tile_figure(tiles, width=2, height=1)
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["a", "b"]
    assert list(points.x) == [0.5, 1.5]
    assert points.text[1] == "gone"
    assert sum(trace.type == "image" for trace in figure.data) == 1


def test_the_plane_keeps_squares_square_and_grows_downwards() -> None:
    figure = tile_figure([Tile(key="a", image=image(), left=0, top=0)], width=3, height=2)
    assert figure.layout.yaxis.scaleanchor == "x"
    assert list(figure.layout.yaxis.range) == [2, 0]
    assert figure.layout.height == 2 * 720 / 3
    assert figure.layout.meta == {"fit": 2 / 3}


def test_boxes_lie_on_their_tile() -> None:
    tile = Tile(key="a", image=image(), left=2, top=1, side=2)
    figure = tile_figure([tile], width=4, height=3)
    add_boxes(figure, [(tile, Box(corners=(0.25, 0.5, 0.75, 1), label="7", hover="seven"))])
    lines = [trace for trace in figure.data if getattr(trace, "mode", "") == "lines"]
    assert {value for value in lines[-1].x if value is not None} == {2.5, 3.5}
    assert {value for value in lines[-1].y if value is not None} == {2.0, 3.0}
    told = figure.data[-1]
    assert (told.x[0], told.y[0], told.customdata[0], told.text[0]) == (3.0, 2.5, "a", "seven")
    assert [note.text for note in figure.layout.annotations] == ["7"]


def test_boxes_of_several_colours_are_two_lines_each() -> None:
    tile = Tile(key="a", image=image(), left=0, top=0)
    figure = tile_figure([tile], width=1, height=1)
    before = len(figure.data)
    boxes = [(tile, Box(corners=(0, 0, 0.5, 0.5), colour=colour)) for colour in ("#111111", "#222222", "#111111")]
    add_boxes(figure, boxes)
    assert len(figure.data) == before + 4


def test_equal_boxes_are_merged_in_order() -> None:
    boxes = np.array([[0, 0, 1, 1], [0.5, 0, 1, 1], [0, 0, 1, 1.00001]])
    assert [places for _, places in merge_equal(boxes)] == [[0, 2], [1]]
    assert merge_equal(boxes)[1][0] == (0.5, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (9, 3)])
def test_a_grid_leaves_room_for_titles_and_no_tile_outside(count: int, columns: int) -> None:
    grid = Grid(count=count, lines=2)
    assert grid.columns == columns
    corners = [grid.corner(place) for place in range(count)]
    assert len(set(corners)) == count
    assert min(top for _, top in corners) == pytest.approx(title_height(grid.width, 2))
    assert max(left for left, _ in corners) + 1 <= grid.width + 1e-9
    assert max(top for _, top in corners) + 1 + GAP == pytest.approx(grid.height)


def test_numbers_in_a_row_are_a_range() -> None:
    assert numbers_label([0, 1, 2, 5, 7, 8]) == "1–3 6 8 9"
    assert numbers_label([]) == ""


def test_boxes_of_one_colour_keep_their_kind_of_line() -> None:
    tile = Tile(key="a", image=image(), left=0, top=0)
    figure = tile_figure([tile], width=1, height=1)
    add_boxes(figure, [(tile, Box(corners=(0, 0, 1, 1), dash=dash)) for dash in ("solid", "dash")])
    lines = [trace.line.dash for trace in figure.data if getattr(trace, "mode", "") == "lines"]
    assert lines == [None, "solid", None, "dash"]
