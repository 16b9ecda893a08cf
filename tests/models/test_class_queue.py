from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from concept_tuning.models.class_queue import ClassQueue


def numbers(queue: ClassQueue) -> list[list[float]]:
    """Return each class' keys, one number a key, the oldest first."""
    return [queue.of_class(label).flatten().tolist() for label in range(len(queue.filled))]


def put(queue: ClassQueue, *pairs: tuple[float, int]) -> None:
    """Queue a batch of (key, label) pairs, keys of one number."""
    keys, labels = zip(*pairs, strict=True)
    queue.enqueue(torch.tensor(keys).view(-1, 1), torch.tensor(labels))


def test_classes_keep_their_own_order_and_forget_their_oldest() -> None:
    queue = ClassQueue(2, 3, (1,))
    put(queue, (10, 0), (20, 1), (11, 0))
    assert numbers(queue) == [[10, 11], [20]]
    put(queue, (12, 0))
    assert numbers(queue) == [[10, 11, 12], [20]]
    put(queue, (13, 0), (21, 1))
    assert numbers(queue) == [[11, 12, 13], [20, 21]]
    assert queue.filled.tolist() == [3, 2]


def test_a_ring_wraps_around_within_one_batch() -> None:
    queue = ClassQueue(1, 3, (1,))
    put(queue, (1, 0), (2, 0))
    put(queue, (3, 0), (4, 0))
    assert numbers(queue) == [[2, 3, 4]]
    # The newest key took the oldest one's slot, and the next goes after it.
    assert queue.keys.flatten().tolist() == [4, 2, 3]
    assert queue.pointer.tolist() == [1]


def test_filled_slots_come_first_at_every_moment() -> None:
    """The losses take the first ``filled`` slots of a class for the ones in use."""
    queue = ClassQueue(3, 4, (1,))
    for step in range(10):
        put(queue, (step + 1.0, step % 2), (step + 101.0, 0))
        for label in range(3):
            stored = queue.keys[label, : queue.filled[label]].flatten()
            assert sorted(stored.tolist()) == sorted(numbers(queue)[label])
            assert (queue.keys[label, queue.filled[label] :] == 0).all()
    assert queue.filled.tolist() == [4, 4, 0]


@pytest.mark.parametrize(("count", "kept"), [(2, [1, 2]), (3, [2, 3]), (5, [4, 5])])
def test_of_more_keys_than_fit_the_last_stay(count: int, kept: list[float]) -> None:
    queue = ClassQueue(2, 2, (1,))
    put(queue, *((number + 1.0, 1) for number in range(count)))
    assert numbers(queue) == [[], kept]
    put(queue, (99, 1))
    assert numbers(queue) == [[], [kept[-1], 99]]


def test_a_queue_of_one_key_holds_the_last() -> None:
    queue = ClassQueue(2, 1, (1,))
    put(queue, (1, 0), (2, 0), (3, 1))
    assert numbers(queue) == [[2], [3]]


def test_an_empty_queue_and_an_empty_batch() -> None:
    queue = ClassQueue(2, 3, (4, 5))
    assert queue.filled.tolist() == [0, 0]
    assert queue.of_class(1).shape == (0, 4, 5)
    queue.enqueue(torch.zeros(1, 4, 5) + 7, torch.tensor([1]))
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    queue.enqueue(torch.zeros(0, 4, 5), torch.zeros(0, dtype=torch.int64))
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def reference(classes: int, size: int, batches: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
    """The same written slowly: a list for each class, cut from the front."""
    lists: list[list[Tensor]] = [[] for _ in range(classes)]
    for keys, labels in batches:
        for key, label in zip(keys, labels.tolist(), strict=True):
            lists[label].append(key)
            del lists[label][:-size]
    return lists


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_slow_reference(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes, size = 4, seed + 1
    batches = []
    for _ in range(25):
        count = int(torch.randint(9, (1,), generator=generator))
        keys = torch.randn(count, 2, 3, generator=generator)
        # Squared draws: a common class and rare ones.
        labels = (torch.rand(count, generator=generator).square() * classes).long()
        batches.append((keys, labels))
    queue = ClassQueue(classes, size, (2, 3))
    for step, (keys, labels) in enumerate(batches):
        queue.enqueue(keys, labels)
        for label, expected in enumerate(reference(classes, size, batches[: step + 1])):
            assert torch.equal(queue.of_class(label), torch.stack(expected) if expected else torch.zeros(0, 2, 3))


def test_the_state_dict_carries_on_where_it_stopped() -> None:
    def feed(queue: ClassQueue, steps: range) -> None:
        for step in steps:
            put(queue, (step, step % 2), (step + 0.5, 0))

    straight, stopped, resumed = (ClassQueue(2, 3, (1,)) for _ in range(3))
    feed(straight, range(9))
    feed(stopped, range(5))
    assert 0 not in stopped.pointer.tolist()
    resumed.load_state_dict(stopped.state_dict())
    feed(resumed, range(5, 9))
    assert numbers(resumed) == numbers(straight)
    assert all(torch.equal(value, straight.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_stored_keys_are_copies_without_gradient_in_the_queues_type() -> None:
    queue = ClassQueue(1, 2, (2,))
    keys = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(keys, torch.tensor([0]))
    with torch.no_grad():
        keys.fill_(9)
    assert not queue.keys.requires_grad
    assert queue.keys.dtype == torch.float32
    assert queue.of_class(0).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("keys", "labels", "shapes"),
    [
        ((2, 4), (2,), "(2, 4) and (2,)"),
        ((2, 3), (3,), "(2, 3) and (3,)"),
        ((3,), (1,), "(3,) and (1,)"),
        ((2, 3), (2, 1), "(2, 3) and (2, 1)"),
    ],
)
def test_shapes_that_do_not_fit_are_quoted(keys: tuple[int, ...], labels: tuple[int, ...], shapes: str) -> None:
    queue = ClassQueue(2, 3, (3,))
    expected = re.escape(f"keys must be (B, 3) and labels (B,), got {shapes}.")
    with pytest.raises(ValueError, match=expected):
        queue.enqueue(torch.ones(keys), torch.zeros(labels, dtype=torch.int64))
    assert queue.filled.tolist() == [0, 0]


@pytest.mark.parametrize(("classes", "size"), [(0, 3), (3, 0)])
def test_no_classes_or_no_slots_are_refused(classes: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"must be >= 1, got {classes} and {size}"):
        ClassQueue(classes, size, (1,))
