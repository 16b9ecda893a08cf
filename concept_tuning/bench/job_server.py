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
import time
import warnings
from contextlib import suppress
from types import FrameType

from concept_tuning.bench.job import Job, do_job

FORKS = sys.platform == "linux"
_LOOK_SECONDS = 0.05


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

    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    for line in sys.stdin:
        if stopped:
            return
        child = _fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if stopped:  # it came before that
                return
            os.close(answers)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            do_job(Job(**json.loads(line)))
            return
        told = False
        while not os.waitpid(child, os.WNOHANG)[0]:  # until then its id is its own
            if stopped and not told:
                os.kill(child, signal.SIGTERM)
                told = True
            time.sleep(_LOOK_SECONDS)
        if stopped:
            return
        with suppress(BrokenPipeError):  # the bench was killed
            os.write(answers, b"\n")


def _fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on for any thread; there are those of numpy's library alone, which is made for forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


if __name__ == "__main__":
    serve()
