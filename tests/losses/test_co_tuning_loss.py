from __future__ import annotations

import math

import pytest
import torch

from concept_tuning.losses.co_tuning import source_cross_entropy


def test_equals_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator)
    relationship = torch.rand(3, 7, generator=generator)
    relationship /= relationship.sum(1, keepdim=True)
    labels = torch.tensor([0, 2, 1, 1, 0])
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        total -= sum(float(relationship[label, s]) * float(row.log_softmax(0)[s]) for s in range(7))
    assert source_cross_entropy(logits, relationship, labels).item() == pytest.approx(total / 5, rel=1e-5)


def test_no_opinion_costs_the_logarithm_of_the_source_classes_whatever_the_target() -> None:
    relationship = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    loss = source_cross_entropy(torch.zeros(2, 2), relationship, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(2))


def test_gradient_goes_to_the_logits_and_vanishes_at_the_relationship() -> None:
    relationship = torch.tensor([[0.3, 0.7]])
    logits = relationship.log().requires_grad_()
    source_cross_entropy(logits, relationship, torch.tensor([0])).backward()
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (4, 2), (2,)),
        ((2, 3), (4, 3), (3,)),
        ((3,), (4, 3), (3,)),
        ((2, 3, 5), (4, 3), (2,)),
        ((2, 3), (4, 3, 5), (2,)),
    ],
)
def test_wrong_shapes_are_named(shapes: tuple[tuple[int, ...], ...]) -> None:
    logits, relationship, labels = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(
        ValueError, match=r"^source_logits must be \(B, S\), relationship \(C, S\) and labels \(B,\), got \(\d"
    ):
        source_cross_entropy(logits, relationship, labels.long())
