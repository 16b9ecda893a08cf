"""The part of Train that starts diagnoses, where others have left odd things in the folder of the diagnoses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.views import train_diagnose
from concept_tuning.config import RunConfig
from concept_tuning.diagnostics import background
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.turns import write_status


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of runs with two finished runs and a folder of diagnoses; no process starts."""

    class Ended:
        pid = 2**22 + 1

    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    monkeypatch.setattr(background, "_launch", lambda command, log: (log.write_text("Error: x\n"), Ended())[1])
    for name in ("one", "two"):
        run = RunFolder.create(tmp_path / "runs" / name, RunConfig())
        write_status(run, state="finished")
        run.write_json("results.json", {"splits": {}})
    (tmp_path / "runs" / "diagnoses").mkdir()
    return tmp_path / "runs"


def _render() -> None:
    from app.views import train_diagnose

    train_diagnose.show()


def opened() -> AppTest:
    page = AppTest.from_function(_render, default_timeout=120).run()
    assert not page.exception
    return page


def test_the_name_that_is_offered_is_free_whatever_lies_there(root: Path) -> None:
    folder = root / "diagnoses"
    (folder / "diagnosis-1.job.json").touch()  # of a server that was killed before it wrote the record
    (folder / "diagnosis-2").mkdir()
    (folder / "diagnosis-3").symlink_to(root / "nothing")
    assert train_diagnose._free_name() == "diagnosis-4"
    page = opened()
    assert page.text_input(key="train_diagnose_name").value == "diagnosis-4"
    page.button(key="train_diagnose_start").click().run()
    assert not page.exception
    assert not page.error
    assert (folder / "diagnosis-4.job.json").stat().st_size
    assert page.text_input(key="train_diagnose_name").value == "diagnosis-5"


def test_a_record_with_names_that_are_no_unicode_is_shown_with_escapes(root: Path) -> None:
    values = {"runs": ["\ud800", "two"], "total": 3, "started": 1.0}
    (root / "diagnoses" / "odd.job.json").write_text(json.dumps(values))
    page = opened()
    assert not page.error
    assert [part.value.replace("\\", "") for part in page.caption if "ud800" in part.value] == ["ud800, two"]
