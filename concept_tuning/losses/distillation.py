"""The distillation loss of learning without forgetting (Li and Hoiem, arXiv 1606.09282, eqs. 2 to 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation(logits: Tensor, start_logits: Tensor, *, temperature: float) -> Tensor:
    """Return the mean divergence of the softened answers from those of the network's start.

    The paper raises both outputs to the power 1 / T and normalises them anew, which is softmax(logits / T),
    and takes the cross-entropy -sum y' log p'. Here the entropy of y', a constant, is taken off: the gradient
    is the paper's, and 0 means that nothing was forgotten. As in the paper, and other than in Hinton et al.,
    nothing makes up for the gradient's shrinking with T; a factor of T squared can be put into the weight.

    Args:
        logits: (B, S) of the network in training.
        start_logits: (B, S) of its start; they get no gradient.
        temperature: T, > 0.

    Returns:
        Scalar >= 0, in float32 at least.

    Raises:
        ValueError: If the shapes differ or ``temperature`` is not positive.
    """
    if logits.ndim != 2 or logits.shape != start_logits.shape:
        raise ValueError(
            f"logits and start_logits must share one shape (B, S), got {tuple(logits.shape)} and "
            f"{tuple(start_logits.shape)}."
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    now = (logits.to(dtype) / temperature).log_softmax(1)
    before = (start_logits.detach().to(dtype) / temperature).log_softmax(1)
    return F.kl_div(now, before, reduction="batchmean", log_target=True)
