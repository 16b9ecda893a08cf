from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.attention_maps import ChannelLinks, PositionMaps
from concept_tuning.figures.attention_maps import channel_figure, position_figure
from concept_tuning.figures.style import overlay
from figures.examples import image, picture


def position_maps() -> PositionMaps:
    weights = np.random.default_rng(0).random((2, 2, 4, 2, 4)).astype(np.float32)
    weights /= weights.sum((3, 4), keepdims=True)
    return PositionMaps(run="tuned", keys=("a", "b"), weights=weights, mean=weights.mean((1, 2)), gamma=0.1)


def channel_links(run: str = "tuned") -> ChannelLinks:
    weights = np.random.default_rng(1).random((2, 3, 3)) / 50
    return ChannelLinks(run=run, keys=("a", "b"), weights=weights, mean=weights.mean(0), even=0.01, gamma=0.1)


def test_a_cell_and_where_it_attends() -> None:
    result, shown = position_maps(), image()
    figure = position_figure(result, "b", shown, cells=[(1, 2)])
    pictures = [picture(trace) for trace in figure.data if trace.type == "image"]
    np.testing.assert_array_equal(pictures[0], shown)
    np.testing.assert_array_equal(pictures[1], overlay(shown, result.weights[1, 1, 2]))
    np.testing.assert_array_equal(pictures[2], overlay(shown, result.mean[1]))
    boxes = next(trace for trace in figure.data if trace.name == "boxes")
    top = next(trace for trace in figure.data if trace.type == "image").y0 - 1 / 16
    assert (boxes.x[0], boxes.y[0]) == pytest.approx((2.5 / 4, top + 0.75))
    low, high = result.weights[1, 1, 2].min() * 8, result.weights[1, 1, 2].max() * 8
    assert any(f"{low:.2f}–{high:.2f} × even" in note.text for note in figure.layout.annotations)
    assert list(next(trace for trace in figure.data if trace.name == "pictures").customdata) == ["b"] * 3


def test_no_cell_leaves_the_mean() -> None:
    figure = position_figure(position_maps(), "a", image(), cells=[])
    assert sum(trace.type == "image" for trace in figure.data) == 2


@pytest.mark.parametrize("cell", [(2, 0), (0, 4), (-1, 0)])
def test_a_cell_outside_the_map_is_refused(cell: tuple[int, int]) -> None:
    with pytest.raises(IndexError, match="2 by 4"):
        position_figure(position_maps(), "a", image(), cells=[cell])


def test_links_are_multiples_of_even_attention_which_is_the_neutral_colour() -> None:
    result = channel_links()
    figure = channel_figure([result])
    np.testing.assert_allclose(figure.data[0].z, result.mean / 0.01)
    np.testing.assert_allclose(figure.data[0].customdata, result.mean)
    assert figure.layout.coloraxis.cmid == 1
    assert "n = 2" in figure.layout.yaxis.title.text
    # Row: the concept that reads, from the top.
    assert list(figure.data[0].y) == ["1", "2", "3"]
    assert figure.layout.yaxis.autorange == "reversed"


def test_links_of_one_picture_and_several_runs() -> None:
    results = [channel_links(f"run {place}") for place in range(3)]
    figure = channel_figure(results, key="b")
    assert [trace.name for trace in figure.data] == ["run 0", "run 1", "run 2"]
    np.testing.assert_allclose(figure.data[2].z, results[2].weights[1] / 0.01)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
