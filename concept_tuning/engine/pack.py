"""A small copy of a finished run, to be handed on: what is needed to look at it, with weights in half precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from concept_tuning.data.table import SPLITS
from concept_tuning.engine.checkpoint import refuse_unreadable, usual_rights
from concept_tuning.engine.loading import evaluate_run, load_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

#: Files that are copied as they are.
COPIED = ("config.json", "data.json", "split.json", "metrics.jsonl")


def pack_run(run: Path, out: Path) -> RunFolder:
    """Copy a finished run without checkpoints and predictions, and measure the copy.

    Matrices and kernels are stored in half precision; biases, batch norms and their statistics, which are small and
    may be out of its range, as they are. Results are those of the copy.

    Args:
        run: Folder of a finished run.
        out: Folder to make; must not exist.

    Raises:
        RunError: if the run is not finished, holds links or may not be read, or the folder exists or cannot be written.
    """
    source, target = RunFolder.open(run), RunFolder(Path(out))
    if source.status().get("state") != "finished":
        raise RunError(f"{run} is not finished; finish it by `concept-tuning resume {run}`.")
    source.refuse_links()  # which would have files from elsewhere handed on
    if target.path.exists():
        raise RunError(f"{out} exists; remove it or name another folder.")
    try:
        target.path.mkdir(parents=True)
        try:
            _fill(target, source)
        except BaseException:
            shutil.rmtree(target.path, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as error:
        raise RunError(f"The folder {out} cannot be written ({getattr(error, 'strerror', None) or error}).") from error
    return target


def _fill(target: RunFolder, source: RunFolder) -> None:
    target.best_weights.parent.mkdir()
    for name in COPIED:
        shutil.copyfile(source.path / name, target.path / name)
    refuse_unreadable(source.best_weights)
    packed = {
        name: value.half() if value.dtype == torch.float32 and value.ndim > 1 else value
        for name, value in load_file(source.best_weights).items()
    }
    with usual_rights(target.best_weights):
        save_file(packed, target.best_weights)
    status = {key: source.status()[key] for key in ("state", "message", "step", "total_steps")}
    target.write_json("status.json", status)
    loaded = load_run(target.path)
    data = loaded.data()
    splits = {name: evaluate_run(loaded, name, data=data).to_dict() for name in SPLITS}
    target.write_json("results.json", {"validation_note": data.validation_note, "splits": splits})
