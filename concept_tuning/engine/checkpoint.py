"""Checkpoints that carry everything a run needs to go on as if it had never stopped.

A checkpoint is a folder ``step-000000123`` with the method's weights, queues and momentum copy as
safetensors and the rest (optimiser, random states, position) as a file that torch's weights-only
loader reads. It is written beside its place and renamed, so a kill at any moment leaves the previous
one whole.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from concept_tuning.errors import RunError, TrainingError

WEIGHTS = "model.safetensors"
STATE = "state.pt"
KEPT = 2


def save_checkpoint(root: Path, *, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and drop all but the last two.

    Args:
        root: Folder of the run's checkpoints.
        step: Optimiser steps done.
        weights: State dictionary of the method.
        state: Plain values and tensors; nothing that needs code to load.

    Raises:
        TrainingError: if the disk is full or the folder cannot be written; older checkpoints stay.
    """
    target = root / f"step-{step:09d}"
    temporary = root / f".writing-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(_plain(weights), temporary / WEIGHTS)
        torch.save(dict(state), temporary / STATE)
        for name in (WEIGHTS, STATE):
            _sync(temporary / name)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(storage_message(error, target)) from error
    for old in list_checkpoints(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(root: Path) -> list[Path]:
    """Return the whole checkpoints, oldest first."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.glob("step-*") if (path / STATE).is_file() and (path / WEIGHTS).is_file())


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's weights and state; raises :class:`RunError` if it is damaged."""
    try:
        weights = load_file(path / WEIGHTS)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}") from error
    return weights, state


def load_last_checkpoint(root: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest checkpoint that can be read, or None where there is none at all.

    Raises:
        RunError: if there are checkpoints and none of them can be read.
    """
    failure: RunError | None = None
    for path in reversed(list_checkpoints(root)):
        try:
            return load_checkpoint(path)
        except RunError as error:
            failure = error
    if failure is not None:
        raise failure
    return None


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file in place of another, atomically.

    Raises:
        TrainingError: if the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_plain(weights), temporary, metadata=dict(metadata))
        _sync(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(storage_message(error, path)) from error


def storage_message(error: BaseException, path: Path) -> str:
    """Say in words why something could not be stored."""
    if is_disk_full(error):
        return (
            f"The disk is full: {path} could not be written. The last good checkpoint is intact; "
            "free some space and go on with `concept-tuning resume`."
        )
    return f"{path} could not be written: {error}. The last good checkpoint is intact."


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system, of safetensors or of torch's writer means that the disk is full."""
    text = str(error)
    words = ("No space left", "os error 28", "file write failed", "unexpected pos")
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or any(word in text for word in words)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written or half removed; for the process that holds the run's lock."""
    whole = list_checkpoints(folder / "checkpoints")
    half_removed = [path for path in folder.glob("checkpoints/step-*") if path not in whole]
    half_written = (*folder.glob("checkpoints/.writing-*"), *folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"))
    for left in (*half_removed, *half_written):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
