"""Slices: sets of pictures that look alike, have the same label, and are often wrong.

After Domino (Eyuboglu et al., arXiv 2203.14960): a mixture whose components explain the embedding, the label and
the predicted probabilities together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass
from scipy.special import logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from concept_tuning.diagnostics.results import RESULT, Interval, Unavailable
from concept_tuning.diagnostics.statistics import permutation_null, permutation_p, share

#: Pictures for each slice that the default number of slices leaves, and the most slices it takes.
PER_SLICE, MOST_SLICES = 20, 25
#: Smallest slice that is listed.
LEAST = 5

_STEPS = 100
_TOLERANCE = 1e-5
_VARIANCE_FLOOR = 1e-3
_SMOOTHING = 1e-2


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Slice:
    """Pictures of one component.

    Attributes:
        accuracy: Share predicted right, with its Wilson interval and count.
        lift: Accuracy minus the accuracy over all pictures; below 0 is worse than average.
        excess: Errors beyond what the classes of its pictures would have on average.
        classes: Its classes with their shares, the commonest first, at most three.
        predicted: The predicted classes of its pictures, likewise.
        keys: Names of its pictures, the most typical of the slice first.
    """

    accuracy: Interval
    lift: float
    excess: float
    classes: tuple[tuple[str, float], ...]
    predicted: tuple[tuple[str, float], ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SliceTable:
    """Slices of n pictures, the one with most excess errors first.

    Attributes:
        accuracy: Over all pictures.
        slices: Those of at least :data:`LEAST` pictures.
        n_slices: Number of components that were fitted.
        small: Pictures in slices too small to be listed.
        p_value: How often pictures whose predictions were exchanged within their class give a slice with as many
            excess errors; high: the errors are not shown to gather in any look. None if not asked for.
        caveat: How to read the slices, in words.
    """

    accuracy: Interval
    slices: tuple[Slice, ...]
    n_slices: int
    small: int
    p_value: float | None
    caveat: str = (
        "The slices were looked for with the errors in view, and the worst of many is listed first, so its accuracy "
        "is biased low and its interval too narrow: check a slice on other pictures."
    )


class Mixture(NamedTuple):
    """A fitted mixture of K components; the densities are diagonal Gaussian and categorical.

    Attributes:
        log_weights: (K,).
        means: (K, d) of the reduced embedding.
        variances: (K, d).
        labels: (K, C) log probability of each label.
        predictions: (K, C) log probability of each prediction.
        objective: Weighted log-likelihood per picture at each step; never falls.
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    objective: tuple[float, ...]


