"""The examples in CONTRIBUTING.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from tiny_runs import tiny_config

from app import state
from concept_tuning.config import DataConfig
from concept_tuning.data.known import class_folders, opening
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.errors import DataError
from concept_tuning.methods.base import StepContext
from concept_tuning.models.backbone import build_backbone

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(heading: str) -> str:
    """Return the Python under a heading."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


def run(heading: str) -> dict[str, Any]:
    """Return the names that an example defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example(heading), f"CONTRIBUTING.md, {heading}", "exec", dont_inherit=True), names)
    return names


def test_the_method_learns() -> None:
    config = tiny_config("vanilla", weights="random")
    torch.manual_seed(0)
    method = run("A method")["LabelSmoothing"](config, build_backbone(config.backbone, image_size=64), 3).train()
    optimizer = build_optimizer(method, config.optim)
    views, labels = torch.randn(6, 1, 3, 64, 64), torch.arange(6) % 3
    losses = []
    for _ in range(4):
        terms, _ = method(views, labels, StepContext(torch.Generator()))
        assert terms.keys() == method.term_weights.keys()
        loss = method.total(terms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_data_set_is_listed_read_and_missed_as_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = run("A data set")["TEXTURES"]
    assert entry.note == "CC BY 4.0. No splits are given."
    # what the section says to write beside the entry; its pictures lie in class folders
    monkeypatch.setitem(opening.BY_NAME, entry.name, entry)
    monkeypatch.setitem(opening._READERS, entry.name, ("class_folders", "class_folder_table"))
    monkeypatch.setitem(class_folders._INNER, entry.name, entry.needs[0])
    (pattern,) = entry.layout
    pixels = {name: np.full((6, 5, 3), 60 * n, np.uint8) for n, name in enumerate(("01_TUMOR", "02_STROMA"), start=1)}
    for name, picture in pixels.items():
        folder = (tmp_path / pattern).parents[1] / name
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / pattern.rpartition("/")[2].replace("*", "10009_CRC"))
    config = DataConfig(source=entry.name, root=str(tmp_path))
    table = opening.known_table(config)
    assert table.class_names == tuple(pixels)
    assert table.keys == tuple(f"{entry.needs[0]}/{name}/10009_CRC.tif" for name in pixels)
    assert table.labels.tolist() == [0, 1]
    for row, picture in enumerate(pixels.values()):
        assert (table.read(row) == picture).all()
    (tmp_path / entry.needs[0]).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=re.escape(pattern)):
        opening.known_table(config)


def test_the_diagnostic_is_right_on_a_closed_form_and_saved(tmp_path: Path) -> None:
    names = run("A diagnostic")
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = names["calibration"](probabilities, np.array([0, 1, 0, 0]), bins=10)
    assert found.error == pytest.approx((abs(1.8 - 1) + abs(1.2 - 2)) / 4)
    save_result(found, tmp_path / "result.json")
    assert load_result(names["Calibration"], tmp_path / "result.json") == found
    assert names["ANALYSIS"].joint is False


def test_the_page_shows_the_runs(tiny_diagnosis: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(state, "DEMO", tmp_path / "no-demo")
    monkeypatch.setattr(state, "ROOT", tiny_diagnosis.parent)
    page = AppTest.from_string(example("A page") + "\nrender()\n", default_timeout=60).run()
    assert not page.exception
    assert sum("seed" in text.value for text in page.markdown) >= 2


def test_every_file_it_speaks_of_is_there() -> None:
    root = Path(__file__).parents[2]
    paths = re.findall(r"`((?:concept_tuning|app|tests|methods|losses|data|diagnostics|figures|report)/[\w./]*)`", TEXT)
    assert len(paths) > 10
    missing = [path for path in paths if not any((base / path).exists() for base in (root, root / "concept_tuning"))]
    assert missing == []
