"""What pictures cost beside the network: waiting in training, memory by their number, throughput of prediction.

    python benchmarks/data_speed.py waiting predicting
    python benchmarks/data_speed.py memory          # writes 101,000 small pictures into a folder of its own

`waiting` trains for some epochs and reads which share of the time went into getting batches. `predicting` times the
prediction of a split and the bare network on the same batches, in turn, round after round. `memory` opens folders of
1,000 and of 100,000 pictures, each in a process of its own, reads 300 batches, and reads the resident memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from records import RESULTS, commit

from concept_tuning.data.registry import load_data
from concept_tuning.engine.batches import BatchPlan, training_loader
from concept_tuning.engine.evaluation import predict_split
from concept_tuning.engine.session import start_run
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import build_backbone
from concept_tuning.progress import ConsoleWatcher
from concept_tuning.settings import build_config

COUNTS = (1_000, 100_000)
_BATCHES, _ROUNDS = 300, 5


def waiting(folder: Path) -> dict[str, Any]:
    """Return the share of training that goes into getting batches, by method, in epochs on drawn pictures at 128 px."""
    found = {}
    for method in ("vanilla", "concept-tuning"):
        config = build_config(method=method, overrides={"epochs": 3, "lr": 0.01})
        run = start_run(config, folder / method, ConsoleWatcher(quiet=True))
        status = run.status()
        found[method] = {name: status[name] for name in ("loading_share", "images_per_second")}
    return found


def predicting(_: Path) -> dict[str, Any]:
    """Return pictures per second of a prediction and of the bare network, and the median of their ratios."""
    config = build_config(overrides={"weights": "random"})
    data = load_data(config)
    split, size, batch = data.splits["test"], config.data.image_size, config.engine.eval_batch_size
    method = build_method(config, build_backbone(config.backbone, image_size=size), len(data.class_names)).eval()
    method.to(memory_format=torch.channels_last)
    inputs = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(len(split) // batch):
                method.backbone(inputs)

    def whole() -> None:
        predict_split(method, split, image_size=size, batch_size=batch, device=torch.device("cpu"))

    pictures = {"bare": len(split) // batch * batch, "whole": len(split)}
    rates: dict[str, list[float]] = {"bare": [], "whole": []}
    for number in range(_ROUNDS + 1):
        for name, call in (("bare", bare), ("whole", whole)):
            seconds = _seconds(call)
            if number:  # the first round warms up
                rates[name].append(pictures[name] / seconds)
    ratios = [whole / bare for whole, bare in zip(rates["whole"], rates["bare"], strict=True)]
    return {name: statistics.median(values) for name, values in rates.items()} | {"ratio": statistics.median(ratios)}


def memory(folder: Path) -> dict[str, Any]:
    """Return megabytes of resident memory with pictures in each of the counts open and some of them read."""
    found = {}
    for count in COUNTS:
        pictures = folder / str(count)
        _write_pictures(pictures, count)
        command = [sys.executable, __file__, "--open", str(pictures), "--cache", str(folder / "cache")]
        for kind in ("cold", "warm"):  # decoding into the cache, and from it
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{count} {kind}"] = json.loads(done.stdout)
    return found


def _open_folder(pictures: Path, cache: Path) -> None:
    """Print the resident memory before and after a folder's pictures were opened and read, in megabytes."""
    config = build_config(data=str(pictures), overrides={"image_size": 32, "cache_dir": str(cache)})
    before, began = _resident(), time.perf_counter()
    data = load_data(config)
    seconds = time.perf_counter() - began
    plan = BatchPlan(images=len(data.splits["train"]), batch_size=32, seed=0, rank=0, processes=1)
    for _ in training_loader(data.splits["train"], ("strong",), plan, config.data, start=0, stop=_BATCHES, workers=0):
        pass
    print(json.dumps({"before": before, "after": _resident(), "seconds_to_open": round(seconds, 1)}))


def _resident() -> float:
    return round(psutil.Process().memory_info().rss / 1e6, 1)


def _write_pictures(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(place / f"{number:06d}.png", compress_level=1)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


PARTS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "waiting": waiting,
    "predicting": predicting,
    "memory": memory,
}


def main() -> None:
    """Measure what is asked for and write a record of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if options.open is not None:
        _open_folder(options.open, options.cache)
        return
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            results = PARTS[part](Path(folder))
        record = {"command": f"python benchmarks/data_speed.py {part}", "commit": commit(), "results": results}
        print(json.dumps(record, indent=1))
        (RESULTS / f"data_speed_{part}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
