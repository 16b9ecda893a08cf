"""What is known of the runs below a root folder, read from their files alone, so that every watcher sees the same.

Nothing here writes and nothing imports torch. A status that speaks of work is believed only while the
process that wrote it lives and is seen to work on that run: a run folder may be a stranger's.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from concept_tuning.data.printable import as_unicode
from concept_tuning.engine.curves import LARGEST_INTEGER, Metrics, is_number, read_curves
from concept_tuning.engine.processes import born, command_of, is_job_of
from concept_tuning.engine.runs import RunFolder, read_whole
from concept_tuning.errors import RunError, StudioError

#: Where runs are kept unless another root is named.
ROOT = Path("runs")
#: States of a run that a living process waits with or works on; all others are at rest.
WORKING_STATES = ("queued", "preparing", "training", "evaluating")
#: Written by whoever asks a run to stop; holds the process id that was asked.
STOP_REQUEST = "stop-requested"
#: How long a process may take, in seconds, to bear its command once it is started, or to let go once it is killed.
SETTLE_SECONDS = 3.0
_END_STATES = ("finished", "stopped", "failed")
_RATE = ("accuracy", "low", "high", "n")
_MARKS = ("config.json", "status.json", "metrics.jsonl")
_NAME = re.compile(r"[\w.-]{1,100}")
#: Most of a name in bytes of UTF-8; file systems take 255, and some names of ours begin or go on with it.
_NAME_BYTES = 200
#: Most characters of a text from a run's files that is handed to every watcher: a message, a path, a short name.
_MESSAGE, _PATH, _WORD = 2000, 4096, 200


@dataclass(frozen=True)
class RunRecord:
    """One run as it stood at the moment of reading.

    Attributes:
        name: Path of the run below ``root`` with forward slashes: ``x`` or ``demo/x``.
        root: Absolute path of the root folder.
        path: Absolute path of the run folder.
        state: ``queued``, ``preparing``, ``training``, ``evaluating``, ``finished``, ``stopped``, ``failed``,
            ``interrupted`` (its process is gone without a word) or ``broken`` (its files cannot be read).
        message: What it is doing, what went wrong, or why it is broken. This and other texts are cut where they are
            longer than any that is written here.
        method: Fine-tuning method; empty if broken, as the next two.
        backbone: Name of the architecture.
        source: Where the pictures come from.
        seed: Seed of the run; None if broken.
        step: Optimiser steps done; 0 where the status does not tell.
        total_steps: Optimiser steps in all; None before training.
        seconds_left: Estimate, in seconds, while it trains; otherwise None.
        images_per_second: Speed of training, in images a second, as last measured.
        updated: When the status was last written; None if never.
        submitted: When it entered the queue, in seconds since 1970; None unless queued.
        stopping: Whether it works and has been asked to stop.
        results: Content of ``results.json`` if finished, otherwise None.
    """

    name: str
    root: Path
    path: Path
    state: str
    message: str = ""
    method: str = ""
    backbone: str = ""
    source: str = ""
    seed: int | None = None
    step: int = 0
    total_steps: int | None = None
    seconds_left: float | None = None
    images_per_second: float | None = None
    updated: datetime | None = None
    submitted: float | None = None
    stopping: bool = False
    results: Mapping[str, Any] | None = None

    @property
    def progress(self) -> float:
        """Share of the optimiser steps that are done, 0 to 1."""
        if self.state == "finished":
            return 1.0
        return min(max(self.step / self.total_steps, 0.0), 1.0) if self.total_steps else 0.0

    @property
    def working(self) -> bool:
        """Whether a living process waits with the run or works on it."""
        return self.state in WORKING_STATES


def list_runs(root: Path = ROOT) -> list[RunRecord]:
    """Return the runs in a root folder and in the folders of it, one level deep, by name.

    Hidden folders and folders that hold no run are passed over. A root that does not exist holds none.

    Raises:
        RunError: if the root cannot be listed.
    """
    root = Path(root).resolve()
    records = (_read(root, path) for path in _run_folders(root))
    return sorted((record for record in records if record is not None), key=lambda record: record.name)


def read_run(name: str, root: Path = ROOT) -> RunRecord:
    """Return the run of a name below a root, one of those :func:`list_runs` returns.

    The name may come from outside, such as an address: it is looked up, never made a path of.

    Raises:
        RunError: if there is no such run.
    """
    root = Path(root).resolve()
    path = next((path for path in _run_folders(root) if path.relative_to(root).as_posix() == name), None)
    record = None if path is None else _read(root, path)
    if record is None:
        raise RunError(f"There is no run {name!r} in {root} any more; it was deleted, renamed or never there.")
    return record


def read_metrics(run: RunRecord) -> Metrics:
    """Return the curves of a run so far; empty ones before the first step.

    A last line that is still being written is left out.

    Raises:
        RunError: if the file cannot be read, is no plain file or larger than that of a run, or another line than the
            last is damaged: no JSON, values that are no numbers, or more of them than a run writes.
    """
    return read_curves(RunFolder(run.path).metrics_file)


def check_name(name: str) -> str:
    """Return a name if a run may bear it.

    Raises:
        RunError: unless it is 1 to 100 letters, digits, dashes, underscores and dots, with no dot at either end, and
            at most 200 bytes in UTF-8.
    """
    if not _NAME.fullmatch(name) or name.startswith(".") or name.endswith("."):
        raise RunError(
            f"{name!r} cannot be the name of a run; use up to 100 letters, digits, dashes, underscores and dots, "
            "with no dot at the beginning or the end."
        )
    if len(name.encode()) > _NAME_BYTES:
        raise RunError(
            f"{name!r} cannot be the name of a run; it takes {len(name.encode())} bytes of UTF-8, and at most "
            f"{_NAME_BYTES} are allowed. Choose a shorter one."
        )
    return name


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, be it whole or broken."""
    try:
        return any((path / mark).is_file() for mark in _MARKS)
    except OSError:  # a folder that cannot be looked into
        return False


