"""Where the cells of a bench are run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from concept_tuning.bench.cells import Cell
from concept_tuning.bench.job import Job, do_job

#: What each cell's process needs first; it takes seconds to load.
_LOADED = "concept_tuning.engine.session"


def in_processes(cells: Sequence[Cell], workers: int) -> Iterator[Cell]:
    """Run cells in processes of their own, some at once, and yield each whose process has ended, however it ended.

    On Linux they are forked from one that has the libraries loaded, which ends with this process; elsewhere each loads
    them itself. A script that calls this needs ``if __name__ == "__main__":``, as with all of :mod:`multiprocessing`.

    Args:
        cells: To run.
        workers: Processes at once; they share the computing threads evenly.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    family = _family()
    running: set[BaseProcess] = set()
    guard, closed = threading.Lock(), threading.Event()

    def run(cell: Cell) -> None:
        job = dataclasses.asdict(Job.of(cell, threads=threads))
        process = family.Process(target=_do, args=(job, os.environ | {"OMP_NUM_THREADS": str(threads)}))
        with guard:
            if closed.is_set():
                return
            process.start()
            running.add(process)
        connection.wait([process.sentinel])
        with guard:  # a start looks after all children too
            process.join()
            running.discard(process)

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
        with guard:
            closed.set()
            for process in running:
                process.terminate()
        pool.shutdown()


def _family() -> Any:
    """Return how processes begin here; macOS and Windows cannot safely fork one that has loaded libraries."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    family = multiprocessing.get_context("forkserver")
    family.set_forkserver_preload([_LOADED])
    resource_tracker.ensure_running()  # whose start would unblock what is blocked here
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C would end it as it loads
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return family


def _do(job: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Do a job in a process that was begun for it."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is the bench's, which then lets its cells write a checkpoint
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from threadpoolctl import threadpool_limits

    os.environ.clear()
    os.environ.update(environment)  # which may be another than when the process was begun that this is forked from
    with threadpool_limits(job["threads"]):
        do_job(Job(**job))
