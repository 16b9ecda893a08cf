"""The optimiser and the learning rate of each step; rates and schedule are independent settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from concept_tuning.config import OptimConfig
from concept_tuning.methods.base import Method

#: What each optimiser keeps of a parameter: values of its shape, and single ones.
_MOMENTS: dict[type, tuple[str, ...]] = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
}
_COUNTS: dict[type, dict[str, torch.Size]] = {torch.optim.SGD: {}, torch.optim.AdamW: {"step": torch.Size([])}}


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


def put_back(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser the moments of a stored state; rates and the like stay those of its own settings.

    Raises:
        ValueError: if the state has other groups, or the moments of a parameter are not those that the optimiser
            keeps, of the parameter's shape.
    """
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    for parameter, moments in optimizer.state.items():
        wanted = dict.fromkeys(_MOMENTS[type(optimizer)], parameter.shape) | _COUNTS[type(optimizer)]
        found = {name: getattr(value, "shape", None) for name, value in moments.items() if value is not None}
        if found and found != wanted:
            raise ValueError(f"the optimiser's moments do not fit a parameter of {tuple(parameter.shape)}")


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
