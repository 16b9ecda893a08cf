"""Trained runs loaded to predict: the recorded result again, and damage said."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from whole_runs import Recorder

from concept_tuning.engine import loading
from concept_tuning.engine.loading import evaluate_run, load_run
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.turns import write_status
from concept_tuning.errors import DataError, RunError


def test_evaluate_repeats_the_recorded_result(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny("concept-tuning"), tmp_path / "run", Recorder())
    run = load_run(folder.path)
    for split in ("val", "test"):
        recorded = folder.read_json("results.json")["splits"][split]
        again = evaluate_run(run, split).to_dict()
        assert again["accuracy"] == recorded["accuracy"]
        assert again["loss"] == pytest.approx(recorded["loss"], rel=1e-5)
    with pytest.raises(RunError, match="Unknown split 'holdout'; there are train, val, test"):
        evaluate_run(run, "holdout")
    data = run.data()
    with pytest.raises(DataError, match=r"The classes are now swan, gull, .*Put the old ones back"):
        evaluate_run(run, "test", data=dataclasses.replace(data, class_names=("swan", "gull", *data.class_names[2:])))


@pytest.mark.parametrize(("name", "text"), [("config.json", "[]"), ("data.json", "{}"), ("config.json", "null")])
def test_a_damaged_run_folder_is_said(name: str, text: str, tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "one", Recorder())
    (folder.path / name).write_text(text)
    with pytest.raises(RunError, match="the run folder is damaged"):
        load_run(folder.path)


def test_best_weights_that_are_damaged_before_the_end_are_said(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "one", Recorder())
    folder.write_json("status.json", {"state": "evaluating"})
    folder.best_weights.write_bytes(folder.best_weights.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"best/model\.safetensors cannot be read .* the run folder is damaged"):
        resume_run(folder.path, Recorder())
    assert folder.status()["state"] == "failed"


def test_weights_that_may_not_be_read_are_not_called_damaged(
    subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = subjects[0].run.folder.path
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(RunError, match=r"best/model\.safetensors may not be read by this user") as told:
        load_run(path)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_settings_of_a_network_that_no_memory_holds_are_said(
    error: Exception, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start_run(tiny(max_steps=1), tmp_path / "one", Recorder())

    def too_large(*args: object) -> None:
        raise error

    monkeypatch.setattr(loading, "build_method", too_large)
    with pytest.raises(RunError, match=r"cannot be built .* its config\.json is damaged"):
        load_run(folder.path)


def test_weights_of_another_method_are_refused(tiny, tmp_path: Path) -> None:
    one = start_run(tiny(epochs=1), tmp_path / "one", Recorder())
    other = start_run(tiny("concept-tuning", epochs=1), tmp_path / "other", Recorder())
    shutil.copy(one.best_weights, other.best_weights)
    with pytest.raises(RunError, match="does not fit"):
        load_run(other.path)


def test_a_trial_of_a_bench_keeps_no_weights_and_says_so(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "run", Recorder(), splits=())
    folder.best_weights.unlink()
    with pytest.raises(RunError, match="is a trial of a bench's search"):
        load_run(folder.path)
    write_status(folder, state="stopped")
    with pytest.raises(RunError, match="finish it by `concept-tuning resume"):
        load_run(folder.path)
    whole = start_run(tiny(epochs=1), tmp_path / "whole", Recorder())
    whole.best_weights.unlink()
    with pytest.raises(RunError, match=r"is finished, but its weights .* are gone"):
        load_run(whole.path)
