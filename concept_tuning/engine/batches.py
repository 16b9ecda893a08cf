"""Which training images a step sees, as a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from concept_tuning.config import DataConfig
from concept_tuning.data.registry import Split
from concept_tuning.data.transforms import eval_view, image_seed, train_views
from concept_tuning.errors import DataError
from concept_tuning.methods.base import ViewKind


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The order of the images: a new permutation each epoch, cut into full batches.

    Because it is computed from the seed, training can begin at any step. A process takes its
    contiguous share of each batch, so that the shares in rank order are the batch.
    """

    images: int
    batch_size: int
    """Images a step over all processes; the whole set where it is smaller."""
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def global_batch(self) -> int:
        """Images a step really has, a multiple of the processes."""
        return min(self.batch_size, self.images) // self.processes * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; the images left over are others each epoch."""
        return self.images // self.global_batch

    def __post_init__(self) -> None:
        if min(self.batch_size, self.images) < self.processes:
            raise DataError(
                f"A batch of {min(self.batch_size, self.images)} images cannot be shared among "
                f"{self.processes} processes; use fewer processes or more images."
            )

    def batches(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """Yield this process' (epoch, position) pairs for steps ``start`` to ``stop - 1``."""
        share = self.global_batch // self.processes
        order: np.ndarray | None = None
        for step in range(start, stop):
            epoch, within = divmod(step, self.steps_per_epoch)
            if order is None or within == 0:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
            first = within * self.global_batch + self.rank * share
            yield [(epoch, int(position)) for position in order[first : first + share]]


@dataclass(frozen=True, kw_only=True)
class EvenBatchPlan(BatchPlan):
    """Images drawn with replacement, all cells equally probable: a cell, then one of its images.

    Group DRO trains on such batches (arXiv 1911.08731, algorithm 1). A batch and an epoch have as many draws as with
    :class:`BatchPlan`, and need not show every image. In place of the epoch stands the number of the draw, so that an
    image that is drawn again, even in the same batch, is augmented anew.
    """

    cells: np.ndarray = field(repr=False, compare=False)
    """(images,) int64 cell of each image, such as a class within a group; cells without images are never drawn."""

    def batches(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """Yield this process' (draw, position) pairs for steps ``start`` to ``stop - 1``."""
        share = self.global_batch // self.processes
        order = np.argsort(self.cells, kind="stable")
        _, firsts, sizes = np.unique(self.cells[order], return_index=True, return_counts=True)
        for step in range(start, stop):
            random = np.random.default_rng([self.seed, step])
            drawn = random.integers(len(sizes), size=self.global_batch)
            positions = order[firsts[drawn] + random.integers(sizes[drawn])]
            slots = range(self.rank * share, (self.rank + 1) * share)
            yield [(step * self.global_batch + slot, int(positions[slot])) for slot in slots]


def batch_plan(split: Split, *, even_groups: bool, batch_size: int, seed: int, rank: int, processes: int) -> BatchPlan:
    """Return the plan of a run over a split, even over the classes within groups or as the data lie.

    Raises:
        DataError: if there are fewer images than processes, or groups to be even over are not known.
    """
    shape = {"images": len(split), "batch_size": batch_size, "seed": seed, "rank": rank, "processes": processes}
    if not even_groups:
        return BatchPlan(**shape)
    if split.groups is None:
        raise DataError("Batches cannot be drawn evenly over groups: these pictures have no group labels.")
    return EvenBatchPlan(**shape, cells=split.labels * (int(split.groups.max()) + 1) + split.groups)


class TrainingViews(Dataset[tuple[torch.Tensor, int, int]]):
    """Augmented views (V, 3, S, S) uint8, label and group (-1: none) of a training image in a given epoch or draw."""

    def __init__(self, split: Split, kinds: tuple[ViewKind, ...], config: DataConfig, seed: int) -> None:
        self._split = split
        self._kinds = kinds
        self._config = config
        self._seed = seed

    def __getitem__(self, where: tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        epoch, position = where
        views = train_views(
            self._split.image(position),
            self._kinds,
            size=self._config.image_size,
            config=self._config,
            seed=image_seed(self._seed, epoch, int(self._split.rows[position])),
        )
        groups = self._split.groups
        return views, int(self._split.labels[position]), -1 if groups is None else int(groups[position])


class EvaluationImages(Dataset[torch.Tensor]):
    """The one deterministic view (3, S, S) uint8 of each image of a split."""

    def __init__(self, split: Split, image_size: int) -> None:
        self._split = split
        self._size = image_size

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> torch.Tensor:
        return eval_view(self._split.image(position), size=self._size)


def training_loader(
    split: Split,
    kinds: tuple[ViewKind, ...],
    plan: BatchPlan,
    config: DataConfig,
    *,
    start: int,
    stop: int,
    workers: int,
) -> DataLoader[tuple[torch.Tensor, int, int]]:
    """Return a loader over steps ``start`` to ``stop - 1`` of a plan."""
    return DataLoader(
        TrainingViews(split, kinds, config, plan.seed),
        batch_sampler=_Steps(plan, start, stop),
        num_workers=workers,
        generator=torch.Generator(),
    )


class _Steps:
    """The plan's batches as the sampler a loader wants."""

    def __init__(self, plan: BatchPlan, start: int, stop: int) -> None:
        self._plan, self._start, self._stop = plan, start, stop

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._plan.batches(self._start, self._stop)
