"""The examples in CONTRIBUTING.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from tiny_runs import tiny_config

from app import state
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.engine.schedule import build_optimizer
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


def test_the_data_set_is_an_entry_like_the_others() -> None:
    entry = run("A data set")["TEXTURES"]
    assert entry.note == "CC BY 4.0. No splits are given."


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
