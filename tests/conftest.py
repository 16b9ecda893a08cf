"""Shared fixtures: a private cache folder for every test run, and tiny run settings."""

from __future__ import annotations

import pytest

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


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images of the tests out of the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


def tiny_config(method: str = "vanilla", backbone: str = "test_resnet", **overrides: object) -> RunConfig:
    """Return settings of a run of seconds; keyword arguments override by bare name."""
    values: dict[str, object] = {
        key: value for key, value in TINY.items() if method == "concept-tuning" or key not in CONCEPT_KEYS
    }
    if method == "scratch":
        values.pop("weights")
    values.update(overrides)
    return build_config(method=method, backbone=backbone, overrides=values)


@pytest.fixture
def tiny() -> object:
    """Return :func:`tiny_config`."""
    return tiny_config
