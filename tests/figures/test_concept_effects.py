from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.concept_effects import ConceptEffect, ConceptEffects, MaskShares
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.statistics import share
from concept_tuning.diagnostics.thumbnails import LOSSLESS, pack_thumbnails
from concept_tuning.figures.concept_effects import concept_gallery, occurrence_figure, suspicion_figure

KEYS = ("a.png", "b.png", "c.png", "d.png")
LABELS = np.array([0, 0, 1, 1])
MASKS = MaskShares(outside=np.array([0.9, 0.2]), even=np.array([0.6, 0.7]))


def concept(rank: int, index: int, pull: Interval | None) -> ConceptEffect:
    return ConceptEffect(
        index=index,
        rank=rank,
        suspicion=None if pull is None else 0.6,
        pulled_class=rank - 1,
        present=share(np.array([True, False, True, True])),
        by_class=np.array([[0.5, 0.1, 0.9], [1.0, 0.3, 1.0], [np.nan] * 3]),
        reliability=0.4,
        effect=np.array([0.5, -1.5, 0.1]),
        flips=share(np.array([True, False, False])),
        pull=pull,
        alone=None,
        energy=0.1,
        stability=float("nan"),
        examples=(2, 0),
        boxes=np.array([[0, 0, 16, 16], [32, 16, 64, 48]], np.float32),
    )


def effects(*concepts: ConceptEffect, masks: MaskShares | Unavailable = MASKS) -> ConceptEffects:
    return ConceptEffects(
        run="run",
        keys=KEYS,
        labels=LABELS,
        class_names=("owl", "tern", "absent"),
        image_size=64,
        factoring="nmf",
        error=0.3,
        present=np.ones((4, 2), bool),
        concepts=concepts,
        masks=masks,
    )


FIRST = concept(1, 1, Interval(value=0.8, low=0.7, high=0.95, n=32))
LAST = concept(2, 0, None)


def test_suspicion_pull_and_effect_of_each_concept() -> None:
    figure = suspicion_figure(effects(FIRST, LAST))
    suspicion, pull, effect = figure.data
    assert list(suspicion.x) == [0.6, None]
    assert (list(pull.x), list(pull.y)) == ([0.8], [0])
    assert pull.error_x.array[0] == pytest.approx(0.15)
    assert pull.error_x.arrayminus[0] == pytest.approx(0.1)
    # That of the class that each pulls to.
    assert list(effect.x) == [0.5, -1.5]
    assert list(effect.customdata) == [1, 2]
    assert list(figure.layout.yaxis.ticktext) == ["<b>1</b> → owl", "<b>2</b> → tern"]
    assert "suspicion not measured" in suspicion.text[1]
    # The masks' arrays go by index, not by rank.
    assert "outside the object 0.2 of its strength; if even, 0.7" in suspicion.text[0]
    assert "outside the object 0.9" in suspicion.text[1]
    assert "not defined" in suspicion.text[0]


def test_no_masks_and_no_concepts() -> None:
    missing = Unavailable(analysis="masks", reason="None.")
    assert "outside" not in suspicion_figure(effects(FIRST, masks=missing)).data[0].text[0]
    assert len(suspicion_figure(effects()).data[0].x) == 0
    assert len(occurrence_figure(effects()).data[1].x) == 0


def test_the_matrix_has_classes_down_and_concepts_across() -> None:
    figure = occurrence_figure(effects(FIRST, LAST))
    shares, dots = figure.data
    assert np.array_equal(shares.z, [[0.5, 0.5], [1, 1], [np.nan, np.nan]], equal_nan=True)
    assert list(shares.x) == [1, 2]
    assert (list(dots.x), list(dots.y)) == ([1, 2], [0, 1])
    assert "0.5 (95 % interval 0.1 to 0.9) of its pictures, n = 2" in shares.hovertext[0][0]
    assert "pulls to" in shares.hovertext[0][0]
    assert "pulls to" not in shares.hovertext[1][0]
    assert list(figure.layout.yaxis.ticktext) == ["owl, n = 2", "tern, n = 2", "absent, n = 0"]


def test_the_gallery_has_the_patches_on_its_pictures() -> None:
    thumbnails = pack_thumbnails(KEYS, np.zeros((4, 8, 8, 3), np.uint8), LABELS, quality=LOSSLESS)
    figure = concept_gallery(effects(FIRST, LAST), 1, thumbnails)
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["c.png", "a.png"]
    assert [note.text for note in figure.layout.annotations] == ["tern", "owl"]
    line = next(trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines")
    second = [trace for trace in figure.data if trace.type == "image"][1]
    left = second.x0 - second.dx / 2
    # 32 to 64 of 64 pixels, whatever the thumbnail's size.
    ends = [x for x in line.x if x is not None][5:]
    assert (min(ends), max(ends)) == pytest.approx((left + 0.5, left + 1))
    with pytest.raises(KeyError):
        concept_gallery(effects(FIRST), 3, thumbnails)
