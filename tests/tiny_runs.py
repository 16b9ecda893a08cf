"""Settings of runs small enough for a unit test."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from concept_tuning.config import RunConfig
from concept_tuning.settings import build_config

#: Settings that make a run small enough for a unit test; a tiny timm network with random weights.
TINY = {
    "weights": "random",
    "image_size": 64,
    "batch_size": 8,
    "epochs": 2,
    "queue_size": 4,
    "concept_channels": 6,
    "images": 32,
    "validation_images": 16,
    "test_images": 16,
    "draw_size": 64,
    "threads": 1,
    "checkpoint_seconds": 0,
}
CONCEPT_KEYS = ("queue_size", "concept_channels")


def tiny_config(method: str = "vanilla", backbone: str = "test_resnet", **overrides: object) -> RunConfig:
    """Return settings of a run of seconds; keyword arguments override by bare name."""
    values: dict[str, object] = {
        key: value for key, value in TINY.items() if method == "concept-tuning" or key not in CONCEPT_KEYS
    }
    if method == "scratch":
        values.pop("weights")
    if overrides.get("concept_weight") == 0:
        values.pop("concept_channels", None)
        if overrides.get("image_weight") == 0:
            values.pop("queue_size", None)
    values.update(overrides)
    return build_config(method=method, backbone=backbone, overrides=values)


def write_weights(path: Path, backbone: str = "test_resnet") -> Path:
    """Write weights of a tiny network to begin with, a classifier of 1000 classes included; returns the file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = timm.create_model(backbone, pretrained=False, num_classes=1000)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path
