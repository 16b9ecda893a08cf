"""The front-door head: a second classifier that reads attended features through a bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.models.attention import ChannelAttention, PositionAttention

#: Subtracted from the raw deviation, so that training starts with little noise (softplus(-5) = 0.0067).
_DEVIATION_SHIFT = 5.0


@dataclass(frozen=True)
class FrontDoorOutput:
    """What the front-door head says of a batch.

    Attributes:
        logits: (B, C).
        mean: (B, L), the latent's mean.
        deviation: (B, L), its standard deviation, >= 0; None without bottleneck.
    """

    logits: Tensor
    mean: Tensor
    deviation: Tensor | None


class FrontDoorHead(nn.Module):
    """Front-door adjustment for spuriously correlated features; part 2 of Concept-Tuning (arXiv 2311.06868).

    Position and channel attention are joined and average-pooled; a linear layer gives mean and raw deviation
    of a Gaussian latent, sigma = softplus(raw - 5), and a linear classifier reads the latent.

    Args:
        channels: Number D of channels of the feature map.
        classes: Number C of classes.
        position: Have the attention over positions.
        channel: Have the attention over channels.
        aggregate: How the two are joined: ``sum`` (the authors' code) or ``concat`` (the paper).
        latent_dim: Width L of the latent.
        bottleneck: Sample the latent in training; False: the mean alone, no deviation.

    Raises:
        ValueError: If both attentions are off, ``aggregate`` is unknown or ``latent_dim`` < 1.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        position: bool = True,
        channel: bool = True,
        aggregate: Literal["sum", "concat"] = "sum",
        latent_dim: int,
        bottleneck: bool = True,
    ) -> None:
        super().__init__()
        if not (position or channel):
            raise ValueError("The front-door head needs position or channel attention, got neither.")
        if aggregate not in ("sum", "concat"):
            raise ValueError(f"aggregate must be 'sum' or 'concat', got {aggregate!r}.")
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be >= 1, got {latent_dim}.")
        self.aggregate = aggregate
        self.latent_dim = latent_dim
        self.bottleneck = bottleneck
        self.position = PositionAttention(channels) if position else None
        self.channel = ChannelAttention() if channel else None
        width = channels * 2 if aggregate == "concat" and position and channel else channels
        self.latent = nn.Linear(width, 2 * latent_dim if bottleneck else latent_dim)
        self.classifier = nn.Linear(latent_dim, classes)

    def attend(self, feature_map: Tensor, *, use_position: bool = True, use_channel: bool = True) -> Tensor:
        """Return the joined branches, (B, D, h, w) or (B, 2 D, h, w) for ``concat``.

        A branch that is not used passes the feature map through; a branch the head was built without
        does not take part at all.
        """
        branches = []
        if self.position is not None:
            branches.append(self.position(feature_map) if use_position else feature_map)
        if self.channel is not None:
            branches.append(self.channel(feature_map) if use_channel else feature_map)
        if len(branches) == 1:
            return branches[0]
        return torch.cat(branches, dim=1) if self.aggregate == "concat" else branches[0] + branches[1]

    def forward(
        self, feature_map: Tensor, noise: Tensor | None = None, *, use_position: bool = True, use_channel: bool = True
    ) -> FrontDoorOutput:
        """Classify a feature map.

        In training the latent is mean + deviation * noise, in evaluation (or without bottleneck) its mean.

        Args:
            feature_map: (B, D, h, w).
            noise: (B, L) standard normal; None: drawn from torch's global generator. Not read in evaluation.
            use_position: False passes the feature map through the position branch, for diagnostics.
            use_channel: False passes the feature map through the channel branch, for diagnostics.

        Raises:
            ValueError: If ``feature_map`` is not four-dimensional or ``noise`` is not (B, L).
        """
        if feature_map.ndim != 4:
            raise ValueError(f"feature_map must be (B, D, h, w), got {tuple(feature_map.shape)}.")
        wanted = (feature_map.shape[0], self.latent_dim)  # len() would fix the batch of an exported graph
        if noise is not None and noise.shape != wanted:
            raise ValueError(f"noise must be (B, L) = {wanted}, got {tuple(noise.shape)}.")
        attended = self.attend(feature_map, use_position=use_position, use_channel=use_channel)
        raw = self.latent(attended.mean((2, 3)))
        if not self.bottleneck:
            return FrontDoorOutput(self.classifier(raw), raw, None)
        mean, raw_deviation = raw.to(torch.promote_types(raw.dtype, torch.float32)).chunk(2, dim=1)
        deviation = F.softplus(raw_deviation - _DEVIATION_SHIFT)
        latent = mean
        if self.training:
            latent = mean + deviation * (torch.randn_like(mean) if noise is None else noise.to(mean))
        return FrontDoorOutput(self.classifier(latent.to(self.classifier.weight.dtype)), mean, deviation)
