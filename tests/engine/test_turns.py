"""A job's turn and the lock of the controls, in this process: how a job ends is told, and the queue goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from concept_tuning.config import RunConfig
from concept_tuning.engine import turns
from concept_tuning.engine.records import STOP_REQUEST
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.turns import controlled, turn, write_status
from concept_tuning.errors import RunError


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """Return a run that is queued, and put the handlers of signals back that a turn sets."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    write_status(folder, state="queued", submitted=2000.0, step=3)
    yield folder
    for number, handler in handlers.items():
        signal.signal(number, handler)


def in_turn(run: RunFolder, work: Callable[[], None]) -> None:
    with turn(run.path, run.path.parent):
        work()


def no_work() -> None:
    raise AssertionError("it had a turn")


def test_a_finished_run_gets_no_turn(run: RunFolder) -> None:
    write_status(run, state="finished", message="Finished")
    with pytest.raises(RunError, match="is finished already"):
        in_turn(run, no_work)
    assert (run.status()["state"], run.status()["message"]) == ("finished", "Finished")


def test_a_job_asked_to_stop_before_it_could_hear_does_not_begin(run: RunFolder) -> None:
    (run.path / STOP_REQUEST).write_text(str(os.getpid()))
    with pytest.raises(KeyboardInterrupt):
        in_turn(run, no_work)
    assert run.status()["state"] == "stopped"


@pytest.mark.parametrize(
    ("error", "asked", "state", "message"),
    [
        (ValueError("Three words here."), False, "failed", "Three words here."),
        (MemoryError(), False, "failed", "MemoryError"),
        (KeyboardInterrupt(), False, "stopped", "Stopped; resume goes on from here"),
        (RuntimeError("a loader was interrupted"), True, "stopped", "Stopped; resume goes on from here"),
    ],
)
def test_a_job_that_breaks_off_has_it_in_its_status(
    error: BaseException, asked: bool, state: str, message: str, run: RunFolder
) -> None:
    def work() -> None:
        assert run.status()["state"] == "preparing"
        if asked:
            (run.path / STOP_REQUEST).write_text(str(os.getpid()))
        raise error

    with pytest.raises(type(error)):
        in_turn(run, work)
    assert (run.status()["state"], run.status()["message"]) == (state, message)
    with FileLock(run.path.parent / ".queue.lock", timeout=0):  # the next one's turn
        pass


@pytest.mark.parametrize(
    "status", [{"state": "failed", "message": "The disk is full."}, {"state": "training", "pid": 1, "message": "Work"}]
)
def test_a_status_that_tells_the_end_or_is_anothers_is_left_alone(status: dict[str, object], run: RunFolder) -> None:
    def work() -> None:
        write_status(run, **status)
        raise ValueError("other words")

    with pytest.raises(ValueError, match="other words"):
        in_turn(run, work)
    assert status.items() <= run.status().items()


def test_a_job_gives_the_queue_to_one_that_was_submitted_earlier(run: RunFolder, monkeypatch) -> None:
    earlier = RunFolder.create(run.path.parent / "earlier", RunConfig())
    write_status(earlier, state="queued", submitted=1000.0)
    taken = []

    def the_earlier_takes_it(seconds: float) -> None:
        with FileLock(run.path.parent / ".queue.lock", timeout=0):
            taken.append(run.status()["state"])
        write_status(earlier, state="stopped")

    monkeypatch.setattr(turns.time, "sleep", the_earlier_takes_it)
    with earlier.locked(), turn(run.path, run.path.parent):
        assert taken == ["queued"]


def test_a_control_that_waits_too_long_says_so_and_leaves_the_others_work_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(turns, "_CONTROL_SECONDS", 0.1)
    RunFolder.create(tmp_path / ".starting-one", RunConfig())
    with FileLock(tmp_path / ".control.lock"):
        with pytest.raises(RunError, match=r"changing runs in .* for too long; try again"), controlled(tmp_path):
            raise AssertionError("two controls act at a time")
        assert (tmp_path / ".starting-one").is_dir()
