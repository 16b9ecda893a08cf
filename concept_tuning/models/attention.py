"""Attention over positions and over channels of a feature map (dual attention).

The two approximate the expectations of the front-door formula, over patches and over channels
(Concept-Tuning, arXiv 2311.06868; the blocks are those of Fu et al., arXiv 1809.02983).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Cells are padded to a multiple of this many.
_VECTOR = 16


class PositionAttention(nn.Module):
    """Let every cell of a feature map read from all cells; part 2, the P(f) of the method.

    Queries and keys are 1x1 convolutions to D/8 channels, values one to D; the result, times a learnt
    ``gamma`` that starts at 0, is added to the input.

    Args:
        channels: Number D of channels, >= 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return the attended feature map, (B, D, h, w) like the input; raises ValueError on another shape."""
        _check(feature_map)
        query, key, value = (_tokens(layer(feature_map)) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return feature_map + self.gamma * attended.mT.reshape(feature_map.shape)

    def weights(self, feature_map: Tensor) -> Tensor:
        """Return the attention (B, N, N), N = h * w: row i is how much cell i reads from every cell."""
        _check(feature_map)
        query, key = _tokens(self.query(feature_map)), _tokens(self.key(feature_map))
        return (query @ key.mT).squeeze(1).softmax(2)


class ChannelAttention(nn.Module):
    """Let every channel of a feature map read from the channels unlike it; part 2, the Q(f) of the method.

    The attention is a softmax over max-minus-Gram of the flattened channels. A softmax does not see the
    row's maximum, so that this is dot-product attention with the channels as tokens and negated queries;
    the D x D matrix need not be kept. The result, times a learnt ``gamma`` that starts at 0, is added to the
    input. Always in float32 at least: Gram entries are too large for half precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return the attended feature map, (B, D, h, w) like the input; raises ValueError on another shape."""
        _check(feature_map)
        with torch.autocast(feature_map.device.type, enabled=False):
            channels = _channels(feature_map).unsqueeze(1)
            cells = channels.shape[3]
            # zeros beyond the cells change nothing; the kernel is several times faster on whole vectors in a row
            channels = F.pad(channels, (0, -cells % _VECTOR)).contiguous()
            attended = F.scaled_dot_product_attention(-channels, channels, channels, scale=1.0)[..., :cells]
        return feature_map + (self.gamma * attended.reshape(feature_map.shape)).to(feature_map.dtype)

    def weights(self, feature_map: Tensor) -> Tensor:
        """Return the attention (B, D, D): row i is how much channel i reads from every channel."""
        _check(feature_map)
        with torch.autocast(feature_map.device.type, enabled=False):
            channels = _channels(feature_map)
            return (-channels @ channels.mT).softmax(2)


def _tokens(feature_map: Tensor) -> Tensor:
    """Cells as tokens: (B, d, h, w) to (B, 1, h * w, d), one head."""
    return feature_map.flatten(2).mT.unsqueeze(1)


def _channels(feature_map: Tensor) -> Tensor:
    """Channels as tokens: (B, D, h, w) to (B, D, h * w), in float32 at least."""
    return feature_map.flatten(2).to(torch.promote_types(feature_map.dtype, torch.float32))


def _check(feature_map: Tensor) -> None:
    if feature_map.ndim != 4:
        raise ValueError(f"feature_map must be (B, D, h, w), got {tuple(feature_map.shape)}.")
