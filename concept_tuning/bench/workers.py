"""Where the cells of a bench are run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
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
    running: set[subprocess.Popen[str]] = set()
    guard, closed = threading.Lock(), threading.Event()

    def run(cell: Cell) -> None:
        with guard:
            if closed.is_set():
                return
            # No shell and no argument from outside; the job goes through standard input.
            process = subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "concept_tuning.bench.job"],
                stdin=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # Ctrl-C is the bench's, which then lets them write a checkpoint
            )
            running.add(process)
        with contextlib.suppress(BrokenPipeError):  # it died before it had read its job
            process.communicate(json.dumps(dataclasses.asdict(Job.of(cell, threads=threads))))
        process.wait()
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
            for process in list(running):
                process.terminate()
        pool.shutdown()
