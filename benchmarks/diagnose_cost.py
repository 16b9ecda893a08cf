"""What a diagnosis costs: time of each analysis, peak memory, and the speed of the bare network on the same machine.

    python benchmarks/diagnose_cost.py RUN RUN --label planted
    python benchmarks/diagnose_cost.py RUN RUN --label speed --earlier CHECKOUT --earlier-runs RUN RUN

The diagnosis runs as the command line does it, in a process of its own. Times of different machines can be compared by
the network's speed, which most analyses wait for. With `--earlier` the program of another checkout is timed in turn,
on runs that it can read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from records import RESULTS, command_line, commit

from concept_tuning.diagnostics.features import BATCH, network_input
from concept_tuning.diagnostics.pictures import choose_pictures
from concept_tuning.engine.loading import load_run


def network_speed(run: Path, *, rounds: int = 5) -> float:
    """Return pictures per second of a run's network alone, the median of some batches."""
    loaded = load_run(run)
    pictures = choose_pictures(loaded.data(), count=BATCH)
    images = pictures.images(range(len(pictures)), loaded.config.data.image_size)
    inputs = network_input(loaded.method, images)
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            started = time.perf_counter()
            loaded.method.backbone(inputs)
            times.append(time.perf_counter() - started)
    return len(pictures) / statistics.median(times[1:])


def diagnose(runs: Sequence[Path], *, images: int, code: Path | None = None) -> dict[str, Any]:
    """Diagnose runs in a process of its own and return its seconds, those of each analysis and the report's size.

    Args:
        runs: The runs.
        images: Pictures looked at.
        code: Checkout whose program does it; None: the one installed.
    """
    environment = os.environ if code is None else os.environ | {"PYTHONPATH": str(code)}
    with tempfile.TemporaryDirectory() as folder:
        command = ["diagnose", *map(str, runs), "--out", folder, "--images", str(images), "--quiet"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "concept_tuning", *command], check=True, env=environment, cwd=folder)
        seconds = time.perf_counter() - started
        return {
            "seconds": round(seconds, 1),
            "seconds_by_analysis": json.loads((Path(folder) / "timings.json").read_text()),
            "report_mb": round((Path(folder) / "report.html").stat().st_size / 1e6, 1),
        }


def against(options: argparse.Namespace) -> dict[str, Any]:
    """Time this program and an earlier one in turn, on runs of their own alike; returns both and their ratio."""
    sides: dict[str, list[dict[str, Any]]] = {"earlier": [], "now": []}
    for _ in range(options.rounds):
        sides["earlier"].append(diagnose(options.earlier_runs, images=options.images, code=options.earlier))
        sides["now"].append(diagnose(options.runs, images=options.images))
    ratios = [earlier["seconds"] / now["seconds"] for earlier, now in zip(sides["earlier"], sides["now"], strict=True)]
    head = ["git", "-C", str(options.earlier), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    return {"earlier_commit": found, **sides, "earlier_over_now": [round(ratio, 2) for ratio in ratios]}


def main() -> None:
    """Diagnose the runs once and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--label", required=True, help="name of the record")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier commit, timed in turn with this one")
    parser.add_argument("--earlier-runs", type=Path, nargs="+", help="runs that the earlier code can read")
    parser.add_argument("--rounds", type=int, default=2, help="with --earlier: diagnoses by each")
    options = parser.parse_args()
    options.runs = [run.resolve() for run in options.runs]
    record = {
        "command": command_line("diagnose_cost.py"),
        "commit": commit(),
        "runs": len(options.runs),
        "images": options.images,
        "threads": torch.get_num_threads(),
        "network_images_per_second": round(network_speed(options.runs[0]), 1),
    }
    if options.earlier is None:
        record |= diagnose(options.runs, images=options.images)
        # kilobytes on Linux
        record["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    else:
        options.earlier, options.earlier_runs = (
            options.earlier.resolve(),
            [run.resolve() for run in options.earlier_runs],
        )
        record |= against(options)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"diagnose_cost_{options.label}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
