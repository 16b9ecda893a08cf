"""Run folders of a bench as they stand when a cell has ended, written without training anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from concept_tuning.bench.cells import final_cells, final_path, trial_cells
from concept_tuning.bench.spec import BenchSpec, Setting
from concept_tuning.engine.evaluation import PREDICTION, Predictions, evaluate

CLASSES = 2


def write_run(path: Path, *, accuracy: float = 0.5, splits: dict | None = None, speed: float = 10.0) -> None:
    """Write a finished run; ``accuracy`` is that of validation at its best epoch."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "status.json").write_text(json.dumps({"state": "finished", "images_per_second": speed}))
    best = {"step": 3, "accuracy": accuracy, "loss": 1 - accuracy}
    (path / "results.json").write_text(json.dumps({"best": best, "splits": splits or {}}))


def write_trials(spec: BenchSpec, out: Path, setting: Setting, accuracies: list[float]) -> None:
    """Write the first trials of a setting as finished with these validation accuracies."""
    cells = [cell for cell in trial_cells(spec, out) if cell.setting == setting]
    for cell, accuracy in zip(cells, accuracies, strict=False):
        write_run(cell.path, accuracy=accuracy)


def write_settings(spec: BenchSpec, out: Path) -> None:
    """Write into the runs that are there the settings that the bench has for them."""
    for cell in (*trial_cells(spec, out), *final_cells(spec, out)):
        if cell.path.is_dir():
            (cell.path / "config.json").write_text(json.dumps(cell.config.to_dict()))


def write_final(
    out: Path, setting: Setting, seed: int, right: np.ndarray, *, groups: np.ndarray | None = None, speed: float = 10.0
) -> None:
    """Write a finished final run that has these test pictures right: (N,) bool, with (N,) groups."""
    labels = np.arange(len(right)) % CLASSES
    said = np.where(right, labels, 1 - labels)
    found = Predictions({PREDICTION: np.eye(CLASSES, dtype=np.float32)[said]}, labels, groups)
    names = tuple(f"g{number}" for number in range(int(groups.max()) + 1)) if groups is not None else ()
    test = evaluate(found, split="test", class_names=("a", "b"), group_names=names).to_dict()
    path = final_path(out, setting, seed)
    write_run(path, splits={"test": test, "val": {"accuracy": 0.75}}, speed=speed)
    found.save(path / "predictions" / "test.safetensors")
