"""A run from its settings to its results: start, resume, load."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from concept_tuning.config import BackboneConfig, RunConfig
from concept_tuning.data.known.opening import is_known
from concept_tuning.data.registry import SOURCE_NAMES, DataBundle, load_data
from concept_tuning.data.splits import splits_to_json
from concept_tuning.data.table import SPLITS
from concept_tuning.engine.checkpoint import (
    in_short,
    is_disk_full,
    is_out_of_memory,
    list_checkpoints,
    remove_leftovers,
    save_weights,
    storage_message,
)
from concept_tuning.engine.evaluation import Evaluation, evaluate, predict_split
from concept_tuning.engine.run_pictures import RunPictures
from concept_tuning.engine.runs import RunFolder, StatusWriter, default_run_dir, write_atomically
from concept_tuning.engine.trainer import Stopped, Trainer, Watcher
from concept_tuning.errors import ConfigError, DataError, MachineError, RunError, StudioError, TrainingError
from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import METHODS, build_method
from concept_tuning.models.backbone import build_backbone, find_architecture
from concept_tuning.models.weights import WEIGHT_SUFFIXES, find_weights

#: How torch tells of a loader process that is gone; not of one that a shutdown ends.
_LOST_LOADER = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal: (Killed|Aborted|Bus error))")


@dataclass(frozen=True)
class LoadedRun:
    """A trained run ready to predict: its settings, names and best weights."""

    folder: RunFolder
    config: RunConfig
    method: Method
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]

    def data(self, *, report: Any = lambda text: None) -> DataBundle:
        """Open the run's data with the run's own splits; raises :class:`DataError` if the data changed."""
        return _open_data(self.config, self.folder, report)


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
    if accelerator.is_main_process:
        try:
            made[0] = str(RunFolder.create(path or default_run_dir(config), config).path)
        except RunError as error:
            made[1] = str(error)
    broadcast_object_list(made)
    if made[1] is not None:
        raise RunError(made[1])
    watcher.message(f"Run folder: {made[0]}")
    return _work(RunFolder.open(Path(made[0])), config, accelerator, watcher, splits)


def resume_run(path: Path, watcher: Watcher, *, splits: Sequence[str] = SPLITS) -> RunFolder:
    """Go on with a run from its newest checkpoint; a finished run is left as it is.

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
    return _work(folder, config, _accelerator(config), watcher, splits)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the settings with the paths in them made absolute."""

    def absolute(value: str) -> str:
        path = Path(value).expanduser()
        return str(path.resolve()) if path.exists() else value

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


def load_run(path: Path) -> LoadedRun:
    """Load a run's best weights for prediction on the CPU; raises :class:`RunError` if it has none that fit."""
    folder = RunFolder.open(path)
    config = folder.config()
    class_names, group_names = _names(folder, "class_names"), _names(folder, "group_names")
    if not folder.best_weights.is_file():
        raise RunError(f"{path} has no trained weights yet; finish it by `concept-tuning resume {path}`.")
    _check_size(folder, len(class_names))
    with torch.random.fork_rng(devices=[]):
        try:
            method = _build(config, len(class_names), weights="random")
        except (MemoryError, RuntimeError) as error:  # sizes in the settings that no computer holds
            raise RunError(f"The network of {path} cannot be built ({error}); its config.json is damaged.") from error
    load_best_weights(method, folder)
    return LoadedRun(folder, config, method.eval(), class_names, group_names)


def _names(folder: RunFolder, key: str) -> tuple[str, ...]:
    """Return the names of classes or groups that a run folder tells; raises :class:`RunError` unless they are texts."""
    found = folder.read_json("data.json", "class_names", "group_names")[key]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise RunError(f"{folder.path / 'data.json'} holds no list of names as {key}; the run folder is damaged.")
    return tuple(found)


