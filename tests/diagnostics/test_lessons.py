from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment

from concept_tuning.diagnostics.lessons import front_door_world, guess_by_habitat, look_alikes, points_plan


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
