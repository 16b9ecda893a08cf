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
#: Sets of pictures that an interval over them takes.
FEWEST = 3
#: Decimals to which differences are equal: what is less comes from the order of summation.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True)
class OverData:
    """Differences of one method to the first one, over sets of pictures.

    Blocks (data, backbone and sample rate) whose pictures are the same ones, or drawn from them, are not independent:
    they count once, with the mean of their differences.

    Attributes:
        method: The method.
        blocks: (data, backbone, sample rate) of all differences.
        difference: Mean difference in test accuracy, -1..1, with Student's interval over the sets of pictures, which
            holds the chance of seeds, of pictures and of data; ``n`` is their number.
        worst_group: The same of the worst group's accuracy, over those of the sets that have groups; None with fewer
            than :data:`FEWEST` of them.
        above: On how many sets of pictures the method's accuracy is above the first one's; equal ones count half.
        p_value: Of accuracy, by Wilcoxon's signed-rank test over the sets, two-sided; 1 where nothing differs.
    """

    method: str
    blocks: Sequence[tuple[str, str, float]]
    difference: Interval
    worst_group: Interval | None
    above: float
    p_value: float


def pictures_of(source: str, values: Mapping[str, Any]) -> str:
    """Return a name of the pictures of some data, the same for data that may have pictures in common.

    Splits and samples of one source are of the same pictures. Planted birds of one ``data_seed`` are, too: other
    numbers and correlations of them share most training pictures, and all test pictures.

    Args:
        source: Of the data.
        values: Its settings, by bare or full names.
    """
    own = "data_seed" if source == "planted" else "root"
    found = values.get(own, values.get(f"data.{own}"))
    return f"{source}/{found}" if found else source


def over_data(
    rows: Iterable[Mapping[str, Any]], base: str, seeds: int, pictures: Mapping[str, str] | None = None
) -> list[OverData]:
    """Return each method's differences over the blocks where it and the first one are finished with every seed.

    Args:
        rows: Of a bench, as :func:`concept_tuning.bench.tables.summary` returns them.
        base: The first method, with which the others were compared.
        seeds: How many the bench asks for.
        pictures: Which pictures data is of, by its name (:func:`pictures_of`); data that is not in it: its own.

    Returns:
        Those that have :data:`FEWEST` sets of pictures or more, the best mean first.
    """
    done = [row for row in rows if row["seeds"] == seeds]
    known = {_block(row) for row in done if row["method"] == base}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in done:
        if row["method"] != base and row["difference"] is not None and _block(row) in known:
            found.setdefault(row["method"], []).append(row)
    tested = [_tested(method, own, pictures or {}) for method, own in found.items()]
    return sorted((one for one in tested if one), key=lambda one: -one.difference.value)


def _block(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["data"], row["backbone"], row["sample_rate"]


def _tested(method: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, str]) -> OverData | None:
    differences, worst = (_means(rows, name, pictures) for name in ("difference", "worst_group_difference"))
    if len(differences) < FEWEST:
        return None
    return OverData(
        method=method,
        blocks=[_block(row) for row in rows],
        difference=_mean(differences),
        worst_group=_mean(worst) if len(worst) >= FEWEST else None,
        above=float((differences > 0).sum() + (differences == 0).sum() / 2),
        p_value=float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
    )


def _means(rows: Sequence[Mapping[str, Any]], measure: str, pictures: Mapping[str, str]) -> np.ndarray:
    """Return the mean difference on each set of pictures that has any."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row[measure] is not None:
            values.setdefault(pictures.get(row["data"], row["data"]), []).append(row[measure]["value"])
    found: np.ndarray = np.round([np.mean(own) for own in values.values()], _DECIMALS)
    return found


def _mean(values: np.ndarray) -> Interval:
    """Return the mean of two values or more with Student's interval."""
    count, mean = len(values), float(values.mean())
    reach = float(student.ppf((1 + LEVEL) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return Interval(value=mean, low=mean - reach, high=mean + reach, level=LEVEL, n=count)
