"""A run from its settings to its results: start, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from concept_tuning.config import RunConfig
from concept_tuning.data.folders import SPLIT_NAMES, has_training_folder, is_hidden
from concept_tuning.data.known.opening import is_known
from concept_tuning.data.registry import SOURCE_NAMES, DataBundle
from concept_tuning.data.table import SPLITS
from concept_tuning.engine.bfloat16 import slow_bfloat16
from concept_tuning.engine.checkpoint import list_checkpoints, remove_leftovers, save_weights
from concept_tuning.engine.evaluation import evaluate, predict_split
from concept_tuning.engine.failures import recorded
from concept_tuning.engine.loading import build_with_backbone, load_best_weights
from concept_tuning.engine.run_data import open_data, problem_lines, save_data_files
from concept_tuning.engine.run_pictures import RunPictures
from concept_tuning.engine.runs import RunFolder, StatusWriter, default_run_dir
from concept_tuning.engine.trainer import Trainer, Watcher
from concept_tuning.errors import ConfigError, RunError
from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import METHODS
from concept_tuning.models.backbone import find_architecture
from concept_tuning.models.weights import WEIGHT_SUFFIXES, find_weights


def start_run(config: RunConfig, path: Path | None, watcher: Watcher, *, splits: Sequence[str] = SPLITS) -> RunFolder:
    """Create a run folder and train in it to the end.

    Args:
        config: The settings; paths in them are made absolute, so that the run can be read from anywhere.
        path: The folder to make; None: a new one with a telling name below ``runs``.
        watcher: Told of what happens.
        splits: Which splits are predicted at the end; a trial of a search predicts none, and so never reads the test.

    Raises:
        StudioError: if anything is wrong with settings, data, weights or storage.
        Stopped: after an interrupt.
    """
    accelerator = _accelerator(config)
    config = with_absolute_paths(config)
    made: list[Any] = [None, None]  # the folder, or what went wrong, as the first process says
    cause: BaseException | None = None
    if accelerator.is_main_process:
        try:
            path = Path(path or default_run_dir(config))
            refuse_inside_source(config, path)
            made[0] = str(RunFolder.create(path, config, splits=splits).path)
        except RunError as error:
            made[1], cause = str(error), error.__cause__
    broadcast_object_list(made)
    if made[1] is not None:
        raise RunError(made[1]) from cause
    watcher.message(f"Run folder: {made[0]}")
    return _work(RunFolder.open(Path(made[0])), config, accelerator, watcher, splits)


def resume_run(path: Path, watcher: Watcher, *, splits: Sequence[str] | None = None) -> RunFolder:
    """Go on with a run from its newest checkpoint; a finished run is left as it is.

    Args:
        path: Its folder.
        watcher: Told of what happens.
        splits: As for :func:`start_run`; None: those it was started with.

    Raises:
        StudioError: as :func:`start_run`.
        Stopped: after an interrupt.
    """
    folder = RunFolder.open(path)
    watcher.message(f"Run folder: {path}")
    if folder.status().get("state") == "finished":
        watcher.message(f"{path} is finished already; nothing to do.")
        return folder
    config = folder.config()
    return _work(folder, config, _accelerator(config), watcher, folder.splits() if splits is None else splits)


def with_absolute_paths(config: RunConfig, *, missing: bool = False) -> RunConfig:
    """Return the settings with the paths in them made absolute; with ``missing`` also those of files that are gone.

    A source that is neither known nor there may be a name that was mistyped, and is told as it was given.
    """

    def absolute(value: str) -> str:
        path = Path(value).expanduser()
        return str(path.resolve()) if missing or path.exists() else value

    source = config.data.source
    data = dataclasses.replace(
        config.data,
        source=source if source in SOURCE_NAMES or is_known(source) else absolute(source),
        root=config.data.root and str(Path(config.data.root).expanduser().resolve()),
        cache_dir=config.data.cache_dir and str(Path(config.data.cache_dir).expanduser().resolve()),
    )
    backbone = config.backbone
    if backbone.weights.endswith(WEIGHT_SUFFIXES):
        backbone = dataclasses.replace(backbone, weights=absolute(backbone.weights))
    return dataclasses.replace(config, data=data, backbone=backbone)


def refuse_inside_source(
    config: RunConfig, path: Path, *, option: str = "--run-dir, or for the dashboard by CONCEPT_TUNING_RUNS"
) -> None:
    """Refuse to write where the source, a folder, is listed: what is made there would be taken for a class.

    A hidden folder of the source is passed over when it is listed, and so is what lies beside folders of its splits; a
    link out of it is not followed.

    Args:
        config: Settings with absolute paths.
        path: The folder of the run, of all runs or of a bench; it need not be there yet.
        option: By what the user names another.

    Raises:
        RunError: if that folder or ``data.cache_dir`` lies there.
    """
    source = Path(config.data.source)
    if config.data.source in SOURCE_NAMES or is_known(config.data.source) or not source.is_dir():
        return
    where = f"would lie inside {source}, the folder of the pictures, and be taken for a class"
    if _is_listed(path, source):
        raise RunError(f"The folder {path} {where}. Name one outside, such as {source}-runs, by {option}.")
    if config.data.cache_dir and _is_listed(Path(config.data.cache_dir), source):
        raise RunError(
            f"The cache {config.data.cache_dir} {where}. Set data.cache_dir to one outside, such as {source}-cache."
        )


def _is_listed(path: Path, source: Path) -> bool:
    """Whether a folder lies in the source and is not passed over there, as it is written or by its real place."""
    places = [(os.path.realpath(path), os.path.realpath(source)), (os.path.abspath(path), os.path.abspath(source))]
    below = [Path(place).relative_to(root).parts for place, root in places if Path(place).is_relative_to(root)]
    inside = Path(places[0][0]).is_relative_to(places[0][1])
    if has_training_folder(source):  # folders of splits: what lies beside them is no class
        below = [parts for parts in below if parts and parts[0].lower() in SPLIT_NAMES]
    return inside and any(not any(is_hidden(part) for part in parts) for parts in below)


def _work(
    folder: RunFolder, config: RunConfig, accelerator: Accelerator, watcher: Watcher, splits: Sequence[str]
) -> RunFolder:
    status = StatusWriter(folder, active=accelerator.is_main_process)
    lock = folder.locked() if accelerator.is_main_process else contextlib.nullcontext()
    with lock, recorded(folder, status):
        if _finished_meanwhile(folder, accelerator):
            watcher.message(f"{folder.path} was finished by another process; nothing to do.")
            return folder
        if accelerator.is_main_process:
            remove_leftovers(folder.path)
        resumed = bool(list_checkpoints(folder.checkpoints))
        weights = "random" if resumed or config.method == "scratch" else config.backbone.weights
        find_weights(find_architecture(config.backbone.architecture), weights)  # before the long work begins
        status.update(state="preparing", message="Reading the data")
        if config.engine.threads is not None:
            torch.set_num_threads(config.engine.threads)
        with accelerator.main_process_first():
            data = open_data(config, folder, watcher.message)
        for line in problem_lines(data):
            watcher.message(line)
        if accelerator.is_main_process:
            save_data_files(folder, data)
        with torch.random.fork_rng():
            torch.manual_seed(config.engine.seed)
            method = build_with_backbone(config, len(data.class_names), weights=weights, report=watcher.message)
            torch.manual_seed(config.engine.seed + 1 + accelerator.process_index)
            _refuse_method(method, config, data)
            trainer = Trainer(config, method, data, folder, accelerator=accelerator, status=status, watcher=watcher)
            watcher.message(_plan_message(trainer, data))
            cautions = [said for said in (method.caution(data), slow_bfloat16(config, accelerator.device)) if said]
            for caution in cautions:
                watcher.message(caution)
            trainer.run()
        if accelerator.is_main_process:
            status.update(state="evaluating", message="Predicting with the best epoch")
            watcher.message("Predicting with the best epoch")
            found = _predict(folder, config, method, data, accelerator.device, splits)
            results = {"validation_note": data.validation_note, "best": trainer.progress.best, "splits": found}
            folder.write_json("results.json", results | ({"caution": " ".join(cautions)} if cautions else {}))
            status.update(state="finished", message="Finished", seconds_left=0)
        accelerator.wait_for_everyone()
    return folder


def _finished_meanwhile(folder: RunFolder, accelerator: Accelerator) -> bool:
    """Return whether a process that held the run until now has finished it, as the first process sees it."""
    finished = [accelerator.is_main_process and folder.status().get("state") == "finished"]
    broadcast_object_list(finished)
    return finished[0]


def _predict(
    folder: RunFolder,
    config: RunConfig,
    method: Method,
    data: DataBundle,
    device: torch.device,
    splits: Sequence[str],
) -> dict[str, Any]:
    """Read each split once with the best epoch's weights, write its predictions and return its results."""
    load_best_weights(method, folder)
    if splits and method.finish(RunPictures(config, method, data, device)):
        save_weights(folder.best_weights, method.inference_state(), {})
    results: dict[str, Any] = {}
    for name in splits:
        predictions = predict_split(
            method,
            data.splits[name],
            image_size=config.data.image_size,
            batch_size=config.engine.eval_batch_size,
            device=device,
            channels_last=config.engine.channels_last,
        )
        predictions.save(folder.predictions_file(name))
        result = evaluate(predictions, split=name, class_names=data.class_names, group_names=data.group_names)
        results[name] = result.to_dict()
    return results


