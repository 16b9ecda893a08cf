"""Distances from where fine-tuning began: of the parameters (L2-SP) and of the feature map (DELTA)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

ATTENTION_TEMPERATURE = 5.0
"""Of the softmax over standardised rises of the loss, in the code of DELTA's authors."""
_CHANNELS = 64
ATTENTION_CELLS = 2**24
"""Most numbers of one tensor in :func:`channel_attention`, pictures times channels times classes: 64 MiB in float32."""


def half_squared_distance(values: Iterable[Tensor], start: Iterable[Tensor]) -> Tensor:
    """Return half the squared Euclidean distance of parameters from their start, a scalar in float32.

    The term of L2-SP (Li et al., ICML 2018, arXiv 1802.01483, equation 2) without its weight alpha.

    Raises:
        ValueError: if the numbers or shapes of the two differ.
    """
    pairs = list(zip(values, start, strict=True))
    for value, first in pairs:
        if value.shape != first.shape:
            raise ValueError(f"a parameter has shape {tuple(value.shape)}, and had {tuple(first.shape)} at the start")
    if not pairs:
        return torch.zeros(())
    return torch.stack([(value.float() - first.float()).pow(2).sum() for value, first in pairs]).sum() / 2


def half_squared_norm(values: Iterable[Tensor]) -> Tensor:
    """Return half the squared Euclidean norm of parameters, a scalar in float32."""
    found = [value.float().pow(2).sum() for value in values]
    return torch.stack(found).sum() / 2 if found else torch.zeros(())


def feature_map_distance(maps: Tensor, start: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the distance of feature maps from those at the start, averaged over the images.

    DELTA (Li et al., ICLR 2019, arXiv 1901.09229, equations 3 and 5): the squared Euclidean distance of each
    channel's map, weighted by the channel's attention. As in the authors' code (github.com/lixingjian/DELTA) and the
    Transfer-Learning-Library it is halved, divided by the number of cells, and multiplied by the number of channels.
    Theirs is so with attention alone: without it they halve the squared distance and divide by nothing. Here it is
    divided by the cells too, so that equal weights of 1 / D are no attention, and a weight of the term means the same
    with and without. Both sum over the images of a batch; here it is their mean, so that the batch size changes
    nothing. A weight of theirs is one of here after a product with their batch size, and without attention with the
    number of cells too.

    Args:
        maps: (B, D, h, w).
        start: (B, D, h, w) of the same pictures, by the network at its start.
        weights: (D,) >= 0 with sum 1; None: 1 / D each.

    Returns:
        Scalar >= 0, in float32.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if maps.ndim != 4 or maps.shape != start.shape:
        raise ValueError(f"maps must be (B, D, h, w) alike, got {tuple(maps.shape)} and {tuple(start.shape)}")
    channels = maps.shape[1]
    if weights is not None and weights.shape != (channels,):
        raise ValueError(f"weights must be ({channels},), got {tuple(weights.shape)}")
    with torch.autocast(maps.device.type, enabled=False):
        distances = (maps.float() - start.float()).pow(2).mean((2, 3))
        weighted = distances.sum(1) if weights is None else channels * (distances @ weights.float())
    return weighted.mean() / 2


def channel_attention(pooled: Tensor, labels: Tensor, classifier: Tensor, bias: Tensor) -> Tensor:
    """Return DELTA's weights of the last feature map's channels, (D,) with sum 1.

    Equation 6 of arXiv 1901.09229: the softmax over channels of how much the loss rises without one. The rises are
    so small that their plain softmax is even to the fourth digit; as in the authors' code and the
    Transfer-Learning-Library they are standardised over the channels (mean 0, population deviation 1) and divided by
    5 first. A channel that matters two deviations more than the mean then weighs exp(0.4) = 1.5 times as much as
    one at the mean. Channels of which none matters more than another get 1 / D each.

    Without channel j the pooled feature j is 0, so each logit falls by its weight times the feature: no pass is
    needed. The authors set the filter's weights to 0, which leaves a constant where a normalisation follows it.

    Memory beyond the arguments does not grow with n: pictures are taken some at a time, as many as
    :data:`ATTENTION_CELLS` allows.

    Args:
        pooled: (n, D) pooled feature maps of the network at its start.
        labels: (n,) int64.
        classifier: (C, D) weights of a classifier trained on such features.
        bias: (C,) its bias.
    """
    at_once = max(1, ATTENTION_CELLS // (_CHANNELS * classifier.shape[0]))
    rise = pooled.new_zeros(pooled.shape[1])
    for some, their in zip(pooled.split(at_once), labels.split(at_once), strict=True):
        rise += len(some) / len(pooled) * _mean_rises(some, their, classifier, bias)
    deviation = rise.std(correction=0).clamp(min=torch.finfo(rise.dtype).eps)
    return ((rise - rise.mean()) / deviation / ATTENTION_TEMPERATURE).softmax(0)


def _mean_rises(pooled: Tensor, labels: Tensor, classifier: Tensor, bias: Tensor) -> Tensor:
    """Return how much the mean loss of pictures rises without each channel, (D,)."""
    logits = pooled @ classifier.T + bias
    base = F.cross_entropy(logits, labels, reduction="none")
    rises = []
    for channels in torch.arange(pooled.shape[1], device=pooled.device).split(_CHANNELS):
        without = logits[:, None, :] - pooled[:, channels, None] * classifier.T[channels]
        losses = F.cross_entropy(without.flatten(0, 1), labels.repeat_interleave(len(channels)), reduction="none")
        rises.append((losses.view(-1, len(channels)) - base[:, None]).mean(0))
    return torch.cat(rises)
