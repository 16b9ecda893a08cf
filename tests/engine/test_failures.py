"""How a run's work ended, said in words and recorded in its status."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from whole_runs import Recorder

from concept_tuning.engine.evaluation import Predictions
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.trainer import Trainer
from concept_tuning.errors import TrainingError


def test_a_batch_too_small_for_batch_norm_is_said(tiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="larger batch"):
        start_run(tiny(batch_size=1, image_size=32), tmp_path / "run", Recorder())
    assert RunFolder.open(tmp_path / "run").status()["state"] == "failed"


def test_a_full_disk_after_training_is_said_and_resume_ends_the_run(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Predictions, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Predictions, "save", full)
        with pytest.raises(TrainingError, match="The disk is full"):
            start_run(tiny(epochs=1), tmp_path / "run", Recorder())
    folder = RunFolder.open(tmp_path / "run")
    assert folder.status()["state"] == "failed"
    assert resume_run(folder.path, Recorder()).status()["state"] == "finished"


def test_the_end_of_another_process_of_the_run_is_said(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Trainer) -> None:
        raise RuntimeError("gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:60139.")

    monkeypatch.setattr(Trainer, "run", lost)
    with pytest.raises(TrainingError, match="Another process of this run has ended"):
        start_run(tiny(epochs=1), tmp_path / "run", Recorder())
