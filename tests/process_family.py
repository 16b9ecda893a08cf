"""The processes that a process has begun, by their parents alone.

:meth:`psutil.Process.children` also compares the times of their beginnings, which it takes from the wall clock: where
that is set back while a test waits, as on a machine whose clock is corrected, a child seems older than its parent and
is left out.
"""

from __future__ import annotations

import psutil


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that a process has begun, and those that they have begun, in the order of their numbers."""
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    found, waiting = [], [pid]
    while waiting:
        own = children.pop(waiting.pop(), [])
        found += own
        waiting += [process.pid for process in own]
    return found