def find_slices(
    *,
    embeddings: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    keys: Sequence[str],
    class_names: Sequence[str],
    n_slices: int | None = None,
    components: int = 16,
    label_weight: float = 10.0,
    error_weight: float = 10.0,
    draws: int = 50,
    seed: int = 0,
) -> SliceTable | Unavailable:
    """Find slices of low accuracy.

    The mixture is fitted to embedding, label and predicted probabilities; a picture then goes to the component
    that its embedding and label alone make likeliest. So a slice is a look, not merely a heap of errors.

    Args:
        embeddings: (n, D) pooled features.
        labels: (n,) class indices.
        probabilities: (n, C) predicted.
        keys: Names of the pictures.
        class_names: The C classes.
        n_slices: Components; None: one for each :data:`PER_SLICE` pictures, from 2 to :data:`MOST_SLICES`.
        components: Principal components of the embedding that are kept, at most n / 10.
        label_weight: Power of the label's likelihood against the embedding's.
        error_weight: Power of the predictions' likelihood.
        draws: Permutations for the p value, one fit each; 0: none.
        seed: Of start and permutations.

    Returns:
        The table; :class:`Unavailable` with too few pictures, or if all or none are right.

    Raises:
        ValueError: Shapes do not fit.
    """
    labels = np.asarray(labels)
    _check(embeddings, labels, probabilities, keys, class_names)
    count = n_slices or int(np.clip(len(labels) // PER_SLICE, 2, MOST_SLICES))
    if len(labels) < max(2 * PER_SLICE, LEAST * count):
        return _unavailable(
            f"Mistakes are looked for among pictures that look alike, which takes {max(2 * PER_SLICE, LEAST * count)} "
            f"pictures or more; there are {len(labels)}."
        )
    right = probabilities.argmax(axis=1) == labels
    if right.all() or not right.any():
        return _unavailable(f"All pictures are {'right' if right.all() else 'wrong'}, so no slice differs.")
    reduced = reduce_embedding(embeddings, components, seed)
    if reduced is None:
        return _unavailable("All pictures have the same embedding.")
    powers = (label_weight, error_weight)
    members, typical = _assign(reduced, labels, probabilities, count, powers, seed)

    def worst(found: np.ndarray) -> float:
        parts, _ = _assign(reduced, labels, found, count, powers, seed)
        return float(_excess(parts, labels, found.argmax(axis=1) == labels, count).max())

    p_value = None
    if draws:
        null = permutation_null(worst, probabilities, seed, draws=draws, strata=labels)
        p_value = permutation_p(float(_excess(members, labels, right, count).max()) - 1e-9, null)
    listed = [part for part in (np.flatnonzero(members == k) for k in range(count)) if len(part) >= LEAST]
    slices = [
        _describe(part[np.argsort(-typical[part], kind="stable")], labels, probabilities, keys, class_names)
        for part in listed
    ]
    return SliceTable(
        accuracy=share(right),
        slices=tuple(sorted(slices, key=lambda found: -found.excess)),
        n_slices=count,
        small=len(labels) - sum(len(part) for part in listed),
        p_value=p_value,
    )


def reduce_embedding(embeddings: np.ndarray, components: int, seed: int) -> np.ndarray | None:
    """Return (n, d) principal components of mean variance 1, or None if all embeddings are the same."""
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.std(axis=0).max() <= 1e-9 * np.abs(embeddings).max():
        return None
    kept = max(1, min(components, len(embeddings) // 10, embeddings.shape[1]))
    found = PCA(kept, random_state=seed).fit_transform(embeddings)
    return found / np.sqrt(found.var(axis=0).mean())


def fit_mixture(
    reduced: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    n_slices: int,
    powers: tuple[float, float],
    seed: int,
) -> Mixture:
    """Fit the mixture by expectation and maximisation from a k-means start.

    A component's density is N(z; mean, diag variance) P(y)^a exp(b sum_c p_c log Q_c) with the powers (a, b) of
    label and prediction, as in Domino's error-aware mixture. A Gaussian on scaled one-hot columns would not do: with
    a variance of its own for each column, a Gaussian mixture does not heed the scale.

    Args:
        reduced: (n, d) embedding.
        labels: (n,) class indices.
        probabilities: (n, C).
        n_slices: Components.
        powers: Of label and prediction.
        seed: Of k-means.
    """
    one_hot = np.eye(probabilities.shape[1])[labels]
    scales = np.sqrt(np.array(powers) / 2)
    start = np.hstack([reduced, scales[0] * one_hot, scales[1] * probabilities])
    places = KMeans(n_slices, n_init=4, random_state=seed).fit(start).labels_
    shares = np.eye(n_slices)[places]
    objective: list[float] = []
    while True:
        model = _maximised(reduced, one_hot, probabilities, shares)
        joint = _log_joint(model, reduced, labels, powers[0]) + powers[1] * probabilities @ model.predictions.T
        objective.append(float(logsumexp(joint, axis=1).mean()))
        if len(objective) >= _STEPS or (len(objective) > 1 and objective[-1] - objective[-2] < _TOLERANCE):
            return model._replace(objective=tuple(objective))
        shares = softmax(joint, axis=1)


def _maximised(reduced: np.ndarray, one_hot: np.ndarray, probabilities: np.ndarray, shares: np.ndarray) -> Mixture:
    """Return the mixture that fits best when each picture belongs to the components by (n, K) shares."""
    sizes = shares.sum(axis=0)[:, None] + 1e-9
    means = shares.T @ reduced / sizes
    variances = np.maximum(shares.T @ reduced**2 / sizes - means**2, _VARIANCE_FLOOR)
    tables = [
        np.log((shares.T @ found + _SMOOTHING) / (sizes + _SMOOTHING * found.shape[1]))
        for found in (one_hot, probabilities)
    ]
    return Mixture(np.log(sizes[:, 0] / sizes.sum()), means, variances, tables[0], tables[1], ())


def _log_joint(model: Mixture, reduced: np.ndarray, labels: np.ndarray, label_power: float) -> np.ndarray:
    """Return (n, K) log of weight times the densities of embedding and label."""
    precision = 1 / model.variances
    distance = (
        reduced**2 @ precision.T - 2 * reduced @ (model.means * precision).T + (model.means**2 * precision).sum(1)
    )
    density = -0.5 * (distance + np.log(2 * np.pi * model.variances).sum(axis=1))
    return model.log_weights + density + label_power * model.labels[:, labels].T


def _assign(
    reduced: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    count: int,
    powers: tuple[float, float],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) component of each picture by look and label, and (n,) log density there."""
    model = fit_mixture(reduced, labels, probabilities, n_slices=count, powers=powers, seed=seed)
    joint = _log_joint(model, reduced, labels, powers[0])
    return joint.argmax(axis=1), joint.max(axis=1)


def _excess(members: np.ndarray, labels: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) errors of each slice beyond those expected of the classes of its pictures."""
    return np.bincount(members, weights=_class_accuracy(labels, right)[labels] - right, minlength=count)


def _class_accuracy(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.bincount(labels, weights=right) / np.maximum(np.bincount(labels), 1)


def _describe(
    part: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, keys: Sequence[str], class_names: Sequence[str]
) -> Slice:
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    accuracy = share(right[part])
    return Slice(
        accuracy=accuracy,
        lift=accuracy.value - float(right.mean()),
        excess=float((_class_accuracy(labels, right)[labels[part]] - right[part]).sum()),
        classes=_shares(labels[part], class_names),
        predicted=_shares(predicted[part], class_names),
        keys=tuple(keys[i] for i in part),
    )


def _shares(values: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    counts = np.bincount(values)
    common = np.argsort(-counts, kind="stable")[:3]
    return tuple((names[i], float(counts[i] / len(values))) for i in common if counts[i])


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(analysis="slices of low accuracy", reason=reason)


def _check(
    embeddings: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    keys: Sequence[str],
    class_names: Sequence[str],
) -> None:
    n = len(labels)
    if embeddings.ndim != 2 or len(embeddings) != n or probabilities.shape != (n, len(class_names)) or len(keys) != n:
        raise ValueError(
            f"expected (n, D), (n,), (n, {len(class_names)}) and n keys, got {embeddings.shape}, {labels.shape}, "
            f"{probabilities.shape} and {len(keys)}"
        )
