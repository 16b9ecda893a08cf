"""The crash campaign sees what is lost, damaged or left over, and finds nothing in a few kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from crash_checks import SAME, Outcome, check_checkpoints, compare

from concept_tuning.engine.checkpoint import save_checkpoint

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "crash_campaign.py"


def test_a_damaged_and_a_lost_checkpoint_are_seen(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", step=step, weights={}, state={"step": step})
    found = Outcome()
    assert check_checkpoints(tmp_path, 0, found) == 2
    assert (found.read, found.wrong) == (2, [])
    (tmp_path / "checkpoints" / "step-000000002" / "state.pt").write_bytes(b"damaged")
    assert check_checkpoints(tmp_path, 2, found) == 1
    unreadable, lost = found.wrong
    assert "cannot be read" in unreadable
    assert "was of step 2 and now is of 1" in lost


def test_a_byte_a_file_and_a_leftover_are_seen(tmp_path: Path) -> None:
    for name in ("whole", "same", "other"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        for file in ("metrics.jsonl", "results.json"):
            (tmp_path / name / file).write_text("a")
    found = Outcome()
    compare(tmp_path / "whole", tmp_path / "same", SAME, found)
    assert (found.same, found.wrong) == (1, [])
    (tmp_path / "other" / "metrics.jsonl").write_text("b")
    (tmp_path / "other" / "results.json").unlink()
    (tmp_path / "other" / "checkpoints" / ".writing-1").mkdir()
    (tmp_path / "other" / "checkpoints" / "step-000000001").mkdir()
    compare(tmp_path / "whole", tmp_path / "other", SAME, found)
    assert found.same == 1
    assert found.wrong == [
        "other: metrics.jsonl",
        "other: results.json",
        "other: left over: checkpoints/.writing-1",
        "other: half a checkpoint: step-000000001",
    ]


def test_of_a_table_only_the_clock_may_differ(tmp_path: Path) -> None:
    found = Outcome()
    for name, cells in (("whole", "0.5,9"), ("same", "0.5,7"), ("other", "0.6,9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cells.csv").write_text(f"accuracy,images_per_second\n{cells}\n")
    compare(tmp_path / "whole", tmp_path / "same", ("cells.csv",), found)
    assert found.wrong == []
    compare(tmp_path / "whole", tmp_path / "other", ("cells.csv",), found)
    assert found.wrong == ["other: cells.csv"]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "kills"), [("training", 3), ("bench", 2), ("queue", 2)])
def test_a_few_kills_change_nothing(what: str, kills: int) -> None:
    command = [sys.executable, str(CAMPAIGN), what, "--kills", str(kills), "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    assert record["kills"] == kills
    assert record["killed_and_ended_with_the_same_bytes"] >= 1
