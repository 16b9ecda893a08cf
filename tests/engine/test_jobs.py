"""Runs in processes of their own: the queue, stop, kill and resume, two watchers, delete and rename."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from concept_tuning.config import RunConfig
from concept_tuning.engine import jobs
from concept_tuning.engine.checkpoint import list_checkpoints
from concept_tuning.engine.jobs import LOG, delete, rename, request_stop, resume, start, start_together, stop
from concept_tuning.engine.records import STOP_REQUEST, RunRecord, list_runs, read_metrics, read_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import start_run
from concept_tuning.engine.turns import controlled, write_status
from concept_tuning.errors import RunError
from concept_tuning.progress import ConsoleWatcher
from concept_tuning.settings import build_config

#: A job that trains nothing: it notes when its turn begins and ends, which it does when there is a file `go`.
JOB = """
import sys, time
from pathlib import Path
from concept_tuning.engine.turns import turn
path, root = Path(sys.argv[1]), Path(sys.argv[2])
def note(word):
    with (root / "notes").open("a") as file:
        file.write(f"{word} {path.name}\\n")
with turn(path, root):
    note("begin")
    while not (root / "go").exists():
        time.sleep(0.05)
    note("end")
"""
START = """
import json, sys
from pathlib import Path
from concept_tuning.config import RunConfig
from concept_tuning.engine.jobs import start
start(RunConfig.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])
"""
WATCH = """
import sys
from pathlib import Path
from concept_tuning.engine.records import list_runs
print([(run.name, run.state, run.method, run.stopping) for run in list_runs(Path(sys.argv[1]))])
assert "torch" not in sys.modules
"""


def like_a_job(run: str) -> list[str]:
    """Return words that make the command of a process look like the job of a run, which alone may be stopped."""
    return ["-m", "concept_tuning", "work", run]


def begun(*words: str) -> subprocess.Popen:
    """Start an idle process with these words in its command, and wait until they can be seen."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
    wait_for(lambda: psutil.Process(process.pid).cmdline())
    return process