def _refuse_method(method: Method, config: RunConfig, data: DataBundle) -> None:
    """Refuse a method that lacks what it needs of the data or the weights; raises :class:`ConfigError`."""
    if method.needs_groups and not data.group_names:
        raise ConfigError(
            f"{method.name} needs group labels, and {Path(config.data.source).name} has none. Use data with groups "
            "(planted, elpv, waterbirds, isic, or a CSV file with a group column), or another method."
        )
    if config.engine.select_by == "worst-group" and not data.group_names:
        raise ConfigError(
            f"engine.select_by=worst-group needs group labels, and {Path(config.data.source).name} has none. Choose by "
            "`accuracy` or `loss`, or use data with groups."
        )
    if method.needs_pretrained and config.backbone.weights == "random":
        raise ConfigError(
            f"{method.name} keeps to what the pre-trained network knows, and backbone.weights=random knows nothing. "
            "Use pre-trained weights, or another method."
        )


def _accelerator(config: RunConfig) -> Accelerator:
    on_cpu = config.engine.device == "cpu" or not torch.accelerator.is_available()
    if config.engine.precision == "fp16" and on_cpu:
        raise ConfigError(
            "engine.precision=fp16 needs a GPU: on a CPU it would be float32 all the same. Use `bf16` or `no`."
        )
    unused = DistributedDataParallelKwargs(find_unused_parameters=METHODS[config.method].trains_in_turns)
    return Accelerator(
        cpu=config.engine.device == "cpu", mixed_precision=config.engine.precision, kwargs_handlers=[unused]
    )


def _plan_message(trainer: Trainer, data: DataBundle) -> str:
    counts = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    epochs = trainer.config.optim.epochs
    whole = epochs * trainer.plan.steps_per_epoch
    ends = f" (max_steps; {epochs} epochs would be {whole:,})" if whole > trainer.total_steps else ""
    return (
        f"{len(data.class_names)} classes, {counts}; {trainer.total_steps} steps{ends} of "
        f"{trainer.plan.global_batch} images; validation drawn {data.validation_note}"
    )
