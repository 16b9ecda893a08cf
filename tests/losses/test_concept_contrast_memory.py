"""How the concept loss grows: in operators with nothing, in memory at most linearly, and never with the iterations."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from naive_reference import sinkhorn
from operator_count import operators
from step_cost import traced_peak
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses import rare_concept
from concept_tuning.losses.rare_concept import concept_contrast
from concept_tuning.losses.sinkhorn import entries_at_once

#: Nothing changes by less than nothing: every image takes all iterations there are.
ALL_ITERATIONS = 0.0
#: What a doubling may add to twice the memory: what does not grow with the size, and the allocator's rounding.
SLACK = 1.05


def units(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))), dim=-1)


def loss(
    *, batch: int = 2, classes: int = 4, queue_size: int = 3, concepts: int = 3, iterations: int = 1
) -> Callable[[], None]:
    """Return the loss and its backward pass on full queues, with every other class confusing."""
    labels = torch.arange(batch) % classes
    others = torch.arange(classes - 1).expand(batch, -1)
    given = {
        "keys": units(batch, concepts, classes),
        "queue": units(classes, queue_size, concepts, classes),
        "filled": torch.full((classes,), queue_size),
        "labels": labels,
        "confusing": others + (others >= labels[:, None]),
        "draws": torch.full((batch, 1 + queue_size), 0.5),
    }
    queries = units(batch, concepts, classes).requires_grad_()

    def work() -> None:
        queries.grad = None
        concept_contrast(
            queries, **given, temperature=0.07, max_iterations=iterations, tolerance=ALL_ITERATIONS
        ).backward()
        assert queries.grad.abs().sum() > 0

    return work


def entries(batch: int, classes: int, queue_size: int, concepts: int) -> int:
    """Return the plan entries of a batch of :func:`loss`."""
    return batch * concepts**2 * (1 + classes * queue_size)


# Operators


@pytest.mark.parametrize(
    "larger", [{"batch": 32}, {"classes": 40}, {"queue_size": 60}, {"concepts": 9}], ids=lambda size: next(iter(size))
)
def test_within_a_block_more_of_anything_takes_no_more_operators(larger: dict[str, int]) -> None:
    size = {"batch": 2, "classes": 4, "queue_size": 3, "concepts": 3}
    # That all images of the larger case are one block, too.
    assert entries(**size | larger) <= entries_at_once(1, torch.device("cpu"))
    assert len(operators(loss(**size))) == len(operators(loss(**size | larger))) > 20


def test_operators_grow_with_iterations_and_blocks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count sees a loop where there is one: each iteration, and each block of images, takes its own."""
    one, two, three = (len(operators(loss(iterations=count))) for count in (1, 2, 3))
    assert three - two == two - one > 0
    whole = len(operators(loss(batch=8)))
    split = {}
    for blocks in (2, 4):
        monkeypatch.setattr(rare_concept, "entries_at_once", lambda size, device, images=8 // blocks: images)
        split[blocks] = len(operators(loss(batch=8)))
    assert split[4] - split[2] == 2 * (split[2] - whole) > 0


# Memory


@pytest.mark.parametrize("name", ["batch", "classes", "queue_size"])
def test_twice_the_size_takes_at_most_twice_the_memory(name: str) -> None:
    """The sizes are such that what grows is most of the memory."""
    start = {"batch": 4, "classes": 16, "queue_size": 8, "concepts": 9}
    peaks = [traced_peak(loss(**start | {name: start[name] * factor})) for factor in (1, 2, 4)]
    for below, above in itertools.pairwise(peaks):
        assert 1.3 * below < above < 2 * SLACK * below, peaks


def test_the_cosines_of_all_images_are_never_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"batch": 16, "classes": 40, "queue_size": 8, "concepts": 9}
    cosines = size["concepts"] ** 2 * size["classes"] * size["queue_size"]  # of an image
    monkeypatch.setattr(rare_concept, "_CPU_COSINES", cosines * size["batch"])
    whole = traced_peak(loss(**size))
    monkeypatch.setattr(rare_concept, "_CPU_COSINES", cosines)
    assert traced_peak(loss(**size)) < whole - 4 * cosines * (size["batch"] - 3)


def test_the_backward_pass_keeps_no_iteration() -> None:
    few, many = (traced_peak(loss(classes=16, queue_size=8, concepts=9, iterations=count)) for count in (2, 100))
    assert many <= few * 1.001


def test_a_loss_that_keeps_iterations_is_found_out() -> None:
    """The same measure on the slow reference's transport, whose backward pass goes through every iteration."""
    cost = 1 - units(16, 9, 9)

    def through_the_plan(iterations: int) -> Callable[[], None]:
        return lambda: sinkhorn(cost.clone().requires_grad_(), 0.01, iterations, ALL_ITERATIONS).sum().backward()

    few, many = (traced_peak(through_the_plan(count)) for count in (2, 100))
    assert many > 10 * few
