"""One cell of a bench as a job by itself, for a process of its own on this machine or another."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from concept_tuning.bench.cells import Cell, note_failure, remove_unneeded
from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import ConfigError, DivergedError, MachineError, RunError, StudioError

_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What another process needs to run a cell; plain values, so that it can be sent.

    Attributes:
        config: The run's settings, as JSON.
        path: Its run folder, absolute.
        splits: Splits that are predicted in the end.
        threads: Computing threads.
    """

    config: str
    path: str
    splits: Sequence[str]
    threads: int

    @classmethod
    def of(cls, cell: Cell, *, threads: int) -> Job:
        """Return the job of a cell."""
        return cls(
            config=json.dumps(cell.config.to_dict()),
            path=str(cell.path.resolve()),
            splits=cell.splits,
            threads=threads,
        )


def do_job(job: Job) -> None:
    """Start or resume a cell's run in this process; what is wrong with it is noted beside its folder.

    A trial keeps its records and not its weights, a final run its best weights and no checkpoint.
    """
    import torch

    from concept_tuning.engine.trainer import Stopped

    torch.set_num_threads(job.threads)
    path = Path(job.path)
    try:
        folder = _learnt(job, path)
        folder.refuse_links()  # one that was finished before was not looked through
    except MachineError:  # its status says what; the bench begins it again some times
        return
    except StudioError as error:
        with contextlib.suppress(RunError):  # on a full disk; the bench says so when it has begun it some times
            note_failure(path, str(error), for_good=isinstance(error, (ConfigError, DivergedError)))
        return
    except Stopped:  # by the bench, which was stopped itself; the run can be resumed
        return
    remove_unneeded(path, job.splits)


def _learnt(job: Job, path: Path) -> RunFolder:
    """Start or resume a cell's run, once no other process works on it.

    Such a process is left over from a bench that was killed, maybe on another machine. It may begin the run at the same
    moment, and several may wait for it.
    """
    from concept_tuning.engine.session import resume_run, start_run
    from concept_tuning.progress import ConsoleWatcher

    watcher, begun_file = ConsoleWatcher(quiet=True), path / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        begun = begun_file.is_file()
        try:
            if begun:
                return resume_run(path, watcher, splits=job.splits)
            return start_run(RunConfig.from_dict(json.loads(job.config)), path, watcher, splits=job.splits)
        except RunError as error:
            begun_by_another = not begun and begun_file.is_file()
            if not (begun_by_another or isinstance(error.__cause__, Timeout)):
                raise
        time.sleep(_WAIT_SECONDS)