def _check_size(folder: RunFolder, classes: int) -> None:
    """Raise :class:`RunError` unless some tensor has a row for each class: told before a network of that size is built.

    Of the weights only the header is read.
    """
    try:
        with safe_open(folder.best_weights, "pt") as file:
            rows = {file.get_slice(name).get_shape()[:1] == [classes] for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise RunError(f"{folder.best_weights} cannot be read ({error}); the run folder is damaged.") from error
    if True not in rows:
        raise RunError(f"{folder.best_weights} does not fit the run's {classes} classes; the run folder is damaged.")


def load_best_weights(method: Method, folder: RunFolder) -> None:
    """Put the best epoch's weights into a method; raises :class:`RunError` if they do not fit."""
    wanted = set(method.inference_state())
    try:
        found = load_file(folder.best_weights)
    except Exception as error:
        raise RunError(f"{folder.best_weights} cannot be read ({error}); the run folder is damaged.") from error
    if set(found) != wanted:
        odd = sorted(wanted.symmetric_difference(found))[:5]
        raise RunError(f"{folder.best_weights} does not fit the run's settings; it differs in {', '.join(odd)}.")
    for part, module in method.inference_modules().items():
        prefix = f"{part}."
        values = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(values)
        except RuntimeError as error:
            raise RunError(f"{folder.best_weights} does not fit the run's settings: {in_short(error)}") from error


def evaluate_run(run: LoadedRun, split: str, *, data: DataBundle | None = None) -> Evaluation:
    """Predict a split with a run's best weights and return the measures."""
    if split not in SPLITS:
        raise RunError(f"Unknown split {split!r}; there are {', '.join(SPLITS)}.")
    bundle = data or run.data()
    if bundle.class_names != run.class_names:
        raise DataError(
            f"The classes are now {', '.join(bundle.class_names)}, and were {', '.join(run.class_names)} when the run "
            "was trained. Put the old ones back or start a new run."
        )
    predictions = predict_split(
        run.method,
        bundle.splits[split],
        image_size=run.config.data.image_size,
        batch_size=run.config.engine.eval_batch_size,
        device=torch.device("cpu"),
        channels_last=run.config.engine.channels_last,
    )
    return evaluate(predictions, split=split, class_names=run.class_names, group_names=bundle.group_names)


def _work(
    folder: RunFolder, config: RunConfig, accelerator: Accelerator, watcher: Watcher, splits: Sequence[str]
) -> RunFolder:
    status = StatusWriter(folder, active=accelerator.is_main_process)
    lock = folder.locked() if accelerator.is_main_process else contextlib.nullcontext()
    with lock, _recorded(folder, status):
        if accelerator.is_main_process:
            remove_leftovers(folder.path)
        resumed = bool(list_checkpoints(folder.checkpoints))
        weights = "random" if resumed or config.method == "scratch" else config.backbone.weights
        find_weights(find_architecture(config.backbone.architecture), weights)  # before the long work begins
        status.update(state="preparing", message="Reading the data")
        if config.engine.threads is not None:
            torch.set_num_threads(config.engine.threads)
        with accelerator.main_process_first():
            data = _open_data(config, folder, watcher.message)
        for line in _problem_lines(data):
            watcher.message(line)
        if accelerator.is_main_process:
            _save_data_files(folder, data)
        with torch.random.fork_rng():
            torch.manual_seed(config.engine.seed)
            method = _build(config, len(data.class_names), weights=weights, report=watcher.message)
            torch.manual_seed(config.engine.seed + 1 + accelerator.process_index)
            _refuse_method(method, config, data)
            trainer = Trainer(config, method, data, folder, accelerator=accelerator, status=status, watcher=watcher)
            watcher.message(_plan_message(trainer, data))
            trainer.run()
        if accelerator.is_main_process:
            status.update(state="evaluating", message="Predicting with the best epoch")
            watcher.message("Predicting with the best epoch")
            found = _predict(folder, config, method, data, accelerator.device, splits)
            results = {"validation_note": data.validation_note, "best": trainer.progress.best, "splits": found}
            folder.write_json("results.json", results)
            status.update(state="finished", message="Finished", seconds_left=0)
        accelerator.wait_for_everyone()
    return folder


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
    if method.needs_pretrained and config.backbone.weights == "random":
        raise ConfigError(
            f"{method.name} keeps to what the pre-trained network knows, and backbone.weights=random knows nothing. "
            "Use pre-trained weights, or another method."
        )


def _open_data(config: RunConfig, folder: RunFolder, report: Any) -> DataBundle:
    saved: dict[str, Sequence[str]] | None = None
    if (folder.path / "split.json").is_file():
        saved = folder.read_json("split.json", *SPLITS)
        if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in saved.values()):
            raise RunError(f"{folder.path / 'split.json'} holds no lists of names; the run folder is damaged.")
    data = load_data(config, report=report, splits=saved)
    if (folder.path / "data.json").is_file():
        before = folder.read_json("data.json", "used_fingerprint")["used_fingerprint"]
        if before != data.used_fingerprint:
            source = Path(config.data.source).name
            raise DataError(
                f"The pictures of {source} are not those that the run {folder.path.name} began with (fingerprint "
                f"{data.used_fingerprint[:12]}, then {str(before)[:12]}). Put the old ones back or start a new run."
            )
        data = _with_groups_of(data, _names(folder, "group_names"))
    return data


def _with_groups_of(data: DataBundle, names: tuple[str, ...]) -> DataBundle:
    """Number the groups as the run began, whatever groups the source has gained or lost among unused pictures."""
    if names == data.group_names or not data.group_names:
        return data
    numbers = np.array([names.index(name) if name in names else -1 for name in data.group_names], dtype=np.int64)
    splits = {
        name: split if split.groups is None else dataclasses.replace(split, groups=numbers[split.groups])
        for name, split in data.splits.items()
    }
    if any(split.groups is not None and split.groups.min() < 0 for split in splits.values()):
        raise RunError("data.json lacks the names of groups that the run's pictures have; the run folder is damaged.")
    return dataclasses.replace(data, group_names=names, splits=splits)


