"""A trained run ready to predict: its network with the best weights, its names, its data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from concept_tuning.config import BackboneConfig, RunConfig
from concept_tuning.data.registry import DataBundle, check_class_names
from concept_tuning.data.table import SPLITS
from concept_tuning.engine.checkpoint import in_short, refuse_unreadable
from concept_tuning.engine.evaluation import Evaluation, evaluate, predict_split
from concept_tuning.engine.run_data import noted_names, open_data
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError
from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import build_backbone


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
        return open_data(self.config, self.folder, report)


def load_run(path: Path) -> LoadedRun:
    """Load a run's best weights for prediction on the CPU; raises :class:`RunError` if it has none that fit."""
    folder = RunFolder.open(path)
    config = folder.config()
    class_names, group_names = noted_names(folder, "class_names"), noted_names(folder, "group_names")
    if not folder.best_weights.is_file():
        if folder.status().get("state") == "finished":
            if folder.read_json("results.json", "splits")["splits"]:
                raise RunError(f"{path} is finished, but its weights ({folder.best_weights}) are gone; train it anew.")
            raise RunError(f"{path} keeps no weights: it is a trial of a bench's search, for its validation alone.")
        raise RunError(f"{path} has no trained weights yet; finish it by `concept-tuning resume {path}`.")
    refuse_unreadable(folder.best_weights)
    _check_size(folder, len(class_names))
    with torch.random.fork_rng(devices=[]):
        try:
            method = build_with_backbone(config, len(class_names), weights="random")
        except (MemoryError, RuntimeError) as error:  # sizes in the settings that no computer holds
            raise RunError(f"The network of {path} cannot be built ({error}); its config.json is damaged.") from error
    load_best_weights(method, folder)
    return LoadedRun(folder, config, method.eval(), class_names, group_names)


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


def build_with_backbone(
    config: RunConfig, num_classes: int, *, weights: str, report: Any = lambda text: None
) -> Method:
    """Build the backbone of the settings, with these weights in place of theirs, and the method on it."""
    backbone_config: BackboneConfig = dataclasses.replace(config.backbone, weights=weights)
    backbone = build_backbone(backbone_config, image_size=config.data.image_size, report=report)
    return build_method(config, backbone, num_classes)


def load_best_weights(method: Method, folder: RunFolder) -> None:
    """Put the best epoch's weights into a method; raises :class:`RunError` if they may not be read or do not fit."""
    refuse_unreadable(folder.best_weights)
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
    check_class_names(bundle.class_names, run.class_names)
    predictions = predict_split(
        run.method,
        bundle.splits[split],
        image_size=run.config.data.image_size,
        batch_size=run.config.engine.eval_batch_size,
        device=torch.device("cpu"),
        channels_last=run.config.engine.channels_last,
    )
    return evaluate(predictions, split=split, class_names=run.class_names, group_names=bundle.group_names)
