from __future__ import annotations

import math
import re

import pytest
import torch
from golden import FIGURES, wave
from torch.nn import functional as F

from concept_tuning.losses.contrastive import contrastive_loss, image_contrast

GOLDEN = FIGURES["contrastive"]


def units(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_loss_agrees_with_the_authors() -> None:
    positive = (torch.arange(16) < GOLDEN["positives"]).expand(4, -1)
    loss = contrastive_loss(wave((4, 16), 0.8, 0.3), positive, temperature=GOLDEN["temperature"])
    assert loss.item() == pytest.approx(GOLDEN["loss"], rel=1e-4)


def test_equal_similarities_give_the_logarithm_of_all_over_positives() -> None:
    positive = torch.tensor([[True, True, False, False, False, False]])
    for dtype, precision in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        loss = contrastive_loss(torch.full((1, 6), 0.3, dtype=dtype), positive, temperature=0.07)
        assert loss.item() == pytest.approx(math.log(6 / 2), rel=precision)


def test_equals_torch_kl_divergence_row_by_row() -> None:
    generator = torch.Generator().manual_seed(0)
    similarities = torch.rand(5, 9, generator=generator) * 2 - 1
    positive = torch.rand(5, 9, generator=generator) < 0.4
    positive[:, 0] = True
    expected = [
        F.kl_div((row / 0.1).log_softmax(0), mask.float() / mask.sum(), reduction="sum")
        for row, mask in zip(similarities, positive, strict=True)
    ]
    loss = contrastive_loss(similarities, positive, temperature=0.1)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_entries_that_are_not_valid_take_no_part_in_value_or_gradient() -> None:
    similarities = torch.tensor([[0.5, 0.1, 0.9, -0.3]], requires_grad=True)
    positive = torch.tensor([[True, False, True, False]])
    valid = torch.tensor([[True, True, False, True]])
    loss = contrastive_loss(similarities, positive, temperature=0.2, valid_mask=valid)
    kept = similarities.detach()[:, [0, 1, 3]]
    expected = contrastive_loss(kept, positive[:, [0, 1, 3]], temperature=0.2)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert similarities.grad is not None
    assert similarities.grad[0, 2] == 0
    assert similarities.grad[0, 0] < 0 < similarities.grad[0, 1]


def test_rows_without_positives_or_without_negatives_count_as_they_should() -> None:
    similarities = torch.tensor([[0.5, 0.5], [0.9, -0.9]])
    no_negative = torch.tensor([[True, True], [False, False]])
    assert contrastive_loss(similarities, no_negative, temperature=0.07).item() == pytest.approx(0, abs=1e-6)


def test_image_contrast_equals_a_slow_reference() -> None:
    classes, size, width = 3, 4, 3
    queries, keys, queue = units(5, width, seed=1), units(5, width, seed=2), units(classes, size, width, seed=3)
    filled, labels = torch.tensor([4, 2, 0]), torch.tensor([0, 1, 2, 1, 0])
    total = 0.0
    for query, key, label in zip(queries, keys, labels.tolist(), strict=True):
        positives, negatives = [query @ key], []
        for other in range(classes):
            row = [query @ queue[other, slot] for slot in range(int(filled[other]))]
            (positives if other == label else negatives).extend(row)
        logits = torch.stack(positives + negatives) / 0.07
        logs = logits.log_softmax(0)[: len(positives)]
        total += (-math.log(len(positives)) - logs.mean()).item()
    loss = image_contrast(queries, keys, queue, filled, labels, temperature=0.07)
    assert loss.item() == pytest.approx(total / 5, rel=1e-5)


def test_image_contrast_with_empty_queues_is_zero_and_one_image_is_enough() -> None:
    queries, keys = units(1, 2, seed=1), units(1, 2, seed=2)
    empty = image_contrast(
        queries, keys, torch.zeros(2, 4, 2), torch.zeros(2, dtype=torch.int64), torch.tensor([1]), temperature=0.07
    )
    assert empty.item() == pytest.approx(0, abs=1e-6)


def test_image_contrast_falls_when_the_query_turns_to_its_class() -> None:
    queue = torch.stack([torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 1.0]] * 3)])
    filled, label = torch.tensor([3, 3]), torch.tensor([0])
    near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    losses = [image_contrast(q, near, queue, filled, label, temperature=0.07).item() for q in (near, far)]
    # near: 3 negatives at similarity 0 against 4 positives at 1
    assert losses[0] == pytest.approx(math.log(1 + 3 / 4 * math.exp(-1 / 0.07)), abs=1e-6)
    assert losses[1] > 10


def test_gradient_goes_to_the_queries_in_half_precision_too() -> None:
    queries = units(2, 3, seed=1).bfloat16().requires_grad_()
    loss = image_contrast(
        queries,
        units(2, 3, seed=2),
        units(2, 4, 3, seed=3),
        torch.tensor([4, 4]),
        torch.tensor([0, 1]),
        temperature=0.07,
    )
    loss.backward()
    assert loss.dtype == torch.float32
    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contrastive_loss(torch.zeros(2, 3), torch.zeros(2, 2).bool(), temperature=1), r"\(2, 3\), \(2, 2\)"),
        (lambda: contrastive_loss(torch.zeros(3), torch.zeros(3).bool(), temperature=1), r"\(B, M\)"),
        (
            lambda: contrastive_loss(torch.zeros(1, 3), torch.zeros(1, 3).bool(), temperature=0),
            "temperature must be > 0",
        ),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        {"queries": (2, 3, 1), "keys": (2, 3, 1)},
        {"keys": (2, 4)},
        {"queue": (4, 5, 2)},
        {"filled": (3,)},
        {"labels": (3,)},
    ],
)
def test_image_contrast_names_each_wrong_shape(change: dict[str, tuple[int, ...]]) -> None:
    shapes = {"queries": (2, 3), "keys": (2, 3), "queue": (4, 5, 3), "filled": (4,), "labels": (2,)} | change
    wanted = "queries and keys must be (B, E), queue (C, K, E), filled (C,) and labels (B,), got "
    got = "{queries}, {keys}, {queue}, {filled} and {labels}.".format(**shapes)
    with pytest.raises(ValueError, match=f"^{re.escape(wanted + got)}$"):
        image_contrast(**{name: torch.zeros(shape).long() for name, shape in shapes.items()}, temperature=1)
