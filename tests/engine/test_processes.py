from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from concept_tuning.config import RunConfig
from concept_tuning.engine.processes import born, is_job_of, is_ours
from concept_tuning.engine.records import WORKING_STATES, read_run, working_process
from concept_tuning.engine.runs import RunFolder, StatusWriter
from concept_tuning.engine.turns import write_status


def begun(*words: str) -> subprocess.Popen:
    """Start a process that waits for input, with these words in its command, and wait until they can be seen."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", *words], stdin=subprocess.PIPE)
    while not psutil.Process(child.pid).cmdline():  # while the system starts the program
        time.sleep(0.01)
    return child


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
    job = ["-m", "concept_tuning", "work", "run"]
    child = begun(*job)
    try:
        folder = RunFolder.create(tmp_path / "run", RunConfig())
        write_status(folder, state=state, pid=child.pid)
        set_clock(seconds)
        found = working_process(folder.status(), folder)
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
    with folder.locked():
        assert read_run("run", tmp_path).state == "preparing"


def test_an_id_that_was_given_away_is_told_by_its_birth(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    write_status(folder, state="training")
    status = folder.status()
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    with folder.locked():
        assert working_process(status, folder) is not None
        assert working_process(status | {"born": status["born"] - 5, "updated": later}, folder) is None


def test_a_status_of_nobody_has_no_birth_of_an_earlier_process(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    write_status(folder, state="stopped")
    write_status(folder, **(folder.status() | {"state": "queued", "pid": None}))
    assert folder.status()["born"] is None
    with folder.locked():
        assert working_process(folder.status(), folder) is None


@pytest.mark.parametrize(
    "command",
    [
        ["/venv/bin/python", "-m", "concept_tuning", "work", "/runs/x", "--root", "/runs"],  # the dashboard's job
        ["python", "-m", "concept_tuning.bench.job_server"],  # a cell of a bench too, which is forked from it
        ["/venv/bin/python3.11", "/venv/bin/concept-tuning", "train"],  # typed into a shell
        ["concept-tuning", "train"],
        ["python", "-u", "-X", "dev", "-W", "ignore", "/venv/bin/concept-tuning", "train"],
        ["/usr/bin/python3", "-u", "-m", "concept_tuning", "train", "--run-dir", "runs/big"],  # torchrun, accelerate
        ["python", "/venv/bin/torchrun", "--nproc-per-node", "2", "-m", "concept_tuning", "train"],
        ["/Library/Frameworks/Python.app/Contents/MacOS/Python", "-m", "concept_tuning", "resume", "x"],
        ["C:\\venv\\Scripts\\python.exe", "C:\\venv\\Scripts\\concept-tuning.exe", "train"],
        ["C:\\venv\\Scripts\\python.exe", "C:\\venv\\Scripts\\concept-tuning-script.py", "train"],
    ],
)
def test_commands_of_this_package_are_known(command: list[str]) -> None:
    assert is_ours(command)


HOME = "/home/me/concept-tuning-studio"


@pytest.mark.parametrize(
    "command",
    [
        [],
        [""],
        [f"{HOME}/.venv/bin/python", f"{HOME}/.venv/bin/streamlit", "run", f"{HOME}/app/main.py"],  # the dashboard
        [f"{HOME}/.venv/bin/python", "-m", "streamlit", "run", "app/main.py"],
        ["vim", "/home/me/concept_tuning/engine/jobs.py"],
        ["code", "/home/me/concept-tuning"],
        ["/usr/bin/python3", "/usr/bin/editor", "/home/me/concept-tuning"],
        ["python", "/home/me/concept-tuning/train.py"],
        ["python", "-m", "concept_tuning_rival"],
        ["python", "-m", "pytest", "tests", "concept_tuning"],
        ["python", "-c", "import concept_tuning"],
        ["python", "-X"],
        ["tail", "-f", "concept-tuning"],
        ["ray::_run_cell"],
    ],
)
def test_a_command_is_not_ours_by_a_path_of_our_name(command: list[str]) -> None:
    assert not is_ours(command)


def test_a_job_is_that_of_the_run_that_its_command_names() -> None:
    job = [sys.executable, "-m", "concept_tuning", "work", "/there/runs/one", "--root", "/there/runs"]
    assert is_job_of(job, Path("/here/runs/one"))
    assert not is_job_of(job, Path("/there/runs/two"))
    assert not is_job_of(["cp", "work", "one"], Path("/runs/one"))
    assert not is_job_of([sys.executable, "-m", "concept_tuning", "resume", "runs/one"], Path("/runs/one"))
