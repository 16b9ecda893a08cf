"""Write ``benchmarks/results/coverage.json``: which share of the core's lines and branches its tests reach.

``make coverage`` runs it on the report that it has just had made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from records import RESULTS, commit

RECORD = RESULTS / "coverage.json"


def shares(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts and percentages of the lines and branches that were reached.

    Args:
        report: What ``coverage json`` writes. The share of both together is what ``fail_under`` is held against.
    """
    totals = report["totals"]
    lines = (totals["covered_lines"], totals["num_statements"])
    branches = (totals["covered_branches"], totals["num_branches"])
    both = (lines[0] + branches[0], lines[1] + branches[1])
    counts = {"lines": lines, "branches": branches, "lines_and_branches": both}
    return {
        "files": len(report["files"]),
        **{name: {"reached": n, "of": of, "percent": round(100 * n / of, 1)} for name, (n, of) in counts.items()},
    }


def main() -> None:
    """Read the report that is named and write the record."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    record = {
        "command": "make coverage",
        "commit": commit(("concept_tuning", "tests", "pyproject.toml")),
        "coverage": report["meta"]["version"],
        "results": shares(report),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{record['results']['lines_and_branches']['percent']} % of lines and branches; see {RECORD}")


if __name__ == "__main__":
    main()
