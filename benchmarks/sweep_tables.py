"""Tables of `benchmarks/detector_sweep.py`: detection over runs, and places within a run, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from concept_tuning.diagnostics.concept_effects import auc_interval
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.statistics import auc, bootstrap_interval, permutation_null, permutation_p

#: The set of clean runs that all others are compared with.
REFERENCE = "reference"
#: Key of each number of a run, and the detector as the tables call it; see `benchmarks/detector_sweep.py`.
SCORES: Mapping[str, str] = {
    "properties": "**properties**: largest strength",
    "properties.border": "properties: border less centre",
    "concepts.test": "**concept effects**: largest suspicion",
    "concepts.test.mean": "concept effects: mean suspicion",
    "concepts.val": "concept effects, validation: largest suspicion",
    "concepts.val.mean": "concept effects, validation: mean suspicion",
    "slices.test": "**slices**: largest excess",
    "slices.test.p": "slices: 1 - p",
    "slices.val": "slices, validation: largest excess",
    "slices.val.p": "slices, validation: 1 - p",
    "test_error": "(error on the whole test)",
    "val_error": "(error on the whole validation split)",
    "home_gap": "(habitats known: accuracy at home less away)",
}
#: Key of each AUC within a run, and what it tells apart.
PLACES: Mapping[str, str] = {
    "place.concepts.test": "suspicion: background concepts, by area, from others",
    "place.concepts.test.half": "suspicion: the outer half of the concepts from the inner",
    "place.concepts.val": "suspicion on validation: by area",
    "place.concepts.val.half": "suspicion on validation: by half",
    "place.slices": "error of its slice: pictures away from those at home",
    "place.error": "(a picture's own error: the same)",
}
_DRAWS = 2000


def detection(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return the AUC of each number, runs of each rho against the reference.

    The interval is the percentile bootstrap's over runs, which has no width where the AUC is 0 or 1; p is how often
    as high an AUC comes of runs dealt out anew.

    Args:
        rows: Runs with their ``set`` and numbers; keys that no row has are left out.
        seed: Of the draws.
    """
    found = []
    for key in SCORES:
        clean, *others = (values_of(rows, name, key) for name in (REFERENCE, *rhos_of(rows)))
        for rho, above in zip(rhos_of(rows), others, strict=True):
            if not len(above) or not len(clean):
                continue
            marks = np.arange(len(above) + len(clean)) < len(above)
            null = permutation_null(_auc_of(np.concatenate([above, clean])), marks, seed, draws=_DRAWS)
            interval = auc_interval(above, clean, paired=False, seed=seed)
            found.append(
                {
                    "score": key,
                    "rho": float(rho),
                    "auc": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "p": permutation_p(interval.value - 1e-9, null),
                    "runs": [len(above), len(clean)],
                    "mean": float(above.mean()),
                    "mean_clean": float(clean.mean()),
                }
            )
    return found


def places(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return the mean over runs of each AUC within a run, by set; its interval is over runs, from the bootstrap."""
    found = []
    for key in PLACES:
        for name in (REFERENCE, *rhos_of(rows)):
            values = values_of(rows, name, key)
            if len(values) > 1:
                interval = bootstrap_interval(values, seed=seed)
                found.append({"place": key, "set": name, **_bounds(interval), "runs": interval.n})
    return found


def rhos_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the sets but the reference, by rising rho."""
    return sorted({row["set"] for row in rows} - {REFERENCE}, key=float)


def values_of(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> np.ndarray:
    """Return (n,) the numbers of a set's runs that have one."""
    return np.array([row[key] for row in rows if row["set"] == name and row.get(key) is not None], dtype=float)


def tables(record: Mapping[str, Any]) -> str:
    """Return a record as three Markdown tables: detection, places within a run, and how well the networks do."""
    columns = sorted({row["rho"] for row in record["detection"]})
    lines = ["| detector | " + " | ".join(f"rho {rho:g}" for rho in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for key, title in SCORES.items():
        cells = {row["rho"]: _shown(row, "auc") for row in record["detection"] if row["score"] == key}
        lines.append(f"| {title} | " + " | ".join(cells.get(rho, "-") for rho in columns) + " |")
    names = [REFERENCE, *rhos_of(record["runs"])]
    lines += ["", "| within a run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, title in PLACES.items():
        cells = {row["set"]: _shown(row, "mean") for row in record["places"] if row["place"] == key}
        lines.append(f"| {title} | " + " | ".join(cells.get(name, "-") for name in names) + " |")
    lines += ["", "| percent, mean over runs | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in ("val_accuracy", "test_accuracy", "worst_group", "home_gap"):
        found = [values_of(record["runs"], name, key) for name in names]
        shown = " | ".join(f"{100 * values.mean():.0f}" if len(values) else "-" for values in found)
        lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    return "\n".join(lines)


def _auc_of(scores: np.ndarray) -> Any:
    return lambda marks: auc(scores, marks)


def _bounds(interval: Interval) -> dict[str, float]:
    return {"mean": interval.value, "low": interval.low, "high": interval.high}


def _shown(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.2f} ({row['low']:.2f} to {row['high']:.2f})"
