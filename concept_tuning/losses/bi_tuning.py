"""The classifier's contrast of Bi-Tuning (Zhong et al., arXiv 2011.06182, section 3.2).

The projector's, categorical contrast, has the form of :func:`concept_tuning.losses.contrastive.image_contrast`,
with projections as queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.contrastive import contrastive_loss


def with_bias_entry(features: Tensor) -> Tensor:
    """Return features (B, D) with a 1 at their end, as unit vectors (B, D + 1): what the classifier's rows meet."""
    return F.normalize(F.pad(features.to(torch.promote_types(features.dtype, torch.float32)), (0, 1), value=1.0), dim=1)


def classifier_contrast(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    queue: Tensor,
    filled: Tensor,
    labels: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Return the contrastive cross-entropy: a class against features, not a feature against classes.

    The query is the classifier's row of the image's label, weight and bias together, as a unit vector.
    Positives are the image's own feature and the queued ones of its class, negatives the queued ones of all
    other classes. As in the authors' code the classifier is taken as constant here, so that the gradient
    reaches the own feature alone.

    Args:
        features: (B, D + 1) unit vectors of the trained network, see :func:`with_bias_entry`.
        weight: (C, D) of the classifier.
        bias: (C,) of the classifier.
        queue: (C, K, D + 1) earlier features of the momentum copy; of class c ``filled[c]`` slots are in use.
        filled: (C,) int64, 0..K.
        labels: (B,) int64, 0..C-1.
        temperature: Softmax temperature, > 0.

    Returns:
        Scalar >= 0, in float32 at least.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch, width = (*features.shape, 0)[:2]
    classes, size = (*queue.shape, 0)[:2]
    if (
        features.ndim != 2
        or weight.shape != (classes, width - 1)
        or bias.shape != (classes,)
        or queue.shape != (classes, size, width)
        or filled.shape != (classes,)
        or labels.shape != (batch,)
    ):
        raise ValueError(
            "features must be (B, D + 1), weight (C, D), bias, filled (C,), queue (C, K, D + 1), labels (B,), got "
            f"{', '.join(str(tuple(item.shape)) for item in (features, weight, bias, filled, queue, labels))}."
        )
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, torch.float32)
        rows = F.normalize(torch.cat([weight, bias[:, None]], dim=1).detach().to(dtype), dim=1)
        own = (rows[labels] * features.to(dtype)).sum(1, keepdim=True)
        # Every class' row on every queued feature once, then each image takes its label's.
        queued = (rows @ queue.to(dtype).flatten(0, 1).T)[labels]
    slots = torch.arange(classes * size, device=labels.device)
    first = torch.ones(batch, 1, dtype=torch.bool, device=labels.device)
    positive = torch.cat([first, slots // size == labels[:, None]], dim=1)
    valid = torch.cat([first, (slots % size < filled[slots // size]).expand(batch, -1)], dim=1)
    return contrastive_loss(torch.cat([own, queued], dim=1), positive, temperature=temperature, valid_mask=valid)
