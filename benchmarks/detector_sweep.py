"""Do the detectors that need no group labels notice a planted shortcut? Birds with rho 0 to 0.95 against clean ones.

A detector gives each run a number, and detection is the AUC of that number for runs with a shortcut against clean
runs (rho 0) of other seeds. At rho 0 two sets of clean runs meet, so that anything but 0.5 is chance or a flaw of the
detector. Every run has a seed of its own for pictures and for training. The numbers were fixed before any result was
seen; the first of each detector is the one it is judged by:

- properties (training pictures, no network): the largest strength of any property; beside it, by how much the
  border's colour tells more than the centre's.
- concept effects: the largest suspicion of any concept; beside it, the mean of the suspicions weighted by energy.
- slices: the largest excess of errors of a slice, over the number of pictures; beside it, 1 - p. Where all pictures
  are right there is no slice, and both are 0.

Concepts and slices are of the test split, as `diagnose` takes it unless told otherwise, and once more of the
validation split, which is drawn like training, as somebody without a balanced test would have it.

In brackets, for comparison, what needs no detector: errors as such, and what only somebody who knows the habitats sees.

A second table tells whether a detector points at the right thing within a run. Suspicion should rank background
concepts above the others: those with more of their strength outside the bird than the background's area, or, since in
a trial run beforehand there were none on a map of 4 x 4 cells, the half of the concepts that has most outside for that
area. Errors of a picture's slice should rank birds away from their own habitat above those at home. No detector is
shown masks or habitats.

Every cell is one run of the command line in a folder of its own, and its numbers are added to a file at once, so the
script can be stopped and started again at any time.

    python benchmarks/detector_sweep.py properties
    python benchmarks/detector_sweep.py runs
    python benchmarks/detector_sweep.py report
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import commit
from sweep_measures import DETECTOR_SEED, measure_run, score_properties
from sweep_tables import REFERENCE, detection, places, tables

from concept_tuning.config import RunConfig
from concept_tuning.data.planted import planted_table
from concept_tuning.data.table import SPLITS
from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.properties import property_table
from concept_tuning.engine.runs import RunFolder, write_atomically
from concept_tuning.settings import build_config

RESULT = Path(__file__).parent / "results" / "detector_sweep.json"
#: What every cell shares: the packaged backbone and a budget for two processor cores.
COMMON: Mapping[str, Any] = {
    "images": 300,
    "validation_images": 200,
    "test_images": 240,
    "image_size": 96,
    "batch_size": 32,
    "max_steps": 60,
    "epochs": 100,
    "lr": 0.1,
    "backbone_lr_scale": 0.3,
}
RHOS = (0.0, 0.5, 0.8, 0.95)
#: Seeds of each set of trained runs, and of each set of pictures alone.
RUN_SEEDS, PROPERTY_SEEDS = 6, 30


@dataclass(frozen=True)
class Cell:
    """One run: the set it belongs to (a rho as text, or :data:`REFERENCE`), its rho, and its own seed."""

    group: str
    rho: float
    seed: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.group}_seed-{self.seed}"


def sweep(seeds: int) -> list[Cell]:
    """Return the cells of every set, one seed after another; no two cells share a seed."""
    sets = [(REFERENCE, 0.0), *((str(rho), rho) for rho in RHOS)]
    return [
        Cell(group, rho, 100 * place + seed)
        for seed in range(1, seeds + 1)
        for place, (group, rho) in enumerate(sets, start=1)
    ]


def overrides(cell: Cell) -> dict[str, Any]:
    """Return the settings of a cell."""
    return {**COMMON, "rho": cell.rho, "seed": cell.seed, "data_seed": cell.seed}


def settings_of(cell: Cell, **more: Any) -> RunConfig:
    """Return a cell's whole configuration."""
    return build_config(data="planted", method="vanilla", overrides={**overrides(cell), **more})


def measure_properties(cell: Cell) -> dict[str, Any]:
    """Return the properties' numbers of a cell's training pictures, at the size a network would see."""
    config = settings_of(cell)
    table = planted_table(config.planted, seed=config.data.data_seed)
    rows = np.flatnonzero(table.splits == SPLITS.index("train"))
    pictures = (
        eval_view(torch.from_numpy(table.read(int(row))).permute(2, 0, 1), size=config.data.image_size).numpy()
        for row in rows
    )
    found = property_table(
        pictures,
        table.labels[rows],
        class_names=table.class_names,
        keys=[table.keys[row] for row in rows],
        seed=DETECTOR_SEED,
    )
    return score_properties(found)


