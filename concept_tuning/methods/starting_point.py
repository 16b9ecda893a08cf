"""What keeps a network near its start, as a part that a method holds: L2-SP's terms or DELTA's.

Both have a term of the backbone and beta/2 |w|^2 of the new layers; together they stand in for the optimiser's weight
decay, which :func:`without_weight_decay` switches off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from concept_tuning.config import RunConfig
from concept_tuning.config_methods import DeltaConfig, L2SpConfig
from concept_tuning.losses.starting_point import (
    channel_attention,
    feature_map_distance,
    half_squared_distance,
    half_squared_norm,
)
from concept_tuning.methods.base import LossTerms, Method, PictureSource, pool
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.momentum import momentum_copy


class StartingPoint(nn.Module, ABC):
    """Terms that keep a backbone near its start."""

    @property
    @abstractmethod
    def term_weights(self) -> Mapping[str, float]:
        """Weight of each term."""

    @abstractmethod
    def distance(self, backbone: Backbone, images: Tensor, feature_map: Tensor) -> LossTerms:
        """Return the term of the backbone.

        Args:
            backbone: The trained network.
            images: (B, 3, S, S), normalised.
            feature_map: (B, D, h, w) of them.
        """

    def prepare(self, pictures: PictureSource) -> None:
        """Look at the pictures once, before the first step of a run."""

    def terms(self, method: Method, images: Tensor, feature_map: Tensor) -> LossTerms:
        """Return the backbone's term and that of all layers that are not the backbone's."""
        in_backbone = {id(parameter) for parameter in method.backbone.parameters()}
        new = [value for value in method.parameters() if value.requires_grad and id(value) not in in_backbone]
        return {**self.distance(method.backbone, images, feature_map), "head_norm": half_squared_norm(new)}


class ParameterAnchor(StartingPoint):
    """L2-SP (arXiv 1802.01483): the backbone's parameters at its start, as buffers, so that a resumed run has them."""

    def __init__(self, config: L2SpConfig, backbone: Backbone) -> None:
        super().__init__()
        self._config = config
        self._names = []
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad:
                self._names.append(name)
                self.register_buffer(f"start_{len(self._names) - 1}", parameter.detach().clone())

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Alpha and beta of equation 2."""
        return {"start_distance": self._config.backbone_decay, "head_norm": self._config.head_decay}

    def distance(self, backbone: Backbone, images: Tensor, feature_map: Tensor) -> LossTerms:
        """Return half the squared distance of the backbone's trained parameters from their start."""
        own = dict(backbone.named_parameters())
        start = [self.get_buffer(f"start_{place}") for place in range(len(self._names))]
        return {"start_distance": half_squared_distance([own[name] for name in self._names], start)}


class FeatureAnchor(StartingPoint):
    """DELTA (arXiv 1901.09229): the backbone at its start, and the weights of its channels."""

    weights: Tensor

    def __init__(self, config: DeltaConfig, backbone: Backbone) -> None:
        super().__init__()
        self._config = config
        self.start = momentum_copy(backbone).eval()  # prepare comes before the first call of train
        self.register_buffer("weights", torch.full((backbone.num_features,), 1 / backbone.num_features))

    def train(self, mode: bool = True) -> FeatureAnchor:
        """Stay in evaluation mode: the start's features are those that pre-training left."""
        return super().train(False)

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Alpha and beta."""
        return {"feature_distance": self._config.weight, "head_norm": self._config.head_decay}

    def distance(self, backbone: Backbone, images: Tensor, feature_map: Tensor) -> LossTerms:
        """Return the distance of the feature maps from those of the start for the same images."""
        with torch.no_grad():
            start = self.start(images)
        return {"feature_distance": feature_map_distance(feature_map, start, self.weights)}

    @torch.no_grad()
    def prepare(self, pictures: PictureSource) -> None:
        """Find the channels that matter, by a classifier of the training pictures' features at the start."""
        if not self._config.attention:
            return
        parts = [(pool(self.start(batch.images)), batch.labels) for batch in pictures.batches("train")]
        pooled = torch.cat([features for features, _ in parts]).float()
        labels = torch.cat([found for _, found in parts])
        classifier, bias = _linear_classifier(pooled, labels)
        self.weights.copy_(channel_attention(pooled, labels, classifier, bias))


def build_starting_point(kind: str, config: RunConfig, backbone: Backbone) -> StartingPoint | None:
    """Return what keeps a backbone near its present state: ``l2-sp``, ``delta``, or ``none``."""
    if kind == "l2-sp":
        return ParameterAnchor(config.l2_sp, backbone)
    return FeatureAnchor(config.delta, backbone) if kind == "delta" else None


def without_weight_decay(groups: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return an optimiser's groups with the weight decay off."""
    return [{**group, "weight_decay": 0.0} for group in groups]


def _linear_classifier(pooled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a multinomial logistic regression and return its (C, D) weights and (C,) bias."""
    from sklearn.linear_model import LogisticRegression  # takes a second, and few runs need it

    fit = LogisticRegression(max_iter=1000).fit(pooled.cpu().numpy(), labels.cpu().numpy())
    weights, bias = fit.coef_, fit.intercept_
    if len(fit.classes_) == 2:  # one row for the second class alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return torch.from_numpy(weights).to(pooled), torch.from_numpy(bias).to(pooled)
