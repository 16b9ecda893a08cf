from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from concept_tuning.config import RunConfig
from concept_tuning.engine.processes import born
from concept_tuning.engine.records import WORKING_STATES, read_run, working_process
from concept_tuning.engine.runs import RunFolder, StatusWriter
from concept_tuning.engine.turns import write_status


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the clock forward by some seconds, or back, as psutil sees it."""
    if not psutil.LINUX:
        pytest.skip("only Linux reckons the time of birth from the clock as it stands now")
    start = psutil.boot_time()
    return lambda seconds: monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: start + seconds)


def test_a_birth_stays_when_the_clock_is_set(set_clock: Callable[[float], None]) -> None:
    before, by_the_clock = born(os.getpid()), psutil.Process().create_time()
    set_clock(37)
    assert psutil.Process().create_time() == pytest.approx(by_the_clock + 37)
    assert before is not None
    assert born(os.getpid()) == before


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux is asked when it was started")
def test_where_the_system_does_not_tell_there_is_no_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> float:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, "boot_time", hidden)
    assert born(os.getpid()) is None


def test_what_does_not_live_has_no_birth() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert born(child.pid) is None
    for damaged in (None, -1, 10**30, "x", [1]):
        assert born(damaged) is None


@pytest.mark.parametrize("seconds", [30, 10_000, -30])
@pytest.mark.parametrize("state", WORKING_STATES)
def test_a_run_is_worked_on_whatever_becomes_of_the_clock(
    state: str, seconds: float, set_clock: Callable[[float], None], tmp_path: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder = RunFolder.create(tmp_path / "run", RunConfig())
        write_status(folder, state=state, pid=child.pid)
        set_clock(seconds)
        found = working_process(folder.status())
        assert found is not None
        assert found.pid == child.pid
        assert read_run("run", tmp_path).state == state
    finally:
        child.communicate()
    assert read_run("run", tmp_path).state == "interrupted"


def test_the_trainers_own_status_holds_its_birth_too(set_clock: Callable[[float], None], tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    StatusWriter(folder).update(state="preparing")
    set_clock(10_000)
    assert read_run("run", tmp_path).state == "preparing"


def test_an_id_that_was_given_away_is_told_by_its_birth(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    write_status(folder, state="training")
    status = folder.status()
    assert working_process(status) is not None
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    assert working_process(status | {"born": status["born"] - 5, "updated": later}) is None


def test_a_status_of_nobody_has_no_birth_of_an_earlier_process(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    write_status(folder, state="stopped")
    write_status(folder, **(folder.status() | {"state": "queued", "pid": None}))
    assert folder.status()["born"] is None
    assert working_process(folder.status()) is None
