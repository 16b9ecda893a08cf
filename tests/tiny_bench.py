"""A bench of seconds on the planted birds: two methods, two trials, two seeds; and a wait for one of its runs."""

from __future__ import annotations

import time

from concept_tuning.bench.cells import Cell
from concept_tuning.engine.runs import RunFolder

TINY_BENCH = {
    "name": "tiny",
    "data": [{"name": "birds", "source": "planted"}],
    "methods": ["vanilla", "linear-probe"],
    "backbones": ["test_resnet"],
    "seeds": [1, 2],
    "trials": 2,
    "search": {"all": {"lr": {"low": 0.01, "high": 0.1, "log": True}}},
    "set": {
        "weights": "random",
        "image_size": 64,
        "batch_size": 8,
        "epochs": 2,
        "images": 32,
        "validation_images": 16,
        "test_images": 16,
        "draw_size": 64,
        "device": "cpu",
        "threads": 1,
        "checkpoint_seconds": 0,
    },
}


def wait_until_working(cell: Cell, limit: float = 120) -> int:
    """Return the id of the process that trains a cell, when it has taken a few steps."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if (cell.path / "metrics.jsonl").is_file() and (cell.path / "metrics.jsonl").read_bytes().count(b"\n") > 3:
            return int(RunFolder.open(cell.path).status()["pid"])
        time.sleep(0.02)
    raise AssertionError(f"{cell.path} was not begun within {limit} s")
