"""Average ranks of methods over blocks, and which of them differ (Demšar, JMLR 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from concept_tuning.bench.blocks import Block, Table, block_names
from concept_tuning.bench.spec import BenchSpec
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.figures.labels import listed

LEVEL = 0.05
#: What a test over blocks needs, and how many blocks it takes before it can be expected to find anything.
METHODS, BLOCKS, POWER = 3, 2, 5
#: Blocks up to which p is rough, as SciPy says of its test.
_ROUGH = 10
#: Decimals to which means are equal: what is less comes from the order of summation.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Methods by their average rank in test accuracy.

    Attributes:
        methods: From the best average rank to the worst.
        ranks: (blocks, methods) rank within each block, 1 the best; equal means share the average of their ranks.
        blocks: Those where every seed of every method is finished.
        sources: How many different sources of data they have.
        missing: Methods that are not finished, by each block that is left out for it.
        mixed: Blocks that are left out because the runs did not learn from the same pictures and splits.
        absent: Methods of the same list that are finished in none of its blocks, and therefore left out.
        statistic: Friedman's chi-squared.
        p_value: Of the hypothesis that no method differs from another.
        critical_difference: Nemenyi's, in ranks, at level 0.05.
        joined: First and last place in ``methods`` of the widest groups that do not differ.
    """

    methods: Sequence[str]
    ranks: np.ndarray
    blocks: Sequence[Block]
    sources: int
    missing: Mapping[Block, Sequence[str]]
    mixed: Sequence[Block]
    absent: Sequence[str]
    statistic: float
    p_value: float
    critical_difference: float
    joined: Sequence[tuple[int, int]]

    @property
    def averages(self) -> np.ndarray:
        """(methods,) average rank."""
        average: np.ndarray = self.ranks.mean(0)
        return average

    @property
    def differs(self) -> bool:
        """Whether Friedman's test finds that some method differs."""
        return self.p_value < LEVEL


@cache
def critical_value(methods: int) -> float:
    """Return Nemenyi's q at level 0.05: the studentized range without end, divided by the root of 2."""
    return float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)


def critical_difference(methods: int, blocks: int) -> float:
    """Return by how much average ranks must differ for two methods to differ, at level 0.05."""
    return critical_value(methods) * math.sqrt(methods * (methods + 1) / (6 * blocks))


