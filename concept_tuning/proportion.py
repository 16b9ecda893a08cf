"""Intervals of a share of pictures, also where several pictures show one plant, patient or place."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest, norm, t


def wilson_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the Wilson score interval of ``count`` in ``n``, which is at least 1."""
    found = binomtest(count, n).proportion_ci(level, method="wilson")
    return max(0.0, float(found.low)), min(1.0, float(found.high))


def of_part(units: np.ndarray | None, part: np.ndarray) -> np.ndarray | None:
    """Return the units of a part of the pictures, by places or marks; None where each picture is by itself."""
    return None if units is None else units[part]


def number_of(units: np.ndarray | None) -> int | None:
    """Return how many units pictures show; None where each picture is by itself."""
    return None if units is None else len(np.unique(units))


def share_interval(marks: np.ndarray, *, units: np.ndarray | None = None, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the Wilson score interval of the share of True.

    With units the pictures are drawn in clusters, and Wilson's interval is that of the effective number of pictures
    (Dean and Pagano, Journal of Survey Statistics and Methodology 3(4), 2015; see :func:`effective_number`).

    Args:
        marks: (n,) bool, n at least 1.
        units: (n,) unit of each picture; None: each is by itself.
        level: Confidence level, in (0, 1).

    Raises:
        ValueError: There is no picture.
    """
    marks = np.asarray(marks, dtype=bool)
    if not len(marks):
        raise ValueError("a share of no pictures has no interval")
    count = int(np.count_nonzero(marks))
    if units is None:
        return wilson_interval(count, len(marks), level)
    number = effective_number(marks, units, level=level)
    share, z = count / len(marks), float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    low = 0.0 if share == 0 else max(0.0, float(middle - half))
    return low, 1.0 if share == 1 else min(1.0, float(middle + half))


def effective_number(marks: np.ndarray, units: np.ndarray, *, level: float = 0.95) -> float:
    """Return how many pictures drawn one by one would tell as much of a share as these, drawn by whole units.

    The binomial variance of one picture over the share's variance between units, never more than there are pictures,
    with the units' few degrees of freedom taken off (Korn and Graubard, Survey Methodology 24(2), 1998, who take them
    off before the comparison with the number of pictures, so that two units that happen to agree would count in full).
    Where all pictures are alike, or there is one unit, nothing tells how alike those of a unit are, and a unit counts
    as one.

    Args:
        marks: (n,) bool, n at least 1.
        units: (n,) unit of each picture.
        level: Of the interval that it is for.
    """
    marks = np.asarray(marks, dtype=bool)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    several, n = len(sizes), len(marks)
    share = marks.mean()
    if several < 2 or share in (0, 1):
        return float(several)
    off = np.bincount(unit, weights=marks) - share * sizes
    variance = several / (several - 1) * float(np.sum(off**2)) / n**2
    binomial, tail = share * (1 - share), (1 + level) / 2
    alone = binomial / variance if binomial < n * variance else n
    few = (t.ppf(tail, n - 1) / t.ppf(tail, several - 1)) ** 2
    return float(alone * few)
