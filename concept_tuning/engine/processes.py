"""Which process a written process id means, whatever becomes of the clock and of the id."""

from __future__ import annotations

import psutil


def born(pid: int | None) -> float | None:
    """Return when a process began, in seconds; None for one that is gone, and for what is no process id.

    The number stays the same when the clock is set, so that it tells a process from a later one of the same id. Linux
    counts it from the start of the machine, from which psutil reckons a time by the clock as it stands now; other
    systems keep the time that the clock showed then.
    """
    if pid is None:
        return None
    start = psutil.boot_time() if psutil.LINUX else 0.0  # first, since psutil before 7.1 then reckons with it
    try:
        return round(psutil.Process(pid).create_time() - start, 2)
    except (psutil.Error, TypeError, ValueError, OverflowError):  # an id may come from a foreign status
        return None