def wait_for(condition: Callable[[], object], seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


def pid_of(run: RunRecord) -> int:
    return int(RunFolder(run.path).status()["pid"])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return a root folder; whatever still works on its runs is ended afterwards."""
    root = tmp_path / "runs"
    root.mkdir()
    yield root
    for run in list_runs(root):
        if run.working and pid_of(run) != os.getpid():
            os.kill(pid_of(run), signal.SIGKILL)


@pytest.fixture
def at_rest(root: Path) -> Callable[..., RunRecord]:
    """Return a function that makes a run with a status and without a process."""

    def make(name: str = "one", **status: object) -> RunRecord:
        write_status(RunFolder.create(root / name, RunConfig()), **({"state": "stopped"} | status))
        return read_run(name, root)

    return make


@pytest.fixture
def spawn(root: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Return a function that starts a job without training for a run."""
    processes: list[subprocess.Popen] = []

    def begin(name: str) -> subprocess.Popen:
        job = subprocess.Popen([sys.executable, "-c", JOB, str(root / name), str(root), *like_a_job(name)])
        processes.append(job)
        return job

    yield begin
    for job in processes:
        job.kill()
        job.wait()


def test_jobs_whose_runs_would_lie_among_the_pictures_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    config, inside = build_config(data=str(tmp_path / "photos")), tmp_path / "photos" / "runs"
    for begin in (lambda: start(config, inside, "one"), lambda: start_together({"one": config}, inside)):
        with pytest.raises(
            RunError, match=r"photos/runs would lie inside .*photos.*by --run-dir, or for the dashboard"
        ):
            begin()
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat", "dog"]


def test_jobs_train_one_at_a_time_in_the_order_of_submission(at_rest, spawn, root: Path) -> None:
    names = ["c", "a", "d", "b"]
    for number, name in enumerate(names):
        at_rest(name, submitted=1000.0 + number)
    first = spawn("c")
    wait_for(lambda: (root / "notes").exists())
    waiting = {name: spawn(name) for name in ("b", "d", "a")}  # begun in another order than submitted
    wait_for(lambda: [run.state for run in list_runs(root)] == ["queued", "queued", "preparing", "queued"])
    os.kill(waiting["d"].pid, signal.SIGKILL)  # a dead one holds nobody up; the last takes its place
    waiting["d"].wait()
    assert read_run("d", root).state == "interrupted"
    (root / "go").touch()
    assert first.wait(60) == waiting["a"].wait(60) == waiting["b"].wait(60) == 0
    expected = [f"{word} {name}" for name in ("c", "a", "b") for word in ("begin", "end")]
    assert (root / "notes").read_text().splitlines() == expected


def test_a_queued_job_leaves_the_queue_when_asked(at_rest, spawn, root: Path) -> None:
    for name in ("holder", "waiter"):
        at_rest(name)
    spawn("holder")
    wait_for(lambda: (root / "notes").exists())
    waiter = spawn("waiter")
    wait_for(lambda: read_run("waiter", root).state == "queued")
    stopped = stop(read_run("waiter", root))
    assert (stopped.state, stopped.message) == ("stopped", "Stopped; resume goes on from here")
    assert not stopped.stopping
    assert waiter.wait(5) != 0
    assert (root / "notes").read_text() == "begin holder\n"


def test_a_process_that_will_not_end_is_killed_after_the_grace_period(at_rest, root: Path) -> None:
    at_rest("deaf")
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal,time\nsignal.signal(2, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)",
            *like_a_job("deaf"),
        ],
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    try:
        deaf.stdout.readline()
        write_status(RunFolder(root / "deaf"), state="training", step=3, total_steps=8, pid=deaf.pid)
        run = read_run("deaf", root)
        request_stop(run)
        assert read_run("deaf", root).stopping
        stopped = stop(run, grace=0.5)
        assert (stopped.state, stopped.progress, stopped.stopping) == ("stopped", 3 / 8, False)
        assert "force" in stopped.message
        assert deaf.wait(5) == -signal.SIGKILL
    finally:
        deaf.kill()
        deaf.wait()
        deaf.stdout.close()


def test_one_interrupt_is_sent_however_often_a_stop_is_asked_for(at_rest, root: Path) -> None:
    at_rest("counter")
    code = (
        "import signal,time\nheard=[]\nsignal.signal(2, lambda *_: heard.append(1))\nprint(1, flush=True)\n"
        "for _ in range(20):\n    time.sleep(0.1)\nprint(len(heard), flush=True)"
    )
    counter = subprocess.Popen([sys.executable, "-c", code, *like_a_job("counter")], stdout=subprocess.PIPE, text=True)
    assert counter.stdout is not None
    counter.stdout.readline()
    write_status(RunFolder(root / "counter"), state="training", pid=counter.pid)
    for _ in range(3):
        request_stop(read_run("counter", root))
        (root / "counter" / "config.json").write_text("broken")  # which must not make it forget
    assert counter.communicate(timeout=20)[0] == "1\n"


@pytest.fixture
def worker() -> Iterator[subprocess.Popen]:
    """Return a process that looks like the job of the run one."""
    process = begun(*like_a_job("one"))
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("refused", "words"),
    [("send_signal", "its process is another user's"), ("cmdline", "none of Concept-Tuning Studio")],
)
def test_a_process_that_may_not_be_asked_is_left_alone(
    refused: str, words: str, at_rest, worker: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = at_rest(state="training", pid=worker.pid)

    def deny(self: psutil.Process, *arguments: object) -> None:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, refused, deny)
    with RunFolder(run.path).locked(), pytest.raises(RunError, match=words):
        request_stop(run)
    assert not read_run(run.name, run.root).stopping
    assert worker.poll() is None


