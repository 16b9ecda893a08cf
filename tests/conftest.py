"""Shared fixtures: a private cache folder for every test run, and tiny run settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from concept_tuning.config import RunConfig
from concept_tuning.settings import build_config

if TYPE_CHECKING:
    from concept_tuning.diagnostics.pictures import Pictures, Subject

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
    if overrides.get("concept_weight") == 0:
        values.pop("concept_channels", None)
        if overrides.get("image_weight") == 0:
            values.pop("queue_size", None)
    values.update(overrides)
    return build_config(method=method, backbone=backbone, overrides=values)


@pytest.fixture
def tiny() -> object:
    """Return :func:`tiny_config`."""
    return tiny_config


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory, private_cache: None) -> tuple[Subject, ...]:
    """Return a vanilla and a Concept-Tuning run of a few steps on planted birds, with the same pictures."""
    from concept_tuning.diagnostics.pictures import Subject
    from concept_tuning.engine.session import load_run, start_run
    from concept_tuning.progress import ConsoleWatcher

    root = tmp_path_factory.mktemp("subjects")
    for method in ("vanilla", "concept-tuning"):
        start_run(tiny_config(method, device="cpu"), root / method, ConsoleWatcher(quiet=True))
    return tuple(Subject(name=method, run=load_run(root / method)) for method in ("vanilla", "concept-tuning"))


@pytest.fixture(scope="session")
def pictures(subjects: tuple[Subject, ...]) -> Pictures:
    """Return all 16 test pictures of those runs, with masks and groups."""
    from concept_tuning.diagnostics.pictures import choose_pictures

    return choose_pictures(subjects[0].run.data(), split="test", count=None)
