"""What a diagnosis costs: time of each analysis, peak memory, and the speed of the bare network on the same machine.

    python benchmarks/diagnose_cost.py RUN RUN --label planted

The diagnosis runs as the command line does it, in a process of its own. Times of different machines can be compared by
the network's speed, which most analyses wait for.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from real_input import commit

from concept_tuning.diagnostics.features import BATCH, network_input
from concept_tuning.diagnostics.pictures import choose_pictures
from concept_tuning.engine.session import load_run

RESULTS = Path(__file__).parent / "results"


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


def main() -> None:
    """Diagnose the runs once and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--label", required=True, help="name of the record")
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = ["diagnose", *map(str, options.runs), "--out", folder, "--images", str(options.images)]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "concept_tuning", *command], check=True)
        seconds = time.perf_counter() - started
        timings = json.loads((Path(folder) / "timings.json").read_text())
        size = (Path(folder) / "report.html").stat().st_size
    record = {
        "command": "python benchmarks/diagnose_cost.py " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "runs": len(options.runs),
        "images": options.images,
        "threads": torch.get_num_threads(),
        "network_images_per_second": round(network_speed(options.runs[0]), 1),
        "seconds": round(seconds, 1),
        "seconds_by_analysis": timings,
        # kilobytes on Linux
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "report_mb": round(size / 1e6, 1),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"diagnose_cost_{options.label}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