def test_a_process_that_ends_while_it_is_asked_is_stopped(
    at_rest, worker: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = at_rest(state="training", pid=worker.pid)

    def too_late(self: psutil.Process, number: int) -> None:
        worker.kill()
        worker.wait()
        raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil.Process, "send_signal", too_late)
    stopped = stop(run)
    assert (stopped.state, stopped.stopping) == ("stopped", False)


def test_a_stop_leaves_alone_what_has_begun_since(
    at_rest, worker: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits for the process, the run is resumed by another, which is asked to stop in its turn."""
    run = at_rest(state="training", pid=worker.pid)

    def resumed(self: psutil.Process, number: int) -> None:
        worker.kill()
        worker.wait()
        write_status(RunFolder(run.path), state="queued", pid=os.getpid())
        (run.path / STOP_REQUEST).write_text(str(os.getpid()))

    monkeypatch.setattr(psutil.Process, "send_signal", resumed)
    with RunFolder(run.path).locked():
        found = stop(run)
    assert (found.state, found.stopping, pid_of(found)) == ("queued", True, os.getpid())


def test_a_process_that_cannot_be_killed_is_said_and_still_counts_as_working(
    at_rest, worker: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a disk that does not answer."""
    run = at_rest(state="training", pid=worker.pid)
    with monkeypatch.context() as patch:
        for name in ("kill", "send_signal"):
            patch.setattr(psutil.Process, name, lambda self, *arguments: None)
        patch.setattr(jobs, "_KILL_SECONDS", 0.1)
        with pytest.raises(RunError, match=f"process {worker.pid} of the run one does not end, not even by force"):
            stop(run, grace=0.1)
    assert read_run("one", run.root).state == "training"


def test_controls_refuse_while_a_process_works(at_rest, root: Path) -> None:
    at_rest("busy", state="training", pid=os.getpid())
    with RunFolder(root / "busy").locked():
        run = read_run("busy", root)
        assert run.working
        for control in (delete, resume, lambda run: rename(run, "other")):
            with pytest.raises(RunError, match="stop it first"):
                control(run)
    write_status(RunFolder(run.path), state="stopped")
    with RunFolder(run.path).locked(), pytest.raises(RunError, match="Another process is working"):
        delete(run)  # there is a process that has not told yet
    assert [each.name for each in list_runs(root)] == ["busy"]


def test_stop_and_resume_refuse_what_they_cannot_do(at_rest, root: Path) -> None:
    run = at_rest("rest")
    with pytest.raises(RunError, match="it is stopped"):
        stop(run)
    RunFolder(run.path).write_json("results.json", {"splits": {}})
    write_status(RunFolder(run.path), state="finished")
    with pytest.raises(RunError, match="it is finished"):
        resume(run)
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match="it is broken"):
        resume(run)
    (run.path / "status.json").write_text("{")
    with pytest.raises(RunError, match="no process works on it, it is broken"):
        stop(run)
    delete(run)
    assert list_runs(root) == []


def test_delete_removes_the_run_and_nothing_else(at_rest, root: Path, tmp_path: Path) -> None:
    run, other = at_rest("one"), at_rest("two")
    (run.path / "config.json").write_text("broken")
    delete(run)
    assert [each.name for each in list_runs(root)] == ["two"]
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["two"]
    with pytest.raises(RunError, match="no run 'one'"):
        delete(run)
    model = root / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(RunError, match="too little of a run"):
        delete(read_run("model", root))
    other.path.rename(tmp_path / "elsewhere")
    other.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link"):
        delete(other)
    assert (tmp_path / "elsewhere" / "config.json").is_file()
    assert (model / "config.json").is_file()


