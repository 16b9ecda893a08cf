from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from concept_tuning.diagnostics import background
from concept_tuning.diagnostics.background import (
    FOLDER,
    delete_diagnosis,
    is_taken,
    list_diagnoses,
    refuse_while_diagnosed,
    start_diagnosis,
    stop_diagnosis,
)
from concept_tuning.engine.records import RunRecord
from concept_tuning.errors import RunError

#: Says what `diagnose` says, writes what it writes, and waits for a file `go` in between.
COMMAND = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
print("    1 s  Predictions", file=sys.stderr, flush=True)
print("   12 s  Maps", file=sys.stderr, flush=True)
while not (out.parent / "go").exists():
    time.sleep(0.02)
out.mkdir()
(out / "diagnosis.json").write_text("{}")
"""


def record(root: Path, name: str = "vanilla", state: str = "finished") -> RunRecord:
    return RunRecord(name, root, root / name, state)


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    def say(code: str) -> None:
        monkeypatch.setattr(background, "COMMAND", (sys.executable, "-c", code, "-m", "concept_tuning", "diagnose"))

    say(COMMAND)
    return say


def test_it_is_watched_from_its_files_until_it_is_done(command, tmp_path: Path) -> None:
    job = start_diagnosis([record(tmp_path), record(tmp_path, "ct")], tmp_path, "first", images=30)
    pid = json.loads((tmp_path / FOLDER / "first.job.json").read_text())["pid"]
    assert os.getsid(pid) == pid  # a session of its own
    line = psutil.Process(pid).cmdline()
    assert line[-6:] == [str(tmp_path / "vanilla"), str(tmp_path / "ct"), "--out", str(job.path), "--images", "30"]
    wait_for(lambda: list_diagnoses(tmp_path)[0].begun == 2)
    seen = list_diagnoses(tmp_path)[0]
    assert (seen.state, seen.message, seen.runs) == ("working", "Maps", ("vanilla", "ct"))
    assert seen.progress == 1 / seen.total
    with pytest.raises(RunError, match="stop it first"):
        delete_diagnosis(seen)
    (tmp_path / FOLDER / "go").touch()
    wait_for(lambda: list_diagnoses(tmp_path)[0].state == "finished")
    done = list_diagnoses(tmp_path)[0]
    assert (done.progress, done.seconds) == (1.0, 12)
    delete_diagnosis(done)
    assert list_diagnoses(tmp_path) == []
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["go"]


def test_it_can_be_stopped_and_may_write_down_what_it_has(command, tmp_path: Path) -> None:
    command(
        "import sys, time, pathlib, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir()\n"
        "try:\n"
        "    (out / 'begun').touch(); time.sleep(60)\n"
        "finally:\n"
        "    (out / 'diagnosis.json').touch()\n"
    )
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    wait_for(lambda: (job.path / "begun").exists())
    stop_diagnosis(job)
    assert (job.path / "diagnosis.json").exists()
    assert list_diagnoses(tmp_path)[0].state == "stopped"
    with pytest.raises(RunError, match="does not work"):
        stop_diagnosis(job)


def test_one_that_does_not_heed_the_interrupt_is_killed(command, tmp_path: Path, monkeypatch) -> None:
    command(
        "import sys, time, pathlib, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir()\n"
        "(out / 'begun').touch(); time.sleep(60)\n"
    )
    monkeypatch.setattr(background, "_KILL_SECONDS", 0.2)
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    process = psutil.Process(json.loads((tmp_path / FOLDER / "first.job.json").read_text())["pid"])
    wait_for(lambda: (job.path / "begun").exists())
    stop_diagnosis(job)
    process.wait(10)
    assert list_diagnoses(tmp_path)[0].state == "stopped"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (psutil.AccessDenied(), "cannot be stopped: its process is another user's"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be stopped: the disk is full"),
    ],
)
def test_what_keeps_it_from_being_stopped_is_told(command, tmp_path: Path, monkeypatch, error, message: str) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    before = (tmp_path / FOLDER / "first.job.json").read_text()

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "send_signal", fail)
        with pytest.raises(RunError, match=message):
            stop_diagnosis(job)
    assert (tmp_path / FOLDER / "first.job.json").read_text() == before
    (tmp_path / FOLDER / "go").touch()
    wait_for(lambda: list_diagnoses(tmp_path)[0].state != "working")
    assert list_diagnoses(tmp_path)[0].state == "finished"  # and not stopped, as it was not


def test_one_that_ends_while_it_is_being_stopped_is_no_error(command, tmp_path: Path, monkeypatch) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")

    def end_first(process: psutil.Process, sent: int) -> None:
        process.kill()
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "send_signal", end_first)
    stop_diagnosis(job)
    wait_for(lambda: list_diagnoses(tmp_path)[0].state == "stopped")


def test_one_whose_files_stay_can_be_removed_again(command, tmp_path: Path, monkeypatch) -> None:
    start_diagnosis([record(tmp_path)], tmp_path, "first")
    (tmp_path / FOLDER / "go").touch()
    wait_for(lambda: list_diagnoses(tmp_path)[0].state == "finished")
    (job,) = list_diagnoses(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(RunError, match=r"what is left is in .*first"):
            delete_diagnosis(job)
    assert list_diagnoses(tmp_path) == [job]
    delete_diagnosis(job)
    assert list_diagnoses(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('Error: The runs were trained on other data.'); raise SystemExit(2)", "trained on other data"),
        ("import os; os._exit(9)", "without a word"),
    ],
)
def test_a_failure_is_told(command, tmp_path: Path, code: str, message: str) -> None:
    command(code)
    start_diagnosis([record(tmp_path)], tmp_path, "first")
    wait_for(lambda: list_diagnoses(tmp_path)[0].state != "working")
    job = list_diagnoses(tmp_path)[0]
    assert job.state == "failed"
    assert message in job.message


def test_a_record_that_is_gone_or_damaged_is_told(command, tmp_path: Path) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    file = tmp_path / FOLDER / "first.job.json"
    own = file.read_text()
    for content in ("{", "[1]", "[" * 100_000, None):
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(RunError, match="The record of the diagnosis first is gone or damaged"):
            stop_diagnosis(job)
    file.write_text(own)
    stop_diagnosis(job)
    file.write_text("{")
    delete_diagnosis(job)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_it_is_working_as_soon_as_it_is_started(command, tmp_path: Path, monkeypatch) -> None:
    """The system starts a program before it shows its words."""
    asked = []

    def late(process: psutil.Process) -> list[str]:
        asked.append(process.pid)
        return [] if len(asked) < 5 else process.cmdline()

    monkeypatch.setattr(background, "command_of", late)
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    assert job.state == "working"
    stop_diagnosis(job)


def test_what_cannot_be_started_leaves_nothing_behind(command, tmp_path: Path, monkeypatch) -> None:
    for name in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(RunError, match="cannot be the name"):
            start_diagnosis([record(tmp_path)], tmp_path, name)
    with pytest.raises(RunError, match="Only finished runs"):
        start_diagnosis([record(tmp_path, state="training")], tmp_path, "first")
    with pytest.raises(RunError, match="Only finished runs"):
        start_diagnosis([], tmp_path, "first")
    (tmp_path / FOLDER / "taken").mkdir(parents=True)
    with pytest.raises(RunError, match="already"):
        start_diagnosis([record(tmp_path)], tmp_path, "taken")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot work in .*: Not a directory"):
        start_diagnosis([record(tmp_path)], tmp_path / "file", "first")
    monkeypatch.setattr(background, "COMMAND", (str(tmp_path / "no-python"),))
    with pytest.raises(RunError, match="cannot start"):
        start_diagnosis([record(tmp_path)], tmp_path, "first")
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["taken"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_one_that_cannot_be_noted_does_not_run_on_unseen(command, tmp_path: Path, monkeypatch, error) -> None:
    begun: list[subprocess.Popen] = []
    launch = background._launch

    def fail(path: Path, text: str) -> None:
        assert begun[0].poll() is None
        raise error

    monkeypatch.setattr(background, "_launch", lambda *told: begun.append(launch(*told)) or begun[0])
    monkeypatch.setattr(background, "write_atomically", fail)
    expected = RunError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="cannot start: the disk is full" if expected is RunError else None):
        start_diagnosis([record(tmp_path)], tmp_path, "first")
    assert begun[0].wait(10) != 0
    assert list((tmp_path / FOLDER).iterdir()) == []
    monkeypatch.undo()
    assert not is_taken(tmp_path, "first")


@pytest.mark.parametrize("left", ["folder", "file", "empty record", "link to nothing"])
def test_a_name_is_taken_by_whatever_lies_there(command, tmp_path: Path, left: str) -> None:
    folder = tmp_path / FOLDER
    assert not is_taken(tmp_path, "first")
    folder.mkdir()
    if left == "folder":
        (folder / "first").mkdir()
    elif left == "link to nothing":
        (folder / "first").symlink_to(tmp_path / "nothing")
    else:
        (folder / ("first" if left == "file" else "first.job.json")).touch()
    assert is_taken(tmp_path, "first")
    assert not is_taken(tmp_path, "second")
    assert list_diagnoses(tmp_path) == []
    with pytest.raises(RunError, match="There is a diagnosis 'first' already"):
        start_diagnosis([record(tmp_path)], tmp_path, "first")


@pytest.mark.parametrize("name", [b"\xff", b"a b", b"x" * 101, b".hidden"])
def test_a_record_of_a_name_that_none_may_bear_is_passed_over(name: bytes, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    values = json.dumps({"runs": ["a"], "total": 3, "started": 1.0})
    for each in (name, b"sound"):
        (tmp_path / FOLDER / os.fsdecode(each + b".job.json")).write_text(values)
    assert [job.name for job in list_diagnoses(tmp_path)] == ["sound"]


def test_a_run_is_not_to_be_touched_while_it_is_diagnosed(command, tmp_path: Path) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    with pytest.raises(RunError, match=r"being diagnosed \(first\)"):
        refuse_while_diagnosed(record(tmp_path))
    refuse_while_diagnosed(record(tmp_path, "ct"))
    stop_diagnosis(job)
    refuse_while_diagnosed(record(tmp_path))


@pytest.mark.parametrize(
    "change", [{"started": "x"}, {"started": None}, {"started": [1]}, {"runs": [1, 2]}, {"runs": "ab"}, {"total": "x"}]
)
def test_a_damaged_record_is_passed_over_and_the_others_are_read(change: dict, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    values = {"runs": ["a"], "total": 3, "started": 1.0}
    (folder / "sound.job.json").write_text(json.dumps(values))
    (folder / "odd.job.json").write_text(json.dumps(values | change))
    assert [job.name for job in list_diagnoses(tmp_path)] == ["sound"]


def test_a_process_id_that_was_given_away_is_not_believed(command, tmp_path: Path) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "old")
    file = tmp_path / FOLDER / "old.job.json"
    own = json.loads(file.read_text())
    file.with_name("damaged.job.json").write_text("{")
    for change, state in (({}, "working"), ({"born": own["born"] - 100}, "failed"), ({"pid": os.getpid()}, "failed")):
        file.write_text(json.dumps(own | change))
        assert [(job.name, job.state) for job in list_diagnoses(tmp_path)] == [("old", state)]
    file.write_text(json.dumps(own))
    stop_diagnosis(job)


def test_a_record_of_an_earlier_version_is_believed_and_a_pipe_passed_over(command, tmp_path: Path) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "old")
    file = tmp_path / FOLDER / "old.job.json"
    own = json.loads(file.read_text())
    file.write_text(json.dumps(own | {"born": psutil.Process(own["pid"]).create_time()}))
    if hasattr(os, "mkfifo"):
        os.mkfifo(file.with_name("pipe.job.json"))
    assert [(job.name, job.state) for job in list_diagnoses(tmp_path)] == [("old", "working")]
    stop_diagnosis(job)


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux reckons the time of birth from the clock as it stands now")
@pytest.mark.parametrize("seconds", [1, -1, 10_000])
def test_one_that_works_is_not_lost_when_the_clock_is_set(command, tmp_path: Path, monkeypatch, seconds: int) -> None:
    job = start_diagnosis([record(tmp_path)], tmp_path, "first")
    start = psutil.boot_time()
    with monkeypatch.context() as patch:
        patch.setattr(psutil._pslinux, "boot_time", lambda: start + seconds)
        assert list_diagnoses(tmp_path)[0].state == "working"
        with pytest.raises(RunError, match="is being made; stop it first"):
            delete_diagnosis(job)
        stop_diagnosis(job)
    assert list_diagnoses(tmp_path)[0].state == "stopped"


def test_watching_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from concept_tuning.diagnostics.background import list_diagnoses\n"
        "assert list_diagnoses(Path(sys.argv[1])) == []\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
