from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.figures.concept_maps import concept_figure
from concept_tuning.figures.style import overlay
from figures.examples import image, picture

KEYS = ("a.png", "b.png")


def concept_maps(run: str = "vanilla", seed: int = 0, count: int = 9) -> ConceptMaps:
    rng = np.random.default_rng(seed)
    boxes = np.tile(np.array([0, 0, 32, 32], np.float32), (2, count, 1))
    boxes[1, 2:] += 64
    return ConceptMaps(
        run=run,
        keys=KEYS,
        class_names=("red gull", "blue gull", "a jay"),
        label_kind="predicted",
        labels=np.array([0, 1]),
        predicted=np.array([0, 1]),
        image_size=128,
        confusing=np.array([[1, 2], [2, 0]]),
        channels=rng.integers(0, 99, (2, count, 10)),
        ranks=np.arange(count)[:, None] * 11 + np.arange(10),
        scores=rng.normal(size=(2, count, 10)).astype(np.float32),
        maps=rng.random((2, count, 4, 4), dtype=np.float32),
        boxes=boxes,
    )


def test_each_map_is_laid_over_the_picture_under_its_rank_and_score() -> None:
    result, shown = concept_maps(), image()
    figure = concept_figure([result], "b.png", shown)
    pictures = [picture(trace) for trace in figure.data if trace.type == "image"]
    np.testing.assert_array_equal(pictures[0], shown)
    for concept in range(9):
        np.testing.assert_array_equal(pictures[1 + concept], overlay(shown, result.maps[1, concept]))
    titles = [note.text for note in figure.layout.annotations]
    mean = f"{result.scores[1, 4].mean():+.2f}".replace("-", "−")
    assert f"<b>5</b> {mean}<br>45–54" in titles
    assert any("blue gull" in title for title in titles)


def test_patches_that_lie_on_each_other_share_their_numbers() -> None:
    figure = concept_figure([concept_maps()], "b.png", image())
    titles = [note.text for note in figure.layout.annotations]
    assert "1 2" in titles
    assert "3–9" in titles
    boxes = next(trace for trace in figure.data if trace.name == "boxes")
    # The picture is 2 tiles wide, the patch lies from 64 to 96 of 128 pixels.
    assert boxes.x[1] == pytest.approx(2 * 80 / 128)
    assert set(boxes.customdata) == {"b.png"}


def test_runs_lie_below_each_other_without_overlap() -> None:
    figure = concept_figure([concept_maps(), concept_maps("tuned", seed=1)], "a.png", image())
    traces = [trace for trace in figure.data if trace.type == "image"]
    assert len(traces) == 20
    ends = [trace.y0 - trace.dy / 2 + 8 * trace.dy for trace in traces[:10]]
    assert max(ends) < min(trace.y0 for trace in traces[10:])
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["a.png"] * 20


def test_fewer_concepts_and_flat_maps_are_drawn_too() -> None:
    result = concept_maps(count=1)
    result.maps[:] = 0
    figure = concept_figure([result], "a.png", image())
    assert sum(trace.type == "image" for trace in figure.data) == 2
    assert figure.layout.yaxis.range[0] >= 2


def test_a_picture_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        concept_figure([concept_maps()], "c.png", image())
