"""Predictions of a split and the measures computed from them; deterministic, without gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch.utils.data import DataLoader

from concept_tuning.data.registry import Split
from concept_tuning.engine.batches import EvaluationImages
from concept_tuning.engine.checkpoint import refuse_unreadable, usual_rights
from concept_tuning.errors import DivergedError, RunError
from concept_tuning.methods.base import Method
from concept_tuning.proportion import number_of, share_interval

PREDICTION = "prediction"


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split, in the split's order.

    Attributes:
        probabilities: (N, C) float32 of each head, and of the fixed rule under ``prediction``.
        labels: (N,) int64.
        groups: (N,) int64, or None.
        units: (N,) int64, what each picture shows (a plant, a patient), or None where each is by itself.
    """

    probabilities: Mapping[str, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray | None
    units: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write the predictions as safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"probabilities.{name}": value for name, value in self.probabilities.items()}
        tensors["labels"] = self.labels
        columns = {"groups": self.groups, "units": self.units}
        tensors |= {name: column for name, column in columns.items() if column is not None}
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with usual_rights(temporary):
                save_file(tensors, temporary)
            temporary.replace(path)
        except (OSError, SafetensorError):
            temporary.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read predictions written by :meth:`save`.

        Raises:
            RunError: if the file may not be read or is not one of those.
        """
        refuse_unreadable(path)
        try:
            tensors = load_file(path)
            labels = tensors["labels"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} cannot be read as predictions ({error}); the run folder is damaged.") from error
        prefix = "probabilities."
        heads = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        odd = [name for name, value in heads.items() if value.ndim != 2 or len(value) != labels.size]
        if PREDICTION not in heads or labels.ndim != 1 or odd:
            raise RunError(f"{path} holds no row of probabilities for each label; the run folder is damaged.")
        units = tensors.get("units")
        if units is not None and units.shape != labels.shape:
            raise RunError(f"{path} holds no unit for each label; the run folder is damaged.")
        return cls(heads, labels, tensors.get("groups"), units)


@dataclass(frozen=True)
class Rate:
    """A share with its count and 95 % Wilson interval."""

    name: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupRate(Rate):
    """Accuracy of one class within one group (worst-group accuracy after Sagawa et al., arXiv 1911.08731)."""

    class_name: str
    group: str


@dataclass(frozen=True)
class Evaluation:
    """Measures of one split.

    Attributes:
        n: Number of images.
        accuracy: Share predicted right by the fixed rule, with its 95 % Wilson interval low..high, as of classes and
            groups; over whole units where images have them (:func:`~concept_tuning.proportion.share_interval`).
        loss: Mean negative log-likelihood of the fixed rule's probabilities, in nats.
        worst_group_accuracy: Smallest accuracy over class-group cells; None where the data has no
            groups. The minimum of several estimates is biased low; read it with its cell's ``n``.
        groups: Accuracy of every class-group cell that has images.
        classes: Accuracy of every class.
        heads: Accuracy of each head alone.
        units: How many plants or patients the images show; None where each image is by itself.
    """

    split: str
    n: int
    accuracy: float
    low: float
    high: float
    loss: float
    worst_group_accuracy: float | None
    worst_group: str | None
    groups: tuple[GroupRate, ...]
    classes: tuple[Rate, ...]
    heads: Mapping[str, float]
    units: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"groups": [asdict(g) for g in self.groups], "classes": [asdict(c) for c in self.classes]}


@torch.inference_mode()
def predict_split(
    method: Method,
    split: Split,
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    channels_last: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Predict every image of a split; the method's mode is put back afterwards.

    Raises:
        DivergedError: if a probability is not finite.
    """
    training = method.training
    method.eval()
    found: dict[str, list[np.ndarray]] = {}
    try:
        loader = DataLoader(EvaluationImages(split, image_size), batch_size=batch_size, generator=torch.Generator())
        done = 0
        for images in loader:
            inputs = method.backbone.normalise(images.to(device))
            if channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            for name, values in method.predict(inputs).items():
                found.setdefault(name, []).append(values.float().cpu().numpy())
            done += len(images)
            progress(done, len(split))
    finally:
        method.train(training)
    heads = {name: np.concatenate(parts) for name, parts in found.items()}
    _refuse_non_finite(heads, split.name)
    return Predictions(heads, split.labels, split.groups, split.units)


def evaluate(
    predictions: Predictions, *, split: str, class_names: tuple[str, ...], group_names: tuple[str, ...]
) -> Evaluation:
    """Compute the measures of a split from its predictions; raises :class:`DivergedError` if one is not finite."""
    _refuse_non_finite(predictions.probabilities, split)
    labels = predictions.labels
    probabilities = predictions.probabilities[PREDICTION]
    right = probabilities.argmax(1) == labels
    likelihood = probabilities[np.arange(len(labels)), labels]
    overall = _rate("all", predictions, right)
    groups = _group_rates(right, predictions, class_names, group_names)
    worst = min(groups, key=lambda cell: cell.accuracy, default=None)
    return Evaluation(
        split=split,
        n=len(labels),
        accuracy=overall.accuracy,
        low=overall.low,
        high=overall.high,
        loss=float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()),
        worst_group_accuracy=worst.accuracy if worst else None,
        worst_group=worst.name if worst else None,
        groups=groups,
        classes=tuple(
            _rate(name, predictions, right, labels == index)
            for index, name in enumerate(class_names)
            if (labels == index).any()
        ),
        heads={
            name: float((values.argmax(1) == labels).mean())
            for name, values in predictions.probabilities.items()
            if name != PREDICTION
        },
        units=number_of(predictions.units),
    )


def _refuse_non_finite(probabilities: Mapping[str, np.ndarray], split: str) -> None:
    """Raise :class:`DivergedError` if a head gives a picture a probability that is not finite."""
    for name, values in probabilities.items():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            raise DivergedError(
                f"The probabilities of {name} are not finite for {bad} of the {len(values)} pictures of the {split} "
                "split: the training diverged. Try a smaller learning rate (`lr`), some warm-up "
                "(`warmup_fraction=0.1`) or `precision=no` in a new run."
            )


def _group_rates(
    right: np.ndarray, predictions: Predictions, class_names: tuple[str, ...], group_names: tuple[str, ...]
) -> tuple[GroupRate, ...]:
    if predictions.groups is None:
        return ()
    rates = []
    for label, class_name in enumerate(class_names):
        for group, group_name in enumerate(group_names):
            cell = (predictions.labels == label) & (predictions.groups == group)
            if cell.any():
                rate = _rate(f"{class_name} | {group_name}", predictions, right, cell)
                rates.append(GroupRate(**asdict(rate), class_name=class_name, group=group_name))
    return tuple(rates)


def _rate(name: str, predictions: Predictions, right: np.ndarray, part: np.ndarray | None = None) -> Rate:
    """Return the share of successes among a part of the pictures with its 95 % interval."""
    marks, units = (column if part is None or column is None else column[part] for column in (right, predictions.units))
    assert marks is not None
    low, high = share_interval(marks, units=units)
    return Rate(name, len(marks), float(marks.mean()), low, high)
