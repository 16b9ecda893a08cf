"""What the runner of a bench decides, with workers that train nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from made_runs import write_run
from pydantic import TypeAdapter
from tiny_bench import TINY_BENCH

from concept_tuning.bench.cells import Cell, final_cells, note_failure, trial_cells
from concept_tuning.bench.runner import TRIES, check_folder, check_out, run_bench
from concept_tuning.bench.spec import BenchSpec, check_spec
from concept_tuning.bench.tables import summary
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import with_absolute_paths
from concept_tuning.errors import RunError

SPEC = check_spec(TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]})


@pytest.mark.parametrize(("message", "told"), [("Out of memory.", " Out of memory."), (None, "")])
def test_a_cell_whose_process_dies_each_time_is_given_up_until_the_bench_is_begun_again(
    message: str | None, told: str, tmp_path: Path
) -> None:
    handed: list[Cell] = []
    reported: list[str] = []

    def die(cells: Sequence[Cell]) -> Iterator[Cell]:
        for cell in cells:
            handed.append(cell)
            if message is not None:
                cell.path.mkdir(parents=True, exist_ok=True)
                (cell.path / "config.json").write_text(json.dumps(cell.config.to_dict()))
                (cell.path / "status.json").write_text(json.dumps({"state": "failed", "message": message}))
            yield cell

    for times in (1, 2):
        run_bench(SPEC, tmp_path, workers=die, report=lambda cell: reported.append(cell.state))
        assert len(handed) == times * TRIES
        assert reported == [*["open"] * (TRIES - 1), "failed"] * times
        assert final_cells(SPEC, tmp_path)[0].failure == f"Its process died 3 times.{told}"


SEARCHED = check_spec(TINY_BENCH | {"methods": ["vanilla", "bss"], "trials": 2, "seeds": [1]})


class Made:
    """Workers that finish each cell without training, but for some trials of bss that fail."""

    def __init__(self, reason: str = "", *, for_good: bool = False) -> None:
        self.reason, self.for_good = reason, for_good
        self.handed: list[tuple[str, str, int]] = []

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        for cell in cells:
            self.handed.append((cell.setting.method, cell.kind, cell.number))
            if self.reason and self.handed[-1] == ("bss", "trial", 1):
                note_failure(cell.path, self.reason, for_good=self.for_good)
            else:
                write_run(cell.path, accuracy=cell.number / 2, splits={"test": {"accuracy": 0.5}})
                (cell.path / "config.json").write_text(json.dumps(cell.config.to_dict()))
            yield cell


def test_final_runs_wait_for_a_trial_that_failed_for_a_reason_that_may_go(tmp_path: Path) -> None:
    first = Made("The disk is full.")
    run_bench(SEARCHED, tmp_path, workers=first)
    assert ("vanilla", "final", 1) in first.handed
    assert ("bss", "final", 1) not in first.handed  # bss would have one trial less than vanilla
    told = summary(SEARCHED, tmp_path)[1]
    assert told["verdict"] == (
        "The final runs of bss wait for trial 1, which the next run of the bench tries again: The disk is full."
    )
    assert (told["chosen"], told["seeds"]) == (None, 0)
    again = Made()
    run_bench(SEARCHED, tmp_path, workers=again)
    assert again.handed == [("bss", "trial", 1), ("bss", "final", 1)]
    assert final_cells(SEARCHED, tmp_path)[1].config.optim.lr == trial_cells(SEARCHED, tmp_path)[3].config.optim.lr


def test_what_failed_for_good_is_made_anew_once_its_run_folder_is_removed(tmp_path: Path) -> None:
    run_bench(SEARCHED, tmp_path, workers=Made("It diverged.", for_good=True))
    failed = trial_cells(SEARCHED, tmp_path)[3]
    assert failed.state == "failed"
    failed.path.mkdir()
    (failed.path / "config.json").write_text(json.dumps(failed.config.to_dict()))
    kept = Made()
    run_bench(SEARCHED, tmp_path, workers=kept)
    assert not kept.handed
    shutil.rmtree(failed.path)
    shutil.rmtree(final_cells(SEARCHED, tmp_path)[1].path)
    run_bench(SEARCHED, tmp_path, workers=kept)
    assert kept.handed == [("bss", "trial", 1), ("bss", "final", 1)]


def test_a_part_of_a_bench_leaves_the_failures_of_other_data_noted(tmp_path: Path) -> None:
    values = TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]}
    spec = check_spec(values | {"data": [{"name": name, "source": "planted"} for name in ("one", "other")]})
    noted = final_cells(spec, tmp_path)[1]
    note_failure(noted.path, "The disk is full.", for_good=False)
    (tmp_path / "bench.json").write_text(TypeAdapter(BenchSpec).dump_json(spec).decode())
    run_bench(spec, tmp_path, workers=Made(), only=["one"])
    assert noted.failure == "The disk is full."
    run_bench(spec, tmp_path, workers=Made())
    assert noted.state == "finished"


def test_a_bench_that_another_process_works_on_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="Another process works on the bench in"):
        run_bench(SPEC, tmp_path)


def test_a_folder_of_other_files_is_not_taken_for_a_benchs(tmp_path: Path) -> None:
    (tmp_path / "owl").mkdir()
    with pytest.raises(RunError, match="is not empty and holds no bench; name another --out"):
        run_bench(SPEC, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["owl"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "tiny"}', '{"name": "tiny", "data": [1]}', "[" * 100_000])
def test_a_damaged_copy_of_the_spec_is_a_sentence_and_can_be_removed(text: str, tmp_path: Path) -> None:
    for name in ("cells.csv", "summary.md", "figures.html"):  # of what was finished before
        (tmp_path / name).touch()
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(RunError, match=r"bench\.json, the bench's own copy of its spec, is damaged\."):
        run_bench(SPEC, tmp_path)
    (tmp_path / "bench.json").unlink()
    run_bench(SPEC, tmp_path, workers=lambda cells: iter(()), only=[])
    check_folder(SPEC, tmp_path)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run_bench(SPEC, tmp_path, workers=lambda cells: iter(()), only=[])
    left, being_written = tmp_path / f".cells.csv.{ended.pid}.tmp", tmp_path / f".summary.md.{os.getpid()}.tmp"
    for file in (left, being_written):
        file.touch()
    run_bench(SPEC, tmp_path, workers=lambda cells: iter(()), only=[])
    assert not left.exists()
    assert being_written.exists()  # by a process that prints the tables, say


def test_what_a_process_killed_at_its_end_left_of_finished_runs_is_removed(tmp_path: Path) -> None:
    run_bench(SEARCHED, tmp_path, workers=Made())
    trial, final = trial_cells(SEARCHED, tmp_path)[0].path, final_cells(SEARCHED, tmp_path)[0].path
    for path in (trial, final):
        (path / "checkpoints" / "step-4").mkdir(parents=True)
        weights = RunFolder.open(path).best_weights
        weights.parent.mkdir(exist_ok=True)
        weights.touch()
    run_bench(SEARCHED, tmp_path, workers=Made())
    assert not any((path / "checkpoints").exists() for path in (trial, final))
    assert not RunFolder.open(trial).best_weights.exists()
    assert RunFolder.open(final).best_weights.exists()


def test_a_folder_that_was_only_locked_is_begun(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    run_bench(SPEC, tmp_path, workers=lambda cells: iter(()), only=[])
    assert (tmp_path / "bench.json").is_file()


def test_pictures_that_were_moved_away_leave_a_finished_bench_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    values = TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]}
    spec = check_spec(values | {"data": [{"name": "own", "source": "birds"}], "set": {}})
    out = tmp_path / "out"
    (cell,) = final_cells(spec, out)
    cell.path.mkdir(parents=True)
    (cell.path / "config.json").write_text(json.dumps(with_absolute_paths(cell.config).to_dict()))
    (out / "bench.json").write_text(json.dumps({"name": spec.name, "data": [{"name": "own"}]}))
    check_folder(spec, out)
    (tmp_path / "birds").rename(tmp_path / "elsewhere")
    check_folder(spec, out)
    monkeypatch.chdir(out)  # a path of the file is as seen from here
    with pytest.raises(RunError, match=r"data\.source was"):
        check_folder(spec, out)


@pytest.mark.parametrize("look", [check_out, run_bench])
def test_a_bench_among_its_pictures_is_refused_before_anything_is_made(look, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
    values = TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1], "set": {}}
    spec = check_spec(values | {"data": [{"name": "own", "source": str(photos)}]})
    with pytest.raises(RunError, match=r"would lie inside .*photos.* by --out\."):
        look(spec, photos / "bench")
    assert sorted(path.name for path in photos.iterdir()) == ["cat", "dog"]
    check_out(spec, tmp_path / "bench")


def test_a_run_of_another_version_is_named_and_what_to_do(tmp_path: Path) -> None:
    spec = check_spec(TINY_BENCH | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]})
    (cell,) = final_cells(spec, tmp_path)
    values = cell.config.to_dict()
    values["optim"]["newkey"] = 1
    cell.path.mkdir(parents=True)
    (cell.path / "config.json").write_text(json.dumps(values))
    (tmp_path / "bench.json").write_text(json.dumps({"name": spec.name, "data": [{"name": "own"}]}))
    with pytest.raises(RunError, match=r"seed-1 are of another version of the program or damaged: .*newkey"):
        check_folder(spec, tmp_path)


@pytest.mark.parametrize("look", [check_out, check_folder, run_bench])
def test_a_folder_of_a_name_that_is_too_long_is_a_sentence(look, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name another --out"):
        look(check_spec(TINY_BENCH), tmp_path / ("x" * 300))


def test_a_failure_that_cannot_be_noted_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"failed \(It diverged\.\), and that cannot be noted"):
        note_failure(tmp_path / "file" / "seed-1", "It diverged.")
