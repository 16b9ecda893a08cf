"""Verdicts of a bench: each method against the first one, over the same pictures and seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from concept_tuning.bench.cells import Cell
from concept_tuning.data.table import SPLITS
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.verdict import Comparison, compare_methods
from concept_tuning.engine.evaluation import PREDICTION, Predictions
from concept_tuning.engine.runs import RunFolder

NOT_FINISHED = "no seed is finished on both sides yet"


@dataclass(frozen=True, kw_only=True)
class Against:
    """A method against the first one.

    Attributes:
        sentence: On accuracy, or why nothing can be said.
        outcome: What the verdict says of accuracy: ``better``, ``worse`` or ``no difference shown``; None if nothing.
        difference: In accuracy, with its 95 % interval; None if nothing can be said.
        worst_group: Sentence on the worst group; empty without groups.
        worst_group_outcome: What the verdict says of the worst group.
        worst_group_difference: In worst-group accuracy.
        caveat: How to read the worst group.
        seeds: Number of seeds that both have finished, by which they are paired.
    """

    sentence: str
    outcome: str | None = None
    difference: Interval | None = None
    worst_group: str = ""
    worst_group_outcome: str | None = None
    worst_group_difference: Interval | None = None
    caveat: str = ""
    seeds: int = 0


def against(own: Sequence[Cell], other: Sequence[Cell], names: tuple[str, str]) -> Against:
    """Compare the finished final runs of two methods, paired by seed.

    A run's worst group is its smallest accuracy over the cells of class and group, whichever that is; it is averaged
    over seeds, and pictures are drawn again within cells, so that the choice of the smallest is made anew each time.

    Args:
        own: Runs of the method.
        other: Runs of the first one; seeds that only one side has are left out.
        names: Of both.
    """
    seeds = sorted({cell.number for cell in own} & {cell.number for cell in other})
    if not seeds:
        return Against(sentence=NOT_FINISHED)
    if len({found for cell in (*own, *other) if (found := learnt_from(cell)) is not None}) > 1:
        return Against(
            sentence=f"{names[0]} and {names[1]} did not learn from the same pictures: the data, or their split, have "
            "changed between their runs. Put the old data back, or remove the runs of before"
        )
    sides = [[_predictions(cell) for seed in seeds for cell in part if cell.number == seed] for part in (own, other)]
    first, *others = (found for side in sides for found in side)
    if any(not np.array_equal(found.labels, first.labels) for found in others):
        return Against(sentence=f"{names[0]} and {names[1]} were not tested on the same pictures")
    right = [np.stack([_right(found) for found in side]) for side in sides]
    verdict = compare_methods(right[0], right[1], names=names, cells=_cells(first), paired=True, units=first.units)
    if isinstance(verdict, Unavailable):
        return Against(sentence=verdict.reason)
    worst = verdict.worst_group if isinstance(verdict.worst_group, Comparison) else None
    return Against(
        sentence=verdict.accuracy.sentence,
        outcome=verdict.accuracy.outcome,
        difference=verdict.accuracy.difference,
        worst_group=worst.sentence if worst else "",
        worst_group_outcome=worst.outcome if worst else None,
        worst_group_difference=worst.difference if worst else None,
        caveat=verdict.caveat,
        seeds=len(seeds),
    )


def learnt_from(cell: Cell) -> str | None:
    """Return what tells a run's pictures, its splits and what they show from others; None if it tells nothing."""
    if not (cell.path / "data.json").is_file():
        return None
    folder = RunFolder.open(cell.path)
    data = folder.read_json("data.json")
    if data.get("used_fingerprint") is None:
        return None
    units = data.get("units") or dict.fromkeys(SPLITS)  # as of a run from before units were known
    splits = folder.read_json("split.json") if (cell.path / "split.json").is_file() else None
    known = json.dumps([data.get("used_fingerprint"), units, splits], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _predictions(cell: Cell) -> Predictions:
    return Predictions.load(RunFolder.open(cell.path).predictions_file("test"))


def _right(found: Predictions) -> np.ndarray:
    right: np.ndarray = found.probabilities[PREDICTION].argmax(1) == found.labels
    return right


def _cells(found: Predictions) -> np.ndarray | None:
    """Return (N,) number of each picture's cell of class and group; None without groups."""
    if found.groups is None:
        return None
    return found.labels * (int(found.groups.max()) + 1) + found.groups