def working_process(status: Mapping[str, Any], folder: RunFolder) -> psutil.Process | None:
    """Return the living process that wrote a status of work, or None if it is gone or the run is at rest.

    A process id given to another process since is told by its birth, which the status holds beside it. In a status
    that lacks it (of an earlier version, or written as the process ended) the id counts unless its process began later
    than the status by the clock: by more than a second, since the status tells whole ones.

    A stranger's status may name any process, so that the run must also be seen to be worked on. Whatever trains holds
    the run's lock: a command, a script, a notebook, a worker of torchrun or Ray. A job has none before it waits for its
    turn, and none for a moment when its turn has come; its command names the run.

    Args:
        status: What the run's folder tells.
        folder: The run's folder.
    """
    if status.get("state") not in WORKING_STATES:
        return None
    try:
        process = psutil.Process(int(status["pid"]))
        if status.get("born") is not None:
            ours = status["born"] == born(process.pid)
        else:
            ours = process.create_time() <= datetime.fromisoformat(status["updated"]).timestamp() + 1
        return process if ours and is_alive(process) and _works_on(process, folder) else None
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return None


def _works_on(process: psutil.Process, folder: RunFolder) -> bool:
    return is_job_of(command_of(process), folder.path) or folder.is_held()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a dead one that its parent has not asked after does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_known(pid: int, known: Callable[[psutil.Process], bool]) -> None:
    """Wait until a process that was just started bears its command, by which watchers see what it works on.

    The system starts a program before it shows its words: under load some hundredths of a second.

    Args:
        pid: Of the process; one that ends meanwhile is waited for no longer.
        known: Whether the process is what watchers look for.
    """
    until = time.monotonic() + SETTLE_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while not known(process) and is_alive(process) and time.monotonic() < until:
            time.sleep(0.005)


def stop_requested(folder: RunFolder, pid: Any) -> bool:
    """Whether the process of this id, which works on the run, has been asked to stop."""
    try:
        return read_whole(folder.path / STOP_REQUEST).decode("utf-8").strip() == str(pid)
    except (OSError, RunError, UnicodeDecodeError):
        return False


def _run_folders(root: Path) -> Iterator[Path]:
    for path in _folders(root):
        if is_run(path):
            yield path
        else:
            yield from (inner for inner in _folders(path, required=False) if is_run(inner))


