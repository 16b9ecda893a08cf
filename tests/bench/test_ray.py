"""A bench on a Ray cluster of two machines' likeness: the same results, whichever worker dies."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tiny_bench import TINY_BENCH, wait_until_working

from concept_tuning.bench import ray_jobs
from concept_tuning.bench.cells import Cell, final_cells
from concept_tuning.bench.job import Job
from concept_tuning.bench.ray_jobs import ray_workers
from concept_tuning.bench.runner import TRIES, run_bench
from concept_tuning.bench.spec import check_spec
from concept_tuning.bench.tables import write_tables
from concept_tuning.bench.workers import in_processes
from concept_tuning.cli import main
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import ConfigError, RunError

ray = pytest.importorskip("ray")

#: Two final runs, long enough to be killed in the middle.
LONG = TINY_BENCH | {
    "seeds": [1],
    "trials": 0,
    "search": {},
    "set": TINY_BENCH["set"] | {"epochs": 12},  # type: ignore[operator]
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a cluster of two nodes of one CPU each, both on this machine."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_worker_niceness", "0")
    node = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the same bench in processes of this machine."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run_bench(check_spec(LONG), out, workers=lambda cells: in_processes(cells, 2))
    write_tables(check_spec(LONG), out)
    return out


def rows(out: Path) -> list[dict[str, str]]:
    """Return a bench's cells.csv without the speed."""
    found = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    for row in found:
        row.pop("images_per_second")
    return found


def same_bench(one: Path, other: Path) -> None:
    """Assert that two benches have the same tables and the same runs."""
    assert rows(one) == rows(other)
    spec = check_spec(LONG)
    for cell, twin in zip(final_cells(spec, one), final_cells(spec, other), strict=True):
        for name in ("results.json", "metrics.jsonl", "best/model.safetensors"):
            assert (cell.path / name).read_bytes() == (twin.path / name).read_bytes()


class Killed:
    """Workers of which the one on a bench's first final run is killed in the middle, once."""

    def __init__(self, address: str, out: Path) -> None:
        self._workers = ray_workers(address, out)
        self.killed: set[int] = set()
        self.ended: list[Path] = []

    def __call__(self, cells: list[Cell]) -> Iterator[Cell]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            victim = pool.submit(self._kill, cells[0]) if cells else None
            for cell in self._workers(cells):
                self.ended.append(cell.path)
                yield cell
            if victim:
                victim.result()

    def _kill(self, cell: Cell) -> None:
        pid = wait_until_working(cell)
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_command_on_two_nodes_gives_the_cells_of_the_process_pool(
    address: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(LONG))
    monkeypatch.chdir(tmp_path)  # a relative folder means this one, not where a worker begins
    assert main(["benchmark", str(file), "--out", "there", "--ray-address", address]) == 0
    same_bench(there, whole)
    assert [row["state"] for row in rows(there)] == ["finished"] * 2
    assert not list(there.glob(".seen*"))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_cell_whose_worker_is_killed_goes_on_in_another_and_no_result_is_written_twice(
    address: str, whole: Path, tmp_path: Path
) -> None:
    spec, there = check_spec(LONG), tmp_path / "there"
    workers = Killed(address, there)
    run_bench(spec, there, workers=workers)
    cells = final_cells(spec, there)
    assert len(workers.killed) == 1
    assert sorted(workers.ended) == sorted(cell.path for cell in cells)  # Ray itself began it again
    assert [cell.state for cell in cells] == ["finished"] * 2
    assert RunFolder.open(cells[0].path).status()["pid"] not in workers.killed
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file() and "final" in path.parts}
    list(ray_workers(address, there)(cells))  # as if their tasks were scheduled anew after they had finished
    after = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file() and "final" in path.parts}
    assert after == before
    write_tables(spec, there)
    same_bench(there, whole)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_folder_that_a_worker_does_not_see_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = ray_workers(address, tmp_path / "out")
    # what this machine writes never reaches the others
    monkeypatch.setattr("concept_tuning.bench.ray_jobs.write_atomically", lambda path, text: None)
    with pytest.raises(RunError, match="does not see the bench's folder"):
        run_bench(check_spec(LONG), tmp_path / "out", workers=workers)
    assert not (tmp_path / "out" / "final").exists()


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_more_threads_than_any_node_has_are_refused_and_not_waited_for(address: str, tmp_path: Path) -> None:
    values = LONG | {"set": LONG["set"] | {"threads": 5}}  # type: ignore[operator]
    with pytest.raises(RunError, match="takes 5 CPUs"):
        run_bench(check_spec(values), tmp_path / "out", workers=ray_workers(address, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_stopped_its_cells_can_be_resumed(address: str, tmp_path: Path) -> None:
    file, out = tmp_path / "long.yaml", tmp_path / "out"
    values = LONG | {"set": LONG["set"] | {"epochs": 400, "checkpoint_seconds": 1000}}  # type: ignore[operator]
    file.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "concept_tuning", "benchmark", str(file), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--ray-address", address], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    first, *_ = final_cells(check_spec(values), out)
    wait_until_working(first)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    status = RunFolder.open(first.path).status()
    assert status["state"] == "stopped"
    newest = max((first.path / "checkpoints").iterdir())  # of the stop, or of an evaluation before it
    assert 0 < int(newest.name.rpartition("-")[2]) <= status["step"]
    with RunFolder.open(first.path).locked():  # nobody works on it any more
        pass


@pytest.mark.parametrize("wrong", ["auto", "nonsense", "127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_where_no_cluster_is_a_sentence_says_so(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", no_cluster)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY_BENCH))
    began = time.monotonic()
    assert main(["benchmark", str(file), "--out", str(tmp_path / "out"), "--ray-address", wrong]) == 2
    assert time.monotonic() - began < 20
    error = capsys.readouterr().err
    assert wrong in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def no_cluster(address: str, **_: object) -> None:
    """Do as ``ray.init`` does where no cluster runs."""
    raise ConnectionError("Could not find any running Ray instance.")


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (ray.exceptions.WorkerCrashedError(), 1),  # Ray itself has begun it again
        (ray.exceptions.OutOfMemoryError("too little"), 1),
        (ray.exceptions.NodeDiedError("gone"), TRIES),
    ],
)
def test_a_task_that_ends_without_its_result_is_noted_or_begun_again(
    error: Exception, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    class Task:
        def options(self, **_: object) -> Task:
            return self

        def remote(self, job: Job, *_: object) -> str:
            handed.append(job.path)
            return job.path

    def fail(_: object) -> None:
        raise error

    cluster = SimpleNamespace(
        exceptions=ray.exceptions,
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1}}],
        remote=lambda **_: lambda function: Task(),
        wait=lambda waiting: (waiting[:1], waiting[1:]),
        get=fail,
    )
    monkeypatch.setattr(ray_jobs, "_connected", lambda address: cluster)
    spec = check_spec(LONG | {"methods": ["vanilla"]})
    run_bench(spec, tmp_path, workers=ray_workers("auto", tmp_path))
    (cell,) = final_cells(spec, tmp_path)
    assert len(handed) == times
    assert cell.failure == "Its process died 3 times."


def test_without_ray_the_way_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "concept-tuning-studio\[ray\]"'):
        ray_workers("auto", tmp_path)
