"""Where the cells of a bench are run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from concept_tuning.bench.cells import Cell
from concept_tuning.bench.job import Job


def in_processes(cells: Sequence[Cell], workers: int) -> Iterator[Cell]:
    """Run cells in processes of their own, some at once, and yield each whose process has ended, however it ended.

    Args:
        cells: To run.
        workers: Processes at once; they share the computing threads evenly.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    running: set[_Server] = set()
    guard, closed = threading.Lock(), threading.Event()

    def run(cell: Cell) -> None:
        with guard:
            if closed.is_set():
                return
            server = _idle_server(threads)
            running.add(server)
        alive = False
        try:
            alive = server.do(Job.of(cell, threads=threads))
        finally:
            with guard:
                running.discard(server)
                keep = alive and not closed.is_set()
            if keep:
                _keep(server)
            else:
                server.end()

    pool = ThreadPoolExecutor(workers)
    try:
        ends = {pool.submit(run, cell): cell for cell in cells}
        for end in as_completed(ends):
            end.result()
            yield ends[end]
    except KeyboardInterrupt:
        print("Stopping: the runs at work write their checkpoints first.", file=sys.stderr)
        raise
    finally:
        closed.set()  # first, so that a second Ctrl-C begins nothing
        with guard:
            for server in running:
                server.stop()
        pool.shutdown()


class _Server:
    """A process of :mod:`concept_tuning.bench.job_server`.

    Attributes:
        surroundings: Its environment and working folder.
    """

    def __init__(self, surroundings: tuple[Mapping[str, str], str]) -> None:
        self.surroundings = surroundings
        # No shell and no argument from outside; the jobs go through standard input.
        self._process = subprocess.Popen(  # nosec B603
            [sys.executable, "-m", "concept_tuning.bench.job_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(surroundings[0]),
            start_new_session=True,  # Ctrl-C is the bench's, which then lets them write a checkpoint
        )

    def do(self, job: Job) -> bool:
        """Have a job done and wait for its end; returns whether the server can do another."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it died before it had read its job
            print(json.dumps(dataclasses.asdict(job)), file=self._process.stdin, flush=True)
            return bool(self._process.stdout.readline())
        return False

    def stop(self) -> None:
        """Ask the job at work to write a checkpoint and end, and the server with it."""
        self._process.terminate()

    def end(self) -> None:
        """Tell it that there are no more jobs, and wait."""
        self._process.communicate()

    def alive(self) -> bool:
        """Return whether it waits for a job."""
        return self._process.poll() is None


#: Servers that wait for the next job of this process.
_idle: list[_Server] = []
_guard = threading.Lock()


def _idle_server(threads: int) -> _Server:
    """Return one with the environment of now and so many computing threads, begun or left over; others are ended."""
    surroundings = os.environ | {"OMP_NUM_THREADS": str(threads)}, os.getcwd()
    with _guard:
        others = [server for server in _idle if server.surroundings != surroundings or not server.alive()]
        for server in others:
            _idle.remove(server)
            server.end()
        return _idle.pop() if _idle else _Server(surroundings)


def _keep(server: _Server) -> None:
    with _guard:
        _idle.append(server)


@atexit.register
def _end_all() -> None:
    with _guard:
        while _idle:
            _idle.pop().end()
