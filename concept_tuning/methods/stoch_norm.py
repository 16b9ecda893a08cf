"""Stochastic normalisation: batch statistics or the pre-trained moving ones, by chance (Kou et al., NeurIPS 2020).

It departs from the authors' code (github.com/thuml/StochNorm; the Transfer-Learning-Library's is alike):

- Theirs normalises by the moving statistics as they were before the batch, here a batch moves them first.
- Their probability is that of the batch statistics, here it is that of the moving ones. The library's default is 0.5,
  as it is here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool
from concept_tuning.models.backbone import Backbone


class _Stochastic(_BatchNorm):
    """A batch norm of which, while training, each channel takes its moving statistics by chance.

    Mixed into the class of a layer that is there already, so that names and whatever else the layer does stay.
    """

    probability: float
    chosen: Tensor | None

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise (B, D, ...) inputs; in evaluation as the layer that it was."""
        by_batch: Tensor = super().forward(inputs)
        if not self.training or self.chosen is None:
            return by_batch
        self.training = False
        try:
            by_moving: Tensor = super().forward(inputs)
        finally:
            self.training = True
        chosen = self.chosen.view(1, -1, *[1] * (inputs.ndim - 2))
        return torch.where(chosen, by_moving, by_batch)


class StochNorm(Method):
    """Plain fine-tuning with stochastic normalisation in place of every batch norm.

    Equation 6: channel j is normalised by s_j times the moving and (1 - s_j) times the batch statistics, s_j drawn
    anew for each step with the given probability of 1. Every choice is drawn from the step's own randomness, the same
    on every process; the batch statistics are those of each process's share, so that the results differ from one
    process's.
    """

    name = "stoch-norm"
    summary = "Plain fine-tuning whose batch norms keep to the pre-trained statistics by chance."
    reference = "Kou et al., NeurIPS 2020, equation 6"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self._layers = make_stochastic(backbone)
        if not self._layers:
            raise ConfigError(
                f"stoch-norm works on batch norms, and {backbone.architecture} has none. Use another backbone, such "
                "as tf_efficientnet_lite0 or resnet50, or another method."
            )

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        probability = self.config.stoch_norm.probability
        for layer in self._layers:
            drawn = torch.rand(layer.num_features, generator=context.generator)
            layer.chosen = (drawn < probability).to(views.device)
        logits = self.classifier(pool(self.backbone(views[:, 0])))
        return {"cross_entropy": self.cross_entropy(logits, labels)}, {}


def make_stochastic(module: nn.Module) -> list[Any]:
    """Make every batch norm in a module stochastic, in place, and return them."""
    found = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    for layer in found:
        kind = type(layer)
        layer.__class__ = type(f"Stochastic{kind.__name__}", (_Stochastic, kind), {})
        layer.chosen = None  # type: ignore[assignment]
    return found
