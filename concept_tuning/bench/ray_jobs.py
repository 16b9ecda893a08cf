"""Where the cells of a bench are run: as tasks of a Ray cluster, on any of its machines."""

from __future__ import annotations

import dataclasses
import logging
import platform
import socket
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from concept_tuning.bench.cells import Cell, note_failure, state_of
from concept_tuning.bench.job import Job, do_job
from concept_tuning.bench.runner import TRIES, Workers, died
from concept_tuning.engine.runs import write_atomically
from concept_tuning.errors import ConfigError, RunError

_MARKER = ".seen-by-ray"
_ANSWER_SECONDS = 5.0
_FAREWELL_SECONDS = 20.0


def ray_workers(address: str, out: Path) -> Workers:
    """Connect to a Ray cluster and return what runs a bench's cells on it.

    Each cell is a task in a process of its own; it takes as many CPUs as it has computing threads (``threads`` of its
    settings, else 1) and, where the cluster has GPUs and the settings allow one, a whole GPU. A task whose worker dies
    is begun again elsewhere and goes on from the cell's last checkpoint, :data:`TRIES` times in all.

    Args:
        address: ``auto`` (the cluster that this machine belongs to) or HOST:PORT of the cluster's head.
        out: The bench's folder, which must be at the same path on every machine of the cluster.

    Raises:
        ConfigError: if Ray is not installed or no cluster answers there. The callable raises RunError if a machine does
            not see the folder or none has enough CPUs.
    """
    ray = _connected(address)
    return lambda cells: _in_tasks(ray, cells, out)


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            'A bench on Ray needs ray, which is not installed: pip install "concept-tuning-studio[ray]".'
        ) from error
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdecimal() and "/" not in host):
        raise ConfigError(f"{address!r} is no address of a Ray cluster; give auto or HOST:PORT.")
    try:
        if host:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        ray.init(address, ignore_reinit_error=True, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise ConfigError(
            f"No Ray cluster answers at {address!r} ({error}). Start one with `ray start --head` or give its HOST:PORT."
        ) from error
    return ray


def _in_tasks(ray: Any, cells: Sequence[Cell], out: Path) -> Iterator[Cell]:
    """Run cells as tasks and yield each whose task has ended, however it ended; stop the others if the caller does."""
    marker, token = out.resolve() / _MARKER, uuid.uuid4().hex
    write_atomically(marker, token)
    task = ray.remote(max_calls=1, max_retries=TRIES - 1)(_run_cell)
    waiting: dict[Any, Cell] = {}
    try:
        for cell in cells:
            needs = _needs(ray, cell)
            job = _job(cell, threads=needs["num_cpus"])
            waiting[task.options(**needs).remote(job, str(marker), token)] = cell
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            cell = waiting.pop(done)
            _take_result(ray, done, cell)
            yield cell
    finally:
        for left in waiting:
            ray.cancel(left)
        if waiting:  # time to write their checkpoints
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_FAREWELL_SECONDS)
        marker.unlink(missing_ok=True)


def _needs(ray: Any, cell: Cell) -> dict[str, int]:
    """Return what a cell takes of a machine; raises :class:`RunError` if no machine has it."""
    engine = cell.config.engine
    threads = engine.threads or 1
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(engine.device != "cpu" and any(node.get("GPU", 0) >= 1 for node in has))
    if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in has):
        raise RunError(
            f"A cell of this bench takes {threads} CPUs (its setting threads){' and a GPU' if gpus else ''}, and no "
            "machine of the Ray cluster has that. Lower threads, or start Ray there with --num-cpus."
        )
    return {"num_cpus": threads, "num_gpus": gpus}


def _job(cell: Cell, *, threads: int) -> Job:
    """Return a cell's job with the paths in it made absolute here: a worker begins in another folder."""
    from concept_tuning.engine.session import with_absolute_paths

    return Job.of(dataclasses.replace(cell, config=with_absolute_paths(cell.config)), threads=threads)


def _run_cell(job: Job, marker: str, token: str) -> str:
    """Run a cell in this worker, if it works on the same folder as the bench; return why it does not, or nothing."""
    try:
        seen = Path(marker).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen != token:
        return (
            f"{platform.node()}, a machine of the Ray cluster, does not see the bench's folder {Path(marker).parent}. "
            "Put it on a disk that all machines share, at the same path, and name it with --out."
        )
    if state_of(Path(job.path)) == "open":  # its first worker may have died after the work was done
        do_job(job)
    return ""


def _take_result(ray: Any, done: Any, cell: Cell) -> None:
    """Note what ended a cell's task; raises :class:`RunError` if its machine does not see the folder."""
    try:
        trouble = ray.get(done)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        if cell.state == "open":
            note_failure(cell.path, died(cell), for_good=False)
    except ray.exceptions.RayError:  # the cell stays open, and the bench begins it again
        return
    else:
        if trouble:
            raise RunError(trouble)
