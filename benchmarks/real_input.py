"""Vanilla against Concept-Tuning on real and planted input, with an equal tuning budget.

Every cell is one run of the command line in a folder of its own, so the script can be stopped and
started again at any time: finished cells are read, unfinished ones resumed. The search looks at
validation only; the test split is read in the final runs alone.

    python benchmarks/real_input.py search --data planted --method vanilla
    python benchmarks/real_input.py final  --data planted --method vanilla
    python benchmarks/real_input.py map
    python benchmarks/real_input.py report
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from records import RESULTS, command_line, commit

from concept_tuning.engine.runs import RunFolder
from concept_tuning.settings import build_config

#: What every cell shares: the packaged backbone and a budget for two processor cores.
COMMON: Mapping[str, Any] = {"max_steps": 144, "epochs": 8, "batch_size": 32, "image_size": 128}
FINAL_SEEDS = (1, 2, 3)
SEARCH_SEED = 0

#: Learning rates tried, the same for every method: heads at 0.03 and 0.1, the backbone from 0.01 to 0.09.
RATES: Sequence[Mapping[str, Any]] = (
    {"lr": 0.03, "backbone_lr_scale": 0.3},
    {"lr": 0.03, "backbone_lr_scale": 1.0},
    {"lr": 0.03, "backbone_lr_scale": 3.0},
    {"lr": 0.1, "backbone_lr_scale": 0.3},
)
#: Concept-Tuning's own settings vary beside the rates, so that it gets no more trials than its rival.
CONCEPT_SPACE: Mapping[str, Sequence[Any]] = {
    "image_weight": (0.03, 0.1, 0.3),
    "concept_weight": (0.03, 0.1, 0.3),
    "encoder_momentum": (0.99, 0.999),
}
#: Concept-Tuning is searched in its cheapest mode, which two cores can afford; `final --set` takes another one.
CONCEPT_FIXED: Mapping[str, Any] = {"views": 2, "patches": "feature-map"}


def trials(method: str) -> list[dict[str, Any]]:
    """Return the settings tried for a method, as many for one as for another."""
    if method != "concept-tuning":
        return [dict(rates) for rates in RATES]
    # each setting walks through its own values, so that few trials see all of them
    return [
        {
            **rates,
            **{name: values[(i + shift) % len(values)] for shift, (name, values) in enumerate(CONCEPT_SPACE.items())},
        }
        for i, rates in enumerate(RATES)
    ]


def run_cell(folder: Path, data: str, method: str, seed: int, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Train one cell unless it is done, and return its results; None where training diverged."""
    fixed = CONCEPT_FIXED if method == "concept-tuning" else {}
    overrides = {**COMMON, **fixed, **values, "seed": seed}
    wanted = build_config(data=data, method=method, overrides=[f"{key}={value}" for key, value in overrides.items()])
    command = [sys.executable, "-m", "concept_tuning"]
    if (folder / "config.json").is_file():
        if RunFolder.open(folder).config() != wanted:
            raise SystemExit(f"{folder} holds a run with other settings; name another --root or remove it.")
        command += ["resume", str(folder)]
    else:
        command += ["train", "--data", data, "--method", method, "--run-dir", str(folder)]
        command += ["--set", *(f"{key}={value}" for key, value in overrides.items())]
    if not (folder / "results.json").is_file() and not diverged(folder):
        print(" ".join(command[1:]), flush=True)
        code = subprocess.run([*command, "--quiet"], check=False).returncode
        if code and not diverged(folder):
            raise SystemExit(f"The cell {folder} ended with exit code {code}; start the same command again.")
    return None if diverged(folder) else json.loads((folder / "results.json").read_text())["splits"]


def diverged(folder: Path) -> bool:
    """Whether a cell ended because its loss was no longer finite."""
    status = folder / "status.json"
    found = json.loads(status.read_text()) if status.is_file() else {}
    return found.get("state") == "failed" and "non-finite" in found["message"]


def cell_name(values: Mapping[str, Any]) -> str:
    """Return a folder name that tells the settings."""
    return "_".join(f"{key}-{value}" for key, value in values.items())


def search(root: Path, data: str, method: str) -> dict[str, Any]:
    """Run the trials and write them down, best by validation accuracy first (then validation loss)."""
    rows: list[dict[str, Any]] = []
    for values in trials(method):
        splits = run_cell(root / "search" / data / method / cell_name(values), data, method, SEARCH_SEED, values)
        val = splits["val"] if splits else {"accuracy": None, "loss": None}
        rows.append(
            {
                "settings": values,
                "diverged": splits is None,
                "val_accuracy": val["accuracy"],
                "val_loss": val["loss"],
            }
        )
    rows.sort(key=lambda row: (row["diverged"], -(row["val_accuracy"] or 0), row["val_loss"]))
    record = {"data": data, "method": method, "trials": rows, "seed": SEARCH_SEED, "commit": commit()}
    write_record(f"real_input_search_{data}_{method}", record)
    return record


