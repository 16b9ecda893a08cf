"""Checkpoints that carry everything a run needs to go on as if it had never stopped.

A checkpoint is a folder ``step-000000123`` with the method's weights, queues and momentum copy as
safetensors and the rest (optimiser, random states, position) as a file that torch's weights-only
loader reads. It is written beside its place and renamed, so a kill at any moment leaves the previous
one whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from concept_tuning.errors import RunError, TrainingError
from concept_tuning.models.torch_files import load_tensors

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
        with usual_rights(temporary / WEIGHTS):
            save_file(_plain(weights), temporary / WEIGHTS)
        torch.save(dict(state), temporary / STATE)
        for name in (WEIGHTS, STATE):
            sync(temporary / name)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(storage_message(error, target, checkpoints=root)) from error
    for old in list_checkpoints(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(root: Path) -> list[Path]:
    """Return the whole checkpoints, oldest first."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.glob("step-*") if (path / STATE).is_file() and (path / WEIGHTS).is_file())


def load_checkpoint(path: Path, *keys: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's weights and state.

    Raises:
        RunError: if it may not be read, is damaged, or its state lacks a key.
    """
    for name in (WEIGHTS, STATE):
        refuse_unreadable(path / name)
    try:
        weights = load_file(path / WEIGHTS)
        state = load_tensors(path / STATE)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged pickle makes the loader stumble over
        raise RunError(f"The checkpoint {path} cannot be read: {in_short(error)}") from error
    if not isinstance(state, dict) or not set(keys) <= set(state):
        lacking = ", ".join(keys) or "names and values"
        raise RunError(f"The checkpoint {path} cannot be read: {STATE} does not hold what it should ({lacking}).")
    return weights, state


def load_last_checkpoint(root: Path, *keys: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest checkpoint that can be read and has these keys in its state, or None where there is none at all.

    Raises:
        RunError: if there are checkpoints and none of them can be read.
    """
    failure: RunError | None = None
    for path in reversed(list_checkpoints(root)):
        try:
            return load_checkpoint(path, *keys)
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
        with usual_rights(temporary):
            save_file(_plain(weights), temporary, metadata=dict(metadata))
        sync(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        checkpoints = path.parent.parent / "checkpoints"  # of the run whose best weights they are
        raise TrainingError(storage_message(error, path, checkpoints=checkpoints)) from error


@contextlib.contextmanager
def usual_rights(path: Path) -> Iterator[None]:
    """Give the file that the block writes at ``path`` the rights of any new file there.

    Safetensors puts a file in place that its maker alone may read.
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        usual = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    yield
    if stat.S_IMODE(path.stat().st_mode) != usual:
        path.chmod(usual)


def refuse_unreadable(path: Path) -> None:
    """Raise :class:`RunError` if a file is there and this user may not read it, which safetensors tells as no file."""
    if path.exists() and not os.access(path, os.R_OK):
        raise RunError(f"{path} may not be read by this user. Have its owner allow it (`chmod a+r`).")


def in_short(error: BaseException) -> str:
    """Return what an error says, on one line and no longer than a reader bears, with its kind if it says but a word."""
    words = str(error).split()
    text = " ".join(words if len(words) > 1 else (type(error).__name__, *words))
    return text if len(text) <= 200 else f"{text[:200]} ..."


def storage_message(error: BaseException, path: Path, *, checkpoints: Path, done: str = "written") -> str:
    """Say in words why something could not be stored, or whatever was not ``done``, and what is left."""
    left = what_is_left(checkpoints)
    if is_disk_full(error):
        return (
            f"The disk is full: {path} could not be written. {left}; "
            "free some space and go on with `concept-tuning resume`."
        )
    reason = getattr(error, "strerror", None) or in_short(error)
    return f"{path} could not be {done}: {reason}. {left}; put that right and go on with `concept-tuning resume`."


def what_is_left(checkpoints: Path) -> str:
    """Say whether a run that failed has a checkpoint to go on from."""
    try:
        names = os.listdir(checkpoints) if checkpoints.exists() else []
        found = bool(names) and bool(list_checkpoints(checkpoints))
    except OSError:  # of a disk that has failed, or for lack of rights
        return "Whether a checkpoint is left cannot be seen"
    return "The last good checkpoint is intact" if found else "There is no checkpoint yet"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system, of safetensors or of torch's writer means that the disk is full."""
    text = str(error)
    words = ("No space left", "os error 28", "file write failed", "unexpected pos")
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or any(word in text for word in words)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, of the system or of torch means that memory, or memory to share, ran out."""
    text = str(error)
    words = (
        *("out of memory", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "unable to mmap"),
        *("out of shared memory", "insufficient shared memory", "unable to allocate shared memory"),
        "unable to write to file </torch_",  # which is memory to share, not a disk
    )
    known = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return known or any(word in text for word in words)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written or half removed; for the process that holds the run's lock."""
    whole = list_checkpoints(folder / "checkpoints")
    half_removed = [path for path in folder.glob("checkpoints/step-*") if path not in whole]
    names = ("checkpoints/.writing-*", ".*.tmp", "*/.*.tmp", "*/.tmp??????")  # the last is safetensors' own
    half_written = [path for name in names for path in folder.glob(name)]
    for left in (*half_removed, *half_written):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def sync(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
