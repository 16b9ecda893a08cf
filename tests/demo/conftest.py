"""The two tiny runs as the demo holds them, and a running demo of the models that come with the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_server import DemoServer

from app.demo.pair import Pair
from app.demo.worker import Worker


@pytest.fixture
def pair(subjects, tmp_path: Path) -> Pair:
    return Pair(subjects, Worker(waiting=4, seconds=60), tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path_factory.mktemp("demo"))
    yield server
    server.end()
