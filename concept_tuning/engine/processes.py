"""Which process a written process id means, whatever becomes of the clock and of the id."""

from __future__ import annotations

import psutil


def born(pid: int | None) -> float | None:
    """Return when a process began, in seconds; None for one that is gone, or where that cannot be told.

    It tells a process from a later one of the same id. On Linux it is counted from the start of the machine, and so
    stays the same when the clock is set. Elsewhere it is the time that psutil tells, which on macOS may move with it.
    """
    if pid is None:
        return None
    try:
        start = psutil.boot_time() if psutil.LINUX else 0.0
        return round(psutil.Process(pid).create_time() - start, 2)
    except (psutil.Error, OSError, RuntimeError, TypeError, ValueError, OverflowError):  # also of a foreign status
        return None
