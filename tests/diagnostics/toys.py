"""Hand-made networks and pictures whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import Split
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.methods.base import Method

SIZE = 64


class ToyBackbone(nn.Module):
    """A feature map of 4 x 4 cells, the mean colour of each as a share of white, times ``where``."""

    def __init__(self, where: Tensor | None = None) -> None:
        super().__init__()
        self.num_features, self.stride, self.image_size = 3, SIZE // 4, SIZE
        self.mean, self.std = torch.zeros(3), torch.ones(3)
        self.where = torch.ones(4, 4) if where is None else where

    def normalise(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def accepts(self, size: int) -> bool:
        return size % self.stride == 0

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 4) * self.where


class ToyMethod(Method):
    """A linear classifier (C, 3) on those cells."""

    name, summary, reference = "toy", "", ""

    def __init__(self, weight: Tensor, where: Tensor | None = None) -> None:
        super().__init__(RunConfig(), ToyBackbone(where), len(weight))
        self.classifier.weight.data.copy_(weight)
        self.classifier.bias.data.zero_()
        self.eval()

    def forward(self, views, labels, context):
        raise NotImplementedError


def toy_subject(method: nn.Module, *, name: str = "toy", config: RunConfig | None = None) -> Subject:
    """A run of a method; any two can be compared."""
    classes = tuple(f"class {number}" for number in range(method.classifier.out_features))
    config = RunConfig() if config is None else config
    folder = SimpleNamespace(read_json=lambda *names: {"fingerprint": "same", "train": [], "val": [], "test": []})
    data = SimpleNamespace(image_size=SIZE)
    shown = SimpleNamespace(
        method=config.method, data=data, backbone=config.backbone, concept_tuning=config.concept_tuning
    )
    run = SimpleNamespace(config=shown, method=method, class_names=classes, group_names=(), folder=folder)
    return Subject(name=name, run=run)


def toy_pictures(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    objects: np.ndarray | None = None,
    train: np.ndarray | None = None,
) -> Pictures:
    """Pictures (n, 3, h, w) with masks (n, h, w) or none; the places in ``train`` are also the training split."""
    read: Callable[[int], Tensor] = lambda row: torch.from_numpy(images[row])  # noqa: E731
    masks = None if objects is None else (lambda row: {"object": objects[row]})

    def split(name: str, rows: np.ndarray) -> Split:
        return Split(
            name=name,
            keys=tuple(f"{name}/{row}" for row in rows),
            labels=labels[rows],
            groups=None,
            rows=rows,
            images=SimpleNamespace(image=read),
        )

    rows = np.arange(len(labels))
    splits = {"test": split("test", rows), "train": split("train", rows if train is None else train)}
    bundle = SimpleNamespace(
        source="toy",
        splits=splits,
        table=SimpleNamespace(masks=masks),
        class_names=tuple(f"class {number}" for number in range(int(labels.max()) + 1)),
        group_names=(),
    )
    return Pictures(split=splits["test"], chosen=rows, bundle=bundle)
