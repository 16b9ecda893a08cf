"""The list of runs is honest about dead processes and damaged folders; curves are read while they are written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from concept_tuning.config import RunConfig
from concept_tuning.engine import records
from concept_tuning.engine.records import is_alive, list_runs, read_metrics, read_run, working_process
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError
from concept_tuning.settings import build_config


def written(folder: RunFolder, **values: object) -> None:
    """Write a status of now by this process, unless the values say otherwise."""
    stamp = {"pid": os.getpid(), "updated": datetime.now(UTC).isoformat(timespec="seconds")}
    folder.write_json("status.json", stamp | values)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_record_tells_what_the_files_tell(tmp_path: Path) -> None:
    folder = RunFolder.create(
        tmp_path / "demo" / "x", build_config(method="concept-tuning", backbone="test_resnet", overrides={"seed": 7})
    )
    written(folder, state="training", step=3, total_steps=8, seconds_left=12, images_per_second=4.5, message="Training")
    (run,) = list_runs(tmp_path)
    assert (run.name, run.path, run.root) == ("demo/x", tmp_path / "demo" / "x", tmp_path)
    assert (run.method, run.backbone, run.source, run.seed) == ("concept-tuning", "test_resnet", "planted", 7)
    assert (run.state, run.progress, run.seconds_left, run.images_per_second) == ("training", 3 / 8, 12, 4.5)
    assert run.updated is not None
    assert abs(datetime.now(UTC) - run.updated) < timedelta(seconds=30)
    assert run.results is None
    assert run == read_run("demo/x", tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.state = "finished"


@pytest.mark.parametrize("state", ["queued", "preparing", "training", "evaluating"])
def test_work_is_believed_only_while_its_process_lives(state: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    written(folder, state=state)
    assert read_run("run", tmp_path).state == state
    written(folder, state=state, pid=dead_pid())
    assert read_run("run", tmp_path).state == "interrupted"
    assert state in read_run("run", tmp_path).message
    before_birth = datetime.now(UTC) - timedelta(days=1)
    written(folder, state=state, updated=before_birth.isoformat(timespec="seconds"))  # the id was given away since
    assert read_run("run", tmp_path).state == "interrupted"


def test_a_dead_child_that_nobody_asked_after_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = {"state": "training", "pid": child.pid, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
    found = working_process(status)
    assert found is not None
    assert found.pid == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # wait until it is dead, and leave it a zombie
    assert working_process(status) is None
    child.communicate()


def test_a_process_that_ends_between_two_questions_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    child.communicate()
    monkeypatch.setattr(psutil.Process, "is_running", lambda self: True)
    assert not is_alive(process)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_at_rest_needs_no_process(state: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    folder.write_json("results.json", {"splits": {"test": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 80}}})
    written(folder, state=state, pid=dead_pid(), step=2, total_steps=8, seconds_left=3)
    run = read_run("run", tmp_path)
    assert (run.state, run.seconds_left, run.working) == (state, None, False)
    assert run.progress == (1 if state == "finished" else 0.25)
    assert (run.results is not None) == (state == "finished")


def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    RunFolder.create(tmp_path / "b", RunConfig())
    RunFolder.create(tmp_path / "demo" / "a", RunConfig())
    RunFolder.create(tmp_path / "demo" / "deeper" / "c", RunConfig())
    RunFolder.create(tmp_path / ".hidden", RunConfig())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert [run.name for run in list_runs(tmp_path)] == ["b", "demo/a"]
    with pytest.raises(RunError, match="cannot be listed"):
        list_runs(tmp_path / "notes.txt")
    for name in (".hidden", "demo/deeper/c", "demo/../b", "./b", f"../{tmp_path.name}/b", str(tmp_path / "b"), "demo"):
        with pytest.raises(RunError, match="There is no run"):
            read_run(name, tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.create(tmp_path / "mine", RunConfig())
    (tmp_path / "theirs").mkdir()
    for name in ("is_file", "iterdir"):
        real = getattr(Path, name)

        def refused(self: Path, real=real):
            if "theirs" in self.relative_to(tmp_path).parts:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(self)

        monkeypatch.setattr(Path, name, refused)
    assert [run.name for run in list_runs(tmp_path)] == ["mine"]


def test_a_run_that_vanishes_while_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = records._read_whole

    def too_late(name: str, root: Path, path: Path) -> records.RunRecord:
        if name == "gone":
            shutil.rmtree(path)
        return read(name, root, path)

    monkeypatch.setattr(records, "_read_whole", too_late)
    for name in ("gone", "kept"):
        RunFolder.create(tmp_path / name, RunConfig())
    assert [run.name for run in list_runs(tmp_path)] == ["kept"]
    RunFolder.create(tmp_path / "gone", RunConfig())
    with pytest.raises(RunError, match="There is no run 'gone'"):
        read_run("gone", tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[" * 100_000),
        ("config.json", '{"method": "vanilla", "colour": "red"}'),
        ("config.json", None),
        ("status.json", "\x00"),
        ("status.json", "[]"),
        ("status.json", '{"state": "dreaming"}'),
        ("status.json", '{"state": "stopped", "step": "many"}'),
        ("status.json", '{"state": "stopped", "step": 1e999}'),
        ("status.json", '{"state": "stopped", "updated": "yesterday"}'),
        ("status.json", '{"state": "stopped", "updated": "0001-01-01T00:00:00"}'),
        ("status.json", '{"state": "finished"}'),
    ],
)
def test_a_damaged_run_is_listed_as_broken_with_the_reason(file: str, content, tmp_path: Path) -> None:
    written(RunFolder.create(tmp_path / "bad", RunConfig()), state="stopped")
    RunFolder.create(tmp_path / "good", RunConfig())
    if content is None:
        (tmp_path / "bad" / file).unlink()
    else:
        (tmp_path / "bad" / file).write_text(content)
    bad, good = list_runs(tmp_path)
    assert (bad.state, good.state) == ("broken", "interrupted")
    assert len(bad.message) > 20
    assert not bad.working


@pytest.mark.parametrize(
    "splits",
    [
        [],
        {"test": None},
        {"test": {}},
        {"test": {"accuracy": "x", "low": 0, "high": 1, "n": 3}},
        {"test": {"accuracy": 0.5, "low": 0, "high": 1, "n": 3, "worst_group_accuracy": "none"}},
    ],
)
def test_a_finished_run_with_odd_results_is_broken_and_the_others_are_not(splits: object, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "bad", RunConfig())
    written(folder, state="finished")
    folder.write_json("results.json", {"splits": splits})
    RunFolder.create(tmp_path / "good", RunConfig())
    bad, good = list_runs(tmp_path)
    assert (bad.state, good.state) == ("broken", "interrupted")
    assert "results.json" in bad.message


@pytest.mark.parametrize("row", ['{"kind": "evaluation", "accuracy": 1}', '{"kind": "step", "step": "x"}'])
def test_curves_without_steps_are_damaged(row: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    folder.metrics_file.write_text(f"{row}\n")
    with pytest.raises(RunError, match="Line 1 of"):
        read_metrics(read_run("run", tmp_path))


def test_curves_come_by_term_and_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    run = read_run("run", tmp_path)
    assert read_metrics(run).steps == {}
    rows = [
        {"kind": "step", "step": 1, "epoch": 0, "cross_entropy": 2.0, "loss": 2.5},
        {"kind": "step", "step": 2, "epoch": 0, "loss": 1.5},
        {"kind": "evaluation", "step": 2, "accuracy": 0.5, "worst_group_accuracy": None, "heads": {"a": {"loss": 3}}},
    ]
    whole = "".join(json.dumps(row) + "\n" for row in rows)
    for half in ("", '{"kind": "step", "st', '{"kind": "step", "step": 3, "loss": 1.0}', "é"[:1]):
        folder.metrics_file.write_text(whole + half)
        metrics = read_metrics(run)
        assert metrics.steps == {"step": [1, 2], "epoch": [0, 0], "cross_entropy": [2.0, None], "loss": [2.5, 1.5]}
        assert metrics.evaluations == {
            "step": [2],
            "accuracy": [0.5],
            "worst_group_accuracy": [None],
            "heads.a.loss": [3],
        }
    folder.metrics_file.write_text("nonsense\n" + whole)
    with pytest.raises(RunError, match="Line 1"):
        read_metrics(run)
    folder.metrics_file.unlink()
    folder.metrics_file.mkdir()
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read: it is no plain file"):
        read_metrics(run)
