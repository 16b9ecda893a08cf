from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from concept_tuning.engine import pack
from concept_tuning.engine.evaluation import predict_split
from concept_tuning.engine.loading import load_run
from concept_tuning.engine.pack import pack_run
from concept_tuning.errors import DataError, RunError


def test_a_packed_run_predicts_as_the_run_does(subjects, tmp_path) -> None:
    run = subjects[1].run
    packed = pack_run(run.folder.path, tmp_path / "packed")
    before, after = load_file(run.folder.best_weights), load_file(packed.best_weights)
    assert before.keys() == after.keys()
    assert {value.dtype for value in after.values() if value.ndim > 1 and value.is_floating_point()} == {torch.float16}
    assert all(torch.equal(value, after[name]) for name, value in before.items() if value.ndim < 2)
    assert packed.best_weights.stat().st_size < 0.7 * run.folder.best_weights.stat().st_size
    split = run.data().splits["test"]
    found = [
        predict_split(loaded.method, split, image_size=64, batch_size=8, device=torch.device("cpu")).probabilities
        for loaded in (run, load_run(packed.path))
    ]
    np.testing.assert_allclose(found[0]["prediction"], found[1]["prediction"], atol=5e-3)
    results = json.loads((packed.path / "results.json").read_text())
    hits = found[1]["prediction"].argmax(1) == split.labels
    assert results["splits"]["test"]["accuracy"] == pytest.approx(hits.mean())
    assert "pid" not in packed.status()
    rights = {stat.S_IMODE(path.stat().st_mode) for path in (packed.best_weights, packed.path / "results.json")}
    assert len(rights) == 1, "weights are for the same readers as results"


def test_what_cannot_be_packed_is_said(subjects, tmp_path) -> None:
    path = subjects[0].run.folder.path
    with pytest.raises(RunError, match="exists"):
        pack_run(path, tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        pack_run(tmp_path, tmp_path / "out")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_text((path / "config.json").read_text())
    with pytest.raises(RunError, match="not finished"):
        pack_run(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match=r"cannot be written \(.*Not a directory"):
        pack_run(path, copy / "config.json" / "out")


def test_weights_that_may_not_be_read_are_said_and_not_taken_for_a_folder_that_cannot_be_written(
    subjects, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(RunError, match=r"model\.safetensors may not be read by this user"):
        pack_run(subjects[0].run.folder.path, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_disk_that_is_full_of_the_packed_weights_is_said(subjects, tmp_path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(pack, "save_file", full)
    with pytest.raises(RunError, match=r"packed cannot be written \(.*No space left"):
        pack.pack_run(subjects[0].run.folder.path, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_nothing_half_made_stays_where_packing_fails(subjects, tmp_path, monkeypatch) -> None:
    def gone(*arguments: object, **settings: object) -> None:
        raise DataError("The pictures are gone.")

    monkeypatch.setattr(pack, "evaluate_run", gone)
    with pytest.raises(DataError, match="are gone"):
        pack.pack_run(subjects[0].run.folder.path, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
