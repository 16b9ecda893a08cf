"""A bench of seconds on the planted birds: two methods, two trials, two seeds."""

from __future__ import annotations

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
