"""The crash campaign sees what is lost, damaged or left over, and finds nothing in a few kills."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import crash_bench_queue
import psutil
import pytest
from crash_bench_queue import _Bench
from crash_checks import SAME, Outcome, check_checkpoints, compare, half_written, toothless, writing

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


def test_what_is_half_written_is_seen_anywhere_below_a_folder(tmp_path: Path) -> None:
    cell = tmp_path / "search" / "trial-0"
    (cell / "checkpoints" / ".writing-1").mkdir(parents=True)
    left = [tmp_path / ".bench.json.1.tmp", cell / ".status.json.1.tmp", cell / "checkpoints/.writing-1/.tmpAb12Cd"]
    for file in (*left, cell / ".lock", cell / "bench.json", cell / ".tmp"):
        file.touch()
    assert set(half_written(tmp_path)) == {*left, cell / "checkpoints" / ".writing-1"}
    written = writing(tmp_path)
    assert written() == []
    (cell / "checkpoints" / ".writing-2").mkdir()
    assert written() == [cell / "checkpoints" / ".writing-2"]


def test_a_bench_whose_cells_have_left_something_is_seen(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name / "final" / "birds" / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "final" / "birds" / "results.json").write_text("a")
    (tmp_path / "killed" / "final" / "birds" / "checkpoints" / "step-000000001").mkdir()
    (tmp_path / "killed" / "final" / "birds" / ".status.json.1.tmp").touch()
    found = Outcome()
    compare(tmp_path / "whole", tmp_path / "killed", ("final/**/results.json",), found)
    assert found.wrong == [
        "killed: left over: final/birds/.status.json.1.tmp",
        "killed: half a checkpoint: step-000000001",
    ]


class _StandIn(_Bench):
    """Not a bench: a process with a child in a session of its own, that leaves a file half written."""

    def begin(self) -> psutil.Popen:
        child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)"
        file = f"open(f'{self.out}/.table.{{os.getpid()}}.tmp', 'w')"
        code = f"import os, subprocess, sys, time; {child}; {file}; time.sleep(60)"
        return psutil.Popen([sys.executable, "-c", code])


def test_a_bench_is_killed_alone_and_with_its_cells(tmp_path: Path) -> None:
    one, found = _StandIn(tmp_path / "spec.yaml", tmp_path), Outcome()
    assert one.kill("alone", 0, found, aim=".table.*", alone=True)
    (orphan,) = one.orphans
    assert orphan.is_running()
    assert orphan.status() != psutil.STATUS_STOPPED
    assert one.kill("all", 0, found, aim=".table.*")
    assert one.orphans == []
    assert not orphan.is_running()
    assert (found.kills, found.half_written) == ({"alone": 1, "all": 1}, 2)


def test_only_checkpoints_of_cells_that_have_not_ended_are_read(tmp_path: Path) -> None:
    found, one = Outcome(), _Bench(tmp_path / "spec.yaml", tmp_path)
    for name, state in (("trial-0", "training"), ("trial-1", "finished")):
        save_checkpoint(tmp_path / name / "checkpoints", step=1, weights={}, state={"step": 1})
        (tmp_path / name / "config.json").touch()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": state}))
    assert one._look(found)
    assert (found.read, one.newest) == (1, {tmp_path / "trial-0": 1})
    assert not one._look(found)
    assert (found.read, found.wrong) == (2, [])


def test_kills_that_met_training_are_counted() -> None:
    found = Outcome()
    for left, newer in ((False, False), (True, False), (False, True), (True, True)):
        found.note_kill("the run", left=left, newer=newer)
        found.note_kill("the server", left=left, of_training=False)
    assert (found.kills, found.of_training) == ({"the run": 4, "the server": 4}, 4)
    assert (found.half_written, found.met) == (4, 3)


def test_a_campaign_that_met_no_training_or_no_writing_is_toothless() -> None:
    assert toothless(Outcome(of_training=30, read=10, met=10, half_written=3)) == []
    weak = toothless(Outcome(of_training=30, read=9, met=9, half_written=2))
    assert weak == [
        "toothless: checkpoints read: 9; with 30 kills of what trains, 10 are the least",
        "toothless: kills that met training: 9; with 30 kills of what trains, 10 are the least",
        "toothless: kills that left something half written: 2; with 30 kills of what trains, 3 are the least",
    ]
    assert toothless(Outcome(of_training=2)) == []  # of two kills nothing is asked
    assert len(toothless(Outcome(of_training=3))) == 2


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
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("what", "kills"), [("training", 3), ("queue", 2)])
def test_a_few_kills_change_nothing(what: str, kills: int) -> None:
    command = [sys.executable, str(CAMPAIGN), what, "--kills", str(kills), "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    assert record["kills"] == kills
    assert record["killed_and_ended_with_the_same_bytes"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_kills_of_a_bench_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = crash_bench_queue._SPEC["set"] | {"epochs": 10}  # two kills need not meet training
    monkeypatch.setitem(crash_bench_queue._SPEC, "set", short)
    found = crash_bench_queue.bench(tmp_path, 2, random.Random(0))
    assert found.kills.total() == 2
    assert found.same >= 1
    assert found.wrong == []
