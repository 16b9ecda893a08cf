"""One picture, one answer: command line, dashboard, Gradio's endpoint and the ONNX export agree to 1e-4."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_server import DemoServer
from gradio_client import Client, handle_file
from PIL import Image
from safetensors.numpy import load_file

from app import state
from concept_tuning import cli
from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.one_picture import look_at

_TOLERANCE = 1e-4
_PICTURES = 4


@pytest.fixture(scope="module")
def pictures(subjects, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the first test pictures of the runs as files."""
    bundle = subjects[0].run.data()
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for place, row in enumerate(bundle.splits["test"].rows[:_PICTURES]):
        files.append(folder / f"{place}.png")
        Image.fromarray(bundle.table.read(int(row))).save(files[-1])
    return files


@pytest.fixture(scope="module")
def by_gradio(subjects, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict]]:
    """Return the endpoint's answers, asked by Gradio's own client."""
    folders = [str(subject.run.folder.path) for subject in subjects]
    server = DemoServer(tmp_path_factory.mktemp("demo"), "--run-a", folders[0], "--run-b", folders[1])
    try:
        client = Client(server.url, verbose=False)
        yield [client.predict(picture=handle_file(file), api_name="/compare") for file in pictures]
    finally:
        server.end()


@pytest.mark.parametrize("place", [0, 1])
def test_command_line_and_endpoint_agree(subjects, by_gradio, place: int, tmp_path: Path, capsys) -> None:
    folder = subjects[place].run.folder
    assert cli.main(["evaluate", str(folder.path), "--split", "test", "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    stored = load_file(folder.predictions_file("test"))
    assert (stored["probabilities.prediction"].argmax(1) == stored["labels"]).mean() == pytest.approx(accuracy)
    _agree(stored["probabilities.prediction"], by_gradio, place)


@pytest.mark.parametrize("place", [0, 1])
def test_dashboard_and_endpoint_agree(subjects, by_gradio, place: int) -> None:
    subject = subjects[place]
    keys = subject.run.data().splits["test"].keys[:_PICTURES]
    path = subject.run.folder.path
    found = [state.ask_run(path, subject.name, [key], "test", look_at) for key in keys]
    _agree(np.concatenate([one.results["picture-maps"].probabilities for one in found]), by_gradio, place)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_onnx_export_and_endpoint_agree(subjects, by_gradio, pictures, place: int, tmp_path: Path) -> None:
    import onnxruntime

    subject, out = subjects[place], tmp_path / "model.onnx"
    assert cli.main(["export", str(subject.run.folder.path), "--format", "onnx", "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(out.read_bytes())
    files = [torch.from_numpy(np.asarray(Image.open(file)).transpose(2, 0, 1).copy()) for file in pictures]
    images = torch.stack([eval_view(image, size=subject.image_size) for image in files]).float().numpy()
    (probabilities,) = session.run(["probabilities"], {"image": images})
    _agree(probabilities, by_gradio, place)


def test_the_endpoint_names_runs_classes_and_whether_they_agree(subjects, by_gradio) -> None:
    for answer in by_gradio:
        assert set(answer) == {"a", "b", "agree"}
        for side, subject in zip("ab", subjects, strict=True):
            assert answer[side]["name"] == subject.run.folder.path.name
            assert tuple(answer[side]["probabilities"]) == subject.run.class_names
            assert sum(answer[side]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            top = max(answer[side]["probabilities"], key=answer[side]["probabilities"].get)
            assert answer[side]["top_class"] == top
        assert answer["agree"] == (answer["a"]["top_class"] == answer["b"]["top_class"])


def _agree(probabilities: np.ndarray, answers: list[dict], place: int) -> None:
    side = "ab"[place]
    for expected, answer in zip(probabilities, answers, strict=False):
        found = list(answer[side]["probabilities"].values())
        assert found == pytest.approx(expected.tolist(), abs=_TOLERANCE)
