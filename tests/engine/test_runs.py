from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from concept_tuning.config import RunConfig
from concept_tuning.engine import runs as runs_module
from concept_tuning.engine.runs import RunFolder, StatusWriter, default_run_dir, write_atomically
from concept_tuning.errors import RunError


def test_a_new_folder_holds_settings_and_versions(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    assert RunFolder.open(tmp_path / "run").config() == RunConfig()
    assert {"python", "torch", "timm"} <= set(folder.read_json("versions.json"))


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, RunConfig())
    with pytest.raises(RunError, match="resume"):
        RunFolder.create(tmp_path, RunConfig())


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(RunError, match="not an empty folder"):
        RunFolder.create(tmp_path, RunConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_of_two_starts_at_once_the_later_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(RunConfig(), method="linear-probe")
    mkdir = Path.mkdir

    def late(self: Path, **named: bool) -> None:
        """Let the other start between the look and the first file of this one."""
        monkeypatch.undo()
        RunFolder.create(tmp_path / "run", other)
        mkdir(self, **named)

    monkeypatch.setattr(Path, "mkdir", late)
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(tmp_path / "run", RunConfig())
    assert RunFolder.open(tmp_path / "run").config() == other


def failed(path: Path) -> RunFolder:
    """Return a run that failed as a job, before its first checkpoint."""
    folder = RunFolder.create(path, RunConfig())
    folder.write_json("status.json", {"state": "failed"})
    for name in ("data.json", "error.log", "process.log", "stop-requested", ".status.json.12.tmp"):
        (path / name).write_text("old")
    return folder


def test_a_failed_run_of_the_dashboard_is_replaced(tmp_path: Path) -> None:
    failed(tmp_path / "run")
    RunFolder.create(tmp_path / "run", RunConfig())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "config.json", "versions.json"}


@pytest.mark.parametrize("name", ["thesis.txt", "best/model.safetensors"])
def test_a_failed_run_that_holds_anything_else_is_left_whole(name: str, tmp_path: Path) -> None:
    folder = failed(tmp_path / "run")
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).write_text("mine")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(folder.path, RunConfig())
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("file", ["status.json", "config.json"])
def test_a_failed_run_whose_removal_was_cut_short_is_no_lost_folder(file: str, tmp_path: Path, monkeypatch) -> None:
    folder = failed(tmp_path / "run")
    unlink = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.name == file:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(folder.path, RunConfig())
    assert RunFolder.open(folder.path).config() == RunConfig()  # there is a run, to be resumed or begun anew


def test_a_full_disk_where_a_run_is_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileLock, "acquire", full)
    with pytest.raises(RunError, match="the disk is full"):
        RunFolder.create(tmp_path / "run", RunConfig())


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1,", "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(RunError, match=r"data\.json"):
        folder.read_json("data.json")


def test_status_is_throttled_but_never_loses_a_change_of_state(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    status = StatusWriter(folder, interval=1000)
    status.update(state="training", step=1)
    status.update(step=2)
    assert folder.status()["step"] == 1
    status.update(state="finished")
    assert folder.status()["state"] == "finished"
    assert folder.status()["step"] == 2
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


HOLD = """
import sys, time
from pathlib import Path
from concept_tuning.engine.runs import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(RunError, match="Another process"), folder.locked():
            pass
    finally:
        holder.kill()
        holder.wait()
    with folder.locked():
        assert json.loads((tmp_path / "config.json").read_text())


def test_a_look_at_a_lock_changes_nothing_and_stops_nobody(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_held()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".lock").write_text("words")
    (tmp_path / ".lock").chmod(0o444)
    with (tmp_path / ".lock").open() as other:  # another watcher, in the middle of its look
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not folder.is_held()
    (tmp_path / ".lock").chmod(0o644)
    with folder.locked():
        for _ in range(3):
            assert folder.is_held()
    for _ in range(3):
        assert not folder.is_held()
    with folder.locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_that_is_no_plain_file_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "foreign").mkdir()
    lock, real = tmp_path / "foreign" / ".lock", RunFolder(tmp_path / "real")
    with real.locked():
        lock.symlink_to(tmp_path / "real" / ".lock")
        assert real.is_held()
        assert not RunFolder(tmp_path / "foreign").is_held()
    lock.unlink()
    os.mkfifo(lock)  # to open it would wait for ever
    assert not RunFolder(tmp_path / "foreign").is_held()
    lock.unlink()
    lock.mkdir()
    assert not RunFolder(tmp_path / "foreign").is_held()


def test_a_folder_of_a_name_that_is_too_long_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with pytest.raises(RunError, match=r"Cannot write the run folder .*: File name too long\. Name another --run-dir"):
        RunFolder.create(path, RunConfig())
    with pytest.raises(RunError, match="cannot be opened: File name too long"):
        RunFolder.open(path)


@pytest.mark.parametrize("source", ["鳥" * 80, "x" * 250, "y" * 300 + ".zip"])
def test_data_of_a_long_name_gives_a_name_that_a_disk_takes(source: str, tmp_path: Path) -> None:
    config = RunConfig()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=f"/pictures/{source}"),
        backbone=dataclasses.replace(config.backbone, architecture="z" * 300),
    )
    first = default_run_dir(config, root=tmp_path)
    assert first.name.startswith(source[:20])
    assert len(first.name.encode()) <= 200
    RunFolder.create(first, config)
    second = default_run_dir(config, root=tmp_path)
    assert second != first
    assert len(second.name.encode()) <= 200


def test_run_names_are_plain_and_fresh(tmp_path: Path) -> None:
    config = RunConfig()
    first = default_run_dir(config, root=tmp_path)
    first.mkdir(parents=True)
    second = default_run_dir(config, root=tmp_path)
    assert first != second
    assert first.name.startswith("planted_vanilla_tf-efficientnet-lite0_seed0_")
    hidden = dataclasses.replace(config, data=dataclasses.replace(config.data, source="/home/me/.pictures"))
    assert default_run_dir(hidden, root=tmp_path).name.startswith("pictures_vanilla_")  # a hidden run is not listed


@pytest.mark.parametrize(("system", "tries"), [("nt", 3), ("posix", 1)])
def test_a_file_that_somebody_reads_is_replaced_once_it_is_closed_on_windows(
    system: str, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        made.append(target)
        if len(made) < 3:
            raise PermissionError(13, "Permission denied")
        return real(self, target)

    (tmp_path / "status.json").write_text("old")
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(runs_module, "os", SimpleNamespace(name=system, getpid=os.getpid, fsync=os.fsync))
    if system == "nt":
        write_atomically(tmp_path / "status.json", "new")
    else:
        with pytest.raises(PermissionError):
            write_atomically(tmp_path / "status.json", "new")
    assert len(made) == tries
    assert (tmp_path / "status.json").read_text() == ("new" if system == "nt" else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
