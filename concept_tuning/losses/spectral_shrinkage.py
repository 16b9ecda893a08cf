"""Batch spectral shrinkage (Chen et al., "Catastrophic Forgetting Meets Negative Transfer", NeurIPS 2019)."""

from __future__ import annotations

import torch
from torch import Tensor


def spectral_shrinkage(features: Tensor, *, count: int) -> Tensor:
    """Return the sum of the smallest squared singular values of a batch's features, their equation 3 without eta.

    Directions of small singular values are said not to transfer; shrinking them keeps the network from using them.

    Args:
        features: (B, D), one row for each image.
        count: How many of the min(B, D) values, from the smallest on; all if there are fewer.

    Returns:
        Scalar >= 0, in float32. Where values are equal the gradient is one of several.

    Raises:
        ValueError: if ``features`` is no matrix or ``count`` is below 1.
    """
    if features.ndim != 2 or count < 1:
        raise ValueError(f"features must be (B, D) and count >= 1, got {tuple(features.shape)} and {count}")
    with torch.autocast(features.device.type, enabled=False):
        values = torch.linalg.svdvals(features.float())
    return values[-count:].pow(2).sum()