def friedman(means: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Rank methods within blocks and test whether any differs.

    Args:
        means: (blocks, methods), greater is better; at least 2 by 3.

    Returns:
        (blocks, methods) ranks, Friedman's chi-squared and its p; 0 and 1 where all methods are equal in every block.
    """
    means = np.round(means, _DECIMALS)
    ranks: np.ndarray = rankdata(-means, axis=1)
    if (ranks == ranks[0, 0]).all():
        return ranks, 0.0, 1.0
    found = friedmanchisquare(*means.T)
    return ranks, float(found.statistic), float(found.pvalue)


def joined_groups(averages: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return first and last place of the widest groups whose averages, ascending, differ by less than a difference."""
    groups: list[tuple[int, int]] = []
    for first, low in enumerate(averages):
        last = max(place for place, high in enumerate(averages) if high - low < difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def rankings(spec: BenchSpec, table: Table) -> list[Ranking] | Unavailable:
    """Rank the methods where they can be compared: the most methods, and over the most blocks.

    Methods are ranked together if the bench asks one of its data for just these, so that what is compared was laid
    down before any result; of these lists that with the most methods is taken, and that with the most blocks. A
    block counts if every seed of all of them is finished there, and all learnt from the same pictures and splits.

    Returns:
        One or two rankings, the one with more methods first; or why there is none.
    """
    asked = dict.fromkeys(frozenset(data.methods or spec.methods) for data in spec.data)
    lists = [[method for method in spec.methods if method in names] for names in asked]
    candidates = [_candidate(table, names) for names in lists]
    usable = [one for one in candidates if len(one.methods) >= METHODS and len(one.blocks) >= BLOCKS]
    if not usable:
        return Unavailable(
            analysis="ranks",
            reason=f"Average ranks need {METHODS} methods or more that are finished with every seed in {BLOCKS} or "
            "more of the same blocks (data, backbone and sample rate); this bench has not that many yet.",
        )
    widest = max(usable, key=lambda one: (len(one.methods), len(one.blocks), one.methods))
    deepest = max(usable, key=lambda one: (len(one.blocks), len(one.methods), one.methods))
    return [_ranking(spec, table, one) for one in ([widest] if widest == deepest else [widest, deepest])]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    methods: Sequence[str]
    blocks: Sequence[Block]
    missing: Mapping[Block, Sequence[str]]
    mixed: Sequence[Block]
    absent: Sequence[str]


def _candidate(table: Table, names: Sequence[str]) -> _Candidate:
    common = [block for block, found in table.items() if set(names) <= set(found)]
    methods = [name for name in names if any(table[block][name].complete for block in common)]
    asking = [block for block, found in table.items() if set(methods) <= set(found)] if methods else []
    missing = {block: [name for name in methods if not table[block][name].complete] for block in asking}
    whole = [block for block in asking if not missing[block]]
    mixed = [block for block in whole if len(set().union(*(table[block][name].learnt_from for name in methods))) > 1]
    return _Candidate(
        methods=methods,
        blocks=[block for block in whole if block not in mixed],
        mixed=mixed,
        missing={block: left for block, left in missing.items() if left},
        absent=[name for name in names if name not in methods],
    )


def _ranking(spec: BenchSpec, table: Table, chosen: _Candidate) -> Ranking:
    means = np.array([[table[block][name].mean("accuracy") for name in chosen.methods] for block in chosen.blocks])
    ranks, statistic, p_value = friedman(means)
    order = np.argsort(ranks.mean(0), kind="stable")
    difference = critical_difference(len(chosen.methods), len(chosen.blocks))
    ranks = ranks[:, order]
    everyone = [(0, len(chosen.methods) - 1)]
    return Ranking(
        methods=[chosen.methods[place] for place in order],
        ranks=ranks,
        blocks=chosen.blocks,
        sources=len({spec.data_named(block.data).source for block in chosen.blocks}),
        missing=chosen.missing,
        mixed=chosen.mixed,
        absent=chosen.absent,
        statistic=statistic,
        p_value=p_value,
        critical_difference=difference,
        joined=joined_groups(ranks.mean(0).tolist(), difference) if p_value < LEVEL else everyone,
    )


def counted(ranking: Ranking) -> str:
    """Return what was ranked and what the tests say, short enough to stand on the figure."""
    p_value = "p < 0.001" if ranking.p_value < 0.001 else f"p = {ranking.p_value:.3f}"
    return (
        f"{len(ranking.methods)} methods over {len(ranking.blocks)} blocks. Friedman: χ² = {ranking.statistic:.2f}, "
        f"{p_value}. Critical difference (Nemenyi, 0.05): {ranking.critical_difference:.2f} ranks."
    )


def weakness(ranking: Ranking) -> str:
    """Return how little the tests can find; empty if they have enough blocks to find something."""
    most = len(ranking.methods) - 1
    if len(ranking.blocks) >= POWER and ranking.critical_difference < most:
        return ""
    text = f"With only {len(ranking.blocks)} blocks there is next to no power to tell two methods apart"
    if ranking.critical_difference >= most:
        return f"{text}: even a difference of {most} ranks, the most there can be, would not be enough."
    return f"{text}: that a bar joins methods does not show that they are alike."


def remarks(ranking: Ranking) -> list[str]:
    """Return sentences on what the ranks rest on: which blocks, which were left out, and how far they are apart."""
    names = block_names([*ranking.blocks, *ranking.missing, *ranking.mixed])
    found = [f"Blocks: {', '.join(names[block] for block in ranking.blocks)}."]
    if len(ranking.blocks) <= _ROUGH:
        found.append("p comes from the χ² distribution, which is rough with so few blocks.")
    if not ranking.differs:
        found.append("Friedman's test finds no method that differs, so one bar joins all, as the procedure asks.")
    if ranking.missing:
        left = "; ".join(f"{names[block]} ({listed(methods)})" for block, methods in ranking.missing.items())
        found.append(f"Left out, because methods are not finished there with every seed: {left}.")
    if ranking.mixed:
        left = ", ".join(names[block] for block in ranking.mixed)
        found.append(f"Left out, because the runs did not learn from the same pictures and splits: {left}.")
    if ranking.absent:
        found.append(f"Not ranked, because finished in no such block: {listed(ranking.absent)}.")
    if ranking.sources < len(ranking.blocks):
        sources = f"{ranking.sources} {'source' if ranking.sources == 1 else 'sources'} of data"
        found.append(
            f"The tests take blocks as independent, but these come from {sources}, so that p and the critical "
            "difference are likely to be too small."
        )
    return found
