from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch

from concept_tuning.engine import checkpoint
from concept_tuning.engine.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_last_checkpoint,
    save_checkpoint,
    save_weights,
)
from concept_tuning.errors import RunError, TrainingError


def save(root: Path, step: int) -> Path:
    return save_checkpoint(root, step=step, weights={"w": torch.full((3,), float(step))}, state={"step": step})


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000002", "step-000000010"]
    loaded = load_last_checkpoint(tmp_path)
    assert loaded is not None
    weights, state = loaded
    assert state["step"] == 10
    assert torch.equal(weights["w"], torch.full((3,), 10.0))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_last_checkpoint(tmp_path / "nothing") is None


def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / checkpoint.WEIGHTS).write_bytes(b"\x00" * 20)
    loaded = load_last_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1


def test_only_damaged_ones_are_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    (save(tmp_path, 2) / checkpoint.STATE).write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="cannot be read"):
        load_last_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02}r\x00\x00\x00\x00h\x05.",
        b"\x80\x02\x8a\x7f.",
        b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    ],
)
def test_a_state_that_the_loader_stumbles_over_falls_back_or_says_why(content: bytes, tmp_path: Path) -> None:
    (save(tmp_path, 2) / checkpoint.STATE).write_bytes(content)
    with pytest.raises(RunError, match=r"step-000000002 cannot be read: \S.{5,220}$"):
        load_last_checkpoint(tmp_path)
    save(tmp_path, 1)
    loaded = load_last_checkpoint(tmp_path, "step")
    assert loaded is not None
    assert loaded[1]["step"] == 1


@pytest.mark.parametrize("state", [["step"], {"best": {}}, torch.zeros(2)])
def test_a_state_of_another_kind_falls_back_to_the_one_before(state: object, tmp_path: Path) -> None:
    save(tmp_path, 1)
    torch.save(state, save(tmp_path, 2) / checkpoint.STATE)
    loaded = load_last_checkpoint(tmp_path, "step")
    assert loaded is not None
    assert loaded[1]["step"] == 1
    with pytest.raises(RunError, match=r"cannot be read: state\.pt does not hold what it should \(step\)"):
        load_checkpoint(tmp_path / "step-000000002", "step")


def test_a_lack_of_memory_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    for step in (1, 2):
        save(tmp_path, step)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        load_last_checkpoint(tmp_path)


class Payload:
    """An object whose unpickling would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def test_a_pickle_with_code_is_never_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    torch.save({"step": 1, "evil": Payload(trace)}, save(tmp_path, 1) / checkpoint.STATE)
    with pytest.raises(RunError, match="cannot be read"):
        load_last_checkpoint(tmp_path)
    assert not trace.exists()


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"disk is full.*intact"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert load_last_checkpoint(tmp_path) is not None


def test_a_full_disk_before_the_first_checkpoint_does_not_speak_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"disk is full.*There is no checkpoint yet; free some space"):
        save(tmp_path, 1)


@pytest.mark.skipif(os.name != "posix", reason="rights of files are those of POSIX")
@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o007, 0o660)])
def test_weights_and_checkpoints_have_the_rights_that_the_umask_leaves(umask: int, rights: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        written = [save(tmp_path, 1) / name for name in (checkpoint.WEIGHTS, checkpoint.STATE)]
        written.append(tmp_path / "model.safetensors")
        for _ in range(2):  # a new file, then one in its place
            save_weights(written[-1], {"w": torch.ones(2)}, {})
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [rights] * 3


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (save(tmp_path, 1) / checkpoint.WEIGHTS).chmod(0)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith(checkpoint.WEIGHTS))  # root may
    with pytest.raises(RunError, match=r"model\.safetensors may not be read by this user\. Have its owner allow it"):
        load_last_checkpoint(tmp_path)


def test_a_failed_write_of_weights_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "best" / "model.safetensors"
    save_weights(target, {"w": torch.ones(2)}, {"step": "1"})
    before = target.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TrainingError, match="disk is full"):
        save_weights(target, {"w": torch.zeros(2)}, {})
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]
