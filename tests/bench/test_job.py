"""A cell whose run folder is there already: it is waited for while another process works on it."""

from __future__ import annotations

import dataclasses
import errno
import json
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import made_runs
import pytest
import torch
from filelock import FileLock
from tiny_runs import tiny_config

from concept_tuning.bench import job
from concept_tuning.bench.cells import Cell, state_of
from concept_tuning.bench.job import Job, do_job
from concept_tuning.bench.spec import Setting
from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.trainer import Trainer


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    setting = Setting(data="birds", backbone="test_resnet", sample_rate=100, method="vanilla")
    config = tiny_config(device="cpu")
    return Cell(setting=setting, kind="final", number=1, config=config, path=tmp_path / "seed-1")


def do(cell: Cell) -> None:
    do_job(Job.of(cell, threads=torch.get_num_threads()))


def test_a_run_that_another_process_holds_is_waited_for(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.create(cell.path, cell.config)
    lock, waited = FileLock(cell.path / ".lock"), []

    def sleep(seconds: float) -> None:
        waited.append(cell.state)
        if len(waited) == 2:
            lock.release()

    monkeypatch.setattr(job, "time", SimpleNamespace(sleep=sleep))
    lock.acquire()
    do(cell)
    assert waited == ["open", "open"]
    assert cell.state == "finished"
    assert not (cell.path / "checkpoints").exists()


def test_a_run_that_is_finished_while_its_lock_is_waited_for_is_left(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder.create(cell.path, cell.config)
    locked = RunFolder.locked

    def lock_at_last(self: RunFolder) -> AbstractContextManager[None]:
        made_runs.write_run(cell.path)  # by the process that held it until now
        return locked(self)

    monkeypatch.setattr(RunFolder, "locked", lock_at_last)
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("It is learnt again."))
    do(cell)
    assert cell.state == "finished"


def test_a_run_that_another_process_begins_at_the_same_moment_is_gone_on_with(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RunFolder.create

    def begin_later(path: Path, config: RunConfig, **named: object) -> RunFolder:
        begin(path, config, **named)  # the other one
        return begin(path, config, **named)

    monkeypatch.setattr(RunFolder, "create", begin_later)
    monkeypatch.setattr(job, "time", SimpleNamespace(sleep=lambda seconds: None))
    do(cell)
    assert cell.state == "finished", cell.failure


def test_a_trial_that_an_older_version_began_reads_no_test(cell: Cell) -> None:
    """Its folder does not say what it predicts."""
    trial = dataclasses.replace(cell, kind="trial")
    RunFolder.create(trial.path, trial.config)
    do(trial)
    assert trial.state == "finished", trial.failure
    assert RunFolder.open(trial.path).read_json("results.json")["splits"] == {}


def test_what_is_finished_is_left_but_for_what_nothing_reads_again(cell: Cell) -> None:
    made_runs.write_run(cell.path)
    (cell.path / "checkpoints").mkdir()
    do(cell)
    assert state_of(cell.path) == "finished"
    assert not (cell.path / "checkpoints").exists()


@pytest.mark.timeout(60)
def test_a_run_folder_that_cannot_be_locked_is_told_and_not_waited_for(cell: Cell) -> None:
    made_runs.write_run(cell.path)
    (cell.path / "config.json").write_text(json.dumps(cell.config.to_dict()))
    (cell.path / "status.json").write_text(json.dumps({"state": "training"}))
    (cell.path / ".lock").mkdir()  # root may write into a read-only folder, but not into this
    do(cell)
    assert cell.state == "failed"
    assert "cannot be worked on" in cell.failure


def test_a_run_that_the_machine_failed_is_left_to_be_tried_again(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Trainer) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", fail)
        do(cell)
    assert cell.state == "open"
    assert "could not be read or written" in RunFolder.open(cell.path).status()["message"]
    do(cell)
    assert cell.state == "finished"
