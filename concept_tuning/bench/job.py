"""One cell of a bench as a job by itself: ``python -m concept_tuning.bench.job`` reads it from standard input."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from concept_tuning.bench.cells import Cell, note_failure
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

    from concept_tuning.engine.session import resume_run, start_run
    from concept_tuning.engine.trainer import Stopped
    from concept_tuning.progress import ConsoleWatcher

    torch.set_num_threads(job.threads)
    path, watcher = Path(job.path), ConsoleWatcher(quiet=True)
    try:
        if (path / "config.json").is_file():
            while _in_use(RunFolder.open(path)):  # left over from a bench that was killed, maybe on another machine
                time.sleep(_WAIT_SECONDS)
            folder = resume_run(path, watcher, splits=job.splits)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = start_run(RunConfig.from_dict(json.loads(job.config)), path, watcher, splits=job.splits)
        folder.refuse_links()  # one that was finished before was not looked through
    except MachineError:  # its status says what; the bench begins it again some times
        return
    except StudioError as error:
        note_failure(path, str(error), for_good=isinstance(error, (ConfigError, DivergedError)))
        return
    except Stopped:  # by the bench, which was stopped itself; the run can be resumed
        return
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    if not job.splits:
        folder.best_weights.unlink(missing_ok=True)


def _in_use(folder: RunFolder) -> bool:
    """Whether a process works on a run; its lock tells it of other machines too, whose process ids say nothing here."""
    try:
        with folder.locked():
            return False
    except RunError as error:
        return isinstance(error.__cause__, Timeout)  # else it cannot be locked at all, as resuming it will say


if __name__ == "__main__":
    do_job(Job(**json.load(sys.stdin)))
