"""A full or read-only disk, no memory, a clock that jumps, a second process: said in words, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from small_disks import run_apart

from concept_tuning.engine import failures
from concept_tuning.engine import runs as runs_module
from concept_tuning.engine import trainer as trainer_module
from concept_tuning.engine.records import read_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.trainer import Trainer
from concept_tuning.errors import RunError, TrainingError
from concept_tuning.progress import ConsoleWatcher

QUIET = ConsoleWatcher(quiet=True)
FILES = ("metrics.jsonl", "results.json", "best/model.safetensors", "predictions/test.safetensors")


def same_end(one: Path, other: Path) -> None:
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


#: Prints, for each size of a disk, what was said when it was full, and whether the run ended as the undisturbed one.
FULL = """
import json, sys
from pathlib import Path
from small_disks import mount_small, resize, unmount
from tiny_runs import tiny_config
from concept_tuning.engine.checkpoint import list_checkpoints, load_checkpoint
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.errors import StudioError
from concept_tuning.progress import ConsoleWatcher
root, quiet, config = Path(sys.argv[1]), ConsoleWatcher(quiet=True), tiny_config(device="cpu")
undisturbed = start_run(config, root / "undisturbed", quiet)
files = [file for file in undisturbed.path.rglob("*") if file.is_file() and file.name != "status.json"]
whole = sum(file.stat().st_size for file in files)
found = []
for share in (0.0, 0.05, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0, 1.1):
    disk = root / "disk"
    mount_small(disk, max(8192, int(share * whole)))
    run, said, state = disk / "run", "", ""
    try:
        start_run(config, run, quiet)
    except StudioError as error:
        said = str(error)
    if (run / "status.json").is_file():
        state = RunFolder(run).status()["state"]
    for checkpoint in list_checkpoints(run / "checkpoints"):
        load_checkpoint(checkpoint)
    resize(disk, 4 * whole)
    ended = resume_run(run, quiet) if (run / "config.json").is_file() else start_run(config, run, quiet)
    names = ("metrics.jsonl", "results.json", "best/model.safetensors", "predictions/test.safetensors")
    same = all((run / name).read_bytes() == (undisturbed.path / name).read_bytes() for name in names)
    left = [str(file) for file in run.rglob("*") if file.name.startswith(".") and file.name != ".lock"]
    found.append({"share": share, "said": said, "state": state, "same": same, "left": left})
    unmount(disk)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_wherever_the_disk_is_full_it_is_said_and_the_run_ends_the_same(tmp_path: Path) -> None:
    found = json.loads(run_apart(FULL, tmp_path).splitlines()[-1])
    full = [each for each in found if each["said"]]
    assert len(full) >= 5
    for each in full:
        assert "disk is full" in each["said"], each
        assert each["state"] not in ("finished",), each
    for each in found:
        assert each["same"], each
        assert each["left"] == [], each


READ_ONLY = """
import json, sys
from pathlib import Path
from small_disks import make_read_only
from tiny_runs import tiny_config
from concept_tuning.engine.loading import evaluate_run, load_run
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.errors import StudioError
from concept_tuning.progress import ConsoleWatcher
root, quiet, config = Path(sys.argv[1]), ConsoleWatcher(quiet=True), tiny_config(device="cpu")
class Halfway(ConsoleWatcher):
    def step(self, done, total, values):
        if done == 5:
            make_read_only(root)
said = []
def note(work):
    try:
        work()
        said.append("nothing")
    except StudioError as error:
        said.append(str(error))
root.mkdir()
note(lambda: start_run(config, root / "run", Halfway(quiet=True)))
note(lambda: start_run(config, root / "new", quiet))
note(lambda: resume_run(root / "run", quiet))
make_read_only(root, again=True)
resume_run(root / "run", quiet)
make_read_only(root)
accuracy = evaluate_run(load_run(root / "run"), "test").accuracy
print(json.dumps({"said": said, "accuracy": accuracy}))
"""


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_is_said_and_resumed_when_it_can_be_written(tiny, tmp_path: Path) -> None:
    found = json.loads(run_apart(READ_ONLY, tmp_path / "runs").splitlines()[-1])
    while_training, new, resumed = found["said"]
    assert "Read-only file system" in while_training
    assert "intact" in while_training
    assert "Cannot write the run folder" in new
    assert "Read-only file system" in resumed
    undisturbed = start_run(tiny(device="cpu"), tmp_path / "undisturbed", QUIET)
    same_end(tmp_path / "runs" / "run", undisturbed.path)
    assert found["accuracy"] == undisturbed.read_json("results.json")["splits"]["test"]["accuracy"]


