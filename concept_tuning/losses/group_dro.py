"""Group distributionally robust optimisation (Sagawa et al., ICLR 2020, arXiv 1911.08731, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def group_means(losses: Tensor, groups: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean loss of each group in a batch, 0 for those without images, and how many images each has.

    Args:
        losses: (B,) float loss of each image.
        groups: (B,) int64, 0..count-1.
        count: Number K of groups.

    Returns:
        (K,) float means through which gradient flows, and (K,) int64 numbers.
    """
    sizes = torch.bincount(groups, minlength=count)
    sums = torch.zeros(count, dtype=losses.dtype, device=losses.device).index_add(0, groups, losses)
    return sums / sizes.clamp(min=1), sizes


def reweighted(weights: Tensor, losses: Tensor, *, step_size: float) -> Tensor:
    """Return the groups' weights after a step of exponentiated gradient ascent, (K,) with sum 1.

    Algorithm 1: q_g becomes q_g exp(step_size * loss_g), then all are divided by their sum. A group with loss 0
    is not raised. The logarithms are added, so that no loss is too great.
    """
    return torch.softmax(weights.log() + step_size * losses.detach(), 0)
