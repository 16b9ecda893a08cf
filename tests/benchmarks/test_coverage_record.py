"""The record of `make coverage` holds the shares of lines, of branches and of both, as coverage counts them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import coverage_record
import pytest

#: Numbers and shares as coverage 7.17 wrote them of the core.
TOTALS = {
    "covered_lines": 15596,
    "num_statements": 16681,
    "covered_branches": 2707,
    "num_branches": 3360,
    "percent_covered": 91.32777805498728,
    "percent_statements_covered": 93.49559378934117,
    "percent_branches_covered": 80.56547619047619,
}
REPORT = {"meta": {"version": "7.17.5"}, "totals": TOTALS, "files": {"one.py": {}, "two.py": {}}}


def test_the_shares_are_those_of_coverage() -> None:
    assert coverage_record.shares(REPORT) == {
        "files": 2,
        "lines": {"reached": 15596, "of": 16681, "percent": round(TOTALS["percent_statements_covered"], 1)},
        "branches": {"reached": 2707, "of": 3360, "percent": round(TOTALS["percent_branches_covered"], 1)},
        "lines_and_branches": {"reached": 18303, "of": 20041, "percent": round(TOTALS["percent_covered"], 1)},
    }


def test_the_record_says_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    monkeypatch.setattr(coverage_record, "RECORD", tmp_path / "coverage.json")
    monkeypatch.setattr(coverage_record, "commit", lambda folders: "abc1234")
    monkeypatch.setattr(sys, "argv", ["coverage_record.py", str(tmp_path / "report.json")])
    coverage_record.main()
    record = json.loads((tmp_path / "coverage.json").read_text())
    assert record.pop("results") == coverage_record.shares(REPORT)
    assert record == {"command": "make coverage", "commit": "abc1234", "coverage": "7.17.5"}
