"""The folder of uploads and answers: how full it is, and who removes what is old."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds between two looks for old files, and the age in seconds at which uploads and answers are deleted.
SWEEP_EVERY, MAX_AGE = 60.0, 600.0


def stored_bytes(folder: Path) -> int:
    """Return how many bytes the files below a folder have together."""
    return sum(status.st_size for _, status in _files(folder))


def sweep(folder: Path, *, age: float, keep: frozenset[Path] = frozenset()) -> None:
    """Delete files below a folder whose content is older than ``age`` seconds, and folders that are left empty.

    Half an upload, whose sender went away, is a file as any other here.

    Args:
        folder: The folder, which itself stays.
        age: In seconds; by the time at which a file was last written.
        keep: Files that stay.
    """
    now = time.time()
    for path, status in _files(folder):
        if path not in keep and now - status.st_mtime > age:
            with contextlib.suppress(OSError):
                path.unlink()
    for root, folders, _ in os.walk(folder, topdown=False):
        for name in folders:
            with contextlib.suppress(OSError):  # it is not empty
                (Path(root) / name).rmdir()


def sweep_regularly(folder: Path) -> threading.Event:
    """Sweep a folder in a thread until the returned event is set; what is in it now stays."""
    keep = frozenset(path for path, _ in _files(folder))
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(SWEEP_EVERY):
            sweep(folder, age=MAX_AGE, keep=keep)

    threading.Thread(target=work, name="sweeper", daemon=True).start()
    return ended


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            with contextlib.suppress(OSError):
                yield path, path.lstat()
