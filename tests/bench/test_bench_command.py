"""The command ``benchmark``: tables of a bench that another process runs, and Ctrl-C at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import made_runs
import numpy as np
import psutil
import pytest
import yaml
from filelock import FileLock
from process_family import descendants
from tiny_bench import TINY_BENCH

from concept_tuning.bench.cells import Cell
from concept_tuning.bench.runner import run_bench
from concept_tuning.bench.spec import check_spec, load_spec, settings_of
from concept_tuning.cli import main

COMMAND = [sys.executable, "-m", "concept_tuning", "benchmark"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of a bench."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY_BENCH))
    return path


def nothing(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Run cells that end at once: they cannot be run."""
    for cell in cells:
        cell.path.parent.mkdir(parents=True, exist_ok=True)
        cell.path.with_name(f"{cell.path.name}.failure.txt").write_text("Not tried.\n")
        yield cell


def test_tables_of_what_is_finished_while_another_process_works(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, spec = tmp_path / "out", load_spec(file)
    run_bench(spec, out, workers=nothing)
    for setting in settings_of(spec):
        for trial in (0, 1):
            (out / "search" / setting.place / f"trial-{trial}.failure.txt").unlink()
        made_runs.write_trials(spec, out, setting, [0.5, 0.6])
        made_runs.write_final(out, setting, 1, np.arange(40) % 3 > 0)
    made_runs.write_settings(spec, out)
    before = {path for path in out.rglob("*") if path.is_file()}
    with FileLock(out / ".lock"):
        assert main(["benchmark", str(file), "--out", str(out), "--tables-only"]) == 0
    said = capsys.readouterr().out
    written = {path for path in out.rglob("*") if path.is_file()} - before
    assert {path.name for path in written} == {"cells.csv", "trials.csv", "summary.json", "summary.md", "figures.html"}
    assert all(f"  {path}\n" in said for path in written)
    assert "| birds | test_resnet | 100 | `linear-probe` | 2 | 1 | 75.0 | 65.0 |" in said
    assert "Data: birds (planted" in (out / "figures.html").read_text(encoding="utf-8")
    assert main(["benchmark", str(file), "--out", str(out), "--tables-only", "--against", "linear-probe"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# tiny\n")
    assert "accuracy against `linear-probe`" in said


def test_tables_of_no_bench_or_another_are_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", str(file), "--out", str(tmp_path / "out"), "--tables-only"]
    assert main(command) == 2
    assert "holds no bench yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    run_bench(check_spec(TINY_BENCH | {"name": "other"}), tmp_path / "out", workers=nothing)
    assert main(command) == 2
    assert "holds another bench" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--dry-run"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tables-only", "--only", "birds"], "--tables-only writes the tables of the whole bench; leave out --only."),
        (["--against", "vanilla"], "--against compares what is finished; add --tables-only."),
        (["--tables-only", "--against", "lwf"], "--against names 'lwf', which is none of the bench's methods: vanilla"),
        (["--ray-address", "auto", "--workers", "2"], "a Ray cluster has as many as it has processors. Leave it out."),
    ],
)
def test_options_of_which_one_would_do_nothing_are_refused(
    options: list[str], words: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(file), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_says_what_is_finished_and_refuses_folders_that_a_run_refuses(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, spec = tmp_path / "out", load_spec(file)
    command = ["benchmark", str(file), "--out", str(out), "--dry-run"]
    assert main(command) == 0
    assert "finished" not in capsys.readouterr().out
    run_bench(spec, out, workers=nothing)
    setting = settings_of(spec)[0]
    for trial in (0, 1):
        (out / "search" / setting.place / f"trial-{trial}.failure.txt").unlink()
    made_runs.write_trials(spec, out, setting, [0.5, 0.6])
    made_runs.write_final(out, setting, 1, np.arange(40) % 3 > 0)
    made_runs.write_settings(spec, out)
    assert main(command) == 0
    assert "; 2 of the trials and 1 of the final runs are finished" in capsys.readouterr().out
    file.write_text(yaml.safe_dump(TINY_BENCH | {"name": "other"}))
    assert main(command) == 2
    assert "holds another bench" in capsys.readouterr().err
    for other, words in ((tmp_path, "is not empty and holds no bench"), (file, "is no folder")):
        assert main(["benchmark", str(file), "--out", str(other), "--dry-run"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["dry run", "run"])
def test_a_source_that_is_not_there_is_found_before_anything_runs(
    more: list[str], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"name": "tiny", "data": [{"name": "birds", "source": "plantd"}], "methods": ["vanilla"], "seeds": [1]}
    file.write_text(yaml.safe_dump(values))
    assert main(["benchmark", str(file), "--out", str(tmp_path / "out"), *more]) == 2
    said = capsys.readouterr().err
    assert "The bench's data 'birds' cannot be learnt." in said
    assert "planted" in said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_plan_of_a_bench_whose_data_are_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = Path(__file__).parents[2] / "benchmarks" / "specs" / "paper.yaml"
    assert main(["benchmark", str(paper), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert "stanford-cars, resnet50.tv_in1k, 100 %, 3 seeds each: vanilla (4 trials)" in said.out
    assert "paper: 108 settings, 216 trials, 324 final runs" in said.out
    assert "The bench's data 'cub200' cannot be learnt. The files of `cub200` are not there" in said.err


def test_an_interrupt_is_a_sentence_and_no_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concept_tuning.bench.runner.run_bench", interrupted)
    assert main(["benchmark", str(file), "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr()
    assert said.err == "Stopped; the same command goes on from here.\n"
    assert "Written" not in said.out


def _server(family: Sequence[psutil.Process]) -> psutil.Process | None:
    """Return the process of a bench's that does its jobs."""
    for child in family:
        with contextlib.suppress(psutil.Error):
            if "concept_tuning.bench.job_server" in child.cmdline():
                return child
    return None


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("training", [False, True], ids=["loading", "training"])
def test_ctrl_c_leaves_no_stack_trace_and_no_process(file: Path, tmp_path: Path, training: bool) -> None:
    long = TINY_BENCH | {"set": TINY_BENCH["set"] | {"epochs": 5000}}
    file.write_text(yaml.safe_dump(long))
    out = tmp_path / "out"
    bench = subprocess.Popen(
        [*COMMAND, str(file), "--out", str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = out / "search/birds/test_resnet/100/vanilla/trial-0/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (metrics.is_file() if training else _server(descendants(bench.pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    family = descendants(bench.pid)
    if _server(family) is None:
        bench.kill()
        pytest.fail(
            f"The bench has no process; {deadline - time.monotonic():.0f} s were left. {bench.communicate()[1]}"
        )
    os.killpg(bench.pid, signal.SIGINT)  # as a terminal does
    try:
        _, said = bench.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        for left in (bench, *family):
            with contextlib.suppress(psutil.Error, OSError):
                left.kill()
        raise
    assert bench.returncode == 130
    assert said.splitlines() == [
        "Stopping: the runs at work write their checkpoints first.",
        "Stopped; the same command goes on from here.",
    ]
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert not list(out.rglob("*.failure.txt"))
    assert (metrics.parent / "checkpoints").is_dir() is training
