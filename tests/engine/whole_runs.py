"""What the tests of whole runs share: a watcher that remembers, runs compared, a listing with groups to train on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import CONCEPT_KEYS, TINY

from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.settings import build_config


class Recorder:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[Mapping[str, float]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def step(self, done: int, total: int, values: Mapping[str, float]) -> None:
        self.steps.append(values)


def metrics(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]


def same_run(one: RunFolder, other: RunFolder) -> None:
    """Assert that two runs ended with the same bytes."""
    assert one.metrics_file.read_bytes() == other.metrics_file.read_bytes()
    assert one.best_weights.read_bytes() == other.best_weights.read_bytes()
    assert one.read_json("results.json") == other.read_json("results.json")
    for split in ("train", "val", "test"):
        assert one.predictions_file(split).read_bytes() == other.predictions_file(split).read_bytes()
    last = [sorted(folder.checkpoints.iterdir())[-1] for folder in (one, other)]
    assert last[0].name == last[1].name
    weights = [load_file(path / "model.safetensors") for path in last]
    assert set(weights[0]) == set(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def write_listing(root: Path, groups: tuple[str, ...]) -> Path:
    """Write 24 pictures and a CSV file that lists them with groups in turn."""
    lines = ["path,label,split,group"]
    for number in range(24):
        split = ("train", "val", "test")[number // 8]
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lines.append(f"{number}.png,{('cat', 'dog')[number % 2]},{split},{groups[number // 2 % len(groups)]}")
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


CSV_IDLE = ("images", "validation_images", "test_images", "draw_size")


def csv_config(tiny, path: Path, method: str = "vanilla", **overrides: object) -> RunConfig:
    values = {key: value for key, value in TINY.items() if key not in (*CONCEPT_KEYS, *CSV_IDLE)}
    return build_config(data=str(path), method=method, backbone="test_resnet", overrides=values | overrides)
