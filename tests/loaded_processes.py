"""Processes that have the training libraries loaded: each starts at once, not after seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Elsewhere what has loaded libraries cannot be forked safely, and each process loads them itself.
_FAMILY: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _FAMILY.set_forkserver_preload(["concept_tuning.cli", "concept_tuning.engine.session", "torch._dynamo"])
_END_SECONDS = 200.0


class Loaded:
    """A function at work in such a process, with one computing thread.

    Attributes:
        process: It.
        log: File of what it says.
    """

    def __init__(
        self, target: Callable[..., object], *values: object, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        surroundings = os.environ | dict(environment or {})
        self.process: BaseProcess = _FAMILY.Process(target=_work, args=(target, values, str(log), surroundings))
        self.process.start()

    def end(self) -> None:
        """Wait for it; what it said is in the error if it did not end well."""
        self.process.join(_END_SECONDS)
        self.kill()
        assert self.process.exitcode == 0, self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def kill(self) -> None:
        """Kill it if it lives, and wait."""
        self.process.kill()
        self.process.join()


def command(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Begin ``concept-tuning`` with some words."""
    return Loaded(_command, list(words), log=log, environment=environment)


def on_two_ranks(words: Sequence[str], folder: Path) -> None:
    """Run the command line on two processes as a launcher would begin them, and wait for both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        command(words, folder / f"rank-{rank}.log", {"RANK": str(rank), "LOCAL_RANK": str(rank)} | shared)
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            rank.end()
    finally:
        for rank in ranks:  # one that waits for another that failed
            rank.kill()


def _command(words: list[str]) -> None:
    from concept_tuning.cli import main

    sys.exit(main(words))


def _work(target: Callable[..., object], values: Sequence[object], log: str, environment: dict[str, str]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    target(*values)
