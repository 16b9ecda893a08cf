"""What the runner of a bench decides, with workers that train nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_bench import TINY_BENCH

from concept_tuning.bench.cells import Cell, final_cells
from concept_tuning.bench.runner import TRIES, check_folder, run_bench
from concept_tuning.bench.spec import check_spec
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


def test_a_folder_that_was_only_locked_is_begun(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    run_bench(SPEC, tmp_path, workers=lambda cells: iter(()), only=[])
    assert (tmp_path / "bench.json").is_file()
