"""Intervals and tests that the analyses share; deterministic for a seed, never the global random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import binomtest, bootstrap, rankdata

from concept_tuning.diagnostics.results import Interval
from concept_tuning.proportion import number_of, share_interval, wilson_interval

#: Random draws of a bootstrap.
RESAMPLES = 2000
#: Numbers that a bootstrap holds at once.
_HELD = 4_000_000
#: By the number of seeds; see :func:`false_alarms`.
_FALSE_ALARMS = {1: 0.795, 2: 0.368, 3: 0.195, 5: 0.158, 10: 0.085}


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the share of successes with its Wilson score interval.

    Raises:
        ValueError: ``n`` is below 1, or ``successes`` is not in 0..n: a share of nothing has no estimate.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..n and n at least 1, got {successes} of {n}")
    low, high = wilson_interval(int(successes), int(n), level)
    return Interval(value=float(successes / n), low=low, high=high, level=level, n=n)


def share(marks: np.ndarray, level: float = 0.95, *, units: np.ndarray | None = None) -> Interval:
    """Return the share of True in (n,) bool with its Wilson interval; see :func:`wilson`.

    Args:
        marks: (n,) bool.
        level: Confidence level.
        units: (n,) what each picture shows, where that is drawn and not the picture
            (:func:`~concept_tuning.proportion.share_interval`); ``n`` of the interval counts the pictures anyway.
    """
    if units is None:
        return wilson(int(np.count_nonzero(marks)), len(marks), level)
    low, high = share_interval(marks, units=units, level=level)
    return Interval(value=float(np.mean(marks)), low=low, high=high, level=level, n=len(marks))


def mcnemar_exact(b: int, c: int) -> float:
    """Return the exact two-sided p value of McNemar's test.

    Args:
        b: Pictures that the first model alone has right.
        c: Pictures that the second model alone has right.

    Returns:
        The binomial probability, at share 1/2, of a split of the b + c pictures at least as uneven; 1 where
        no picture tells the models apart. The pictures are taken as drawn independently.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got {b} and {c}")
    return float(binomtest(int(b), int(b + c)).pvalue) if b + c else 1.0


