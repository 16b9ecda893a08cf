"""The record of `make mutants` covers the files it is set up for, and every mutant that lives has its reason."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "mutation.json").read_text(encoding="utf-8"))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
NOTICED = {"killed", "timeout"}


def test_all_files_are_there_but_those_in_which_nothing_can_be_changed() -> None:
    wanted = {str(path.relative_to(ROOT)) for pattern in SETTINGS["only_mutate"] for path in ROOT.glob(pattern)}
    assert set(RECORD["files"]) == wanted - {"concept_tuning/losses/__init__.py"}


def test_every_mutant_that_lives_is_listed_with_a_reason() -> None:
    living = {
        path: sum(number for status, number in counts.items() if status not in NOTICED)
        for path, counts in RECORD["files"].items()
    }
    listed = Counter(mutant.partition(", ")[0] for mutants in RECORD["left"].values() for mutant in mutants)
    assert listed == {path: number for path, number in living.items() if number}
    assert all(reason.endswith(".") for reason in RECORD["left"])


def test_the_total_is_the_sum_over_files() -> None:
    total: Counter[str] = Counter()
    for counts in RECORD["files"].values():
        total.update(counts)
    assert RECORD["total"] == total
    assert sum(total.values()) > 3000
