"""The README's pictures of a bench: one of each figure, drawn without network, and sentences for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import bench_record
import numpy as np
import pytest
import yaml
from bench_pictures import main
from journey_browser import need_browser
from made_rows import made_rows
from made_runs import write_final
from PIL import Image

from concept_tuning.bench.spec import check_spec, settings_of

SPEC = {
    "name": "made",
    "methods": ["vanilla", "l2-sp", "delta"],
    "seeds": [1, 2],
    "backbones": ["test_resnet"],
    "data": [
        {"name": "weak", "source": "planted", "set": {"rho": 0.8}},
        {"name": "strong", "source": "planted", "set": {"rho": 0.9}, "sample_rates": [30, 100]},
    ],
}


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    return file


def test_every_figure_is_a_picture(spec_file: Path, tmp_path: Path) -> None:
    need_browser()
    bench, out, spec = tmp_path / "bench", tmp_path / "pictures", check_spec(SPEC)
    draw = np.random.default_rng(0)
    for setting in settings_of(spec):
        for seed in spec.seeds:
            write_final(bench, setting, seed, draw.random(40) < 0.7, groups=np.arange(40) // 2 % 2)
    before = sorted(bench.rglob("*"))
    assert main([str(spec_file), str(bench), "--out", str(out)]) == 0
    names = {"accuracy", "worst-group", "ranks", "learning-curves", "shortcut-map"}
    assert {file.stem for file in out.iterdir()} == names
    for file in out.iterdir():
        picture = Image.open(file).convert("L")
        assert picture.width > 1000
        assert (np.asarray(picture) < 200).mean() > 0.001  # of what is drawn, not an empty box
    assert sorted(bench.rglob("*")) == before


def test_pictures_are_drawn_of_a_record_where_no_folder_is_named(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_browser()
    out, spec = tmp_path / "pictures", check_spec(SPEC)
    monkeypatch.setattr(bench_record, "RESULTS", tmp_path)
    assert main([str(spec_file), "--out", str(out)]) == 2
    assert "There is no record bench_made.json" in capsys.readouterr().err
    cells = made_rows(spec, lambda setting, seed: (0.9, 0.5) if setting.data == "weak" else None)
    cells = [row for row in cells if row["state"] == "finished"]
    (tmp_path / "bench_made.json").write_text(json.dumps({"parts": [], "cells": cells}))
    assert main([str(spec_file), "--out", str(out)]) == 0
    assert {file.stem for file in out.iterdir()} == {"accuracy", "worst-group", "shortcut-map"}
    some = tmp_path / "some"
    assert main([str(spec_file), "--out", str(some), "--data", "weak", "--only", "accuracy"]) == 0
    assert [file.name for file in some.iterdir()] == ["accuracy.png"]
    assert main([str(spec_file), "--out", str(some), "--data", "strong"]) == 2
    assert "There are no runs of strong" in capsys.readouterr().err
    assert main([str(spec_file), "--out", str(some), "--only", "ranks"]) == 2
    assert "There is no figure ranks" in capsys.readouterr().err


def test_a_bench_that_is_not_there_gets_a_sentence(spec_file: Path, tmp_path: Path, capsys) -> None:
    assert main([str(spec_file), str(tmp_path / "missing"), "--out", str(tmp_path / "out")]) == 2
    assert "is no folder of a bench" in capsys.readouterr().err
    assert main([str(tmp_path / "missing.yaml"), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
