"""Cells of exported tables that a spreadsheet would run: every CSV that the project writes neutralises its texts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from concept_tuning.bench import tables
from concept_tuning.report.predictions_csv import safe_cell

ROOT = Path(__file__).resolve().parents[2]
FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    " =1",
    "\u00a0=1",
    "\ufeff=1",
    "\uff1d1",
    '=HYPERLINK("http://evil.example","x")',
]
#: What begins a cell or a row of its own, where cells are separated by semicolons or tabs.
BREAKS = [";", "\t", "\r", "\n", "; ", "\t\u00a0", ';"']


def modules_that_write_csv() -> list[Path]:
    """Return the source files that write CSV."""
    files = [
        path for folder in ("concept_tuning", "app", "benchmarks", "assets") for path in (ROOT / folder).rglob("*.py")
    ]
    marks = ("csv.writer(", "csv.DictWriter(", ".to_csv(")
    return [path for path in files if any(mark in path.read_text(encoding="utf-8") for mark in marks)]


def test_every_module_that_writes_csv_neutralises_its_texts() -> None:
    found = {
        str(path.relative_to(ROOT)): "safe_cell" in path.read_text(encoding="utf-8")
        for path in modules_that_write_csv()
    }
    assert len(found) >= 4
    assert [name for name, safe in found.items() if not safe] == []


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_begins_a_formula_gets_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert safe_cell(f"owl{text}") == f"owl{text}"


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("sign", BREAKS)
def test_a_formula_within_a_text_gets_an_apostrophe_where_a_cell_may_begin(sign: str, text: str) -> None:
    blank = text[: len(text) - len(text.lstrip(" \u00a0\ufeff"))]
    formula = text.removeprefix(blank)
    assert safe_cell(f"owl{sign}{text}") == f"owl{sign}{blank}'{formula}"
    assert safe_cell(f"{sign}{text}").endswith(f"{sign}{blank}'{formula}")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        *((text, f"'{text}") for text in FORMULAS),
        ("\t=1", "'\t'=1"),
        ("\r=1", "' =1"),
        ("\n=1", "'\n'=1"),
        ("owl;=1", "owl;'=1"),
    ],
)
@pytest.mark.parametrize("file", ["cells.csv", "trials.csv"])
def test_the_tables_of_a_bench_hold_no_formula(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, safe: str
) -> None:
    row = {"data": text, "state": text, "method": "vanilla", "accuracy": -0.5}
    monkeypatch.setattr(tables, "cell_rows", lambda spec, out: [row])
    monkeypatch.setattr(tables, "trial_rows", lambda spec, out: [row])
    monkeypatch.setattr(tables, "summary", lambda spec, out: [])
    monkeypatch.setattr(tables, "picture_rows", lambda spec, out: [])
    monkeypatch.setattr(tables, "markdown", lambda spec, rows, pictures, versions: "")
    monkeypatch.setattr(tables, "versions_of", lambda spec, out: [])
    tables.write_tables(None, tmp_path)  # type: ignore[arg-type]
    with (tmp_path / file).open(encoding="utf-8", newline="") as opened:
        (read,) = list(csv.DictReader(opened))
    assert read["data"] == read["state"] == safe
    assert (read["method"], read["accuracy"]) == ("vanilla", "-0.5")
