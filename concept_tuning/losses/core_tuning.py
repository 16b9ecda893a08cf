"""Mining, mixing and contrast of Core-tuning (Zhang et al., arXiv 2102.06605, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Partners:
    """Which images of a batch each image is paired with.

    Attributes:
        positive: (B,) int64, the least similar other image of its class; itself where there is none.
        negative: (B,) int64, the most similar image of another class; itself where there is none.
        random_negative: (B,) int64, an image of another class drawn uniformly; itself where there is none.
        has_negative: (B,) bool, whether the batch holds another class.
    """

    positive: Tensor
    negative: Tensor
    random_negative: Tensor
    has_negative: Tensor


def beta_shares(uniforms: Tensor, alpha: float) -> Tensor:
    """Turn uniform numbers in [0, 1) into draws from Beta(alpha, alpha), by the inverse of its distribution function.

    One draw takes one uniform number, so that a run that goes on draws the same. In float64 on the CPU; the
    result has the type and device of ``uniforms``. For ``alpha`` 1 it is ``uniforms``.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be > 0, got {alpha}.")
    inverse = betaincinv(alpha, alpha, uniforms.double().cpu().numpy())
    return torch.as_tensor(inverse).to(uniforms)


@torch.no_grad()
def find_partners(features: Tensor, labels: Tensor, uniforms: Tensor) -> Partners:
    """Find the hardest pairs of each image by cosine, and draw a negative.

    Args:
        features: (B, D).
        labels: (B,) int64.
        uniforms: (B,) numbers in [0, 1) that draw the random negatives.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch = len(features)
    if features.ndim != 2 or labels.shape != (batch,) or uniforms.shape != (batch,):
        raise ValueError(
            "features must be (B, D), labels and uniforms (B,), got "
            f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(uniforms.shape)}."
        )
    units = F.normalize(features.float(), dim=1)
    with torch.autocast(features.device.type, enabled=False):
        similarities = units @ units.T
    own = torch.arange(batch, device=features.device)
    same = labels[:, None] == labels
    others = same & (own[:, None] != own)
    has_negative = ~same.all(1)
    rank = (uniforms * (~same).sum(1)).long() + 1
    drawn = (~same & ((~same).cumsum(1) == rank[:, None])).int().argmax(1)
    hardest = similarities.masked_fill(same, -torch.inf).argmax(1)
    return Partners(
        positive=torch.where(others.any(1), similarities.masked_fill(~others, torch.inf).argmin(1), own),
        negative=torch.where(has_negative, hardest, own),
        random_negative=torch.where(has_negative, drawn, own),
        has_negative=has_negative,
    )


def mix(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Return ``shares`` (B,) of ``first`` (B, E) and the rest of ``second`` (B, E)."""
    return shares[:, None] * first + (1 - shares[:, None]) * second


def focal_contrast(
    anchors: Tensor,
    hard_positives: Tensor,
    hard_negatives: Tensor,
    labels: Tensor,
    has_negative: Tensor,
    *,
    temperature: float,
    focal: float,
) -> Tensor:
    """Return the focal contrastive loss; section 4.1.

    Of an anchor i, p_ij is the softmax, over all other images of the batch and its own two generated ones, of
    the similarities over the temperature. Positives are the other images of its class and its generated hard
    positive. Loss: the mean over anchors of the mean over positives of -(1 - p_ij)^focal log p_ij.

    Args:
        anchors: (B, E) unit vectors.
        hard_positives: (B, E) unit vectors of the generated positives, each for its anchor alone.
        hard_negatives: (B, E) unit vectors of the generated negatives, likewise.
        labels: (B,) int64.
        has_negative: (B,) bool; where not, the generated negative takes no part.
        temperature: Softmax temperature, > 0.
        focal: Exponent, >= 0; 0 is the supervised contrastive loss.

    Returns:
        Scalar >= 0, in float32 at least.

    Raises:
        ValueError: If the shapes do not fit together or a number is out of range.
    """
    batch = len(anchors)
    shapes = {tuple(item.shape) for item in (anchors, hard_positives, hard_negatives)}
    if anchors.ndim != 2 or len(shapes) != 1 or labels.shape != (batch,) or has_negative.shape != (batch,):
        raise ValueError(
            "anchors, hard_positives and hard_negatives must share one shape (B, E), labels and has_negative be (B,), "
            f"got {sorted(shapes)}, {tuple(labels.shape)} and {tuple(has_negative.shape)}."
        )
    if temperature <= 0 or focal < 0:
        raise ValueError(f"temperature must be > 0 and focal >= 0, got {temperature} and {focal}.")
    with torch.autocast(anchors.device.type, enabled=False):
        dtype = torch.promote_types(anchors.dtype, torch.float32)
        anchors, hard_positives, hard_negatives = (item.to(dtype) for item in (anchors, hard_positives, hard_negatives))
        generated = torch.stack([hard_positives, hard_negatives], dim=1)
        own = torch.einsum("be,bge->bg", anchors, generated)
        similarities = torch.cat([anchors @ anchors.T, own], dim=1) / temperature
    others = ~torch.eye(batch, dtype=torch.bool, device=labels.device)
    always = torch.ones_like(has_negative)
    valid = torch.cat([others, always[:, None], has_negative[:, None]], dim=1)
    same = (labels[:, None] == labels) & others
    positive = torch.cat([same, always[:, None], torch.zeros_like(always)[:, None]], dim=1)
    logs = similarities.masked_fill(~valid, torch.finfo(dtype).min).log_softmax(1)
    # Kept off 1 so that the power has a gradient for exponents below 1.
    missing = (-torch.expm1(logs)).clamp(min=torch.finfo(dtype).tiny)
    losses = torch.where(positive, -(missing**focal) * logs, 0)
    return (losses.sum(1) / positive.sum(1)).mean()
