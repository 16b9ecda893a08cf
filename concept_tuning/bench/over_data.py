"""A method against the first one over several data (Demšar, JMLR 2006, section 3.1): do its differences add up?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student
from scipy.stats import wilcoxon

from concept_tuning.diagnostics.results import Interval

LEVEL = 0.95
#: Blocks (data, backbone and sample rate) that an interval over them takes.
BLOCKS = 3
#: Decimals to which differences are equal: what is less comes from the order of summation.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True)
class OverData:
    """Differences of one method to the first one, over blocks.

    Attributes:
        method: The method.
        blocks: (data, backbone, sample rate) of each difference.
        difference: Mean difference in test accuracy, -1..1, with Student's interval over the blocks, which holds the
            chance of seeds, of pictures and of data, as far as blocks are independent; ``n`` is their number.
        worst_group: The same of the worst group's accuracy, over those of the blocks that have groups; None with fewer
            than :data:`BLOCKS` of them.
        above: In how many blocks the method's accuracy is above the first one's; equal ones count half.
        p_value: Of accuracy, by Wilcoxon's signed-rank test over the blocks, two-sided; 1 where nothing differs.
    """

    method: str
    blocks: Sequence[tuple[str, str, float]]
    difference: Interval
    worst_group: Interval | None
    above: float
    p_value: float


def over_data(rows: Iterable[Mapping[str, Any]], base: str, seeds: int) -> list[OverData]:
    """Return each method's differences over the blocks where it and the first one are finished with every seed.

    Args:
        rows: Of a bench, as :func:`concept_tuning.bench.tables.summary` returns them.
        base: The first method, with which the others were compared.
        seeds: How many the bench asks for.

    Returns:
        Those that have :data:`BLOCKS` or more, the best mean first.
    """
    done = [row for row in rows if row["seeds"] == seeds]
    known = {_block(row) for row in done if row["method"] == base}
    found: dict[str, dict[tuple[str, str, float], Mapping[str, Any]]] = {}
    for row in done:
        if row["method"] != base and row["difference"] is not None and _block(row) in known:
            found.setdefault(row["method"], {})[_block(row)] = row
    tested = [_tested(method, own) for method, own in found.items() if len(own) >= BLOCKS]
    return sorted(tested, key=lambda one: -one.difference.value)


def _block(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["data"], row["backbone"], row["sample_rate"]


def _tested(method: str, rows: Mapping[tuple[str, str, float], Mapping[str, Any]]) -> OverData:
    differences = _values(rows.values(), "difference")
    worst = _values(rows.values(), "worst_group_difference")
    return OverData(
        method=method,
        blocks=list(rows),
        difference=_mean(differences),
        worst_group=_mean(worst) if len(worst) >= BLOCKS else None,
        above=float((differences > 0).sum() + (differences == 0).sum() / 2),
        p_value=float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
    )


def _values(rows: Iterable[Mapping[str, Any]], measure: str) -> np.ndarray:
    found: np.ndarray = np.round([row[measure]["value"] for row in rows if row[measure] is not None], _DECIMALS)
    return found


def _mean(values: np.ndarray) -> Interval:
    """Return the mean of two values or more with Student's interval."""
    count, mean = len(values), float(values.mean())
    reach = float(student.ppf((1 + LEVEL) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return Interval(value=mean, low=mean - reach, high=mean + reach, level=LEVEL, n=count)
