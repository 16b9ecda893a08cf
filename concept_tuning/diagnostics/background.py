"""Diagnoses that are made in processes of their own: start, watch, stop, remove.

A job is the command ``concept-tuning diagnose`` in a session of its own, which goes on when its starter ends. Beside
the folder of the diagnosis, ``diagnoses/NAME`` below a root, lie its record ``NAME.job.json`` and its output
``NAME.log``; all that is known of a job is in these files, which may be a stranger's: a process that a record names is
believed and stopped only if its command makes that very diagnosis, and what is read is small and no link. Nothing here
imports torch but :func:`start_diagnosis`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from concept_tuning.engine.processes import born, command_of, is_ours
from concept_tuning.engine.records import RunRecord, check_name, is_alive, wait_until_known
from concept_tuning.engine.runs import check_size, read_whole, write_atomically
from concept_tuning.engine.turns import interrupt_signal, run_error
from concept_tuning.errors import RunError

#: Folder of the diagnoses below the root of the runs.
FOLDER = "diagnoses"
#: The command; the runs and its options follow.
COMMAND = (sys.executable, "-m", "concept_tuning", "diagnose")
_RECORD, _LOG, _OVERVIEW = ".job.json", ".log", "diagnosis.json"
_STAGE = re.compile(r"^ *(\d{1,9}) s  (\S.*)$")
#: Most bytes of a record, bytes of a log that are read, which are its last, and characters of a message. Watchers read
#: all of them every few seconds.
_MOST_RECORD, _MOST_LOG, _MESSAGE = 1 << 20, 1 << 16, 2000
#: Most analyses that a record may tell of; there are some dozens.
_MOST_TOTAL = 10_000
#: How long a process that is stopped may take to write down what it has.
_KILL_SECONDS = 20.0


@dataclass(frozen=True)
class DiagnosisJob:
    """A diagnosis that was started here, as it stood at the moment of reading.

    Attributes:
        name: Of its folder.
        path: Folder of the diagnosis, which appears while it is made.
        log: Its output.
        runs: Names of the runs.
        state: ``working``, ``finished``, ``stopped`` or ``failed``.
        message: The analysis that is being made, or what went wrong.
        begun: Analyses begun so far, the report counted as one, as far as the last 64 KiB of its output tell.
        total: Analyses in all.
        seconds: Since it was started, up to its last word, in seconds.
        started: When it was started, in seconds since 1970.
    """

    name: str
    path: Path
    log: Path
    runs: tuple[str, ...]
    state: str
    message: str
    begun: int
    total: int
    seconds: float
    started: float

    @property
    def can_be_opened(self) -> bool:
        """Whether it has ended and something of it can be looked at; it may have been stopped on the way."""
        return self.state in ("finished", "stopped") and (self.path / _OVERVIEW).is_file()

    @property
    def progress(self) -> float:
        """Share of the analyses that are done, 0 to 1."""
        return 1.0 if self.state == "finished" else min(max(0, self.begun - 1) / max(1, self.total), 1.0)


def start_diagnosis(
    runs: Sequence[RunRecord], root: Path, name: str, *, images: int = 500, only: Sequence[str] = ()
) -> DiagnosisJob:
    """Start a process that diagnoses finished runs side by side.

    Args:
        runs: Finished runs.
        root: Folder of the runs.
        name: Of the new diagnosis.
        images: Most pictures looked at.
        only: Names of the analyses to make; empty: all.

    Raises:
        ConfigError: for an unknown analysis.
        RunError: for no run or one that is not finished, a name that is not allowed or taken, a folder that cannot be
            written, or if the process cannot start; nothing is left behind.
    """
    from concept_tuning.diagnostics.diagnose import choose_analyses

    check_name(name)
    total = len(choose_analyses(only)) + 1
    unfinished = [run.name for run in runs if run.state != "finished"]
    if not runs or unfinished:
        raise RunError(f"Only finished runs can be diagnosed; {unfinished[0] if unfinished else 'none'} is chosen.")
    folder = Path(root).resolve() / FOLDER
    record, log, path = folder / f"{name}{_RECORD}", folder / f"{name}{_LOG}", folder / name
    values: dict[str, Any] = {"runs": [run.name for run in runs], "total": total, "started": time.time()}
    command = [*COMMAND, *(str(run.path) for run in runs), "--out", str(path), "--images", str(images)]
    command += ["--only", *only] if only else []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            raise FileExistsError
        record.open("x").close()  # of two that start at once, one is refused
    except FileExistsError as error:
        raise RunError(f"There is a diagnosis {name!r} already; choose another name.") from error
    except OSError as error:
        raise run_error(f"Cannot work in {folder}", error) from error
    try:
        _begin(command, path, log, record, values)
    except BaseException as error:
        record.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise run_error("The diagnosis cannot start", error) from error
        raise
    return _read(record)


def is_taken(root: Path, name: str) -> bool:
    """Return whether a new diagnosis below a root cannot be called so: there is its folder, its record or a link."""
    folder = Path(root).resolve() / FOLDER
    return any(os.path.lexists(folder / file) for file in (name, f"{name}{_RECORD}"))


def list_diagnoses(root: Path) -> list[DiagnosisJob]:
    """Return the diagnoses started below a root, the newest first; damaged records and odd names are passed over."""
    found: list[DiagnosisJob] = []
    for record in (Path(root).resolve() / FOLDER).glob(f"*{_RECORD}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, RunError):
            check_name(record.name.removesuffix(_RECORD))
            found.append(_read(record))
    return sorted(found, key=lambda job: -job.started)


def refuse_while_diagnosed(run: RunRecord) -> None:
    """Raise RunError if a diagnosis is being made of a run, which would be lost without its files."""
    for job in list_diagnoses(run.root):
        if job.state == "working" and run.name in job.runs:
            raise RunError(f"{run.name} is being diagnosed ({job.name}); wait for the end of that, or stop it first.")


def stop_diagnosis(job: DiagnosisJob) -> None:
    """End a diagnosis that is being made; the analyses that are done can be looked at until it is removed.

    Raises:
        RunError: if it does not work, its record is gone or damaged or names a process that does not make this
            diagnosis, or it belongs to another user.
    """
    record = job.log.with_name(f"{job.name}{_RECORD}")
    values = _values(record)
    process = _process(values, job.path)
    if process is None:
        raise RunError(f"The diagnosis {job.name} cannot be stopped: it does not work any more.")
    try:
        write_atomically(record, json.dumps(values | {"stopped": True}) + "\n")
        try:
            family = [process, *process.children(recursive=True)]
            process.send_signal(interrupt_signal())
        except (psutil.AccessDenied, OSError):
            with contextlib.suppress(OSError):  # it goes on, and is not to be called stopped when it has finished
                write_atomically(record, json.dumps(values) + "\n")
            raise
        for each in psutil.wait_procs(family, timeout=_KILL_SECONDS)[1]:
            each.kill()
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied as error:
        raise RunError(f"The diagnosis {job.name} cannot be stopped: its process is another user's.") from error
    except OSError as error:
        raise run_error(f"The diagnosis {job.name} cannot be stopped", error) from error


def delete_diagnosis(job: DiagnosisJob) -> None:
    """Remove a diagnosis with its record and output; raises RunError while it works or if files stay."""
    record = job.log.with_name(f"{job.name}{_RECORD}")
    if record.is_file() and _process(_readable(record), job.path) is not None:
        raise RunError(f"The diagnosis {job.name} is being made; stop it first.")
    shutil.rmtree(job.path, ignore_errors=True)
    if job.path.exists():
        raise RunError(f"Not all files of the diagnosis could be removed; what is left is in {job.path}.")
    for file in (job.log, record):
        file.unlink(missing_ok=True)


def _begin(command: Sequence[str], path: Path, log: Path, record: Path, values: Mapping[str, Any]) -> None:
    """Start the process and note it in the record; one that cannot be noted is ended, since nobody would see it."""
    process = _launch(command, log)
    try:
        wait_until_known(process.pid, lambda started: _makes(started, path))
        # The time of birth is None if it ended at once.
        write_atomically(record, json.dumps({**values, "pid": process.pid, "born": born(process.pid)}) + "\n")
    except BaseException:
        process.kill()
        raise


def _launch(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with log.open("wb") as output:
        # No shell; a list of this Python, fixed words, folders of runs and checked names of analyses.
        process = subprocess.Popen(  # nosec B603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"},
            **detached,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # so that no dead child is left over
    return process


def _values(record: Path) -> dict[str, Any]:
    """Return what a record tells; raises RunError if it is gone, damaged, no plain file or large."""
    try:
        return dict(json.loads(read_whole(record, _MOST_RECORD)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        name = record.name.removesuffix(_RECORD)
        raise RunError(f"The record of the diagnosis {name} is gone or damaged; reload the page.") from error


def _readable(record: Path) -> dict[str, Any]:
    """Return what a record tells, nothing if it cannot be read."""
    try:
        return _values(record)
    except RunError:
        return {}


def _process(values: Mapping[str, Any], path: Path) -> psutil.Process | None:
    """Return the living process of a record if it makes the diagnosis in a folder: the record may be a stranger's.

    A process id that was given away since is of another birth; one whose birth cannot be told is not believed.
    """
    try:
        process = psutil.Process(int(values["pid"]))
        # Earlier versions wrote the time of birth by the clock.
        same = values["born"] is not None and values["born"] in (born(process.pid), process.create_time())
        return process if same and is_alive(process) and _makes(process, path) else None
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return None


def _makes(process: psutil.Process, path: Path) -> bool:
    """Whether a process's command is ``concept-tuning diagnose`` that writes the diagnosis in this very folder."""
    command = command_of(process)
    named = any(first == "--out" and Path(second) == path for first, second in pairwise(command))
    return named and "diagnose" in command and is_ours(command)


