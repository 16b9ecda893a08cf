"""What a bench found, by block: the finished runs of each method on one data, backbone and sample rate."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from concept_tuning.bench.spec import BenchSpec, settings_of

Measure = Literal["accuracy", "worst_group"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Where methods are compared: data, backbone and sample rate (percent of the training pictures)."""

    data: str
    backbone: str
    sample_rate: float


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one method in one block.

    Attributes:
        asked: How many seeds the bench asks for.
        rows: Rows of the finished ones, as :func:`concept_tuning.bench.tables.cell_rows` returns them.
    """

    asked: int
    rows: Sequence[Mapping[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether every seed is finished."""
        return len(self.rows) == self.asked

    @property
    def learnt_from(self) -> set[str]:
        """What tells their pictures and splits from others; more than one where these changed between the runs."""
        return {row["learnt_from"] for row in self.rows if row.get("learnt_from") is not None}

    @property
    def pictures(self) -> int | None:
        """How many pictures they were tested on; None while none is finished."""
        return self.rows[0]["n"] if self.rows else None

    def values(self, measure: Measure) -> list[tuple[int, float]]:
        """Return seed and value (0..1) of each run that has the measure."""
        return [(row["seed"], row[measure]) for row in self.rows if row[measure] is not None]

    def mean(self, measure: Measure) -> float | None:
        """Return the mean over seeds, 0..1; None without a value."""
        found = self.values(measure)
        return statistics.fmean(value for _, value in found) if found else None

    def deviation(self, measure: Measure) -> float | None:
        """Return the standard deviation over seeds; None with fewer than two values."""
        found = self.values(measure)
        return statistics.stdev(value for _, value in found) if len(found) > 1 else None


#: The runs of each method that is asked for, by block, both in the order of the bench's file.
Table = Mapping[Block, Mapping[str, Runs]]


def read_blocks(spec: BenchSpec, rows: Iterable[Mapping[str, Any]]) -> Table:
    """Sort a bench's rows by block and method; what is asked for and not finished is there without rows."""
    finished: dict[tuple[Block, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["state"] == "finished":
            block = Block(data=row["data"], backbone=row["backbone"], sample_rate=row["sample_rate"])
            finished.setdefault((block, row["method"]), []).append(row)
    table: dict[Block, dict[str, Runs]] = {}
    for setting in settings_of(spec):
        block = Block(data=setting.data, backbone=setting.backbone, sample_rate=setting.sample_rate)
        runs = Runs(asked=len(spec.seeds), rows=finished.get((block, setting.method), []))
        table.setdefault(block, {})[setting.method] = runs
    return table


def block_names(blocks: Iterable[Block]) -> dict[Block, str]:
    """Return a name for each block: its data, and what else tells it apart from blocks of the same data."""
    blocks = list(blocks)
    names = {}
    for block in blocks:
        same = [other for other in blocks if other.data == block.data]
        parts = [block.data]
        if len({other.backbone for other in same}) > 1:
            parts.append(block.backbone)
        if len({other.sample_rate for other in same}) > 1:
            parts.append(f"{block.sample_rate:g} %")
        names[block] = " ".join(parts)
    return names