def train_cell(folder: Path, cell: Cell, launcher: Sequence[str], cache: Path) -> None:
    """Train one cell by the command line unless it is done; ``launcher`` is put before the command."""
    wanted = settings_of(cell, cache_dir=str(cache))
    command = [*launcher, sys.executable, "-m", "concept_tuning"]
    if (folder / "config.json").is_file():
        if RunFolder.open(folder).config() != wanted:
            raise SystemExit(f"{folder} holds a run with other settings; name another --root or remove it.")
        command += ["resume", str(folder)]
    else:
        command += ["train", "--data", "planted", "--method", "vanilla", "--run-dir", str(folder), "--set"]
        command += [f"{key}={value}" for key, value in {**overrides(cell), "cache_dir": str(cache)}.items()]
    if not (folder / "results.json").is_file():
        code = subprocess.run([*command, "--quiet"], check=False).returncode
        if code:
            raise SystemExit(f"The cell {folder} ended with exit code {code}; start the same command again.")


def all_properties(root: Path) -> None:
    """Measure the properties of every set of pictures."""
    for cell in unmeasured(root / "properties.jsonl", sweep(PROPERTY_SEEDS)):
        add_row(root / "properties.jsonl", cell, measure_properties(cell))


def all_runs(root: Path, launcher: Sequence[str]) -> None:
    """Train and measure every run, one after another; pictures decoded for one are removed after it."""
    for cell in unmeasured(root / "runs.jsonl", sweep(RUN_SEEDS)):
        folder, cache = root / cell.name, (root / "cache").resolve()
        train_cell(folder, cell, launcher, cache)
        add_row(root / "runs.jsonl", cell, measure_run(folder))
        shutil.rmtree(cache, ignore_errors=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, none where it is missing."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if any(row["settings"] != dict(COMMON) for row in rows):
        raise SystemExit(f"{path} holds runs with other settings; name another --root or remove it.")
    return rows


def unmeasured(path: Path, cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells that the file has no row of, saying how many are left."""
    done = {(row["set"], row["seed"]) for row in read_rows(path)}
    left = [cell for cell in cells if (cell.group, cell.seed) not in done]
    for place, cell in enumerate(left):
        print(f"{cell.name}, {len(left) - place} to go", flush=True)
        yield cell


def add_row(path: Path, cell: Cell, values: Mapping[str, Any]) -> None:
    """Add a cell's numbers to the file."""
    row = {"set": cell.group, "rho": cell.rho, "seed": cell.seed, **values, "settings": dict(COMMON)}
    lines = path.read_text() if path.is_file() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lines + json.dumps({**row, "commit": commit()}) + "\n")


def write_record(root: Path) -> None:
    """Write the tables of all rows there are, with the commands that made them."""
    rows = {name: read_rows(root / f"{name}.jsonl") for name in ("properties", "runs")}
    if not all(rows.values()):
        raise SystemExit("Properties and runs are both needed; start those stages first (see --help).")
    for row in rows["runs"]:
        row |= {f"{split}_error": 1 - row[f"{split}_accuracy"] for split in ("test", "val")}
    commits = sorted({row["commit"] for found in rows.values() for row in found})
    dropped = {"settings", "commit", "concepts.test.list", "concepts.val.list"}
    record = {
        "commands": [f"python benchmarks/detector_sweep.py {stage}" for stage in ("properties", "runs", "report")],
        "commits": commits,
        "settings": dict(COMMON),
        "detector_seed": DETECTOR_SEED,
        "detection": detection(rows["properties"]) + detection(rows["runs"]),
        "places": places(rows["runs"]),
    }
    for name, found in rows.items():
        record[name] = [{key: value for key, value in row.items() if key not in dropped} for row in found]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("properties", "runs", "report"))
    parser.add_argument("--root", type=Path, default=Path("runs/detector_sweep"), help="folder of the runs")
    parser.add_argument("--launcher", default="", help="command that is put before each training command")
    options = parser.parse_args()
    if options.stage == "properties":
        all_properties(options.root)
    elif options.stage == "runs":
        all_runs(options.root, shlex.split(options.launcher))
    else:
        if (options.root / "runs.jsonl").is_file():
            write_record(options.root)
        print(tables(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
