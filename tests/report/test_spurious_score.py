"""The spurious score in the report: a mean over classes of the lowest AUC, and nothing where none is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from concept_tuning.diagnostics.concept_effects import ConceptEffect, ConceptEffects, spurious_score
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.statistics import share
from concept_tuning.report.spurious import _score_of


def _concept(rank: int, label: int, alone: float | None) -> ConceptEffect:
    return ConceptEffect(
        index=rank - 1,
        rank=rank,
        suspicion=0.5,
        pulled_class=label,
        present=share(np.array([True, False])),
        by_class=np.zeros((3, 3)),
        reliability=0.4,
        effect=np.zeros(3),
        flips=share(np.array([True, False])),
        pull=None,
        alone=None if alone is None else Interval(value=alone, low=alone, high=alone, n=10),
        energy=0.1,
        stability=0.9,
        examples=(),
        boxes=np.zeros((0, 4), np.float32),
    )


def _effects(*concepts: ConceptEffect) -> ConceptEffects:
    return ConceptEffects(
        run="run",
        keys=("a", "b"),
        labels=np.array([0, 1]),
        class_names=("owl", "tern", "jay"),
        image_size=64,
        factoring="nmf",
        error=0.3,
        present=np.ones((2, 4), bool),
        concepts=concepts,
        masks=Unavailable(analysis="masks", reason="None."),
    )


def test_it_is_the_mean_over_classes_of_their_lowest_auc() -> None:
    found = spurious_score(
        _effects(_concept(1, 0, 0.9), _concept(2, 2, 0.8), _concept(3, 0, 0.6), _concept(4, 1, None))
    )
    assert found is not None
    assert found.value == pytest.approx((0.6 + 0.8) / 2)
    assert found.classes == (("owl", 0.6), ("jay", 0.8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 1.0


def test_without_any_it_is_left_out_and_else_the_report_says_over_how_many_classes() -> None:
    assert spurious_score(_effects(_concept(1, 0, None))) is None
    assert _score_of("run", _effects()) == []
    (note,) = _score_of("run", _effects(_concept(1, 0, 0.9), _concept(2, 2, 0.8)))
    assert "Spurious score of run: 0.85, the mean over 2 of 3 classes" in note.text
    assert "jay 0.8, owl 0.9" in note.text
