"""The queue of a root folder: one job trains at a time, the others wait; one control acts at a time.

Both are locks of the operating system on hidden files in the root, which fall with their holder however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from concept_tuning.engine.processes import born
from concept_tuning.engine.records import WORKING_STATES, list_runs, stop_requested
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

_POLL_SECONDS = 0.5
_CONTROL_SECONDS = 30.0


@contextlib.contextmanager
def turn(path: Path, root: Path) -> Iterator[None]:
    """Wait in this process, with a run in the state ``queued``, until it may train; hold its turn inside.

    Interrupts (SIGINT, and SIGTERM, which a shutdown sends) raise KeyboardInterrupt even where they were ignored,
    as they are in what a shell starts in the background. However the work ends, the status says so.

    Raises:
        RunError: if there is no run, it holds links, or another process works on it.
    """
    for number in {signal.SIGINT, signal.SIGTERM, interrupt_signal(received=True)}:
        signal.signal(number, signal.default_int_handler)
    root = Path(root).resolve()
    folder = RunFolder.open(Path(path).resolve())
    queue = FileLock(root / ".queue.lock")
    with contextlib.ExitStack() as waiting:
        with controlled(root):  # once held, whoever started this process has written his part of the status
            waiting.enter_context(folder.locked())
            folder.refuse_links()
            status = folder.status()
            if status.get("state") == "finished":
                raise RunError(f"The run {path} is finished already.")
            submitted = float(status.get("submitted", time.time()))
            write_status(folder, **(status | {"state": "queued", "submitted": submitted, "pid": os.getpid()}))
        try:
            if stop_requested(folder, os.getpid()):  # before this process could hear the signal
                raise KeyboardInterrupt
            with in_words(f"Cannot wait for a turn in {root}"):
                _wait_for_lock(queue, submitted, root)
                write_status(folder, state="preparing", message="Starting")
            waiting.close()
            yield
        except BaseException as error:
            _record_end(folder, error)
            raise
        finally:
            queue.release()


def interrupt_signal(*, received: bool = False) -> signal.Signals:
    """Return the signal that asks a job to stop; Windows sends it by one name and receives it by another."""
    if sys.platform == "win32":
        return signal.SIGBREAK if received else signal.CTRL_BREAK_EVENT
    return signal.SIGINT


@contextlib.contextmanager
def controlled(root: Path, *, make: bool = False) -> Iterator[None]:
    """Let one control act on a root at a time, over all processes, and put failures of the system into words."""
    with in_words(f"Cannot work in {root}"):
        if make:
            root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".control.lock")
        try:
            lock.acquire(timeout=_CONTROL_SECONDS)
        except Timeout as error:
            raise RunError(f"Another process has been changing runs in {root} for too long; try again.") from error
        try:
            for leftover in (*root.glob(".starting-*"), *root.glob(".deleting-*")):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def in_words(beginning: str) -> Iterator[None]:
    """Put a failure of the operating system into words, as a :class:`RunError`."""
    try:
        yield
    except OSError as error:
        raise run_error(beginning, error) from error


def run_error(beginning: str, error: OSError) -> RunError:
    """Return the words for a failure of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"{beginning}: the disk is full. Free some space and try again.")
    return RunError(f"{beginning}: {error.strerror or error}.")


def write_status(folder: RunFolder, /, **values: Any) -> None:
    """Write a status as of now, by this process unless the values name another."""
    pid, written = values.get("pid", os.getpid()), datetime.now(UTC).isoformat(timespec="seconds")
    stamp = {"pid": pid, "born": born(pid), "updated": written}
    folder.write_json("status.json", values | stamp)


def status_or_empty(folder: RunFolder) -> dict[str, Any]:
    """Return a run's last written status; an empty one if it cannot be read."""
    try:
        return folder.status()
    except RunError:
        return {}


def _record_end(folder: RunFolder, error: BaseException) -> None:
    """Say how a job ended that did not say so itself; another process's status is left alone."""
    status = status_or_empty(folder)
    if status.get("state") not in WORKING_STATES or status.get("pid") != os.getpid():
        return
    state, message = "failed", str(error) or type(error).__name__
    if isinstance(error, KeyboardInterrupt) or stop_requested(folder, os.getpid()):  # libraries may reword the first
        state, message = "stopped", "Stopped; resume goes on from here"
    with contextlib.suppress(OSError):  # the disk may be full: the message still reaches the log
        write_status(folder, **(status | {"state": state, "message": message, "seconds_left": None}))


def _wait_for_lock(lock: FileLock, submitted: float, root: Path) -> None:
    """Take the lock of the queue when it is free and no living job that was submitted earlier waits for it."""
    while True:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            if not any(run.submitted is not None and run.submitted < submitted for run in list_runs(root)):
                return
            lock.release()
        time.sleep(_POLL_SECONDS)
