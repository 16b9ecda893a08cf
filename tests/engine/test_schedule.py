from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from concept_tuning.config import OptimConfig
from concept_tuning.engine.schedule import build_optimizer, rate_factor, set_learning_rates


def test_cosine_begins_at_one_halves_midway_and_nears_zero() -> None:
    optim = OptimConfig(schedule="cosine")
    assert rate_factor(optim, 0, 100) == 1
    assert rate_factor(optim, 50, 100) == pytest.approx(0.5)
    assert rate_factor(optim, 99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_step_decays_at_its_points() -> None:
    optim = OptimConfig(schedule="step", step_points=(0.5, 0.75), step_factor=0.1)
    factors = [rate_factor(optim, step, 8) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_linearly_then_the_schedule_begins_at_its_peak() -> None:
    optim = OptimConfig(schedule="constant", warmup_fraction=0.4)
    assert [rate_factor(optim, step, 10) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    cosine = OptimConfig(schedule="cosine", warmup_fraction=0.4)
    assert rate_factor(cosine, 4, 10) == 1


class TwoRates(nn.Module):
    """Parameters at two rates, the second without weight decay."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.ones(1), torch.ones(1)])

    def parameter_groups(self) -> list[dict[str, object]]:
        rates: list[dict[str, object]] = [{"lr": 0.5}, {"lr": 0.05, "weight_decay": 0.0}]
        return [group | {"params": [value]} for group, value in zip(rates, self.weights, strict=True)]


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_one_that_was_set_with_its_decay_and_the_groups_rates(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    """Without a gradient nothing but a decay of AdamW, lr * weight_decay * w, moves a weight."""
    method = TwoRates()
    optimizer = build_optimizer(method, OptimConfig(optimizer=name, weight_decay=0.1))
    assert type(optimizer) is kind
    set_learning_rates(optimizer, 0.5)
    for value in method.weights:
        value.grad = torch.zeros(1)
    optimizer.step()
    # SGD adds the decay to the gradient and, by Nesterov with momentum 0.9, steps 1 + 0.9 times as far at first.
    step = {"sgd": 1.9 * 0.25 * 0.1, "adamw": 0.25 * 0.1}[name]
    assert [value.item() for value in method.weights] == pytest.approx([1 - step, 1])


def test_groups_keep_their_ratio_under_any_schedule() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 1.0, "base_lr": 1.0}, {"params": weights[1:], "lr": 0.1, "base_lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    for factor in (1.0, 0.37, 0.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor, 0.1 * factor])
