"""The contrastive loss of both levels, and its image-level use (Concept-Tuning, arXiv 2311.06868)."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_loss(
    similarities: Tensor, positive_mask: Tensor, *, temperature: float, valid_mask: Tensor | None = None
) -> Tensor:
    """Return the mean divergence of softmax(similarities / temperature) from uniform positives.

    For each row: KL(u || p) with u uniform over the row's positives and p the softmax over its valid
    entries, as in Bi-Tuning and in part 1 of Concept-Tuning. A row without negatives is fine; a row
    without positives counts as 0.

    Args:
        similarities: (B, M) float, e.g. cosines.
        positive_mask: (B, M) bool.
        temperature: Softmax temperature, > 0.
        valid_mask: (B, M) bool; entries that are not valid take no part, whatever
            ``positive_mask`` says of them. None: all are valid.

    Returns:
        Scalar >= 0, in float32 at least.

    Raises:
        ValueError: If the shapes differ or ``temperature`` is not positive.
    """
    shapes = [tuple(item.shape) for item in (similarities, positive_mask, valid_mask) if item is not None]
    if similarities.ndim != 2 or len(set(shapes)) != 1:
        raise ValueError(f"similarities and masks must share one shape (B, M), got {', '.join(map(str, shapes))}.")
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    scaled = similarities.to(torch.promote_types(similarities.dtype, torch.float32)) / temperature
    if valid_mask is not None:
        scaled = scaled.masked_fill(~valid_mask, torch.finfo(scaled.dtype).min)
        positive_mask = positive_mask & valid_mask
    count = positive_mask.sum(1).to(scaled.dtype)
    total = torch.where(positive_mask, scaled, 0).sum(1)
    some = count.clamp(min=1)
    divergence = scaled.logsumexp(1) - total / some - some.log()
    return torch.where(count > 0, divergence, 0).mean()


def image_contrast(
    queries: Tensor, keys: Tensor, queue: Tensor, filled: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    """Return the image-level contrastive loss; part 1a, as in Bi-Tuning.

    Positives of a query are its own key and the queued keys of its class, negatives the queued keys of
    all other classes. Slots that were never filled take no part.

    Args:
        queries: (B, E) unit vectors of the trained network; here E = C, embeddings being logits.
        keys: (B, E) unit vectors of the momentum copy, in the same order.
        queue: (C, K, E) earlier keys; of class c the first ``filled[c]`` slots are in use.
        filled: (C,) int64, 0..K.
        labels: (B,) int64, 0..C-1.
        temperature: Softmax temperature, > 0.

    Returns:
        Scalar >= 0; gradient flows to ``queries`` alone if keys and queue are detached.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch, width = (*queries.shape, 0)[:2]
    classes, size = (*queue.shape, 0)[:2]
    if (
        queries.ndim != 2
        or keys.shape != queries.shape
        or queue.shape != (classes, size, width)
        or filled.shape != (classes,)
        or labels.shape != (batch,)
    ):
        raise ValueError(
            "queries and keys must be (B, E), queue (C, K, E), filled (C,) and labels (B,), got "
            f"{tuple(queries.shape)}, {tuple(keys.shape)}, {tuple(queue.shape)}, {tuple(filled.shape)} "
            f"and {tuple(labels.shape)}."
        )
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries, keys, queue = queries.to(dtype), keys.to(dtype), queue.to(dtype)
        own = (queries * keys).sum(1, keepdim=True)
        similarities = torch.cat([own, queries @ queue.flatten(0, 1).T], dim=1)
    slots = torch.arange(classes * size, device=labels.device)
    in_use = slots % size < filled[slots // size]
    positive = torch.cat([_true(batch, labels), slots // size == labels[:, None]], dim=1)
    valid = torch.cat([_true(batch, labels), in_use.expand(batch, -1)], dim=1)
    return contrastive_loss(similarities, positive, temperature=temperature, valid_mask=valid)


def _true(batch: int, like: Tensor) -> Tensor:
    return torch.ones(batch, 1, dtype=torch.bool, device=like.device)
