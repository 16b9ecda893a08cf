"""A run's pictures for what a method does with them before and after the training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import DataBundle
from concept_tuning.engine.batches import EvaluationImages
from concept_tuning.errors import RunError
from concept_tuning.methods.base import Batch, Method


class RunPictures:
    """The training and validation pictures of a run, each in its one evaluation view; the test stays unread."""

    def __init__(self, config: RunConfig, method: Method, data: DataBundle, device: torch.device) -> None:
        self._config = config
        self._method = method
        self._data = data
        self._device = device

    def batches(self, split: str) -> Iterator[Batch]:
        """See :meth:`~concept_tuning.methods.base.PictureSource.batches`; raises RunError for another split."""
        if split not in ("train", "val"):
            raise RunError(f"A method may look at train and val alone, not at {split!r}.")
        source = self._data.splits[split]
        images = EvaluationImages(source, self._config.data.image_size)
        done = 0
        for part in DataLoader(images, batch_size=self._config.engine.eval_batch_size, generator=torch.Generator()):
            chosen = slice(done, done + len(part))
            inputs = self._method.backbone.normalise(part.to(self._device))
            if self._config.engine.channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            groups = None if source.groups is None else self._put(source.groups[chosen])
            units = None if source.units is None else self._put(source.units[chosen])
            yield Batch(inputs, self._put(source.labels[chosen]), groups, units)
            done += len(part)

    def group_counts(self) -> Tensor | None:
        """See :meth:`~concept_tuning.methods.base.PictureSource.group_counts`."""
        split = self._data.splits["train"]
        if split.groups is None:
            return None
        counts = np.zeros((len(self._data.class_names), len(self._data.group_names)), dtype=np.int64)
        np.add.at(counts, (split.labels, split.groups), 1)
        return self._put(counts)

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
