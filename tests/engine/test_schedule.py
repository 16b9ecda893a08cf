from __future__ import annotations

import math

import pytest
import torch

from concept_tuning.config import OptimConfig
from concept_tuning.engine.schedule import rate_factor, set_learning_rates


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


def test_groups_keep_their_ratio_under_any_schedule() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 1.0, "base_lr": 1.0}, {"params": weights[1:], "lr": 0.1, "base_lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    for factor in (1.0, 0.37, 0.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor, 0.1 * factor])
