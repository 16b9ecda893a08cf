from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment

from concept_tuning.diagnostics.lessons import (
    explain_partner,
    front_door_world,
    guess_by_habitat,
    look_alikes,
    points_plan,
    randomised_outcome,
)


@pytest.mark.parametrize("pair", range(8))
def test_look_alikes_differ_in_their_part_alone(pair: int) -> None:
    found = look_alikes(pair, 3, side=96)
    first, second = found.images.astype(int)
    apart = np.abs(first - second).max(-1) > 0
    shown = binary_dilation((found.marked == found.images).all(-1).any(0), iterations=2)  # soft edges
    assert apart.any()
    assert not (apart & ~shown).any()
    assert 0 < found.share <= 0.02


def test_a_guesser_by_habitat_pays_in_training_and_not_in_the_test() -> None:
    weak, strong = guess_by_habitat(0.0), guess_by_habitat(1.0)
    assert (strong.train, strong.test) == (1.0, 0.25)  # each of four species lives in a habitat of its own
    assert weak.train < 0.35
    assert guess_by_habitat(0.6).train == pytest.approx(0.6 + 0.4 / 4, abs=0.03)


@pytest.mark.parametrize("confounding", [0.0, 0.3, 0.7, 1.0])
def test_the_front_door_brings_the_true_effect_back(confounding: float) -> None:
    world = front_door_world(confounding)
    assert world.adjusted == pytest.approx(world.true, abs=1e-12)
    assert world.true == pytest.approx(0.8 * 0.5)  # X moves M by 0.8, M moves Y by 0.5, and U cancels out
    # U differs by 2 * 0.45 c between the two X, and moves Y by 0.5 c
    assert world.observed == pytest.approx(world.true + 0.45 * confounding**2, abs=1e-12)


def test_a_sharp_plan_is_the_best_assignment_and_a_soft_one_spreads() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((5, 2)), rng.random((5, 2))
    rows, columns = linear_sum_assignment(((first[:, None] - second[None]) ** 2).sum(2))
    sharp = points_plan(first, second, epsilon=0.001)
    assert np.array_equal(sharp.argmax(1)[rows], columns)
    assert sharp[rows, columns].sum() > 0.9
    soft = points_plan(first, second, epsilon=10.0)
    assert soft == pytest.approx(np.full((5, 5), 1 / 25), abs=0.005)


FIRST = np.array([[0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("second", "epsilon", "reason", "partner"),
    [
        ([[0.1, 0.0], [0.9, 0.0]], 0.01, "nearest", 0),
        ([[0.6, 0.0], [0.9, 0.0]], 0.01, "needed", 0),
        ([[0.5, 0.0], [0.9, 0.0]], 0.01, "nearest", 0),  # as near to either
    ],
)
def test_a_partner_is_the_nearest_unless_that_one_is_needed(
    second: list[list[float]], epsilon: float, reason: str, partner: int
) -> None:
    found = explain_partner(FIRST, np.array(second), 0, epsilon=epsilon)
    assert (found.reason, found.place, found.sharp) == (reason, partner, partner)
    assert found.share > 0.9


def test_a_soft_plan_gives_softness_as_the_reason() -> None:
    first = np.array([[0.15, 0.8], [0.3, 0.35], [0.55, 0.7], [0.75, 0.2]])
    second = np.array([[0.65, 0.6], [0.45, 0.15], [0.6, 0.9], [0.9, 0.45]])
    soft = explain_partner(first, second, 0, epsilon=1.0)
    assert (soft.place, soft.nearest, soft.sharp, soft.reason) == (0, 2, 2, "soft")
    assert explain_partner(first, second, 2, epsilon=0.01).reason == "needed"


@pytest.mark.parametrize(
    ("left", "chance", "outcome"),
    [
        (0.18, 0.66, "changed"),
        (0.29, 0.34, "changed"),
        (0.60, 0.90, "changed"),
        (0.72, 0.79, "unclear"),
        (0.80, 0.92, "unclear"),
        (0.80, 0.10, "same"),
        (0.99, 0.92, "same"),
        (np.nan, 0.5, "blank"),
        (0.5, np.nan, "blank"),
    ],
)
def test_maps_of_random_weights_are_judged_against_chance(left: float, chance: float, outcome: str) -> None:
    assert randomised_outcome(left, chance) == outcome
