"""Cells in processes of this machine: one that is killed is begun again, and a stop leaves what can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from process_family import descendants
from tiny_bench import TINY_BENCH, wait_until_working

from concept_tuning.bench import workers
from concept_tuning.bench.cells import Cell, final_cells
from concept_tuning.bench.job import Job
from concept_tuning.bench.runner import run_bench
from concept_tuning.bench.spec import BenchSpec, check_spec
from concept_tuning.bench.workers import in_processes
from concept_tuning.engine.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def bench(epochs: int, checkpoint_seconds: int = 0) -> BenchSpec:
    """Return a bench of two final runs."""
    setting = {**TINY_BENCH["set"], "epochs": epochs, "checkpoint_seconds": checkpoint_seconds}  # type: ignore[dict-item]
    return check_spec(TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "set": setting})


def test_a_cell_whose_process_is_killed_is_begun_again_to_the_same_results(tmp_path: Path) -> None:
    spec, whole, out = bench(12), tmp_path / "whole", tmp_path / "out"
    run_bench(spec, whole, workers=lambda cells: in_processes(cells, 2))
    handed: list[list[Path]] = []
    killed: list[int] = []

    def kill(cell: Cell) -> None:
        killed.append(wait_until_working(cell))
        os.kill(killed[0], signal.SIGKILL)

    def killing(cells: Sequence[Cell]) -> Iterator[Cell]:
        handed.append([cell.path for cell in cells])
        with ThreadPoolExecutor(1) as pool:
            victim = None if killed else pool.submit(kill, cells[0])
            yield from in_processes(cells, 2)
            if victim:
                victim.result()

    run_bench(spec, out, workers=killing)
    first, second = final_cells(spec, out)
    assert handed == [[first.path, second.path], [first.path]]  # the other, which was finished, not again
    for cell, same in zip((first, second), final_cells(spec, whole), strict=True):
        for name in ("results.json", "metrics.jsonl", "best/model.safetensors"):
            assert (cell.path / name).read_bytes() == (same.path / name).read_bytes()
    assert RunFolder.open(first.path).status()["pid"] != killed[0]


def test_a_server_does_cells_one_after_another_each_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = final_cells(bench(1), tmp_path / "out")
    (third, *_) = final_cells(bench(1), tmp_path / "other")
    assert list(in_processes([first], 1)) == [first]
    (server,) = workers._idle
    assert list(in_processes([second], 1)) == [second]
    assert workers._idle == [server]
    pids = {RunFolder.open(cell.path).status()["pid"] for cell in (first, second)}
    assert len(pids) == 2
    monkeypatch.setenv("SOMETHING", "else")
    assert list(in_processes([third], 1)) == [third]
    assert [cell.state for cell in (first, second, third)] == ["finished"] * 3
    assert server not in workers._idle
    assert not server.alive()


def test_where_nothing_can_be_forked_a_server_does_one_cell_and_ends(tmp_path: Path) -> None:
    cell = final_cells(bench(1), tmp_path / "out")[0]
    code = "from concept_tuning.bench import job_server; job_server.FORKS = False; job_server.serve()"
    job = json.dumps(dataclasses.asdict(Job.of(cell, threads=1)))
    done = subprocess.run(
        [sys.executable, "-c", code], input=f"{job}\n{job}\n", capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr  # no answer: there will be none to another job
    assert cell.state == "finished"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_stopped_by_an_interrupt_or_an_error_no_process_is_left_and_the_runs_can_go_on(
    stop: type[BaseException], tmp_path: Path
) -> None:
    cells = final_cells(bench(400, 1000), tmp_path / "out")
    short = final_cells(bench(1), tmp_path / "short")[:1]

    def consume() -> None:
        for _ in in_processes([*short, *cells], 3):  # the short one's end is when the caller is stopped
            for cell in cells:
                wait_until_working(cell)
            raise stop

    before = set(descendants(os.getpid()))
    with pytest.raises(stop):
        consume()
    left = set(descendants(os.getpid())) - before
    waiting = {server._process.pid for server in workers._idle}
    assert [child for child in left if child.pid not in waiting and child.status() != psutil.STATUS_ZOMBIE] == []
    for cell in cells:
        status = RunFolder.open(cell.path).status()
        assert not psutil.pid_exists(status["pid"])
        assert status["state"] == "stopped"
        newest = sorted((cell.path / "checkpoints").iterdir())[-1]
        assert int(newest.name.rpartition("-")[2]) == status["step"] > 0
    assert [cell.state for cell in cells] == ["open", "open"]
