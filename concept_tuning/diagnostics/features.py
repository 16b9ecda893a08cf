"""What a run's network makes of the pictures: feature maps, scores and probabilities, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.errors import RunError
from concept_tuning.methods.base import Method

#: Pictures that go through a network at once.
BATCH = 32


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """A network's view of n pictures, in their order.

    Attributes:
        maps: (n, D, h, w) float32 feature maps.
        scores: (n, C) float32, see :func:`class_scores`.
        probabilities: (n, C) float32 of the fixed prediction rule.
        heads: (n, C) float32 probabilities of each head.
    """

    maps: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    heads: dict[str, np.ndarray]

    @property
    def pooled(self) -> np.ndarray:
        """(n, D) float32 average-pooled features."""
        return self.maps.mean(axis=(2, 3))

    @property
    def predicted(self) -> np.ndarray:
        """(n,) int64 predicted classes."""
        return self.probabilities.argmax(1)

    def __len__(self) -> int:
        """Return the number n of pictures."""
        return len(self.maps)

    def at(self, places: Sequence[int]) -> Features:
        """Return the view of some of the pictures, by their places 0..n-1."""
        chosen = np.asarray(places, dtype=np.int64)
        return Features(
            maps=self.maps[chosen],
            scores=self.scores[chosen],
            probabilities=self.probabilities[chosen],
            heads={name: values[chosen] for name, values in self.heads.items()},
        )


def class_scores(method: Method, feature_map: Tensor) -> Tensor:
    """Return (B, C) scores that explanations refer to: the mean logits of the heads that the prediction reads.

    Logits and not probabilities, since those of a confident network have next to no gradient.
    """
    return method.combine(method.classify(feature_map))


def class_probabilities(method: Method, feature_map: Tensor) -> Tensor:
    """Return (B, C) probabilities of the fixed prediction rule for a feature map (B, D, h, w)."""
    return method.combine({name: logits.softmax(1) for name, logits in method.classify(feature_map).items()})


def network_input(method: Method, images: Tensor) -> Tensor:
    """Return (B, 3, H, W) uint8 pictures as the network takes them: normalised, float32, channels last."""
    return method.backbone.normalise(images).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def compute_features(
    subject: Subject, pictures: Pictures, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Features:
    """Run the chosen pictures through a run's network, in evaluation mode, on the CPU."""
    maps, scores, heads = [], [], []
    backbone = subject.inference_method.backbone
    for start in range(0, len(pictures), BATCH):
        images = pictures.images(range(start, min(start + BATCH, len(pictures))), subject.image_size)
        feature_map = backbone(network_input(subject.method, images))
        logits = subject.method.classify(feature_map)
        maps.append(feature_map.contiguous().numpy())
        scores.append(subject.method.combine(logits).numpy())
        heads.append({name: values.softmax(1) for name, values in logits.items()})
        progress(start + len(images), len(pictures))
    joined = {name: torch.cat([part[name] for part in heads]) for name in heads[0]}
    return Features(
        maps=np.concatenate(maps),
        scores=np.concatenate(scores),
        probabilities=subject.method.combine(joined).numpy(),
        heads={name: values.numpy() for name, values in joined.items()},
    )


def finite_features(subject: Subject, pictures: Pictures) -> Features:
    """Return :func:`compute_features`; raises RunError if the network gives values that are not finite."""
    found = compute_features(subject, pictures)
    if not (np.isfinite(found.maps).all() and np.isfinite(found.scores).all()):
        raise RunError(f"The network of {subject.name} gives values that are not finite; train it again.")
    return found
