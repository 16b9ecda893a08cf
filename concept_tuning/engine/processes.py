"""Which process a written process id means, whatever becomes of the clock and of the id, and what its command is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil

_MODULE = re.compile(r"concept_tuning(\.\w+)*")
#: The command that the package installs, where it lies: on Windows a program or a script beside one.
_COMMAND = re.compile(r"(.*[/\\])?concept-tuning(\.exe|-script\.py)?", re.DOTALL)
_PYTHON = re.compile(r"(.*[/\\])?(python|pypy)[\d.]*w?t?(\.exe)?", re.DOTALL | re.IGNORECASE)
#: Python's options whose value is the next word.
_WITH_VALUE = ("-X", "-W")


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


def command_of(process: psutil.Process) -> list[str]:
    """Return the words of a process's command; none if it is gone or may not be asked."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_ours(command: Sequence[str]) -> bool:
    """Whether the words of a command run this package, whoever started it: a shell, a server, torchrun, accelerate.

    They do with ``-m concept_tuning`` or a module of it, and where the program is the command ``concept-tuning`` or
    Python with that as its script. A path of that name among the other words says nothing: an editor or a dashboard
    has one too.
    """
    if any(first == "-m" and _MODULE.fullmatch(second) for first, second in pairwise(command)):
        return True
    return any(_COMMAND.fullmatch(word) for word in (*command[:1], *_script(command)))


def is_job_of(command: Sequence[str], run: Path) -> bool:
    """Whether the words of a command are those of a run's job, ``concept-tuning work RUN``."""
    named = any(first == "work" and Path(second).name == run.name for first, second in pairwise(command))
    return named and is_ours(command)


def _script(command: Sequence[str]) -> list[str]:
    """Return the script that a command has Python run, if it does."""
    if not command or not _PYTHON.fullmatch(command[0]):
        return []
    words = iter(command[1:])
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return [word]
    return []
