"""What a process leaves that is killed at the very beginning, or while it removes an old checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_tuning.engine.checkpoint import list_checkpoints, remove_leftovers, save_checkpoint
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

LEFT_BY_A_KILL = [
    (),
    (".versions.json.123.tmp",),
    ("versions.json",),
    ("versions.json", ".config.json.45.tmp"),
    ("versions.json", ".predicts.json.45.tmp"),
    ("versions.json", "predicts.json"),
]


@pytest.mark.parametrize("names", LEFT_BY_A_KILL)
def test_a_start_killed_before_its_settings_stood_can_be_repeated(names: tuple[str, ...], tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / "run" / name).write_text("half")
    folder = RunFolder.create(tmp_path / "run", tiny())
    assert folder.config() == tiny()
    assert folder.splits() == ("train", "val", "test")


@pytest.mark.parametrize("name", ["versions.txt", "notes.json", ".config.json.x.tmp", "my versions.json"])
def test_a_folder_with_anything_else_is_refused(name: str, tiny, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="not an empty folder"):
        RunFolder.create(tmp_path, tiny())
    assert (tmp_path / name).read_text() == "mine"


def test_a_checkpoint_half_removed_is_removed_and_the_whole_ones_stay(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", step=step, weights={}, state={"step": step})
    for number, name in enumerate(("model.safetensors", "state.pt", None), start=3):
        half = tmp_path / "checkpoints" / f"step-{number:09d}"
        half.mkdir()
        if name:
            (half / name).touch()
    remove_leftovers(tmp_path)
    kept = ["step-000000001", "step-000000002"]
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == kept
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept


def test_weights_that_safetensors_left_half_written_are_removed(tmp_path: Path) -> None:
    for name in ("best/model.safetensors", "best/.tmpcgseFV", "predictions/.tmpKd02x7", "predictions/.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    kept = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert kept == ["best/model.safetensors", "predictions/.tmp"]


def test_a_lock_that_cannot_be_made_is_said(tiny, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", tiny())
    (folder.path / ".lock").unlink()
    (folder.path / ".lock").mkdir()
    with pytest.raises(RunError, match="cannot be worked on: Is a directory"), folder.locked():
        pass
