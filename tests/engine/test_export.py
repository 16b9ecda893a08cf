from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from concept_tuning.data.transforms import eval_view
from concept_tuning.engine.evaluation import PREDICTION, Predictions
from concept_tuning.engine.export import export_run
from concept_tuning.engine.loading import LoadedRun, load_run
from concept_tuning.engine.session import start_run
from concept_tuning.errors import RunError


class Silent:
    def message(self, text: str) -> None: ...

    def step(self, done: int, total: int, values: object) -> None: ...


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    from tiny_runs import tiny_config

    path = tmp_path_factory.mktemp("export") / "run"
    start_run(tiny_config("concept-tuning", epochs=1), path, Silent())
    return load_run(path)


def test_onnx_gives_the_probabilities_the_run_recorded(run: LoadedRun, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = export_run(run, "onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(out))
    split = run.data().splits["test"]
    recorded = Predictions.load(run.folder.predictions_file("test")).probabilities[PREDICTION]
    for count in (1, 5):
        images = torch.stack([eval_view(split.image(i), size=run.config.data.image_size) for i in range(count)])
        (found,) = session.run(["probabilities"], {"image": images.float().numpy()})
        np.testing.assert_allclose(found, recorded[:count], atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(run.class_names)


def test_safetensors_holds_weights_names_and_settings(run: LoadedRun, tmp_path: Path) -> None:
    out = export_run(run, "safetensors", tmp_path / "model.safetensors")
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["class_names"]) == list(run.class_names)
        assert json.loads(file.metadata()["config"]) == run.config.to_dict()
        for part, module in run.method.inference_modules().items():
            for name, value in module.state_dict().items():
                assert torch.equal(file.get_tensor(f"{part}.{name}"), value)


def test_unknown_format_and_missing_folder_are_said(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="safetensors, onnx"):
        export_run(run, "pickle", tmp_path / "x")
    with pytest.raises(RunError, match="does not exist"):
        export_run(run, "onnx", tmp_path / "no" / "x.onnx")
    with pytest.raises(RunError, match="is a folder; name a file for --out"):
        export_run(run, "safetensors", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_says_which_to_install(run: LoadedRun, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RunError, match="pip install onnx onnxscript"):
        export_run(run, "onnx", tmp_path / "model.onnx")


def test_an_onnx_file_that_cannot_be_written_leaves_the_old_one(run: LoadedRun, tmp_path: Path, monkeypatch) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    (tmp_path / "model.onnx").write_bytes(b"old")

    def full(proto: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(RunError, match=r"model\.onnx could not be written \(No space left on device\)"):
        export_run(run, "onnx", tmp_path / "model.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_weights_that_cannot_be_written_are_said_without_a_word_of_checkpoints(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("concept_tuning.engine.checkpoint.save_file", full)
    with pytest.raises(RunError, match=r"model\.safetensors cannot be written: .*No space left") as told:
        export_run(run, "safetensors", tmp_path / "model.safetensors")
    assert "checkpoint" not in str(told.value)
