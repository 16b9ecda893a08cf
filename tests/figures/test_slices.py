from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.slices import Slice, SliceTable
from concept_tuning.diagnostics.thumbnails import LOSSLESS, pack_thumbnails
from concept_tuning.figures.slices import slice_figure, slice_gallery
from concept_tuning.figures.style import BAD, COLOURS


def one(value: float, low: float, high: float, *keys: str) -> Slice:
    return Slice(
        accuracy=Interval(value=value, low=low, high=high, n=len(keys)),
        lift=value - 0.8,
        excess=2.5,
        classes=(("a <very> long name of a class", 0.75), ("owl", 0.25)),
        predicted=(("owl", 1.0),),
        keys=keys,
    )


def table(*slices: Slice) -> SliceTable:
    whole = Interval(value=0.8, low=0.7, high=0.9, n=60)
    return SliceTable(accuracy=whole, slices=slices, n_slices=4, small=3, p_value=None)


LOW, WIDE = one(0.3, 0.1, 0.6, "c.png", "a.png"), one(0.7, 0.2, 0.95, "b.png")


def test_slices_have_their_accuracy_and_the_keys_of_their_pictures() -> None:
    figure = slice_figure(table(LOW, WIDE))
    below, others = figure.data
    assert (below.marker.color, others.marker.color) == (BAD, COLOURS[0])
    assert (list(below.x), list(below.y), list(others.x), list(others.y)) == ([0.3], [0], [0.7], [1])
    assert below.error_x.array[0] == pytest.approx(0.3)
    assert below.error_x.arrayminus[0] == pytest.approx(0.2)
    assert list(below.customdata[0]) == ["c.png", "a.png"]
    assert list(others.customdata[0]) == ["b.png"]
    assert "&lt;very" in below.text[0]
    assert "owl 25 %" in below.text[0]
    assert "−0.5 from the average" in below.text[0]
    assert figure.layout.yaxis.ticktext[1].endswith("<br>n = 1")


def test_the_average_is_a_line_in_its_band() -> None:
    band, line = slice_figure(table(LOW)).layout.shapes
    assert (band.x0, band.x1, line.x0, line.x1) == (0.7, 0.9, 0.8, 0.8)


def test_only_the_first_slices_are_drawn_and_the_others_counted() -> None:
    figure = slice_figure(table(LOW, WIDE), most=1)
    assert len(figure.data) == 1
    assert "1 of 2 slices" in figure.layout.xaxis.title.text
    assert not slice_figure(table()).data


def test_the_gallery_is_of_the_slice_in_its_order() -> None:
    keys = ("a.png", "b.png", "c.png")
    thumbnails = pack_thumbnails(keys, np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1, 0]), quality=LOSSLESS)
    figure = slice_gallery(table(LOW, WIDE), 0, thumbnails, class_names=("owl", "tern"))
    assert list(figure.data[-1].customdata) == ["c.png", "a.png"]
    assert [note.text for note in figure.layout.annotations] == ["owl", "owl"]
