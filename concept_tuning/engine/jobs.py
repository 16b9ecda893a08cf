"""Runs that train in processes of their own: start, stop, resume, delete, rename.

A job is the command ``concept-tuning work RUN --root ROOT`` in a session of its own, with its output in the run's
``process.log``. It depends on nobody: a closed tab or a server that ends leaves it alone, and all that is known of
it is in its run folder (:mod:`.records`).

Guaranteed: of the jobs of one root folder at most one trains at a time, by a lock of the operating system that
falls with its holder; a job that waits begins only when no living job that was submitted earlier waits. Not
covered: jobs of another root, and ``train`` or ``resume`` typed into a shell, which do not queue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from concept_tuning.config import RunConfig
from concept_tuning.engine.processes import command_of, is_job_of, is_ours
from concept_tuning.engine.records import (
    ROOT,
    SETTLE_SECONDS,
    STOP_REQUEST,
    WORKING_STATES,
    RunRecord,
    check_name,
    is_alive,
    is_run,
    read_run,
    stop_requested,
    wait_until_known,
    working_process,
)
from concept_tuning.engine.runs import RunFolder, default_run_dir, write_atomically
from concept_tuning.engine.turns import controlled, interrupt_signal, run_error, status_or_empty, write_status
from concept_tuning.errors import RunError

#: Output of a job, in its run folder.
LOG = "process.log"
_OWN_FILES = ("config.json", "versions.json", "status.json", "split.json", "metrics.jsonl")
_KILL_SECONDS = 10.0


def start(config: RunConfig, root: Path = ROOT, name: str | None = None) -> RunRecord:
    """Queue a new run and start the process that will train it.

    Args:
        config: The settings; paths in them are made absolute.
        root: Folder of the runs; made if it does not exist.
        name: Name of the run's folder in the root; None: a telling one.

    Raises:
        RunError: if the name is not allowed or taken, the root lies inside the pictures' folder, the folder cannot be
            written (a full disk, no permission) or the process cannot start; no folder is left behind.
    """
    if name is not None:
        check_name(name)
    # This imports torch, which the other controls do without.
    from concept_tuning.engine.session import refuse_inside_source, with_absolute_paths

    config = with_absolute_paths(config)
    refuse_inside_source(config, Path(root))
    root = Path(root).resolve()
    with controlled(root, make=True):
        path = root / (name or default_run_dir(config, root=root).name)
        _refuse_taken(path)
        _begin(path, config)
    return read_run(path.name, root)


def start_together(configs: Mapping[str, RunConfig], root: Path = ROOT) -> list[RunRecord]:
    """Queue new runs by their names, all of them or none.

    Raises:
        RunError: as :func:`start`, for any of them; no folder is left behind.
    """
    for name in configs:
        check_name(name)
    from concept_tuning.engine.session import refuse_inside_source, with_absolute_paths

    configs = {name: with_absolute_paths(config) for name, config in configs.items()}
    for config in configs.values():
        refuse_inside_source(config, Path(root))
    root = Path(root).resolve()
    begun: list[Path] = []
    with controlled(root, make=True):
        for name in configs:
            _refuse_taken(root / name)
        try:
            for name, config in configs.items():
                _begin(root / name, config)
                begun.append(root / name)
        except BaseException:
            for path in begun:
                _take_back(path)
            raise
    return [read_run(name, root) for name in configs]


def resume(run: RunRecord) -> RunRecord:
    """Queue a run again that was stopped, interrupted or failed; it goes on from its last checkpoint.

    Raises:
        RunError: if it works already, is finished or broken, has vanished, holds links, or the process cannot start.
    """
    with controlled(run.root):
        now = _at_rest(run, "resumed")
        if now.state in ("finished", "broken"):
            raise RunError(f"The run {now.name} cannot be resumed: it is {now.state}. {now.message}".rstrip())
        folder = RunFolder(now.path)
        folder.refuse_links()
        before = folder.status()
        # Nobody's yet: by this process's id, a disk that is full from here on would leave it queued for ever.
        fresh = {"state": "queued", "message": "Waiting its turn", "submitted": time.time(), "pid": None}
        write_status(folder, **(before | fresh))
        try:
            _launch(folder, now.root)
        except BaseException as error:
            with contextlib.suppress(OSError):
                write_status(folder, **(before | {"state": "failed", "message": str(error)}))
            raise
    return read_run(run.name, run.root)


def request_stop(run: RunRecord) -> psutil.Process:
    """Ask a run's process to stop and return it at once; asked twice, it is told once.

    A training run ends its step, writes a checkpoint and ends; a queued one leaves the queue.

    Raises:
        RunError: if no process works on the run, or it belongs to another user.
    """
    with controlled(run.root):
        now = read_run(run.name, run.root)
        folder = RunFolder(now.path)
        process = working_process(status_or_empty(folder), folder)
        if process is None:
            raise RunError(f"The run {now.name} cannot be stopped: no process works on it, it is {now.state}.")
        _refuse_foreign(process, now.name)
        if not stop_requested(
            folder, process.pid
        ):  # a second interrupt would end the process before its checkpoint is written
            write_atomically(now.path / STOP_REQUEST, str(process.pid))
            try:
                process.send_signal(interrupt_signal())
            except psutil.AccessDenied as error:
                (now.path / STOP_REQUEST).unlink(missing_ok=True)
                raise RunError(f"The run {now.name} cannot be stopped: its process is another user's.") from error
            except psutil.NoSuchProcess:
                pass  # it ended by itself
    return process


def _refuse_foreign(process: psutil.Process, name: str) -> None:
    """Raise RunError unless a process runs this package: the id stands in a file that anyone may have written."""
    if not is_ours(command_of(process)):
        raise RunError(
            f"The run {name} cannot be stopped: its status.json names process {process.pid}, which is none of "
            "Concept-Tuning Studio. End it by hand if it is yours."
        )


def stop(run: RunRecord, *, grace: float = 60.0) -> RunRecord:
    """Stop a run and wait until its process is gone.

    Args:
        run: A run that is queued or worked on.
        grace: Seconds the process has to end its step and write a checkpoint; then it is killed, and a resume
            goes on from the last checkpoint before.

    Raises:
        RunError: as :func:`request_stop`, or if the process cannot be killed.
    """
    process = request_stop(run)
    killed = not _wait(process, grace)
    if killed:
        _kill(process, run.name)
    with controlled(run.root):
        folder = RunFolder(read_run(run.name, run.root).path)
        status = status_or_empty(folder)
        if status.get("state") in WORKING_STATES and status.get("pid") == process.pid:
            how = "by force, from the last checkpoint before" if killed else "before it had begun"
            write_status(folder, **(status | {"state": "stopped", "message": f"Stopped {how}", "seconds_left": None}))
        if stop_requested(folder, process.pid):  # not that of a process that has begun since
            (folder.path / STOP_REQUEST).unlink(missing_ok=True)
    return read_run(run.name, run.root)


def delete(run: RunRecord) -> None:
    """Remove a run's folder with all that is in it; a broken one too.

    Raises:
        RunError: while a process works on it, if it is no run or a link out of the root, or if the files cannot be
            removed.
    """
    with controlled(run.root):
        now = _at_rest(run, "deleted")
        if sum((now.path / mark).exists() for mark in _OWN_FILES) < 2:
            raise RunError(f"{now.path} holds too little of a run to be sure that it is one; remove it by hand.")
        doomed = now.root / f".deleting-{time.time_ns()}"  # whatever the length of its name
        now.path.rename(doomed)  # gone in one step for every watcher
    shutil.rmtree(doomed, ignore_errors=True)
    if doomed.exists():
        raise RunError(f"Not all files of the run {now.name} could be removed; what is left is in {doomed}.")


def rename(run: RunRecord, new: str) -> RunRecord:
    """Give a run another name in the folder it lies in.

    Raises:
        RunError: while a process works on it, or if the name is not allowed (see :func:`check_name`) or taken.
    """
    with controlled(run.root):
        now = _at_rest(run, "renamed")
        target = now.path.with_name(check_name(new))
        _refuse_taken(target)
        now.path.rename(target)
    return read_run(target.relative_to(now.root).as_posix(), now.root)


def _launch(folder: RunFolder, root: Path) -> None:
    """Start the process of a queued run and note its id; raises :class:`RunError` if it cannot start."""
    command = [sys.executable, "-m", "concept_tuning", "work", str(folder.path), "--root", str(root)]
    (folder.path / STOP_REQUEST).unlink(missing_ok=True)
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        with (folder.path / LOG).open("ab") as log:
            # No shell; a list of this Python, fixed words and the folder of a run that was looked up.
            process = subprocess.Popen(  # nosec B603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TQDM_DISABLE": "1"},  # stages into the log, no progress bar
                **detached,
            )
    except OSError as error:
        raise run_error("The training process cannot start", error) from error
    threading.Thread(target=process.wait, daemon=True).start()  # so that no dead child is left over
    try:
        wait_until_known(process.pid, lambda started: is_job_of(command_of(started), folder.path))
        write_status(folder, **(folder.status() | {"pid": process.pid}))
    except BaseException:
        process.kill()
        raise


def _begin(path: Path, config: RunConfig) -> None:
    """Make a queued run's folder and start its process, or leave nothing behind; the caller holds the controls."""
    draft = path.with_name(f".starting-{path.name}")
    try:
        folder = RunFolder.create(draft, config)
        write_status(folder, state="queued", message="Waiting its turn", submitted=time.time())
        draft.rename(path)  # a run is seen with its status or not at all
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    try:
        with RunFolder(path).locked():  # somebody works on it, though the status names a process only when there is one
            _launch(RunFolder(path), path.parent)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _take_back(path: Path) -> None:
    """Undo :func:`_begin` while the controls are still held, for which the new process waits."""
    folder = RunFolder(path)
    process = working_process(status_or_empty(folder), folder)
    if process is not None:
        _kill(process, path.name)
    shutil.rmtree(path, ignore_errors=True)


