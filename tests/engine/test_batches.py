from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import tiny_config

from concept_tuning.data.registry import Split
from concept_tuning.engine.batches import BatchPlan, EvenBatchPlan, batch_plan
from concept_tuning.engine.session import start_run
from concept_tuning.engine.trainer import Trainer
from concept_tuning.errors import DataError
from concept_tuning.progress import ConsoleWatcher


def test_an_epoch_holds_every_image_at_most_once_and_epochs_differ() -> None:
    plan = BatchPlan(images=23, batch_size=5, seed=3)
    assert plan.steps_per_epoch == 4
    steps = list(plan.batches(0, 8))
    first, second = list(chain(*steps[:4])), list(chain(*steps[4:]))
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    assert len({position for _, position in first}) == 20
    assert [position for _, position in first] != [position for _, position in second]


@pytest.mark.parametrize("start", range(9))
def test_beginning_anywhere_gives_the_same_batches(start: int) -> None:
    plan = BatchPlan(images=10, batch_size=3, seed=1)
    assert list(plan.batches(start, 9)) == list(plan.batches(0, 9))[start:]


def test_shares_in_rank_order_are_the_batch() -> None:
    whole = list(BatchPlan(images=30, batch_size=6, seed=2).batches(0, 7))
    shares = [list(BatchPlan(images=30, batch_size=6, seed=2, rank=r, processes=3).batches(0, 7)) for r in range(3)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    plan = BatchPlan(images=5, batch_size=32, seed=0)
    assert plan.steps_per_epoch == 1
    assert sorted(position for _, position in next(plan.batches(0, 1))) == [0, 1, 2, 3, 4]


def test_more_processes_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="4 processes"):
        BatchPlan(images=3, batch_size=32, seed=0, processes=4)


#: 40 images in cells of 30, 8 and 2, and one cell number that no image has; not in the cells' order.
CELLS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [30, 8, 2]))


def even(rank: int = 0, processes: int = 1, seed: int = 5) -> EvenBatchPlan:
    return EvenBatchPlan(images=40, batch_size=12, seed=seed, rank=rank, processes=processes, cells=CELLS)


def test_an_even_plan_draws_each_cell_as_often_and_within_it_each_image() -> None:
    assert even().steps_per_epoch == 3
    positions = np.array([position for step in even().batches(0, 1000) for _, position in step])
    assert len(positions) == 12_000
    shares = np.bincount(CELLS[positions], minlength=4) / 12_000
    assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.02)  # some five standard errors
    for cell, size in ((0, 30), (1, 8), (3, 2)):
        counts = np.bincount(positions, minlength=40)[cell == CELLS]
        assert counts == pytest.approx(4000 / size, rel=0.3)


def test_no_two_draws_of_an_even_plan_are_augmented_alike() -> None:
    draws = list(chain(*even().batches(0, 50)))
    assert len(set(draws)) == len({draw for draw, _ in draws}) == 600


def test_even_batches_differ_by_step_and_seed_and_do_not_depend_on_where_one_begins() -> None:
    steps = list(even().batches(0, 9))
    assert list(even().batches(4, 9)) == steps[4:]
    picked = [tuple(position for _, position in step) for step in steps]
    assert len(set(picked)) == 9
    assert list(even(seed=6).batches(0, 9)) != steps


def test_even_shares_in_rank_order_are_the_batch() -> None:
    shares = [list(even(rank, 3).batches(0, 4)) for rank in range(3)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == list(even().batches(0, 4))


def split_of(labels: list[int], groups: list[int] | None) -> Split:
    rows = np.arange(len(labels))
    return Split(
        name="train",
        keys=tuple(f"{row}.png" for row in rows),
        labels=np.array(labels),
        groups=None if groups is None else np.array(groups),
        rows=rows,
        images=None,  # type: ignore[arg-type]
    )


def test_an_even_plan_of_a_split_is_over_classes_within_groups() -> None:
    split, shape = split_of([0, 0, 1, 1, 1], [2, 0, 0, 2, 2]), {"batch_size": 4, "seed": 1, "rank": 0, "processes": 1}
    assert batch_plan(split, even_groups=False, **shape) == BatchPlan(images=5, batch_size=4, seed=1)
    plan = batch_plan(split, even_groups=True, **shape)
    assert isinstance(plan, EvenBatchPlan)
    assert len(set(plan.cells.tolist())) == 4
    assert plan.cells[3] == plan.cells[4]
    with pytest.raises(DataError, match="no group labels"):
        batch_plan(split_of([0, 1], None), even_groups=True, **shape)


@pytest.mark.parametrize(("method", "kind"), [("group-dro", EvenBatchPlan), ("vanilla", BatchPlan)])
def test_a_run_draws_its_batches_as_its_method_wants(
    method: str, kind: type[BatchPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, began = [], Trainer.__init__

    def watched(self: Trainer, *args: object, **named: object) -> None:
        began(self, *args, **named)  # type: ignore[arg-type]
        plans.append(self.plan)

    monkeypatch.setattr(Trainer, "__init__", watched)
    start_run(tiny_config(method, max_steps=1), tmp_path / "run", ConsoleWatcher(quiet=True))
    assert [type(plan) for plan in plans] == [kind]
