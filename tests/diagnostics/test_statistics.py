from __future__ import annotations

import json
import re
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from concept_tuning.diagnostics.statistics import (
    auc,
    auc_columns,
    bootstrap_interval,
    false_alarms,
    image_weights,
    mcnemar_exact,
    no_difference,
    paired_bootstrap,
    paired_p,
    percentile_interval,
    permutation_null,
    permutation_p,
    portions,
    seed_weights,
    share,
    wilson,
)


@pytest.mark.parametrize(("successes", "n", "level"), [(0, 7, 0.95), (7, 7, 0.95), (3, 10, 0.9), (480, 500, 0.99)])
def test_wilson_solves_its_quadratic(successes, n, level) -> None:
    z, p = norm.ppf((1 + level) / 2), successes / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = wilson(successes, n, level)
    assert (found.value, found.n, found.level) == (p, n, level)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert share(np.arange(n) < successes, level) == found


def test_the_level_is_95_percent_unless_told() -> None:
    values = np.arange(20.0)
    assert wilson(3, 10) == wilson(3, 10, 0.95) == share(np.arange(10) < 3)
    assert bootstrap_interval(values) == bootstrap_interval(values, np.mean, 0, level=0.95)
    assert paired_bootstrap(values) == paired_bootstrap(values, 0, level=0.95)
    assert percentile_interval(5.0, values, n=7) == percentile_interval(5.0, values, n=7, level=0.95)


def test_one_picture_has_a_share() -> None:
    assert (wilson(1, 1).value, wilson(0, 1).value) == (1, 0)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(successes, n) -> None:
    with pytest.raises(ValueError, match="successes must be"):
        wilson(successes, n)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (9, 3), (10, 10), (1, 30)])
def test_mcnemar_is_twice_the_binomial_tail(b, c) -> None:
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("b", "c"), [(-1, 2), (2, -1)])
def test_mcnemar_refuses_what_is_no_count(b, c) -> None:
    with pytest.raises(ValueError, match=f"^counts must not be negative, got {b} and {c}$"):
        mcnemar_exact(b, c)


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap_interval(values, np.mean, 1)
    half = 1.96 * values.std() / sqrt(400)
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert found == bootstrap_interval(values, np.mean, 1)
    assert found != bootstrap_interval(values, np.mean, 2)


def test_the_bootstrap_is_that_of_percentiles_at_the_level_asked_for() -> None:
    """Of a few skewed values, whose other bootstrap intervals lie elsewhere."""
    values = np.random.default_rng(0).exponential(size=20)
    rng = np.random.default_rng(5)
    slow = [values[rng.integers(20, size=20)].mean() for _ in range(8000)]
    for level in (0.95, 0.5):
        found = bootstrap_interval(values, np.mean, 0, resamples=8000, level=level)
        assert (found.level, found.n) == (level, 20)
        expected = np.percentile(slow, [50 - 50 * level, 50 + 50 * level])
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_the_bootstrap_draws_as_often_as_asked_and_holds_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(sample: np.ndarray, axis: int = -1) -> np.ndarray:
        sizes.append(sample.size // 50)
        return sample.mean(axis)

    for held, most in ((100, 2), (10, 1)):
        monkeypatch.setattr("concept_tuning.diagnostics.statistics._HELD", held)
        sizes.clear()
        bootstrap_interval(np.arange(50.0), watched, resamples=30)
        assert max(sizes) == most
        assert sum(sizes) == 30 + 1  # and the sample itself


def test_portions_fit_in_memory_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concept_tuning.diagnostics.statistics._HELD", 100)
    assert list(portions(7, 30)) == [3, 3, 1]
    assert list(portions(3, 101)) == [1, 1, 1]


def test_two_values_are_enough_for_a_bootstrap() -> None:
    assert bootstrap_interval(np.array([1.0, 3.0])).value == 2


def test_the_bootstrap_takes_a_statistic_without_axis_and_leaves_the_global_state() -> None:
    values = np.arange(50.0)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    found = bootstrap_interval(values, lambda sample: float(np.median(sample)), 0, resamples=200)
    assert found.low < 24.5 < found.high
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_bootstrap_refuses_a_single_value() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_interval(np.ones(1))


def test_one_seed_is_bootstrapped_over_images_alone() -> None:
    differences = np.random.default_rng(0).choice([-1, 0, 1], 300)
    crossed, plain = paired_bootstrap(differences, 0), bootstrap_interval(differences, np.mean, 0)
    assert (crossed.value, crossed.n) == (pytest.approx(plain.value), 300)
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=0.02)


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 5), (3, 1), (1,)])
def test_differences_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    got = (1, 1) if shape == (1,) else shape
    message = f"expected (seeds, images) with at least two images, got {got}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        paired_bootstrap(np.zeros(shape))


