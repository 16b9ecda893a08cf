"""The source classes' share of the Co-Tuning loss (You et al., NeurIPS 2020, eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def source_cross_entropy(source_logits: Tensor, relationship: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the source classes with p(y_s | y_t) of each image's label as target.

    Args:
        source_logits: (B, S) of the pre-trained classifier as it is now.
        relationship: (C, S), row c the probabilities of the source classes given target class c.
        labels: (B,) int64, 0..C-1.

    Returns:
        Scalar >= 0, in float32 at least.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch, classes = (*source_logits.shape, 0)[:2]
    if (
        source_logits.ndim != 2
        or relationship.ndim != 2
        or relationship.shape[1] != classes
        or labels.shape != (batch,)
    ):
        raise ValueError(
            "source_logits must be (B, S), relationship (C, S) and labels (B,), got "
            f"{tuple(source_logits.shape)}, {tuple(relationship.shape)} and {tuple(labels.shape)}."
        )
    dtype = torch.promote_types(source_logits.dtype, torch.float32)
    return F.cross_entropy(source_logits.to(dtype), relationship[labels].to(dtype))
