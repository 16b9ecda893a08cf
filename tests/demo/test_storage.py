"""The folder of uploads and answers: old files go, half uploads too, and what was there at the start stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.demo import storage


def _written(path: Path, *, age: float, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_old_files_and_empty_folders_go_and_the_rest_stays(tmp_path: Path) -> None:
    old = _written(tmp_path / "a" / "upload.png", age=700)
    half = _written(tmp_path / "tmpxyz", age=700)
    new = _written(tmp_path / "b" / "upload.png", age=500)
    example = _written(tmp_path / "c" / "example.webp", age=9000)
    assert storage.stored_bytes(tmp_path) == 40
    storage.sweep(tmp_path, age=600, keep=frozenset([example]))
    assert [path.exists() for path in (old, half, new, example, old.parent)] == [False, False, True, True, False]
    assert storage.stored_bytes(tmp_path) == 20
    assert tmp_path.is_dir()


def test_it_sweeps_by_itself_and_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SWEEP_EVERY", 0.02)
    example = _written(tmp_path / "c" / "example.webp", age=9000)
    ended = storage.sweep_regularly(tmp_path)
    old = _written(tmp_path / "a" / "upload.png", age=700)
    until = time.monotonic() + 10
    while old.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    ended.set()
    assert example.exists()


def test_a_folder_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert storage.stored_bytes(tmp_path / "gone") == 0
    storage.sweep(tmp_path / "gone", age=0)
