"""Shared fixtures: a private cache folder for every test run, and two tiny runs to look at."""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING

# Test processes side by side share the cores; torch looks at this when it is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from tiny_runs import tiny_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from concept_tuning.diagnostics.pictures import Pictures, Subject


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """Hear interrupts, which what a shell runs in the background ignores: tests send them to what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images of the tests out of the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def one_scan() -> Iterator[None]:
    """Let Streamlit search the installed packages for components once, not with every run of a page."""
    if "streamlit" not in sys.modules:
        yield
        return
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture
def tiny() -> object:
    """Return :func:`tiny_config`."""
    return tiny_config


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory, private_cache: None) -> tuple[Subject, ...]:
    """Return a vanilla and a Concept-Tuning run of a few steps on planted birds, with the same pictures."""
    from concept_tuning.diagnostics.pictures import Subject
    from concept_tuning.engine.loading import load_run
    from concept_tuning.engine.session import start_run
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
