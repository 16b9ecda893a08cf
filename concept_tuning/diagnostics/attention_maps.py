"""What the two attentions of the front-door head read: cells from cells, concepts from concepts.

Part on spurious features of Concept-Tuning (arXiv 2311.06868).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.diagnostics.features import BATCH, Features
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array, Unavailable
from concept_tuning.models.front_door import FrontDoorHead

#: Entries of channel attention held at once.
_HELD = 1 << 24


@dataclass(frozen=True, kw_only=True, config=RESULT)
class PositionMaps:
    """What each cell of the feature map reads from each other one in the front-door head.

    Caveat: attention tells where a cell reads, not what it makes of it; at ``gamma`` 0, where training
    starts, the head adds none of it to the feature map.

    Attributes:
        run: Name of the run.
        keys: Unique names of the n pictures.
        weights: (n, h, w, h, w) float32, [i, y, x] being the map of where query cell (y, x) attends; it sums to 1.
        mean: (n, h, w) float32, the mean over all query cells; it sums to 1, even attention is 1 / (h w).
        gamma: Learnt scale with which the attended features are added to the feature map.
    """

    run: str
    keys: tuple[str, ...]
    weights: Array
    mean: Array
    gamma: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ChannelLinks:
    """How much the channels of one concept read from those of another in the front-door head.

    Caveats as for :class:`PositionMaps`; a channel reads from the channels unlike it.

    Attributes:
        run: Name of the run.
        keys: Unique names of the n pictures.
        weights: (n, P, P) float32, [i, p, q] being the mean attention of a channel of concept p to one of q.
        mean: (P, P) float32, the mean over the pictures.
        even: What each weight would be if a channel read from all D channels alike, 1 / D.
        gamma: Learnt scale with which the attended features are added to the feature map.
    """

    run: str
    keys: tuple[str, ...]
    weights: Array
    mean: Array
    even: float
    gamma: float


@torch.inference_mode()
def position_attention(
    subject: Subject, pictures: Pictures, features: Features, *, places: Sequence[int] | None = None
) -> PositionMaps | Unavailable:
    """Compute where every cell attends; N * N numbers for a picture of N cells, so mind large maps.

    Args:
        subject: The run.
        pictures: The pictures.
        features: What its network makes of them.
        places: The pictures wanted, 0..len(pictures)-1; None: all.
    """
    head = front_door_head(subject)
    if head is None or head.position is None:
        return _without("position attention", subject, head, "position attention")
    chosen = np.arange(len(pictures)) if places is None else np.asarray(places, dtype=np.int64)
    maps = torch.from_numpy(features.maps[chosen])
    grid = tuple(maps.shape[2:])
    weights = torch.cat([head.position.weights(part) for part in maps.split(BATCH)])
    return PositionMaps(
        run=subject.name,
        keys=tuple(np.array(pictures.keys)[chosen].tolist()),
        weights=weights.reshape(-1, *grid, *grid).numpy(),
        mean=weights.mean(1).reshape(-1, *grid).numpy(),
        gamma=head.position.gamma.item(),
    )


@torch.inference_mode()
def channel_attention(
    subject: Subject,
    features: Features,
    concepts: ConceptMaps,
    *,
    places: Sequence[int] | None = None,
) -> ChannelLinks | Unavailable:
    """Compute the attention between channels, averaged over the channel pairs of two concepts.

    Args:
        subject: The run.
        features: What its network makes of the pictures.
        concepts: Their concepts; :func:`find_concept_maps` with the same ``places``.
        places: The pictures wanted, 0..len(features)-1; None: all.
    """
    head = front_door_head(subject)
    if head is None or head.channel is None:
        return _without("channel attention", subject, head, "channel attention")
    maps = torch.from_numpy(features.maps if places is None else features.maps[np.asarray(places, dtype=np.int64)])
    groups = torch.from_numpy(concepts.channels)
    if len(groups) != len(maps):
        raise ValueError(f"concepts are of {len(groups)} pictures and {len(maps)} are asked for.")
    together = max(1, _HELD // maps.shape[1] ** 2)
    blocks = zip(maps.split(together), groups.split(together), strict=True)
    weights = torch.cat([average_blocks(head.channel.weights(part), group) for part, group in blocks])
    return ChannelLinks(
        run=subject.name,
        keys=concepts.keys,
        weights=weights.numpy(),
        mean=weights.mean(0).numpy(),
        even=1 / maps.shape[1],
        gamma=head.channel.gamma.item(),
    )


def average_blocks(weights: Tensor, groups: Tensor) -> Tensor:
    """Return (B, P, P) means of (B, D, D) weights over rows of group p and columns of group q.

    Args:
        weights: (B, D, D).
        groups: (B, P, K) int64, the channels 0..D-1 of each group.
    """
    member = weights.new_zeros(*groups.shape[:2], weights.shape[1]).scatter_(2, groups, 1 / groups.shape[2])
    return member @ weights @ member.mT


def front_door_head(subject: Subject) -> FrontDoorHead | None:
    """Return a run's front-door head, or None where it has none."""
    return getattr(subject.method, "front_door", None)


def _without(analysis: str, subject: Subject, head: FrontDoorHead | None, part: str) -> Unavailable:
    if head is None:
        reason = f"{subject.name} has no front-door head; train with Concept-Tuning to have one."
    else:
        setting = part.replace(" ", "_")
        reason = f"The front-door head of {subject.name} has no {part}; train with {setting} on."
    return Unavailable(analysis=analysis, reason=reason)