def test_two_images_in_single_precision_are_averaged_in_double() -> None:
    found = paired_bootstrap(np.array([2**24, 1], np.float32), resamples=20, level=0.5)
    assert (found.value, found.n, found.level) == (2**23 + 0.5, 2, 0.5)


def test_the_percentile_interval_leaves_as_many_draws_on_either_side() -> None:
    found = percentile_interval(3.0, np.arange(101.0), n=7, level=0.9)
    assert (found.value, found.low, found.high, found.level, found.n) == (3.0, pytest.approx(5), 95, 0.9, 7)


def test_seeds_that_differ_widen_the_interval_by_their_variance() -> None:
    """Images that all agree leave the seeds' own standard error, unbiased: s / sqrt(S)."""
    effects = np.random.default_rng(0).normal(0, 1, 12)
    found = paired_bootstrap(np.repeat(effects[:, None], 40, axis=1), 0, resamples=8000)
    error = effects.std(ddof=1) / sqrt(12)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)


def test_seeds_that_agree_leave_the_variance_of_images() -> None:
    effects = np.random.default_rng(0).normal(0, 1, 200)
    found = paired_bootstrap(np.repeat(effects[None], 6, axis=0), 0, resamples=8000)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(effects.std() / sqrt(200), rel=0.06)


def test_the_crossed_bootstrap_agrees_with_a_loop_that_draws_indices() -> None:
    differences = np.random.default_rng(2).normal(0.1, 1, (4, 30))
    rng = np.random.default_rng(5)
    slow = [differences[rng.integers(4, size=3)][:, rng.integers(30, size=30)].mean() for _ in range(8000)]
    found = paired_bootstrap(differences, 0, resamples=8000)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=0.03)


def test_bootstrap_weights_are_shares() -> None:
    rng = np.random.default_rng(0)
    for weights, step in ((image_weights(rng, 50, 7), 1 / 7), (seed_weights(rng, 50, 4), 1 / 3)):
        np.testing.assert_allclose(weights.sum(1), 1)
        np.testing.assert_allclose(weights / step, np.round(weights / step), atol=1e-9)
    assert np.array_equal(seed_weights(rng, 5, 1), np.ones((5, 1)))
    assert (seed_weights(rng, 50, 2).max(1) == 1).all()


def test_permutations_within_strata_keep_every_stratum() -> None:
    labels, strata = np.array([0, 1, 0, 1, 2, 3]), np.array([1, 0, 1, 0, 1, 0])
    null = permutation_null(lambda mixed: mixed, labels, 0, draws=60, strata=strata)
    for stratum in (0, 1):
        assert (np.sort(null[:, strata == stratum], axis=1) == np.sort(labels[strata == stratum])).all()
    assert len(np.unique(null, axis=0)) > 5


def test_two_hundred_permutations_are_drawn_by_the_seed() -> None:
    labels = np.arange(9)
    default, first, other = (permutation_null(np.copy, labels, **values) for values in ({}, {"seed": 0}, {"seed": 1}))
    assert default.shape == (200, 9)
    assert np.array_equal(default, first)
    assert not np.array_equal(default, other)


def test_strata_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^strata must be \(4,\), got \(3,\)$"):
        permutation_null(np.copy, np.arange(4), strata=np.arange(3))


def test_permutations_move_rows_whole_and_leave_the_input() -> None:
    rows = np.arange(12).reshape(6, 2)
    null = permutation_null(lambda mixed: mixed, rows, 0, draws=5)
    assert (null[..., 1] == null[..., 0] + 1).all()
    assert np.array_equal(rows, np.arange(12).reshape(6, 2))
    assert not np.array_equal(null[0], rows)


def test_permutation_p_is_never_zero_and_even_under_the_null() -> None:
    assert permutation_p(5.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.zeros(99)) == 1.0
    rng = np.random.default_rng(0)
    found = []
    for seed in range(100):
        labels, values = rng.permutation(np.repeat([0, 1], 10)), rng.normal(size=20)

        def gap(mixed: np.ndarray, values: np.ndarray = values) -> float:
            return float(values[mixed == 1].mean() - values[mixed == 0].mean())

        found.append(permutation_p(gap(labels), permutation_null(gap, labels, seed, draws=39)))
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.array(found) <= 0.1) < 0.2


