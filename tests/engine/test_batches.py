from __future__ import annotations

from itertools import chain

import pytest

from concept_tuning.engine.batches import BatchPlan
from concept_tuning.errors import DataError


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