def paired_p(
    first: np.ndarray, second: np.ndarray, *, units: np.ndarray | None = None, seed: int = 0, draws: int = 9999
) -> float:
    """Return the two-sided p value of two models that differ on pictures, (n,) bool each: right with one alone.

    Of McNemar's exact test; with (n,) units, of the test that flips, unit by unit, which model is which, drawn at
    random unless every unit has one such picture, where it is McNemar's again.
    """
    if units is None:
        return mcnemar_exact(int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    sums = np.bincount(np.unique(units, return_inverse=True)[1], weights=np.asarray(first, float) - second)
    sums = sums[sums != 0]
    if np.all(np.abs(sums) == 1):
        return mcnemar_exact(int(np.sum(sums > 0)), int(np.sum(sums < 0)))
    rng = np.random.default_rng(seed)
    flipped = []
    for count in portions(draws, len(sums)):
        signs = 2.0 * rng.integers(0, 2, size=(count, len(sums)), dtype=np.int8) - 1
        flipped.append(np.abs(signs @ sums))
    return permutation_p(abs(sums.sum()), np.concatenate(flipped))


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Return a statistic of a sample with its percentile bootstrap interval.

    The interval is too narrow for small samples (some ten values or fewer), and that of an extreme, such as
    a minimum, does not cover at all.

    Args:
        values: (n,) sample, n at least 2.
        statistic: Maps an array to numbers, along ``axis`` if it takes one (much faster), as ``np.mean`` does.
        seed: Of the draws.
        resamples: Number of draws with replacement.
        level: Of the interval.

    Raises:
        ValueError: ``values`` is not one-dimensional or has fewer than two.
    """
    values = np.asarray(values)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected (n,) values with n at least 2, got {values.shape}")
    found = bootstrap(
        (values,),
        statistic,
        n_resamples=resamples,
        batch=max(1, _HELD // len(values)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(
        value=float(statistic(values)), low=float(found.low), high=float(found.high), level=level, n=len(values)
    )


def no_difference(n: int, level: float = 0.95, *, units: np.ndarray | None = None) -> Interval:
    """Return the interval of a mean of n differences that all are 0, of which a bootstrap would be sure.

    It ends where Wilson's does for none of n, upwards and downwards; for none of the units where pictures have (n,)
    units.
    """
    none = share(np.zeros(n, dtype=bool), level, units=units)
    return replace(none, low=-none.high)


def no_surer_than_none(found: Interval, *, units: np.ndarray | None = None) -> Interval:
    """Return the interval of a mean of differences, away from 0 at least as far as :func:`no_difference` reaches.

    Of one difference among many a bootstrap is surer than one may be of none at all.

    Args:
        found: The interval of a bootstrap.
        units: (n,) of the n pictures, as for :func:`no_difference`.
    """
    none = no_difference(found.n, found.level, units=units)
    low = min(found.low, none.low) if found.value <= 0 else found.low
    return replace(found, low=low, high=max(found.high, none.high) if found.value >= 0 else found.high)


def paired_bootstrap(
    differences: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    units: np.ndarray | None = None,
) -> Interval:
    """Return the mean of paired differences; its interval is over images and seeds drawn again, crossed.

    Seeds and images are drawn independently and every drawn seed meets every drawn image (the pigeonhole
    bootstrap of Owen, Annals of Applied Statistics 1(2), 2007). Of S seeds, S - 1 are drawn, which makes the
    variance between seeds unbiased (Rao and Wu, JASA 83, 1988); drawing S would make it (S - 1)/S too small.
    Still, percentiles of fewer than some five seeds are too narrow, and with one seed its spread is not in
    the interval at all.

    Images of one unit say nothing of other units: then the interval reaches from -1 to 1, between which units' means
    must lie.

    Args:
        differences: (S, N) by seed and image, or (N,) for one seed; N at least 2. With units, of shares or marks.
        seed: Of the draws.
        resamples: Number of draws.
        level: Of the interval.
        units: (N,) what each image shows, which then is drawn as a whole; None: each is by itself.

    Returns:
        The mean with its percentile interval; its ``n`` counts the images.
    """
    differences = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    if differences.ndim != 2 or not differences.shape[0] or differences.shape[1] < 2:
        raise ValueError(f"expected (seeds, images) with at least two images, got {differences.shape}")
    seeds, images = differences.shape
    if number_of(units) == 1:
        return Interval(value=float(differences.mean()), low=-1.0, high=1.0, level=level, n=images)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            ((seed_weights(rng, count, seeds) @ differences) * image_weights(rng, count, images, units)).sum(axis=1)
            for count in portions(resamples, images)
        ]
    )
    return percentile_interval(float(differences.mean()), drawn, n=images, level=level)


def false_alarms(seeds: int) -> float:
    """Return the largest share of intervals that left zero out where methods do not differ, with so many seeds.

    Of :func:`paired_bootstrap` at 95 %, drawn by ``benchmarks/interval_coverage.py``; between the numbers of seeds
    drawn there, that of the lower one. An interval of one seed holds the pictures' share of chance alone.

    Args:
        seeds: At least 1.
    """
    return _FALSE_ALARMS[max(count for count in _FALSE_ALARMS if count <= seeds)]


def percentile_interval(value: float, drawn: np.ndarray, *, n: int, level: float = 0.95) -> Interval:
    """Return an estimate with the percentile interval of (R,) draws of it."""
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value=value, low=float(low), high=float(high), level=level, n=n)


def image_weights(rng: np.random.Generator, resamples: int, images: int, units: np.ndarray | None = None) -> np.ndarray:
    """Return (R, N) weights of N images drawn N times with replacement; each row sums to 1.

    With (N,) units, whole units are drawn (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8): images of one have one weight. Of U units, U - 1 are drawn, as of seeds in
    :func:`paired_bootstrap`. Fewer than some ten leave intervals too narrow.
    """
    if units is None:
        return rng.multinomial(images, np.full(images, 1 / images), size=resamples) / images
    _, unit = np.unique(units, return_inverse=True)
    several = int(unit.max()) + 1
    drawn = seed_weights(rng, resamples, several)[:, unit]
    return drawn / drawn.sum(axis=1, keepdims=True)


def seed_weights(rng: np.random.Generator, resamples: int, seeds: int) -> np.ndarray:
    """Return (R, S) weights of S seeds drawn S - 1 times with replacement (once if S is 1); each row sums to 1."""
    draws = max(1, seeds - 1)
    return rng.multinomial(draws, np.full(seeds, 1 / seeds), size=resamples) / draws


def permutation_null(
    statistic: Callable[[np.ndarray], float | np.ndarray],
    labels: np.ndarray,
    seed: int = 0,
    *,
    draws: int = 200,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Return what a statistic comes to when labels are dealt out anew, so that they go with nothing.

    Args:
        statistic: Maps labels in the shape of ``labels`` to a number or an array of numbers.
        labels: (n, ...) labels, or whatever is to be exchanged between the n places.
        seed: Of the permutations.
        draws: Number of permutations.
        strata: (n,) strata within which alone labels are exchanged; None: between all places.

    Returns:
        (draws, ...) values of the statistic; see :func:`permutation_p`.
    """
    labels = np.asarray(labels)
    blocks = np.zeros(len(labels), np.int64) if strata is None else np.asarray(strata)
    if blocks.shape != labels.shape[:1]:
        raise ValueError(f"strata must be ({len(labels)},), got {blocks.shape}")
    home = np.argsort(blocks, kind="stable")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        mixed = np.empty_like(labels)
        mixed[home] = labels[np.lexsort((rng.random(len(labels)), blocks))]
        values.append(statistic(mixed))
    return np.asarray(values)


def permutation_p(observed: float, null: np.ndarray) -> float:
    """Return the one-sided p value (1 + draws at least as large as ``observed``) / (1 + draws); never 0."""
    return float((1 + np.count_nonzero(np.asarray(null) >= observed)) / (1 + len(null)))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve of (n,) scores; see :func:`auc_columns`."""
    return float(auc_columns(np.asarray(scores)[:, None], positive)[0])


def auc_columns(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each column.

    It is the chance that a positive scores above a negative, ties counting half (Mann and Whitney's U over
    the number of pairs); 0.5 says that the scores know nothing.

    Args:
        scores: (n, k), higher for the positives; no NaN.
        positive: (n,) bool.

    Returns:
        (k,) float64 in 0..1.

    Raises:
        ValueError: The shapes do not fit, a score is NaN, or there is no positive or no negative.
    """
    scores, positive = np.asarray(scores), np.asarray(positive).astype(bool)
    if scores.ndim != 2 or positive.shape != scores.shape[:1]:
        raise ValueError(f"expected (n, k) scores and (n,) positives, got {scores.shape} and {positive.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
    above = int(positive.sum())
    below = len(positive) - above
    if not above or not below:
        raise ValueError(f"positives and negatives are both needed, got {above} and {below}")
    ranks = rankdata(scores, axis=0)[positive].sum(axis=0)
    return (ranks - above * (above + 1) / 2) / (above * below)


def portions(resamples: int, images: int) -> Iterator[int]:
    """Yield how many resamples to make at a time so that their (count, images) weights fit in memory."""
    step = max(1, _HELD // images)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