def _is_shown(name: str) -> bool:
    """Whether a folder's name is neither hidden nor of bytes that are no Unicode, which no page can show."""
    return not name.startswith(".") and as_unicode(name) == name


def _folders(path: Path, *, required: bool = True) -> list[Path]:
    try:
        return [inner for inner in path.iterdir() if _is_shown(inner.name) and inner.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        if not required:
            return []
        raise RunError(f"The runs in {path} cannot be listed: {error.strerror}.") from error


def _read(root: Path, path: Path) -> RunRecord | None:
    """Read one run folder; None if it vanished meanwhile."""
    name = path.relative_to(root).as_posix()
    try:
        return _read_whole(name, root, path)
    except (StudioError, TypeError, ValueError, OverflowError, RecursionError, OSError) as error:
        if not path.is_dir():
            return None
        reason = str(error) if isinstance(error, StudioError) else f"Its status.json is damaged ({error})."
        return RunRecord(name, root, path, "broken", _cut(reason, _MESSAGE))


def _read_whole(name: str, root: Path, path: Path) -> RunRecord:
    folder = RunFolder(path)
    config = folder.config()
    status, state, message = _status(folder)
    updated = status.get("updated")
    working = state in WORKING_STATES
    return RunRecord(
        name=name,
        root=root,
        path=path,
        state=state,
        message=_cut(message, _MESSAGE),
        method=config.method,
        backbone=_cut(config.backbone.architecture, _WORD),
        source=_cut(config.data.source, _PATH),
        seed=config.engine.seed,
        step=_count(status.get("step", 0)),
        total_steps=_count(status["total_steps"]) if "total_steps" in status else None,
        seconds_left=_number(status.get("seconds_left")) if state == "training" else None,
        images_per_second=_number(status.get("images_per_second")),
        updated=None if updated is None else _time(updated),
        submitted=_number(status.get("submitted")) if state == "queued" else None,
        stopping=working and stop_requested(folder, status.get("pid")),
        results=_results(folder) if state == "finished" else None,
    )


def _time(text: str) -> datetime:
    """Return a time that can also be counted in seconds since 1970; raises ValueError or OverflowError."""
    found = datetime.fromisoformat(text)
    found.timestamp()
    return found


def _results(folder: RunFolder) -> dict[str, Any]:
    """Return a run's results.

    Raises:
        RunError: unless every split and group has its accuracy, interval and count as numbers, and the worst group a
            name that can be shown.
    """
    found = folder.read_json("results.json", "splits")
    try:
        for split in found["splits"].values():
            measures = [rate[name] for rate in (split, *split.get("groups", ())) for name in _RATE]
            if split.get("worst_group_accuracy") is not None:
                measures.append(split["worst_group_accuracy"])
            if not all(is_number(measure) for measure in measures):
                raise ValueError("a measure is no number")
            if len((split.get("worst_group") or "").encode()) > _MESSAGE:
                raise ValueError("a name is too long")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder.path / 'results.json'} does not hold what it should; it is damaged.") from error
    return found


def _status(folder: RunFolder) -> tuple[dict[str, Any], str, str]:
    """Return a run's status, its honest state and the message to it."""
    status = folder.status()
    alive = working_process(status, folder) is not None
    if status.get("state") in WORKING_STATES and not alive:
        status = folder.status()  # its last words may have come between the reading and the asking
        alive = working_process(status, folder) is not None
    state = status.get("state")
    if state is None:
        return status, "interrupted", "It has not begun; resume begins it."
    if state in WORKING_STATES and not alive:
        return status, "interrupted", f"Its process ended while {state}; resume goes on from the last checkpoint."
    if state not in (*WORKING_STATES, *_END_STATES):
        raise RunError(f"{folder.path / 'status.json'} tells an unknown state, {state!r}; the run folder is damaged.")
    return status, state, str(status.get("message", ""))


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return None if number is None or not math.isfinite(number) else number


def _count(value: Any) -> int:
    number = int(value)
    if abs(number) > LARGEST_INTEGER:
        raise ValueError("a count is too large")
    return number


def _cut(text: str, most: int) -> str:
    """Return text that any page can show: so long at most, with escapes for what is no Unicode."""
    text = as_unicode(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