def test_a_run_that_cannot_be_removed_whole_is_said_and_removed_later(at_rest, root: Path, monkeypatch) -> None:
    run = at_rest("one")

    def in_use(*arguments: object, **named: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", in_use)
        with pytest.raises(RunError, match=r"Not all files of the run one could be removed; .*\.deleting-\d"):
            delete(run)
    assert list_runs(root) == []
    with controlled(root):
        assert [path for path in root.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("name", ["鳥" * 80, "x" * 255])
def test_a_run_whose_name_is_as_long_as_the_disk_takes_it_can_be_deleted(name: str, at_rest, root: Path) -> None:
    """Made by an earlier version, or in a shell."""
    delete(at_rest(name))
    assert [path for path in root.iterdir() if path.is_dir()] == []


def test_the_longest_name_that_is_allowed_can_be_started_renamed_and_deleted(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: None)
    run = start(RunConfig(), root, "鳥" * 66)
    delete(rename(run, "é" * 100))
    assert list_runs(root) == []


def test_rename_keeps_the_run_and_its_folder(at_rest, root: Path) -> None:
    at_rest("demo/one", step=3, total_steps=4)
    renamed = rename(read_run("demo/one", root), "Zwei_2.b-c")
    assert (renamed.name, renamed.progress) == ("demo/Zwei_2.b-c", 0.75)
    assert [run.name for run in list_runs(root)] == ["demo/Zwei_2.b-c"]
    assert rename(at_rest("named in a shell, é"), "plain").state == "stopped"
    at_rest("demo/three")
    with pytest.raises(RunError, match="taken by a run"):
        rename(renamed, "three")
    (root / "demo" / "link").symlink_to("nowhere")
    with pytest.raises(RunError, match="taken by something else"):
        rename(renamed, "link")


HOSTILE = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "../x",
    "/etc",
    "a\\b",
    "a b",
    "a\0b",
    "a\n",
    "x" * 101,
    "鳥" * 67,
    "end.",
    "-\u202e",
    "~",
]


def test_hostile_names_are_refused_everywhere(at_rest, root: Path) -> None:
    run = at_rest("one")
    before = sorted(root.parent.rglob("*"))
    for name in HOSTILE:
        with pytest.raises(RunError, match="cannot be the name"):
            rename(run, name)
        with pytest.raises(RunError, match="cannot be the name"):
            start(RunConfig(), root, name)
        with pytest.raises(RunError):
            read_run(name, root)
    assert {*root.parent.rglob("*")} - {*before} <= {root / ".control.lock", run.path / ".lock"}


def test_a_start_that_fails_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(root / "no-python"))
        with pytest.raises(RunError, match="cannot start: No such file"):
            start(RunConfig(), root, "one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="disk is full"):
            start(RunConfig(), root, "one")
    assert [path for path in root.iterdir() if path.is_dir()] == []
    (root / "one").mkdir()
    with pytest.raises(RunError, match="taken by something else"):
        start(RunConfig(), root, "one")
    (root / "one").rmdir()
    (root / "file").touch()
    with pytest.raises(RunError, match="Cannot work in"):
        start(RunConfig(), root / "file", "one")


def test_a_run_that_another_process_makes_at_the_same_moment_is_left_alone(root: Path, monkeypatch) -> None:
    """The command line takes no part in the controls, and may make a folder between the look at it and the start."""
    create = RunFolder.create

    def late(path: Path, config: RunConfig) -> RunFolder:
        made = create(path, config)
        create(root / "one", RunConfig(method="scratch"))
        return made

    monkeypatch.setattr(RunFolder, "create", late)
    with pytest.raises(RunError):
        start(RunConfig(), root, "one")
    assert RunFolder.open(root / "one").config().method == "scratch"
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["one"]


def test_a_run_without_a_name_gets_a_telling_one_of_its_own(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: None)
    first, second = start(RunConfig(), root), start(RunConfig(), root)
    assert first.name.startswith("planted_vanilla_tf-efficientnet-lite0_seed0_")
    assert sorted([first.name, second.name]) == [run.name for run in list_runs(root)]


@pytest.fixture
def full_once_launched(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Have a disk that is full as soon as a process has been started; returns the processes."""
    launched: list[subprocess.Popen] = []
    begin, sync = subprocess.Popen, os.fsync

    def launch(*arguments: object, **named: object) -> subprocess.Popen:
        launched.append(begin(*arguments, **named))
        return launched[-1]

    def full(descriptor: int) -> None:
        if launched:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(subprocess, "Popen", launch)
    monkeypatch.setattr(os, "fsync", full)
    return launched


def test_a_process_whose_start_cannot_be_noted_is_ended(root: Path, full_once_launched) -> None:
    with pytest.raises(RunError, match="disk is full"):
        start(RunConfig(), root, "one")
    assert full_once_launched[0].wait(5) == -signal.SIGKILL
    assert [path for path in root.iterdir() if path.is_dir()] == []


def test_a_resume_that_cannot_be_noted_does_not_hold_the_queue_up(at_rest, root: Path, full_once_launched) -> None:
    run = at_rest("one", step=2, total_steps=8)
    with pytest.raises(RunError, match="disk is full"):
        resume(run)
    assert full_once_launched[0].wait(5) == -signal.SIGKILL
    left = read_run("one", root)
    assert (left.state, left.step, left.submitted) == ("interrupted", 2, None)


def test_runs_that_are_started_together_are_started_all_or_none(root: Path, monkeypatch) -> None:
    launched: list[str] = []
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: launched.append(folder.path.name))
    configs = {name: RunConfig() for name in ("one", "two", "three")}
    (root / "three").mkdir()
    with pytest.raises(RunError, match="'three' is taken"):
        start_together(configs, root)
    with pytest.raises(RunError, match="cannot be the name"):
        start_together(configs | {"../four": RunConfig()}, root)
    assert (launched, list_runs(root)) == ([], [])
    (root / "three").rmdir()
    assert [run.name for run in start_together(configs, root)] == launched == list(configs)


def test_a_start_that_fails_takes_those_before_it_back(root: Path, monkeypatch) -> None:
    launched: list[subprocess.Popen] = []

    def launch(folder: RunFolder, root: Path) -> None:
        if launched:
            raise RunError("The disk is full.")
        launched.append(begun(*like_a_job("one")))
        write_status(folder, **(folder.status() | {"pid": launched[0].pid}))

    monkeypatch.setattr(jobs, "_launch", launch)
    with pytest.raises(RunError, match="disk is full"):
        start_together({"one": RunConfig(), "two": RunConfig()}, root)
    assert launched[0].wait(5) == -signal.SIGKILL
    assert [path.name for path in root.iterdir() if path.is_dir()] == []


def test_a_resume_that_fails_says_so_and_can_be_repeated(at_rest, root: Path, monkeypatch) -> None:
    run = at_rest("one", step=2, total_steps=8)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="disk is full"):
            resume(run)
    assert read_run("one", root).state == "stopped"
    monkeypatch.setattr(sys, "executable", str(root / "no-python"))
    with pytest.raises(RunError, match="cannot start"):
        resume(run)
    again = read_run("one", root)
    assert (again.state, again.step) == ("failed", 2)
    assert "cannot start" in again.message


def test_a_new_run_is_seen_queued_before_its_process_is_noted(root: Path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: seen.append([run.state for run in list_runs(root)]))
    start(RunConfig(), root, "one")
    assert seen == [["queued"]]


def test_a_process_is_noted_when_its_command_can_be_seen(at_rest, root: Path, monkeypatch) -> None:
    """The system shows no words of a program that is still being started; nobody would know it for the run's."""
    run, asked, seen = at_rest("one"), [], []
    note, look = jobs.write_status, jobs.command_of

    def late(process: psutil.Process) -> list[str]:
        asked.append(process.pid)
        return look(process) if len(asked) > 3 else []

    def noted(folder: RunFolder, /, **values: object) -> None:
        note(folder, **values)
        seen.append((len(asked), values["pid"], read_run("one", root).state))

    monkeypatch.setattr(jobs, "command_of", late)
    monkeypatch.setattr(jobs, "write_status", noted)
    queued = resume(run)
    assert seen[0] == (0, None, "interrupted")
    assert seen[1][0] > 3
    assert seen[1][1:] == (asked[0], "queued")
    monkeypatch.undo()
    stop(queued)


def test_a_job_is_known_by_its_command_before_it_has_its_lock(at_rest, root: Path) -> None:
    folder = RunFolder(at_rest("one", state="queued").path)
    with controlled(root):  # for which it waits
        jobs._launch(folder, root)
        assert not folder.is_held()
        assert read_run("one", root).state == "queued"
    stop(read_run("one", root))


def test_a_new_run_is_never_seen_half_made(root: Path) -> None:
    with controlled(root):
        RunFolder.create(root / ".starting-one", RunConfig())
        assert list_runs(root) == []
    with controlled(root):  # what a starter that was killed left behind is swept up
        assert not (root / ".starting-one").exists()


@pytest.mark.slow
def test_the_second_run_waits_and_both_can_be_stopped_and_resumed(tiny, root: Path) -> None:
    long = start(tiny(device="cpu", epochs=2000), root, "long")
    short = start(tiny("linear-probe", device="cpu"), root, "short")
    assert (long.state, short.state) == ("queued", "queued")
    assert os.getsid(pid_of(long)) == pid_of(long) != os.getsid(0)
    wait_for(lambda: read_run("long", root).step >= 3)
    seen = subprocess.run([sys.executable, "-c", WATCH, str(root)], capture_output=True, text=True, check=True).stdout
    assert eval(seen) == [("long", "training", "vanilla", False), ("short", "queued", "linear-probe", False)]
    assert 0 < read_run("long", root).progress < 1
    assert stop(short).state == "stopped"
    assert not RunFolder(short.path).metrics_file.exists()
    assert resume(short).state == "queued"
    stopped = stop(read_run("long", root))
    assert stopped.state == "stopped"
    assert list_checkpoints(RunFolder(long.path).checkpoints)[-1].name == f"step-{stopped.step:09d}"
    assert len(read_metrics(stopped).steps["loss"]) == stopped.step
    wait_for(
        lambda: not psutil.pid_exists(pid_of(long)), 5
    )  # a dead process is there until its starter has asked after it
    wait_for(lambda: not read_run("short", root).working)
    short = read_run("short", root)
    assert (short.state, short.progress) == ("finished", 1.0), (short.path / LOG).read_text()
    assert short.results is not None
    assert set(short.results["splits"]) == {"train", "val", "test"}


@pytest.mark.slow
def test_a_run_outlives_its_starter_and_a_killed_one_ends_with_the_same_bytes(tiny, root: Path) -> None:
    config = tiny(device="cpu", epochs=60)  # long enough to be killed before its end
    undisturbed = start_run(config, root / "undisturbed", ConsoleWatcher(quiet=True))
    subprocess.run([sys.executable, "-c", START, json.dumps(config.to_dict()), str(root), "killed"], check=True)
    wait_for(lambda: read_run("killed", root).step >= 3)
    os.kill(pid_of(read_run("killed", root)), signal.SIGKILL)
    wait_for(lambda: not read_run("killed", root).working, 5)
    killed = read_run("killed", root)
    assert killed.state == "interrupted"
    assert "while training" in killed.message
    assert killed.step < 240
    resume(killed)
    wait_for(lambda: not read_run("killed", root).working)
    ended = RunFolder(killed.path)
    assert read_run("killed", root).state == "finished", (killed.path / LOG).read_text()
    assert ended.metrics_file.read_bytes() == undisturbed.metrics_file.read_bytes()
    assert ended.best_weights.read_bytes() == undisturbed.best_weights.read_bytes()
    assert ended.read_json("results.json") == undisturbed.read_json("results.json")
