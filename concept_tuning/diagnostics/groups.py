"""Accuracy by class and group: where a model that is right on average is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import permutation_p, portions, share
from concept_tuning.proportion import of_part

#: Why chance's part in the worst cell is not known, to follow "since".
UNKNOWN_LIKENESS = "too few cells have two units and so show how alike pictures of one unit are"
#: Draws for the minimum that chance alone gives.
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True, config=RESULT)
class NamedRate:
    """Accuracy of a class or of a group.

    Attributes:
        name: Its name.
        accuracy: Share predicted right, with its Wilson interval and count.
    """

    name: str
    accuracy: Interval


@dataclass(frozen=True, kw_only=True, config=RESULT)
class GroupCell:
    """Accuracy of one class within one group.

    Attributes:
        class_name: Name of the class.
        group: Name of the group.
        accuracy: Share predicted right, with its Wilson interval and count.
    """

    class_name: str
    group: str
    accuracy: Interval


@dataclass(frozen=True, kw_only=True, config=RESULT)
class GroupTable:
    """Accuracy over classes and groups, and its worst cell (Sagawa et al., arXiv 1911.08731).

    Attributes:
        class_names: The C classes.
        group_names: The G groups.
        right: (C, G) int64 pictures predicted right.
        counts: (C, G) int64 pictures.
        cells: The cells that have pictures, by class and then by group.
        classes: Accuracy of each class that has pictures.
        groups: Accuracy of each group that has pictures.
        average: Accuracy over all pictures.
        worst: The cell of smallest accuracy; the first of several.
        gap: Average minus worst accuracy, 0..1.
        worst_if_even: Mean of the smallest accuracy if every cell had the average one and only chance told them
            apart; None where pictures of one unit may be alike and too few cells tell how much.
        p_even: Share of such draws whose smallest accuracy is at most the one found (one-sided p value); None likewise.
        caveat: How to read the worst cell, in words.
    """

    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    right: Array
    counts: Array
    cells: tuple[GroupCell, ...]
    classes: tuple[NamedRate, ...]
    groups: tuple[NamedRate, ...]
    average: Interval
    worst: GroupCell
    gap: float
    worst_if_even: float | None
    p_even: float | None
    caveat: str


def group_table(
    *,
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray | None,
    class_names: Sequence[str],
    group_names: Sequence[str],
    units: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> GroupTable | Unavailable:
    """Tabulate accuracy by class and group.

    Args:
        labels: (n,) class indices.
        predictions: (n,) predicted class indices.
        groups: (n,) group indices, or None.
        class_names: The C classes.
        group_names: The G groups.
        units: (n,) what each picture shows, for intervals and ``worst_if_even`` over whole units; None: each is by
            itself.
        level: Confidence level of the Wilson intervals.
        seed: Of the draws for ``worst_if_even``.

    Returns:
        The table; :class:`Unavailable` where there are no groups or no pictures.

    Raises:
        ValueError: The arrays are not of one length, or an index has no name.
    """
    if groups is None or not group_names:
        return Unavailable(
            analysis="accuracy by group",
            reason="These pictures have no groups; a table with a group column, or planted birds, has them.",
        )
    labels, predictions, groups = np.asarray(labels), np.asarray(predictions), np.asarray(groups)
    if not len(labels):
        return Unavailable(analysis="accuracy by group", reason="There are no pictures.")
    _check(labels, predictions, groups, len(class_names), len(group_names))
    hit = predictions == labels
    shape = (len(class_names), len(group_names))
    place = np.ravel_multi_index((labels, groups), shape)
    cells = tuple(
        GroupCell(
            class_name=class_names[cell[0]],
            group=group_names[cell[1]],
            accuracy=_share_of(hit, place == i, units, level),
        )
        for i, cell in enumerate(np.ndindex(shape))
        if (place == i).any()
    )
    worst = min(cells, key=lambda cell: cell.accuracy.value)
    average = share(hit, level, units=units)
    even = _smallest_by_chance(hit, place, units, seed)
    worst_if_even = None if even is None else float(even.mean())
    return GroupTable(
        class_names=tuple(class_names),
        group_names=tuple(group_names),
        right=np.bincount(place[hit], minlength=shape[0] * shape[1]).reshape(shape),
        counts=np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape),
        cells=cells,
        classes=named_rates(hit, labels, class_names, units=units, level=level),
        groups=named_rates(hit, groups, group_names, units=units, level=level),
        average=average,
        worst=worst,
        gap=average.value - worst.accuracy.value,
        worst_if_even=worst_if_even,
        p_even=None if even is None else permutation_p(-worst.accuracy.value, -even),
        caveat=_caveat(worst, len(cells), worst_if_even),
    )


def _smallest_by_chance(hit: np.ndarray, place: np.ndarray, units: np.ndarray | None, seed: int) -> np.ndarray | None:
    """Return (draws,) smallest accuracies of cells of as many pictures, or units of these, that all are equally hard.

    How often a unit's pictures are right is then drawn from a beta distribution, as wide as pictures of one unit are
    alike within the cells (the moment estimate of the correlation within clusters, after Ridout, Demétrio and Firth,
    Biometrics 55(1), 1999). None where that cannot be told, see :func:`_alike`.
    """
    rng, accuracy = np.random.default_rng(seed), float(hit.mean())
    counts = np.unique(place, return_counts=True)[1]
    if units is not None:
        pairs, pair = np.unique(np.stack([place, units]), axis=1, return_inverse=True)
        cells, sizes = pairs[0], np.bincount(pair.ravel())
        alike = _alike(cells, sizes, np.bincount(pair.ravel(), weights=hit))
        if alike is None and accuracy not in (0, 1):
            return None
    if units is None or not alike or accuracy in (0, 1):
        found: np.ndarray = (rng.binomial(counts, accuracy, size=(_DRAWS, len(counts))) / counts).min(axis=1)
        return found
    weight = 1 / alike - 1
    smallest = np.ones(_DRAWS)
    for cell, count in zip(np.unique(cells), counts, strict=True):
        own = sizes[cells == cell]
        rates = []
        for draws in portions(_DRAWS, len(own)):
            shape = (draws, len(own))
            if weight:
                each = rng.beta(accuracy * weight, (1 - accuracy) * weight, shape)
            else:  # all pictures of a unit are alike
                each = (rng.random(shape) < accuracy).astype(np.float64)
            rates.append(rng.binomial(own, each).sum(axis=1) / count)
        np.minimum(smallest, np.concatenate(rates), out=smallest)
    return smallest


def _alike(cells: np.ndarray, sizes: np.ndarray, right: np.ndarray) -> float | None:
    """Return the correlation, 0..1, of pictures of one unit within the cells of class and group.

    0 where every unit has one picture in a cell. None where units have more, and fewer than half of the cells have two
    units or none of these has both a unit of several pictures and right and wrong answers: with two units in 1, 4 and 6
    of 12 cells that were equally hard, p fell below 0.05 in 35, 17 and 10 % of 60 simulations.

    Args:
        cells: (P,) the cell of each unit; a unit in several counts in each.
        sizes: (P,) its pictures there.
        right: (P,) how many of them are right.
    """
    if sizes.max() == 1:
        return 0.0
    found = expected = 0.0
    several_units = np.unique(cells, return_counts=True)[1] > 1
    if several_units.mean() < 0.5:
        return None
    for cell in np.unique(cells):
        own = cells == cell
        several, share = int(own.sum()), right[own].sum() / sizes[own].sum()
        if several > 1:
            spread = share * (1 - share)
            off = float(np.sum((right[own] - share * sizes[own]) ** 2)) * several / (several - 1)
            found += off - spread * float(sizes[own].sum())
            expected += spread * float(np.sum(sizes[own] * (sizes[own] - 1.0)))
    return min(1.0, max(0.0, found / expected)) if expected else None


def named_rates(
    hit: np.ndarray, places: np.ndarray, names: Sequence[str], *, units: np.ndarray | None = None, level: float = 0.95
) -> tuple[NamedRate, ...]:
    """Return the accuracy of each class or group that has pictures.

    Args:
        hit: (n,) bool, which pictures are predicted right.
        places: (n,) class or group of each, indexing ``names``.
        names: Of the classes or groups.
        units: (n,) what each picture shows; None: each is by itself.
        level: Confidence level of the intervals.
    """
    return tuple(
        NamedRate(name=name, accuracy=_share_of(hit, places == i, units, level))
        for i, name in enumerate(names)
        if (places == i).any()
    )


def _share_of(hit: np.ndarray, part: np.ndarray, units: np.ndarray | None, level: float) -> Interval:
    return share(hit[part], level, units=of_part(units, part))


def _caveat(worst: GroupCell, cells: int, even: float | None) -> str:
    pictures = "1 picture" if worst.accuracy.n == 1 else f"{worst.accuracy.n} pictures"
    if cells == 1:
        return f"There is only one cell, of {pictures}, so it is also the average."
    start = f"The worst of {cells} cells rests on {pictures}, and the smallest of several estimates is biased low: "
    if even is None:
        return f"{start}by how much cannot be told, since {UNKNOWN_LIKENESS}."
    return f"{start}if all cells were equally hard, chance alone would put it near {100 * even:.1f} %."


def _check(labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, classes: int, group_count: int) -> None:
    if not labels.shape == predictions.shape == groups.shape or labels.ndim != 1:
        raise ValueError(
            f"labels, predictions and groups must be (n,), got {labels.shape}, {predictions.shape}, {groups.shape}"
        )
    for name, values, names in (("labels", labels, classes), ("groups", groups, group_count)):
        if values.min() < 0 or values.max() >= names:
            raise ValueError(f"{name} must be in 0..{names - 1}, got {values.min()}..{values.max()}")
