"""How much a concept says about the label: mutual information, its null under shuffled labels, rank AUC, InfoNCE.

All information is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic.dataclasses import dataclass
from scipy.special import logsumexp
from scipy.stats import rankdata
from sklearn.feature_selection import mutual_info_classif

from concept_tuning.diagnostics.results import RESULT, Array

#: Most counts held at once while labels are shuffled.
_CELLS = 4_000_000

#: Share of the pictures cut off at either end when levels are tried, of many; of fewer, three pictures.
_TAIL = 0.01


@dataclass(frozen=True, kw_only=True, config=RESULT)
class PresenceInformation:
    """What the presence of each of K concepts says about the label, against shuffled labels.

    The level of a concept is the one of many at which its presence says most. That choice finds information where
    there is none, so the null chooses a level anew for each shuffling; compare ``information`` with it alone.

    Attributes:
        levels: (K,) the concept is present in a picture where its activation is above this.
        information: (K,) I(presence; label) in nats with the Miller-Madow correction, which may be below 0.
        null_mean: (K,) mean of the same over shufflings of the labels.
        band: (K,) upper end of the null: under shuffled labels ``information`` is above it with probability
            1 - ``band_level`` at most.
        p_value: (K,) one-sided permutation p-value.
        familywise: (K,) p-value against the largest standardised information of all K concepts in a shuffling
            (Westfall and Young's single-step maximum): below 0.05 anywhere by chance in 5 % of analyses.
        useful: (K,) bool, ``information`` above ``band``. Of useless concepts 1 - ``band_level`` are flagged.
        band_level: Probability 0..1 below the band.
        permutations: Number of shufflings.
        n: Number of pictures.
    """

    levels: Array
    information: Array
    null_mean: Array
    band: Array
    p_value: Array
    familywise: Array
    useful: Array
    band_level: float
    permutations: int
    n: int

    @property
    def excess(self) -> np.ndarray:
        """(K,) information less the null's mean, in nats."""
        return self.information - self.null_mean


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ContrastBound:
    """InfoNCE at one batch size: a lower bound on the mutual information, never an estimate of it.

    Attributes:
        value: Mean of log of N times the softmax of the true pair among N, in nats.
        cap: log N, which the bound cannot pass however much information there is.
        batch: N, pictures set against each other.
        n: Pictures it is averaged over.
    """

    value: float
    cap: float
    batch: int
    n: int


def presence_information(present: np.ndarray, labels: np.ndarray, *, corrected: bool = True) -> np.ndarray:
    """Return the mutual information of each concept's presence with the label.

    The plug-in estimate; corrected after Miller and Madow (1955) by (cells - 1) / 2n for each entropy, where
    cells counts the values that occur: I + [(m_b - 1) + (m_y - 1) - (m_by - 1)] / 2n.

    Args:
        present: (n, K) bool.
        labels: (n,) int64 >= 0.
        corrected: Apply the correction; the result may then be below 0.

    Returns:
        (K,) nats.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check(present, labels)
    totals = np.bincount(labels)
    cells = np.zeros((present.shape[1], len(totals)), np.int64)
    np.add.at(cells.T, labels, present)
    return _information(cells, totals, _entropy_terms(len(labels), corrected))


def candidate_levels(activations: np.ndarray, *, count: int = 24) -> np.ndarray:
    """Return levels at which presence is tried: evenly spaced ranks of each concept's own activations.

    A level lies halfway between two neighbouring activations; where these are equal (a silent channel) it is
    their value. Beyond the outer levels lie 1 % of the pictures, or three where that is more.

    Args:
        activations: (n, K).
        count: Number of levels.

    Returns:
        (K, levels) ascending; fewer than ``count`` where there are few pictures.
    """
    n = len(activations)
    least = max(1, min(max(3, math.ceil(_TAIL * n)), n // 2))
    ranks = np.unique(np.linspace(least, max(n - least, least), count).round().astype(int)).clip(1, max(n - 1, 1))
    ordered = np.sort(activations, axis=0).astype(np.float64)
    return ((ordered[ranks - 1] + ordered[np.minimum(ranks, n - 1)]) / 2).T


def information_test(
    activations: np.ndarray,
    labels: np.ndarray,
    *,
    permutations: int = 300,
    band_level: float = 0.95,
    level_count: int = 24,
    seed: int = 0,
) -> PresenceInformation:
    """Find each concept's best level and test its information against shuffled labels.

    Args:
        activations: (n, K), the strongest activation of each concept in each picture.
        labels: (n,) int64 >= 0.
        permutations: Shufflings of the labels, the same for all concepts.
        band_level: Probability 0..1 below the band.
        level_count: Levels tried for each concept.
        seed: Seed of the shufflings.

    Raises:
        ValueError: If the shapes do not fit together or the shufflings are too few for the band.
    """
    _check(activations, labels)
    beyond = math.floor((1 - band_level) * (permutations + 1) + 1e-9)
    if beyond < 1:
        raise ValueError(f"{permutations} permutations are too few for a band at {band_level}.")
    rng = np.random.default_rng(seed)
    orders = np.stack([labels, *(labels[rng.permutation(len(labels))] for _ in range(permutations))])
    levels = candidate_levels(activations, count=level_count)
    classes = int(labels.max()) + 1
    width = max(1, _CELLS // ((levels.shape[1] + 1) * classes))
    parts = [
        _search(activations[:, start : start + width], levels[start : start + width], orders)
        for start in range(0, len(levels), width)
    ]
    found, null = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts], axis=1)
    information, null = null[0], null[1:]
    band = -np.partition(-null, beyond - 1, axis=0)[beyond - 1]
    return PresenceInformation(
        levels=found,
        information=information,
        null_mean=null.mean(0),
        band=band,
        p_value=(1 + (null >= information).sum(0)) / (permutations + 1),
        familywise=_familywise(information, null),
        useful=information > band,
        band_level=band_level,
        permutations=permutations,
        n=len(labels),
    )


def best_levels(activations: np.ndarray, labels: np.ndarray, *, level_count: int = 24) -> np.ndarray:
    """Return the (K,) levels at which presence says most of the label, as :func:`information_test` chooses them."""
    _check(activations, labels)
    return _search(activations, candidate_levels(activations, count=level_count), labels[None])[0]


def knn_information(activations: np.ndarray, labels: np.ndarray, *, neighbours: int = 3, seed: int = 0) -> np.ndarray:
    """Return the mutual information of each continuous activation with the label, (K,) nats.

    The k-nearest-neighbour estimate of Ross (PLoS ONE 2014) in scikit-learn's implementation, which breaks ties
    (a channel silent in many pictures) by a tiny noise, leaves out classes of one picture, and cuts off below 0, so
    that useless concepts average a little above 0.

    Args:
        activations: (n, K).
        labels: (n,) int64.
        neighbours: Neighbours within the class.
        seed: Seed of the noise.
    """
    _check(activations, labels)
    return mutual_info_classif(
        activations, labels, discrete_features=False, n_neighbors=neighbours, random_state=seed
    ).astype(np.float64)


def class_auc(activations: np.ndarray, labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Return how well each activation alone ranks each class before the rest.

    A logistic probe on one activation ranks as that activation does, so this is the probe's area under the ROC curve
    (ties count half); it is below 0.5 where the concept is weaker in the class. The ranks are found once for all
    classes.

    Args:
        activations: (n, K).
        labels: (n,) int64 in 0..classes - 1.
        classes: Number C of classes.

    Returns:
        (C, K) in 0..1; NaN for a class with no picture or all of them.
    """
    _check(activations, labels)
    member = np.eye(classes)[labels].T
    inside = member.sum(1, keepdims=True)
    pairs = inside * (len(labels) - inside)
    excess = member @ rankdata(activations, axis=0) - inside * (inside + 1) / 2
    return np.divide(excess, pairs, out=np.full_like(excess, np.nan), where=pairs > 0)


def infonce_bounds(
    scores: np.ndarray, labels: np.ndarray, *, batches: Sequence[int] = (8, 32, 128, 512), seed: int = 0
) -> tuple[ContrastBound, ...]:
    """Return InfoNCE between pictures and labels at several batch sizes, with the log N that caps each.

    van den Oord et al. (arXiv 1807.03748), with a run's class scores as the critic; McAllester and Stratos (arXiv
    1811.04251) show why no such bound can pass log N. The scores must come from other pictures' training.

    Args:
        scores: (n, C) logits of the n pictures.
        labels: (n,) int64.
        batches: Numbers N of pictures set against each other; those above n are left out.
        seed: Seed of the draw into batches.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    bounds = []
    for batch in batches:
        used = order[: len(order) // batch * batch].reshape(-1, batch)
        if not used.size or batch < 2:
            continue
        critic = np.take_along_axis(scores[used].astype(np.float64), labels[used][:, None, :], axis=2)
        true = np.diagonal(critic, axis1=1, axis2=2)
        value = float((true - logsumexp(critic, axis=2)).mean() + math.log(batch))
        bounds.append(ContrastBound(value=value, cap=math.log(batch), batch=batch, n=used.size))
    return tuple(bounds)


def _check(values: np.ndarray, labels: np.ndarray) -> None:
    if values.ndim != 2 or labels.shape != values.shape[:1] or len(labels) < 2:
        raise ValueError(f"Expected (n, K) and (n,) with n >= 2, got {values.shape} and {labels.shape}.")


def _entropy_terms(n: int, corrected: bool = True) -> np.ndarray:
    """Return x log x for counts 0..n, less the half by which Miller and Madow lower each cell that occurs."""
    counts = np.arange(n + 1, dtype=np.float64)
    terms = counts * np.log(np.maximum(counts, 1))
    return terms - 0.5 * (counts > 0) if corrected else terms


def _information(cells: np.ndarray, totals: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Return the information in nats, (...), of pictures with the concept by class, (..., C), among ``totals`` (C,)."""
    n = int(totals.sum())
    present = cells.sum(-1)
    joint = (terms[cells] + terms[totals - cells]).sum(-1)
    return (joint - terms[present] - terms[n - present] - terms[totals].sum() + terms[n]) / n


def _search(activations: np.ndarray, levels: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best levels (K,) for the first order of the labels, and the best information (orders, K) for all."""
    n, concepts = activations.shape
    steps = levels.shape[1] + 1
    passed = np.zeros((n, concepts), np.int64)
    for level in levels.T:
        passed += activations > level
    totals = np.bincount(orders[0])
    classes = len(totals)
    place = (np.arange(concepts) * steps + passed) * classes
    terms = _entropy_terms(n)
    best = np.empty((len(orders), concepts))
    for number, labels in enumerate(orders):
        counts = np.bincount((place + labels[:, None]).ravel(), minlength=concepts * steps * classes)
        above = counts.reshape(concepts, steps, classes)[:, :0:-1].cumsum(1)[:, ::-1]
        information = _information(above, totals, terms)
        best[number] = information.max(1)
        if number == 0:
            chosen = information.argmax(1)
    return levels[np.arange(concepts), chosen], best


def _familywise(information: np.ndarray, null: np.ndarray) -> np.ndarray:
    centre, spread = null.mean(0), null.std(0)
    spread = np.where(spread > 0, spread, np.inf)
    largest = ((null - centre) / spread).max(1)
    return (1 + (largest[:, None] >= (information - centre) / spread).sum(0)) / (len(null) + 1)