NO_MEMORY = """
import json, resource, sys
from pathlib import Path
import psutil
from concept_tuning.config import RunConfig
from concept_tuning.engine.session import start_run
from concept_tuning.errors import StudioError
from concept_tuning.progress import ConsoleWatcher
class Squeezer(ConsoleWatcher):
    def step(self, done, total, values):
        if done == 3:
            now = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (now + 1_000_000, now + 1_000_000))
try:
    start_run(RunConfig.from_dict(json.loads(sys.argv[2])), Path(sys.argv[1]), Squeezer(quiet=True))
except StudioError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of memory are those of POSIX")
def test_no_memory_in_the_training_process_is_said_and_resume_ends_the_same(tiny, tmp_path: Path) -> None:
    config = tiny(device="cpu", image_size=256, batch_size=16, draw_size=256, epochs=3)
    command = [sys.executable, "-c", NO_MEMORY, str(tmp_path / "run"), json.dumps(config.to_dict())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.startswith("Out of memory. The last good checkpoint is intact."), done.stderr[-2000:]
    assert read_run("run", tmp_path).state == "failed"
    resume_run(tmp_path / "run", QUIET)
    same_end(tmp_path / "run", start_run(config, tmp_path / "undisturbed", QUIET).path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory"),
        (RuntimeError("std::bad_alloc"), "Out of memory"),
        (
            RuntimeError("unable to mmap 602112 bytes from file </torch_9_0>: Cannot allocate memory (12)"),
            "Out of memory",
        ),
        (
            RuntimeError("Unexpected bus error ... This might be caused by insufficient shared memory (shm)."),
            r"fewer loader processes \(`workers`\)",
        ),
        (RuntimeError("unable to write to file </torch_9_0>: No space left on device (28)"), "Out of memory"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "),
            r"loader process has ended, .*\(`workers`\)",
        ),
        (RuntimeError("DataLoader worker (pid(s) 9) exited unexpectedly"), "loader process has ended"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/a"), "^/runs/a could not be .*: Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "run could not be read or written: Input/output error"),
        (SafetensorError("I/O error: Read-only file system (os error 30)"), "run could not .*: I/O error: Read-only"),
    ],
)
def test_failures_of_the_machine_are_said_with_what_is_left_and_what_to_do(
    error: Exception, said: str, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer) -> None:
        raise error

    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(TrainingError, match=said) as found:
        start_run(tiny(), tmp_path / "run", QUIET)
    assert "There is no checkpoint yet" in str(found.value)
    assert re.search("go on with|Start a new run", str(found.value))
    assert RunFolder(tmp_path / "run").status()["message"] == str(found.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 9) is killed by signal: Terminated. "),
        FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback ..."),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
)
def test_what_is_not_the_run_folders_is_not_called_so(error: Exception) -> None:
    assert failures._in_words(error, Path("run")) is None
    assert failures._of_the_machine(error, Path("run")) is None


def test_metrics_are_on_the_disk_before_a_checkpoint_counts_them(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, int] = {}
    real = trainer_module.save_checkpoint

    def note(path: Path) -> None:
        synced[path.name] = path.stat().st_size

    def save(root: Path, **parts: Any) -> Path:
        counted.append((parts["state"]["metrics_bytes"], synced.get("metrics.jsonl")))
        return real(root, **parts)

    counted: list[tuple[int, int | None]] = []
    monkeypatch.setattr(trainer_module, "sync", note)
    monkeypatch.setattr(trainer_module, "save_checkpoint", save)
    start_run(tiny(epochs=1), tmp_path / "run", QUIET)
    assert counted
    assert all(bytes_counted == bytes_synced > 0 for bytes_counted, bytes_synced in counted)


class JumpingClock(datetime):
    """A clock that is a day ahead and a day behind in turn."""

    calls = 0

    @classmethod
    def now(cls, tz=None):
        cls.calls += 1
        return datetime.now(tz) + timedelta(days=1 if cls.calls % 2 else -1)


class Times(ConsoleWatcher):
    """Remembers what is said of speed and of the time that is left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(quiet=True)
        self.folder, self.found = folder, []

    def step(self, done, total, values) -> None:
        status = json.loads((self.folder / "status.json").read_text())
        self.found.append((values["images_per_second"], status.get("seconds_left", 0)))


def test_a_clock_that_jumps_a_day_changes_no_result_and_no_estimate(tiny, tmp_path: Path, monkeypatch) -> None:
    config = tiny(device="cpu")
    undisturbed = start_run(config, tmp_path / "undisturbed", QUIET)
    real, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return real() + (86400 if calls[0] % 2 else -86400)

    watcher = Times(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", jumping)
        patch.setattr(runs_module, "datetime", JumpingClock)
        patch.setattr(runs_module.StatusWriter.__init__, "__kwdefaults__", {"active": True, "interval": 0.0})
        start_run(config, tmp_path / "run", watcher)
    assert JumpingClock.calls > 8
    same_end(tmp_path / "run", undisturbed.path)
    assert all(0 < rate < 1e6 and 0 <= left < 3600 for rate, left in watcher.found)
    found = read_run("run", tmp_path)
    assert (found.state, found.progress) == ("finished", 1.0)
    assert found.updated is not None
    assert abs(found.updated - datetime.now(UTC)) > timedelta(hours=20)  # what is written is the clock's affair


TRAIN = """
import json, sys
from pathlib import Path
from concept_tuning.config import RunConfig
from concept_tuning.engine.session import start_run
from concept_tuning.progress import ConsoleWatcher
start_run(RunConfig.from_dict(json.loads(sys.argv[2])), Path(sys.argv[1]), ConsoleWatcher(quiet=True))
"""


@pytest.mark.slow
def test_a_second_process_is_refused_and_goes_on_when_the_first_is_killed(tiny, tmp_path: Path) -> None:
    config = tiny(device="cpu", epochs=16)
    path = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", TRAIN, str(path), json.dumps(config.to_dict())])
    try:
        until = time.monotonic() + 100
        while not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").stat().st_size:
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        with pytest.raises(RunError, match="Another process is working"):
            resume_run(path, QUIET)
        with pytest.raises(RunError, match="already holds a run"):
            start_run(config, path, QUIET)
        assert first.poll() is None, "it ended too soon for this test"
        assert RunFolder(path).status()["pid"] == first.pid  # the second left the status of the first alone
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    resume_run(path, QUIET)
    same_end(path, start_run(config, tmp_path / "undisturbed", QUIET).path)
