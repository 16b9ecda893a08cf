"""Rows of a bench as its tables return them, without any run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from concept_tuning.bench.spec import BenchSpec, Setting, settings_of

#: Test accuracy and that of the worst group of a setting and seed; None: not finished.
Found = Callable[[Setting, int], tuple[float, float | None] | None]


def made_rows(spec: BenchSpec, found: Found) -> list[dict[str, Any]]:
    """Return a row for each setting and seed of a bench."""
    rows = []
    for setting in settings_of(spec):
        for seed in spec.seeds:
            values = found(setting, seed)
            accuracy, worst = values or (None, None)
            rows.append(
                {
                    "data": setting.data,
                    "backbone": setting.backbone,
                    "sample_rate": setting.sample_rate,
                    "method": setting.method,
                    "seed": seed,
                    "state": "finished" if values else "open",
                    "n": 800 if values else None,
                    "accuracy": accuracy,
                    "worst_group": worst,
                }
            )
    return rows
