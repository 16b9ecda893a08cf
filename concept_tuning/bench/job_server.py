"""A process that does one cell of a bench after another: ``python -m concept_tuning.bench.job_server``.

On Linux each job is done in a process of its own, forked from this one, which has loaded the libraries: that takes
seconds, on a small machine longer than some jobs. Elsewhere what has loaded them cannot be forked safely, and the
process does a single job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from concept_tuning.bench.job import Job, do_job

FORKS = sys.platform == "linux"


def serve() -> None:
    """Do the jobs on standard input, a line of JSON each, and answer with an empty line as each has ended.

    SIGTERM is handed on to the job at work, which then writes a checkpoint; its end is that of this process too.
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    if FORKS:
        _serve_forked(answers)
    elif line := sys.stdin.readline():
        do_job(Job(**json.loads(line)))


def _serve_forked(answers: int) -> None:
    import concept_tuning.engine.session  # noqa: F401 - what every job needs

    child, stopped = 0, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if child:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for line in sys.stdin:
        with _sigterm_waits():
            if stopped:
                return
            child = _fork()
            if not child:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not child:
            os.close(answers)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            do_job(Job(**json.loads(line)))
            return
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        with _sigterm_waits():  # while its id is still its own
            os.waitpid(child, 0)
            child = 0
        if stopped:
            return
        with suppress(BrokenPipeError):  # the bench was killed
            os.write(answers, b"\n")


def _fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on for any thread; there are those of numpy's library alone, which is made for forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Let SIGTERM come only after what is done here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


if __name__ == "__main__":
    serve()
