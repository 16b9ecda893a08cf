from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.figures.picture_maps import maps_strip
from concept_tuning.figures.style import overlay
from figures.examples import image, picture


def test_maps_lie_over_the_picture_in_their_order() -> None:
    shown = image()
    maps = {f"map {place}": np.random.default_rng(place).random((4, 4)) for place in range(4)}
    figure = maps_strip("a", shown, maps, title="red gull")
    pictures = [picture(trace) for trace in figure.data if trace.type == "image"]
    np.testing.assert_array_equal(pictures[0], shown)
    for found, values in zip(pictures[1:], maps.values(), strict=True):
        np.testing.assert_array_equal(found, overlay(shown, values))
    assert [note.text for note in figure.layout.annotations] == ["red gull", *maps]
    assert list(figure.data[-1].customdata) == ["a"] * 5


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_blank_map_is_called_so_and_not_coloured(values: np.ndarray) -> None:
    shown = image()
    figure = maps_strip("a", shown, {"occlusion": values})
    np.testing.assert_array_equal(picture(figure.data[1]), shown)
    assert figure.layout.annotations[1].text == "occlusion (blank)"
    assert "points at nothing" in figure.data[-1].text[1]


def test_no_maps_leave_the_picture() -> None:
    assert sum(trace.type == "image" for trace in maps_strip("a", image(), {}).data) == 1
