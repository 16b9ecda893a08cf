from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from concept_tuning.cli import main


@pytest.fixture(scope="module")
def runs(subjects) -> list[str]:
    return [str(subject.run.folder.path) for subject in subjects]


def diagnose(*arguments: str) -> int:
    return main(["diagnose", *arguments])


def test_diagnose_writes_results_a_report_and_the_findings(runs, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert diagnose(*runs, "--out", str(out), "--images", "0", "--only", "predictions", "verdict", "ledger") == 0
    printed = capsys.readouterr()
    assert "vanilla has " in printed.out
    assert f"Report: {out / 'report.html'}" in printed.out
    assert "Predictions and mistakes" in printed.err
    overview = json.loads((out / "diagnosis.json").read_text())
    assert overview["only"] == ["predictions", "verdict", "ledger"]
    assert overview["limit"] is None
    first = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == first


def test_pictures_are_at_most_as_many_as_asked_for(runs, tmp_path) -> None:
    assert diagnose(runs[0], "--out", str(tmp_path), "--images", "5", "--only", "predictions", "--quiet") == 0
    assert json.loads((tmp_path / "diagnosis.json").read_text())["pictures"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "-1"], "0 or more"),
        (["--seed", "-1"], "0 or more"),
        (["--only", "groupz"], "no analysis 'groupz'"),
        (["--source-folder", "nowhere"], "not a folder"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(runs, tmp_path, capsys, arguments, words) -> None:
    out = tmp_path / "out"
    assert diagnose(runs[0], "--out", str(out), *arguments) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_bad_runs_leave_an_earlier_diagnosis_alone(runs, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert diagnose(runs[0], "--out", str(out), "--only", "predictions", "--quiet") == 0
    before = (out / "diagnosis.json").read_bytes()
    bare = tmp_path / "bare"
    shutil.copytree(runs[0], bare)
    shutil.rmtree(bare / "best")
    for bad, words in (
        ([str(tmp_path)], "not a run folder"),
        ([str(bare)], "is finished, but its weights"),
        ([runs[0], runs[0]], "given twice"),
    ):
        assert diagnose(*bad, "--out", str(out)) == 2
        assert words in capsys.readouterr().err
    assert (out / "diagnosis.json").read_bytes() == before


def test_a_damaged_diagnosis_is_named(runs, tmp_path: Path, capsys) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "run the diagnosis again" in capsys.readouterr().err
    assert diagnose(runs[0], "--out", str(tmp_path), "--only", "predictions", "--quiet") == 0
    next((tmp_path / "results").glob("*predictions.json")).write_text("[1, 2")
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a saved Predictions" in capsys.readouterr().err
