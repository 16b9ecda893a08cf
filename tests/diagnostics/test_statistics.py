from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from concept_tuning.diagnostics.statistics import (
    auc,
    auc_columns,
    bootstrap_interval,
    image_weights,
    mcnemar_exact,
    paired_bootstrap,
    permutation_null,
    permutation_p,
    seed_weights,
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


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(successes, n) -> None:
    with pytest.raises(ValueError, match="successes must be"):
        wilson(successes, n)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (9, 3), (10, 10), (1, 30)])
def test_mcnemar_is_twice_the_binomial_tail(b, c) -> None:
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap_interval(values, np.mean, 1)
    half = 1.96 * values.std() / sqrt(400)
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert found == bootstrap_interval(values, np.mean, 1)
    assert found != bootstrap_interval(values, np.mean, 2)


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


def test_permutations_within_strata_keep_every_stratum() -> None:
    labels, strata = np.array([0, 1, 0, 1, 2, 3]), np.array([1, 0, 1, 0, 1, 0])
    null = permutation_null(lambda mixed: mixed, labels, 0, draws=60, strata=strata)
    for stratum in (0, 1):
        assert (np.sort(null[:, strata == stratum], axis=1) == np.sort(labels[strata == stratum])).all()
    assert len(np.unique(null, axis=0)) > 5


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
        (np.array([1, np.nan]), np.array([True, False]), "NaN"),
        (np.ones(3), np.ones(2, bool), "expected"),
    ],
)
def test_auc_refuses_what_has_no_curve(scores, positive, words) -> None:
    with pytest.raises(ValueError, match=words):
        auc(scores, positive)
