"""The optimiser and the learning rate of each step; rates and schedule are independent settings."""

from __future__ import annotations

import math

import torch

from concept_tuning.config import OptimConfig
from concept_tuning.methods.base import Method


def build_optimizer(method: Method, optim: OptimConfig) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum or AdamW over the method's parameter groups."""
    groups = method.parameter_groups()
    for group in groups:
        group["base_lr"] = group["lr"]
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=optim.weight_decay)
    return torch.optim.SGD(
        groups,
        momentum=optim.sgd_momentum,
        nesterov=optim.sgd_momentum > 0,
        weight_decay=optim.weight_decay,
    )


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its own peak rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def rate_factor(optim: OptimConfig, step: int, total: int) -> float:
    """Return the share of the peak rate at step 0..total-1.

    Warm-up rises linearly over the first ``warmup_fraction`` of the steps; then `cosine` falls to 0 as
    (1 + cos(pi t)) / 2, `step` multiplies by ``step_factor`` at each of ``step_points`` (shares of
    the whole training), and `constant` stays.
    """
    warmup = round(optim.warmup_fraction * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if optim.schedule == "step":
        passed = sum(step >= point * total for point in optim.step_points)
        return optim.step_factor**passed
    return 1.0