def _read(record: Path) -> DiagnosisJob:
    name = record.name.removesuffix(_RECORD)
    values = _values(record)
    log, path = record.with_name(f"{name}{_LOG}"), record.with_name(name)
    started, total = float(values["started"]), int(values["total"])
    if not math.isfinite(started) or not 0 <= total <= _MOST_TOTAL:
        raise ValueError("a record tells when it was started, and how many analyses there are")
    working = _process(values, path) is not None  # asked before the files are read, which an ending process writes last
    lines = _last_lines(log)
    stages = [found for line in lines if (found := _STAGE.match(line))]
    spoken = int(stages[-1][1]) if stages else 0.0
    state, message = "working", stages[-1][2] if stages else "Loading the runs"
    if not working:
        state, message = _ending(values, path, lines)
    return DiagnosisJob(
        name=name,
        path=path,
        log=log,
        runs=_names(values["runs"]),
        state=state,
        message=message if len(message) <= _MESSAGE else f"{message[: _MESSAGE - 1]}…",
        begun=len(stages),
        total=total,
        seconds=time.time() - started if working else spoken,
        started=started,
    )


def _last_lines(log: Path) -> list[str]:
    """Return the last lines of a log; none if it cannot be read or is no plain file, as a link to a file elsewhere."""
    try:
        size = check_size(log, sys.maxsize)
        with log.open("rb") as file:
            file.seek(max(0, size - _MOST_LOG))
            lines = file.read(_MOST_LOG).decode("utf-8", errors="replace").splitlines()
    except (OSError, RunError):
        return []
    return lines[1:] if size > _MOST_LOG else lines  # the first of a part is seldom whole


def _names(value: Any) -> tuple[str, ...]:
    """Return the names of a record's runs; raises TypeError for anything else."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("the runs of a record are a list of names")
    return tuple(value)


def _ending(values: Mapping[str, Any], path: Path, lines: Sequence[str]) -> tuple[str, str]:
    errors = [line for line in lines if line.startswith(("Error: ", "Unexpected error: "))]
    if errors:
        return "failed", errors[-1].removeprefix("Error: ")
    there = (path / _OVERVIEW).is_file()
    if values.get("stopped"):
        done = "; the analyses that were done can be looked at" if there else " before there was anything to look at"
        return "stopped", f"Stopped{done}"
    if there:
        return "finished", "Finished"
    return "failed", "Its process ended without a word; there may have been too little memory."