def _at_rest(run: RunRecord, done: str) -> RunRecord:
    """Read a run again before something is done to it.

    Raises:
        RunError: if a process works on it, or it is not a folder of its own below its root.
    """
    now = read_run(run.name, run.root)
    folder = RunFolder(now.path)
    if now.path.resolve() != now.path:
        raise RunError(f"The run {now.name} cannot be {done}: it is a link to {now.path.resolve()}.")
    if now.working or working_process(status_or_empty(folder), folder) is not None:
        raise RunError(f"The run {now.name} cannot be {done} while a process works on it; stop it first.")
    until = time.monotonic() + SETTLE_SECONDS  # a killed process is gone a moment before its lock falls
    while True:
        try:
            with folder.locked():  # held by a process that has not told of its work yet
                return now
        except RunError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.1)


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        kind = "a run" if is_run(path) else "something else"
        raise RunError(f"The name {path.name!r} is taken by {kind} in {path.parent}; choose another.")


def _wait(process: psutil.Process, seconds: float) -> bool:
    """Wait for a process to end; return whether it did."""
    until = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


def _kill(process: psutil.Process, name: str) -> None:
    """End a process and the loader processes below it at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    if not _wait(process, _KILL_SECONDS):
        raise RunError(f"The process {process.pid} of the run {name} does not end, not even by force.")
