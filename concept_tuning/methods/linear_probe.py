"""Linear probing: only the classifier is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool
from concept_tuning.models.backbone import Backbone


class LinearProbe(Method):
    """Train a linear classifier on frozen features; the backbone stays in evaluation mode."""

    name = "linear-probe"
    summary = "A linear classifier on the frozen pre-trained features."
    reference = "the usual probe; Kumar et al., arXiv 2202.10054"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> LinearProbe:
        """Set the mode of the classifier; the backbone's batch norms keep the pre-trained statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        with torch.no_grad():
            features = pool(self.backbone(views[:, 0]))
        return {"cross_entropy": self.cross_entropy(self.classifier(features), labels)}, {}