def test_auc_agrees_with_sklearn_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(5, size=(80, 6)).astype(np.float32), rng.random(80) < 0.3
    expected = [roc_auc_score(positive, column) for column in scores.T]
    assert auc_columns(scores, positive) == pytest.approx(expected)
    assert auc(scores[:, 2], positive) == pytest.approx(expected[2])


def test_auc_is_not_average_precision() -> None:
    """Constant scores say nothing, whatever the share of positives."""
    assert auc(np.ones(125), np.arange(125) < 50) == 0.5
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0


@pytest.mark.parametrize(
    ("scores", "positive", "words"),
    [
        (np.ones(3), np.ones(3, bool), "both needed"),
        (np.ones(3), np.zeros(3, bool), "both needed"),
        (np.array([1, np.nan]), np.array([True, False]), "^scores must not be NaN$"),
        (np.ones(3), np.ones(2, bool), "expected"),
    ],
)
def test_auc_refuses_what_has_no_curve(scores, positive, words) -> None:
    with pytest.raises(ValueError, match=words):
        auc(scores, positive)


def test_weights_of_units_are_alike_within_one_and_sum_to_1() -> None:
    units = np.array([3, 3, 1, 7, 7, 7])
    weights = image_weights(np.random.default_rng(0), 500, 6, units)
    assert weights.sum(1) == pytest.approx(np.ones(500))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    # Two units are drawn of three.
    assert {len(np.unique(units[row > 0])) for row in weights} == {1, 2}


def test_a_bootstrap_over_units_has_the_variance_of_their_means() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(50), 8)
    values = rng.normal(size=50)[units] + 0.1 * rng.normal(size=400)
    means = values.reshape(50, 8).mean(1)
    half = 1.96 * means.std(ddof=1) / np.sqrt(50)
    found = paired_bootstrap(values, units=units, resamples=4000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.05)
    assert found.n == 400


def test_one_unit_says_nothing_of_others() -> None:
    found = paired_bootstrap(np.array([1.0, 0, 0, 1]), units=np.zeros(4, int))
    assert (found.value, found.low, found.high, found.n) == (0.5, -1, 1, 4)


def test_paired_p_flips_whole_units() -> None:
    lost, rescued = np.zeros(60, bool), np.zeros(60, bool)
    rescued[:24] = True
    lost[30:34] = True
    assert paired_p(lost, rescued) == mcnemar_exact(4, 24)
    assert paired_p(lost, rescued, units=np.arange(60)) == mcnemar_exact(4, 24)
    # Two such pictures a unit: half as many of them.
    assert paired_p(lost, rescued, units=np.arange(60) // 2) == pytest.approx(mcnemar_exact(2, 12), abs=3e-3)
    # Three units with all that is rescued and one with all that is lost: of 16 ways to flip, those as uneven.
    units = np.concatenate([np.repeat([0, 1, 2], 8), np.repeat([3], 36)])
    assert paired_p(lost, rescued, units=units) == pytest.approx(4 / 16, abs=0.02)
    assert paired_p(lost & False, rescued & False, units=units) == 1
    assert paired_p(lost, lost, units=units) == 1


def test_a_share_over_units_counts_pictures_and_is_wider() -> None:
    units, marks = np.repeat(np.arange(20), 5), np.repeat(np.arange(20) < 15, 5)
    found, plain = share(marks, units=units), share(marks)
    assert (found.value, found.n) == (plain.value, plain.n) == (0.75, 100)
    assert found.low < plain.low
    assert found.high > plain.high
    none = no_difference(100, units=units)
    assert (none.value, none.n, none.low) == (0, 100, -none.high)
    assert none.high == pytest.approx(wilson(0, 20).high)


def test_false_alarms_are_the_largest_that_were_recorded() -> None:
    record = Path(__file__).parents[2] / "benchmarks" / "results" / "interval_coverage.json"
    rows = json.loads(record.read_text())["rows"]
    for seeds in {row["seeds"] for row in rows}:
        largest = max(row["false_alarms"] for row in rows if row["seeds"] == seeds)
        assert false_alarms(seeds) == pytest.approx(largest, abs=0.005)
    assert false_alarms(1) > 2 * false_alarms(2)
    assert false_alarms(4) == false_alarms(3)
    assert false_alarms(50) == false_alarms(10)
