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
        above: In how many blocks the method is above the first one; equal ones count half.
        p_value: Wilcoxon's signed-rank test over the blocks, two-sided; 1 where nothing differs.
    """

    method: str
    blocks: Sequence[tuple[str, str, float]]
    difference: Interval
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
    found: dict[str, dict[tuple[str, str, float], float]] = {}
    for row in done:
        if row["method"] != base and row["difference"] is not None and _block(row) in known:
            found.setdefault(row["method"], {})[_block(row)] = row["difference"]["value"]
    tested = [_tested(method, values) for method, values in found.items() if len(values) >= BLOCKS]
    return sorted(tested, key=lambda one: -one.difference.value)


def _block(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["data"], row["backbone"], row["sample_rate"]


def _tested(method: str, values: Mapping[tuple[str, str, float], float]) -> OverData:
    differences = np.round(list(values.values()), _DECIMALS)
    count, mean = len(differences), float(differences.mean())
    reach = float(student.ppf((1 + LEVEL) / 2, count - 1) * differences.std(ddof=1) / np.sqrt(count))
    return OverData(
        method=method,
        blocks=list(values),
        difference=Interval(value=mean, low=mean - reach, high=mean + reach, level=LEVEL, n=count),
        above=float((differences > 0).sum() + (differences == 0).sum() / 2),
        p_value=float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
    )