def final(root: Path, data: str, method: str, label: str, extra: Mapping[str, Any]) -> None:
    """Train the chosen settings with every final seed and record test accuracy and worst group."""
    chosen = read_record(f"real_input_search_{data}_{method}")["trials"][0]["settings"]
    rows = []
    for seed in FINAL_SEEDS:
        values = {**chosen, **extra}
        splits = run_cell(root / "final" / data / label / f"seed-{seed}", data, method, seed, values)
        if splits is None:
            raise SystemExit(f"Seed {seed} of {label} on {data} diverged; its record would not be whole.")
        rows.append({"seed": seed, "val": summary(splits["val"]), "test": summary(splits["test"])})
    record = {"data": data, "method": method, "label": label, "settings": {**chosen, **extra}, "runs": rows}
    write_record(f"real_input_final_{data}_{label}", record | {"commit": commit()})


def shortcut_map(root: Path, method: str, rhos: Sequence[float], sizes: Sequence[int], seeds: Sequence[int]) -> None:
    """Record worst-group accuracy over rho and training size, at the method's chosen settings."""
    chosen = read_record(f"real_input_search_planted_{method}")["trials"][0]["settings"]
    rows = []
    for rho, images, seed in itertools.product(rhos, sizes, seeds):
        values = {**chosen, "rho": rho, "images": images, "epochs": 100}
        folder = root / "map" / method / f"rho-{rho}_images-{images}_seed-{seed}"
        splits = run_cell(folder, "planted", method, seed, values)
        if splits is None:
            continue
        rows.append({"rho": rho, "images": images, "seed": seed, "test": summary(splits["test"])})
        write_record(
            f"real_input_map_{method}", {"method": method, "settings": chosen, "cells": rows, "commit": commit()}
        )


def summary(split: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the figures of a split that the tables show."""
    return {key: split[key] for key in ("n", "accuracy", "worst_group_accuracy", "worst_group", "heads")}


def report() -> str:
    """Return the recorded final results and maps as Markdown."""
    lines = ["| data | run | seeds | test accuracy, mean (sd) | worst group, mean (sd) |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("real_input_final_*.json")):
        record = json.loads(path.read_text())
        cells = [spread([run["test"][key] for run in record["runs"]]) for key in ("accuracy", "worst_group_accuracy")]
        lines.append(f"| {record['data']} | {record['label']} | {len(record['runs'])} | {cells[0]} | {cells[1]} |")
    for path in sorted(RESULTS.glob("real_input_map_*.json")):
        lines += ["", *map_table(json.loads(path.read_text()))]
    return "\n".join(lines)


def map_table(record: Mapping[str, Any]) -> list[str]:
    """Return a shortcut map as Markdown lines: accuracy / worst group, in percent, mean over seeds."""
    cells: dict[tuple[float, int], list[dict[str, Any]]] = {}
    for row in record["cells"]:
        cells.setdefault((row["rho"], row["images"]), []).append(row["test"])
    rhos, sizes = sorted({rho for rho, _ in cells}), sorted({images for _, images in cells})
    lines = [f"| {record['method']}: rho | " + " | ".join(f"{size} pictures" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for rho in rhos:
        shown = []
        for size in sizes:
            tests = cells.get((rho, size), [])
            means = (
                [statistics.mean(t[key] for t in tests) for key in ("accuracy", "worst_group_accuracy")]
                if tests
                else []
            )
            shown.append(" / ".join(f"{100 * mean:.0f}" for mean in means) or "-")
        lines.append(f"| {rho} | " + " | ".join(shown) + " |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):.1f} ({100 * deviation:.1f})"


def write_record(name: str, record: Mapping[str, Any]) -> None:
    """Write a record with the command that made it."""
    RESULTS.mkdir(exist_ok=True)
    command = command_line("real_input.py")
    fixed = COMMON if record["method"] == "vanilla" else {**COMMON, **CONCEPT_FIXED}
    (RESULTS / f"{name}.json").write_text(json.dumps({"command": command, "common": fixed, **record}, indent=1) + "\n")


def read_record(name: str) -> dict[str, Any]:
    """Read a record, saying which command is missing where there is none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is missing; run the search first (see --help).")
    return json.loads(path.read_text())


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("search", "final", "map", "report"))
    parser.add_argument("--data", default="planted")
    parser.add_argument("--method", default="vanilla")
    parser.add_argument("--label", help="name of the final runs (default: the method)")
    parser.add_argument("--set", dest="extra", nargs="*", default=[], metavar="KEY=VALUE", help="for the final runs")
    parser.add_argument("--rhos", type=float, nargs="+", default=[0.8, 0.9, 0.93, 0.96])
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 600, 1200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--root", type=Path, default=Path("runs/real_input"))
    options = parser.parse_args()
    if options.stage == "search":
        search(options.root, options.data, options.method)
    elif options.stage == "final":
        extra = dict(item.split("=", 1) for item in options.extra)
        final(options.root, options.data, options.method, options.label or options.method, extra)
    elif options.stage == "map":
        shortcut_map(options.root, options.method, options.rhos, options.sizes, options.seeds)
    else:
        print(report())


if __name__ == "__main__":
    main()
