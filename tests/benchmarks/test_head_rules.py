"""The rule for two heads: what each would have answered, from what a run recorded."""

from __future__ import annotations

import json
from pathlib import Path

import head_rules
import pytest

from concept_tuning.errors import RunError


def write(folder: Path, seed: int, *, test: tuple[float, float, float], val: tuple[float, float]) -> None:
    """Write what head_rules reads of a run: accuracies of both heads, of the classifier and of the front door."""
    splits = {
        "val": {"accuracy": 0.5, "heads": {"classifier": val[0], "front_door": val[1]}},
        "test": {"accuracy": test[0], "heads": {"classifier": test[1], "front_door": test[2]}},
    }
    path = folder / "final" / "birds" / "net" / "100" / "ct-cheap" / f"seed-{seed}"
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps({"splits": splits}))


def test_validation_chooses_by_itself_and_the_test_takes_the_better() -> None:
    splits = {
        "val": {"heads": {"classifier": 0.6, "front_door": 0.7}},
        "test": {"accuracy": 0.75, "heads": {"classifier": 0.8, "front_door": 0.5}},
    }
    assert head_rules.rules_of(splits) == {
        "both": 0.75,
        "classifier": 0.8,
        "front_door": 0.5,
        "better on validation": 0.5,
        "better on test": 0.8,
    }


def test_means_are_over_the_runs_and_a_run_of_two_folders_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, test=(0.9, 0.8, 0.7), val=(0.9, 0.1))
    write(tmp_path / "a", 2, test=(0.7, 0.6, 0.8), val=(0.1, 0.9))
    write(tmp_path / "b", 2, test=(0.1, 0.1, 0.1), val=(0.1, 0.9))
    one, total = head_rules.by_setting([tmp_path / "a", tmp_path / "b"])
    assert one == {
        "data": "birds", "method": "ct-cheap", "runs": 2, "both": 80.0, "classifier": 70.0, "front_door": 75.0,
        "better on validation": 80.0, "better on test": 80.0,
    }  # fmt: skip
    assert (total["data"], total["runs"], total["both"]) == ("all", 2, 80.0)


def test_methods_with_one_head_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "final" / "birds" / "net" / "100" / "vanilla" / "seed-1"
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps({"splits": {"test": {"accuracy": 1.0}, "val": {"accuracy": 1.0}}}))
    with pytest.raises(RunError, match="no finished run of a method with two heads"):
        head_rules.by_setting([tmp_path])