def _save_data_files(folder: RunFolder, data: DataBundle) -> None:
    if (folder.path / "data.json").is_file():
        return
    folder.write_json(
        "split.json", splits_to_json({name: split.rows for name, split in data.splits.items()}, data.table.keys)
    )
    folder.write_json(
        "data.json",
        {
            "source": data.source,
            "class_names": list(data.class_names),
            "group_names": list(data.group_names),
            "counts": {name: len(split) for name, split in data.splits.items()},
            "fingerprint": data.fingerprint,
            "used_fingerprint": data.used_fingerprint,
            "validation_note": data.validation_note,
            "copies": data.copies,
            "problems": [dataclasses.asdict(problem) for problem in data.problems],
        },
    )


def _build(config: RunConfig, num_classes: int, *, weights: str, report: Any = lambda text: None) -> Method:
    backbone_config: BackboneConfig = dataclasses.replace(config.backbone, weights=weights)
    backbone = build_backbone(backbone_config, image_size=config.data.image_size, report=report)
    return build_method(config, backbone, num_classes)


def _accelerator(config: RunConfig) -> Accelerator:
    unused = DistributedDataParallelKwargs(find_unused_parameters=METHODS[config.method].trains_in_turns)
    return Accelerator(
        cpu=config.engine.device == "cpu", mixed_precision=config.engine.precision, kwargs_handlers=[unused]
    )


def _problem_lines(data: DataBundle, shown: int = 20) -> list[str]:
    """Say what is wrong with the pictures; data.json lists all of it."""
    lines = [f"Left out {problem.key}: {problem.reason}" for problem in data.problems[:shown]]
    if len(data.problems) > shown:
        lines.append(f"... and {len(data.problems) - shown} more; all are listed in the run's data.json")
    if data.copies:
        copy, original = data.copies[0]
        lines.append(
            f"{len(data.copies)} validation or test pictures are copies of training pictures (first: {copy} "
            f"of {original}), so accuracy will look too good; all are listed in the run's data.json"
        )
    return lines


def _plan_message(trainer: Trainer, data: DataBundle) -> str:
    counts = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    return (
        f"{len(data.class_names)} classes, {counts}; {trainer.total_steps} steps of "
        f"{trainer.plan.global_batch} images; validation drawn {data.validation_note}"
    )


@contextlib.contextmanager
def _recorded(folder: RunFolder, status: StatusWriter) -> Iterator[None]:
    """Write how the work ended into the run's status, and turn failures that can be foreseen into words.

    Raises:
        RunError: before the work, if something in the folder could lead what is written out of it.
    """
    folder.refuse_links()
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        status.update(state="stopped", message="Stopped; resume goes on from here", force=True)
        raise Stopped(folder.path) from stop
    except StudioError as error:
        _record_failure(status, str(error))
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            write_atomically(folder.path / "error.log", traceback.format_exc())
        kind, message = TrainingError, _in_words(error, folder.path)
        if message is None:
            kind, message = MachineError, _of_the_machine(error, folder.path)
        _record_failure(status, message or f"Unexpected error, see error.log: {error}")
        if message is None:
            raise
        raise kind(message) from error


def _in_words(error: Exception, path: Path) -> str | None:
    """Say what went wrong and what to do, for the failures that can be foreseen and come again if nothing is done."""
    text = str(error)
    if is_out_of_memory(error):
        return (
            "Out of memory. The last good checkpoint is intact. Start a new run with a smaller batch "
            "(`batch_size`), smaller pictures (`image_size`) or fewer loader processes (`workers`)."
        )
    if is_disk_full(error):
        return storage_message(error, path)
    if "Connection closed by peer" in text or "Connection reset by peer" in text:
        return (
            "Another process of this run has ended, and with it the run. The last good checkpoint is intact; go on by "
            "`resume` under the same launcher."
        )
    if "Expected more than 1 value per channel" in text:
        return (
            "Batch norm needs more than one value of each channel, and one small picture gives only one. "
            "Start a new run with a larger batch (`batch_size`) or larger pictures (`image_size`)."
        )
    return None


def _of_the_machine(error: Exception, path: Path) -> str | None:
    """Say what went wrong where it may be gone when the run is tried again; None if it is not of that kind."""
    if _LOST_LOADER.search(str(error)):
        return (
            "A loader process has ended, most likely for lack of memory. The last good checkpoint is intact; go on "
            "with `concept-tuning resume`, or start a new run with fewer loader processes (`workers`), a "
            "smaller batch (`batch_size`) or smaller pictures (`image_size`)."
        )
    told = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
    if told or isinstance(error, SafetensorError):
        return storage_message(error, Path(getattr(error, "filename", None) or path), done="read or written")
    return None


def _record_failure(status: StatusWriter, message: str) -> None:
    with contextlib.suppress(OSError):  # the disk may be full: the message still reaches the screen
        status.update(state="failed", message=message, force=True)
