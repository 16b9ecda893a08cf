"""The momentum copy of a network, and passes that leave running statistics as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def momentum_copy(module: ModuleT) -> ModuleT:
    """Return a deep copy without gradients: the key encoder k at its start (arXiv 2311.06868, symbols)."""
    twin = copy.deepcopy(module)
    twin.requires_grad_(False)
    twin.zero_grad(set_to_none=True)
    return twin


@torch.no_grad()
def update_momentum_copy(query: nn.Module, key: nn.Module, momentum: float) -> None:
    """Move the parameters of the copy to ``momentum * key + (1 - momentum) * query``.

    Buffers are left alone: the copy's batch norms follow its own inputs.

    Args:
        query: The trained network.
        key: Its copy, from :func:`momentum_copy`; changed in place.
        momentum: Share of its old parameters that the copy keeps, 0..1.

    Raises:
        ValueError: If the two differ in the names or shapes of their parameters, or ``momentum`` is out of range.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie between 0 and 1, got {momentum}.")
    ours, theirs = dict(key.named_parameters()), dict(query.named_parameters())
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(f"query and key must have the same parameters; only one of them has {', '.join(odd[:5])}.")
    for name, parameter in ours.items():
        if parameter.shape != theirs[name].shape:
            raise ValueError(
                f"Parameter {name} has shape {tuple(theirs[name].shape)} in query and {tuple(parameter.shape)} in key."
            )
    targets: list[Tensor] = list(ours.values())
    sources: list[Tensor] = [theirs[name].to(target) for name, target in ours.items()]
    if targets:
        torch._foreach_lerp_(targets, sources, 1 - momentum)


@contextmanager
def frozen_running_statistics(module: nn.Module) -> Iterator[None]:
    """Within the block, norms in training mode use batch statistics but leave their running ones untouched.

    Running mean, running variance and the count of batches stay as they are, for every batch norm (also
    synchronised and fused ones) and instance norm of ``module``. Put back also after an error.
    """
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]
    # An instance norm in training mode updates what it has, whether it is to track or not.
    statistics = [
        (layer, layer.running_mean, layer.running_var) for layer in layers if isinstance(layer, _InstanceNorm)
    ]
    for layer in layers:
        layer.track_running_stats = False
    for layer, _, _ in statistics:
        layer.running_mean = layer.running_var = None
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
        for layer, mean, variance in statistics:
            layer.running_mean, layer.running_var = mean, variance
