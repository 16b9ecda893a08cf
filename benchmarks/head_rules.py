"""What the rule for Concept-Tuning's two heads decides: finished runs of benches, by which head answers.

    python benchmarks/head_rules.py runs/bench/offline
    python benchmarks/head_rules.py runs/bench/offline runs/bench/more --record

Nothing is trained: a run's results have the accuracy of each head and of both together, on validation and test. The
rules are ours (both heads answer together), each head alone, the better one of validation, and the better one of the
test for each run, which the authors' code takes and which flatters, since the test then chooses.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from records import RESULTS, keep
from rich.console import Console
from rich.table import Table

from concept_tuning.errors import RunError

#: Rules in the order of the table.
RULES = ("both", "classifier", "front_door", "better on validation", "better on test")
_HEADS = RULES[1:3]


def rules_of(splits: dict[str, Any]) -> dict[str, float]:
    """Return a run's test accuracy, 0..1, by each rule, from the splits of its ``results.json``."""
    test, validation = splits["test"], splits["val"]
    heads: dict[str, float] = test["heads"]
    return {
        "both": test["accuracy"],
        **{name: heads[name] for name in _HEADS},
        "better on validation": heads[max(_HEADS, key=lambda name: validation["heads"][name])],
        "better on test": max(heads[name] for name in _HEADS),
    }


def by_setting(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the mean over runs of each rule's test accuracy in percent, for every data and method with two heads.

    Args:
        folders: Of benches; of a setting and seed that several have, that of the first counts.

    Raises:
        RunError: if there is no finished run with two heads.
    """
    runs: dict[Path, dict[str, float]] = {}
    for folder in folders:
        for file in sorted((folder / "final").rglob("results.json")):
            splits = json.loads(file.read_text(encoding="utf-8"))["splits"]
            if set(_HEADS) <= splits["test"].get("heads", {}).keys():
                runs.setdefault(file.parent.relative_to(folder), rules_of(splits))
    if not runs:
        raise RunError("There is no finished run of a method with two heads; name folders of benches that have some.")
    settings: dict[tuple[str, str], list[dict[str, float]]] = {}
    for place, found in runs.items():
        _, data, _, _, method, _ = place.parts
        settings.setdefault((data, method), []).append(found)
    rows = [(data, method, found) for (data, method), found in sorted(settings.items())]
    rows.append(("all", "", list(runs.values())))
    return [
        {
            "data": data,
            "method": method,
            "runs": len(found),
            **{rule: round(100 * fmean(run[rule] for run in found), 1) for rule in RULES},
        }
        for data, method, found in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and record it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of benches")
    parser.add_argument("--record", action="store_true", help="write the means to results/head_rules.json")
    options = parser.parse_args(arguments)
    rows = by_setting(options.folders)
    table = Table("data", "method", "runs", *(rule.replace("_", " ") for rule in RULES), title="test accuracy, percent")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.record:
        keep(RESULTS / "head_rules.json", "head_rules.py", arguments, rows=rows)


if __name__ == "__main__":
    main()
