"""The relationship of Co-Tuning against slow loops, a closed form and the optimum's own equation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from concept_tuning.models import relationship as module
from concept_tuning.models.relationship import (
    SCALES,
    calibrating_scale,
    fit_target_given_source,
    learn_relationship,
    turn_around,
)


def probabilities(count: int, classes: int, seed: int) -> np.ndarray:
    values = np.exp(2 * np.random.default_rng(seed).standard_normal((count, classes)))
    return values / values.sum(1, keepdims=True)


def test_bayes_rule_in_a_slow_loop() -> None:
    given, marginal = probabilities(5, 3, seed=0), probabilities(1, 5, seed=1)[0]
    found = turn_around(np.log(given), marginal)
    for target in range(3):
        evidence = sum(given[s, target] * marginal[s] for s in range(5))
        for source in range(5):
            assert found[target, source] == pytest.approx(given[source, target] * marginal[source] / evidence)


def test_a_class_that_no_source_speaks_for_still_has_a_row() -> None:
    found = turn_around(np.array([[0.0, -2000.0], [0.0, -2001.0]]), np.array([0.5, 0.5]))
    assert found[1] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])
    assert turn_around(np.zeros((2, 2)), np.array([1.0, 0.0]))[0].tolist() == [1.0, 0.0]


def test_the_scale_of_one_repeated_answer_has_a_closed_form() -> None:
    # logits (1, 0), right three times in four: the likelihood is best at logistic(scale) = 3/4
    scale = calibrating_scale(np.tile([1.0, 0.0], (4, 1)), np.array([0, 0, 0, 1]))
    assert scale == pytest.approx(math.log(3), rel=1e-3)


def test_without_mistakes_the_scale_stays_within_its_limits_and_without_pictures_it_is_one() -> None:
    assert 20 < calibrating_scale(np.eye(2), np.array([0, 1])) <= SCALES[1]
    assert calibrating_scale(np.eye(2), np.array([1, 0])) == pytest.approx(SCALES[0], rel=1e-3)
    assert calibrating_scale(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_solve_the_penalised_likelihood(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENALTIES", (10.0,))
    monkeypatch.setattr(module, "_ITERATIONS", 1000)
    inputs, labels = probabilities(40, 6, seed=2), np.arange(40) % classes
    weights = fit_target_given_source(inputs, labels, inputs, labels)
    assert weights.shape == (classes, 6)
    predicted = np.exp(inputs @ weights.T)
    predicted /= predicted.sum(1, keepdims=True)
    slope = 10.0 * (predicted - np.eye(classes)[labels]).T @ inputs
    # Of two classes the difference is penalised, half of it in either row.
    assert np.abs(slope + weights * (2 if classes == 2 else 1)).max() < 0.02


def test_sources_that_speak_for_one_class_each_are_shared_out_by_their_frequency() -> None:
    """Pictures of class c have source class 2c or 2c + 1 for certain, three to one: so is p(y_s | y_t)."""
    sources = np.array([0, 0, 0, 1, 2, 2, 2, 3] * 5)
    labels = sources // 2
    found = learn_relationship(np.eye(4)[sources], labels, np.eye(4)[sources], labels, num_classes=2)
    np.testing.assert_allclose(found, [[0.75, 0.25, 0, 0], [0, 0, 0.75, 0.25]], atol=2e-3)


def test_sources_that_say_nothing_leave_their_frequency() -> None:
    constant = np.tile([0.2, 0.3, 0.5], (12, 1))
    labels = np.arange(12) % 3
    found = learn_relationship(constant, labels, constant, labels, num_classes=3)
    np.testing.assert_allclose(found, constant[:3], atol=1e-3)


@pytest.mark.parametrize("present", [[0, 2], [1]])
def test_classes_without_pictures_get_the_frequency_of_the_sources(present: list[int]) -> None:
    train, val = probabilities(20, 5, seed=1), probabilities(8, 5, seed=2)
    labels = np.resize(present, 20)
    found = learn_relationship(train, labels, val, np.arange(8) % 3, num_classes=3)
    np.testing.assert_allclose(found.sum(1), 1)
    missing = [label for label in range(3) if label not in present or len(present) == 1]
    for label in missing:
        np.testing.assert_allclose(found[label], np.concatenate([train, val]).mean(0))


def test_the_same_pictures_give_the_same_bits_and_leave_numpys_state() -> None:
    train, labels = probabilities(30, 8, seed=1), np.arange(30) % 4
    before = np.random.get_state()[1].copy()
    once, again = (learn_relationship(train, labels, train, labels, num_classes=4) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(np.random.get_state()[1], before)


def test_no_validation_picture_is_enough() -> None:
    train, labels = probabilities(30, 8, seed=1), np.arange(30) % 4
    found = learn_relationship(train, labels, np.zeros((0, 8)), np.zeros(0, dtype=np.int64), num_classes=4)
    np.testing.assert_allclose(found.sum(1), 1)


def test_wrong_shapes_are_named() -> None:
    train, labels = probabilities(4, 5, seed=1), np.arange(4)
    with pytest.raises(ValueError, match=r"\(4, 5\), \(4,\), \(4, 5\), \(3,\)"):
        learn_relationship(train, labels, train, labels[:3], num_classes=4)
    with pytest.raises(ValueError, match="N > 0"):
        learn_relationship(train[:0], labels[:0], train, labels, num_classes=4)
