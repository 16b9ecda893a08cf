from __future__ import annotations

import math

import pytest
import torch

from concept_tuning.losses.distillation import distillation


def logits(seed: int, batch: int = 4, classes: int = 6) -> torch.Tensor:
    return 3 * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_classes_have_a_closed_form() -> None:
    # softened by T = 2, gaps of 2 and 0 become logistic(1) and 1/2
    now, before = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    share = 1 / (1 + math.exp(-1))
    expected = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    assert distillation(now, before, temperature=2).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_the_papers_powers() -> None:
    """Eqs. 2 to 4 as they stand: probabilities to the power 1 / T, normalised, in a cross-entropy, in a slow loop."""
    now, before, temperature = logits(1).requires_grad_(), logits(2), 2.0
    total = torch.zeros((), dtype=torch.float64)
    entropy = 0.0
    for row, old in zip(now, before, strict=True):
        fresh, kept = (values.softmax(0) ** (1 / temperature) for values in (row, old))
        fresh, kept = fresh / fresh.sum(), kept / kept.sum()
        for share, answer in zip(kept, fresh, strict=True):
            total = total - share * answer.log() / len(now)
            entropy -= float(share * share.log()) / len(now)
    (expected,) = torch.autograd.grad(total, now)
    loss = distillation(now, before, temperature=temperature)
    torch.testing.assert_close(torch.autograd.grad(loss, now)[0], expected)
    assert loss.item() == pytest.approx(total.item() - entropy)


def test_nothing_forgotten_is_nothing_lost_and_the_start_gets_no_gradient() -> None:
    before = logits(1).requires_grad_()
    now = logits(1).requires_grad_()
    loss = distillation(now, before, temperature=2)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert before.grad is None
    assert now.grad.abs().max() < 1e-12


def test_a_temperature_below_one_sharpens() -> None:
    now, before = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert distillation(now, before, temperature=0.5).item() == pytest.approx(
        distillation(now, 4 * before, temperature=2).item()
    )


def test_half_precision_is_taken_in_single() -> None:
    assert distillation(logits(1).bfloat16(), logits(2).bfloat16(), temperature=2).dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "temperature", "message"),
    [((2, 3), 2, r"got \(4, 6\) and \(2, 3\)"), ((4, 6), 0, "temperature must be > 0, got 0")],
)
def test_wrong_arguments_are_named(shape: tuple[int, ...], temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distillation(logits(1), torch.zeros(shape), temperature=temperature)
