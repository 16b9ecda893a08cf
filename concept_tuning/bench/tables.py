"""What a bench found: a row for each final run, and for each setting the mean, the spread and the verdict."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.bench.cells import Cell, chosen, final_cells, trial_cells
from concept_tuning.bench.spec import BenchSpec, Setting, settings_of, tuned_as
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.verdict import compare_methods
from concept_tuning.engine.evaluation import PREDICTION, Predictions
from concept_tuning.engine.runs import RunFolder, write_atomically

COLUMNS = ("data", "backbone", "sample_rate", "method", "seed", "state", "n", "accuracy", "worst_group", "validation")


def cell_rows(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return a row for each final run, finished or not; shares are 0..1."""
    rows = []
    for cell in final_cells(spec, out):
        found = _results(cell)
        test, val = found.get("test", {}), found.get("val", {})
        rows.append(
            {
                "data": cell.setting.data,
                "backbone": cell.setting.backbone,
                "sample_rate": cell.setting.sample_rate,
                "method": cell.setting.method,
                "seed": cell.number,
                "state": cell.failure or cell.state,
                "n": test.get("n"),
                "accuracy": test.get("accuracy"),
                "worst_group": test.get("worst_group_accuracy"),
                "validation": val.get("accuracy"),
            }
        )
    return rows


def summary(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return for each setting what was chosen, mean and deviation over seeds, and the verdict on the first method."""
    cells = final_cells(spec, out)
    found = []
    for setting in settings_of(spec):
        own = [cell for cell in cells if cell.setting == setting and cell.state == "finished"]
        base = Setting(
            data=setting.data, backbone=setting.backbone, sample_rate=setting.sample_rate, method=spec.methods[0]
        )
        other = [cell for cell in cells if cell.setting == base and cell.state == "finished"]
        tests = [_results(cell)["test"] for cell in own]
        trials = [cell for cell in trial_cells(spec, out) if cell.setting == tuned_as(spec, setting)]
        found.append(
            {
                "data": setting.data,
                "backbone": setting.backbone,
                "sample_rate": setting.sample_rate,
                "method": setting.method,
                "seeds": len(own),
                "trials": max(1, len(trials)),
                "failed_trials": sum(cell.state == "failed" for cell in trials),
                "chosen": chosen(spec, out, setting),
                "accuracy": _spread([test["accuracy"] for test in tests]),
                "worst_group": _spread([test.get("worst_group_accuracy") for test in tests]),
                "verdict": "" if setting == base else _verdict(own, other, (setting.method, base.method)),
            }
        )
    return found


def write_tables(spec: BenchSpec, out: Path) -> str:
    """Write ``cells.csv``, ``summary.json`` and ``summary.md`` into a bench's folder; returns the last's text."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(cell_rows(spec, out))
    write_atomically(out / "cells.csv", text.getvalue())
    rows = summary(spec, out)
    write_atomically(out / "summary.json", json.dumps(rows, indent=1) + "\n")
    markdown = _markdown(spec, rows)
    write_atomically(out / "summary.md", markdown)
    return markdown


def _markdown(spec: BenchSpec, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"# {spec.name}",
        "",
        "Test accuracy and that of the worst group in percent, mean (standard deviation over seeds). Each method had "
        "the same number of trials, chosen on validation.",
        "",
        "| data | backbone | rate | method | trials | seeds | accuracy | worst group |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        trials = f"{row['trials']}" + (f", {row['failed_trials']} failed" if row["failed_trials"] else "")
        lines.append(
            f"| {row['data']} | {row['backbone']} | {row['sample_rate']:g} | `{row['method']}` | {trials} | "
            f"{row['seeds']} | {_percent(row['accuracy'])} | {_percent(row['worst_group'])} |"
        )
    lines += ["", *(f"- {row['data']}, {row['backbone']}: {row['verdict']}" for row in rows if row["verdict"])]
    return "\n".join(lines) + "\n"


def _percent(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "–"
    deviation = "" if spread["deviation"] is None else f" ({100 * spread['deviation']:.1f})"
    return f"{100 * spread['mean']:.1f}{deviation}"


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "deviation": statistics.stdev(known) if len(known) > 1 else None,
        "values": known,
    }


def _verdict(own: list[Cell], other: list[Cell], names: tuple[str, str]) -> str:
    """Return the sentence on two methods from their runs on the same pictures, paired by seed."""
    seeds = sorted({cell.number for cell in own} & {cell.number for cell in other})
    if not seeds:
        return "not finished for both methods"
    sides = [
        np.stack([_right(cell) for seed in seeds for cell in part if cell.number == seed]) for part in (own, other)
    ]
    found = compare_methods(sides[0], sides[1], names=names, paired=True)
    return found.reason if isinstance(found, Unavailable) else found.accuracy.sentence


def _right(cell: Cell) -> np.ndarray:
    found = Predictions.load(RunFolder.open(cell.path).predictions_file("test"))
    right: np.ndarray = found.probabilities[PREDICTION].argmax(1) == found.labels
    return right


def _results(cell: Cell) -> dict[str, Any]:
    if cell.state != "finished":
        return {}
    splits: dict[str, Any] = RunFolder.open(cell.path).read_json("results.json", "splits")["splits"]
    return splits
