"""Negative-transfer ledger: pictures that training from scratch has right and fine-tuning has wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import (
    bootstrap_interval,
    no_difference,
    no_surer_than_none,
    paired_bootstrap,
    paired_p,
    share,
)
from concept_tuning.proportion import number_of

_ANALYSIS = "negative transfer"


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Transfer:
    """One fine-tuned run against one run from scratch, on the same n pictures.

    Attributes:
        scratch: Name of the run from scratch.
        tuned: Name of the fine-tuned run.
        lost: Share right from scratch and wrong when fine-tuned, with its Wilson interval.
        rescued: Share wrong from scratch and right when fine-tuned, with its Wilson interval.
        both_right: Number of pictures that both have right.
        neither: Number that both have wrong.
        net: Rescued minus lost share, that is the difference in accuracy; bootstrap over pictures.
        p_value: McNemar's exact two-sided p value of lost against rescued; over whole units where pictures have them
            (:func:`~concept_tuning.diagnostics.statistics.paired_p`).
        lost_keys: Names of the lost pictures.
        rescued_keys: Names of the rescued pictures.
    """

    scratch: str
    tuned: str
    lost: Interval
    rescued: Interval
    both_right: int
    neither: int
    net: Interval
    p_value: float
    lost_keys: tuple[str, ...]
    rescued_keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class MethodLedger:
    """All runs of one method against all runs from scratch.

    Intervals of means are over pictures alone (bootstrap; Wilson where all pairs agree on every picture): they hold
    for these runs, not for new seeds.

    Attributes:
        method: Name of the method.
        pairs: One table for each pair of a run from scratch and a run of the method.
        lost: Mean share of lost pictures over the pairs.
        rescued: Mean share of rescued pictures.
        net: Mean of rescued minus lost.
        beyond_churn: Mean lost share minus the churn: what is lost beyond what another seed of training from
            scratch loses too.
        lost_counts: (n,) int64 in how many pairs each picture is lost.
        rescued_counts: (n,) int64 in how many pairs each is rescued.
    """

    method: str
    pairs: tuple[Transfer, ...]
    lost: Interval
    rescued: Interval
    net: Interval
    beyond_churn: Interval | Unavailable
    lost_counts: Array
    rescued_counts: Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Ledger:
    """What fine-tuning loses and rescues against training from scratch (Yang et al., arXiv 2311.06868).

    Attributes:
        keys: Names of the n pictures.
        scratch: Names of the runs from scratch.
        churn: Mean, over ordered pairs of them, of the share that the first has right and the second wrong.
        methods: One ledger for each method.
        units: How many plants or patients the pictures show, which intervals and p values are over; None: each picture
            is by itself.
    """

    keys: tuple[str, ...]
    scratch: tuple[str, ...]
    churn: Interval | Unavailable
    methods: tuple[MethodLedger, ...]
    units: int | None = None


def negative_transfer(
    *,
    keys: Sequence[str],
    scratch: Mapping[str, np.ndarray],
    tuned: Mapping[str, Mapping[str, np.ndarray]],
    units: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ledger | Unavailable:
    """Enter every fine-tuned run against every run from scratch.

    Args:
        keys: Names of the n pictures, at least two.
        scratch: (n,) bool for each run from scratch: which pictures it has right.
        tuned: The same for each method (say ``vanilla`` and ``concept-tuning``) and each of its runs.
        units: (n,) what each picture shows (a plant, a patient), for intervals and p values over whole units; None:
            each is by itself.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.

    Returns:
        The ledger; :class:`Unavailable` without a run from scratch, a fine-tuned run, or two pictures.

    Raises:
        ValueError: The correctness of a run is not (n,).
    """
    methods = {method: runs for method, runs in tuned.items() if runs}
    if not scratch:
        return Unavailable(analysis=_ANALYSIS, reason="It needs a run trained from scratch on the same data.")
    if not methods:
        return Unavailable(analysis=_ANALYSIS, reason="It needs a fine-tuned run beside the one from scratch.")
    if len(keys) < 2:
        return Unavailable(analysis=_ANALYSIS, reason="It needs at least two pictures.")
    runs = _Runs(tuple(keys), units, level, seed)
    base = runs.checked(scratch)
    churn = runs.churn(base)
    return Ledger(
        keys=tuple(keys),
        scratch=tuple(scratch),
        churn=_no_churn() if churn is None else runs.mean(churn, signed=False),
        methods=tuple(runs.method(name, base, runs.checked(found), churn) for name, found in methods.items()),
        units=number_of(units),
    )


class _Runs:
    """The pictures and settings that all entries share."""

    def __init__(self, keys: tuple[str, ...], units: np.ndarray | None, level: float, seed: int) -> None:
        self.keys = keys
        self.units = units
        self.level = level
        self.seed = seed

    def checked(self, runs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {name: np.asarray(right).astype(bool) for name, right in runs.items()}
        for name, right in found.items():
            if right.shape != (len(self.keys),):
                raise ValueError(f"correctness of {name} must be ({len(self.keys)},), got {right.shape}")
        return found

    def churn(self, base: dict[str, np.ndarray]) -> np.ndarray | None:
        """Return (n,) how often each picture is lost between two runs from scratch; None for one run."""
        if len(base) < 2:
            return None
        return np.mean([first & ~second for first, second in permutations(base.values(), 2)], axis=0)

    def mean(self, values: np.ndarray, *, signed: bool = True) -> Interval:
        """Bootstrap a mean; away from 0 it reaches at least as far as Wilson's bound where every value is 0."""
        if not np.any(values):
            none = no_difference(len(values), self.level, units=self.units)
            return none if signed else replace(none, low=0.0)
        if self.units is None:
            found = bootstrap_interval(values, np.mean, self.seed, level=self.level)
        else:
            found = paired_bootstrap(values, self.seed, level=self.level, units=self.units)
        found = no_surer_than_none(found, units=self.units)
        return found if signed else replace(found, low=max(0.0, found.low))

    def rate(self, shares: np.ndarray) -> Interval:
        """Wilson's where all pairs agree: a bootstrap of nothing lost would be sure of it."""
        if np.isin(shares, (0, 1)).all():
            return self.share(shares == 1)
        return self.mean(shares, signed=False)

    def share(self, marks: np.ndarray) -> Interval:
        return share(marks, self.level, units=self.units)

    def pair(self, names: tuple[str, str], scratch: np.ndarray, tuned: np.ndarray) -> Transfer:
        lost, rescued = scratch & ~tuned, ~scratch & tuned
        return Transfer(
            scratch=names[0],
            tuned=names[1],
            lost=self.share(lost),
            rescued=self.share(rescued),
            both_right=int((scratch & tuned).sum()),
            neither=int((~scratch & ~tuned).sum()),
            net=self.mean(rescued.astype(float) - lost),
            p_value=paired_p(lost, rescued, units=self.units, seed=self.seed),
            lost_keys=tuple(self.keys[i] for i in np.flatnonzero(lost)),
            rescued_keys=tuple(self.keys[i] for i in np.flatnonzero(rescued)),
        )

    def method(
        self, name: str, base: dict[str, np.ndarray], runs: dict[str, np.ndarray], churn: np.ndarray | None
    ) -> MethodLedger:
        pairs = [((first, second), base[first], runs[second]) for second in runs for first in base]
        lost = np.sum([scratch & ~right for _, scratch, right in pairs], axis=0)
        rescued = np.sum([~scratch & right for _, scratch, right in pairs], axis=0)
        return MethodLedger(
            method=name,
            pairs=tuple(self.pair(*pair) for pair in pairs),
            lost=self.rate(lost / len(pairs)),
            rescued=self.rate(rescued / len(pairs)),
            net=self.mean((rescued - lost) / len(pairs)),
            beyond_churn=_no_churn() if churn is None else self.mean(lost / len(pairs) - churn),
            lost_counts=lost,
            rescued_counts=rescued,
        )


def _no_churn() -> Unavailable:
    return Unavailable(
        analysis="churn between seeds",
        reason="It needs two or more runs from scratch with different seeds; with one, nobody knows how many of the "
        "lost pictures another seed would have lost as well.",
    )
