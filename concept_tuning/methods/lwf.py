"""Learning without forgetting: the network goes on answering the source task as it did at its start.

Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016 (arXiv 1606.09282). Loss: cross-entropy of the new
task + weight * distillation from the start (eqs. 1 to 4), at temperature T = 2 and weight 1 in the paper.
The old network's answers, which the paper records once for each picture, are those of the start in
evaluation mode to the very view that the network is trained on. The paper's warm-up, new layers first, is
left to ``lp-ft``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.losses.distillation import distillation
from concept_tuning.methods.base import Keep, LossTerms, PictureSource, StepContext, pool
from concept_tuning.methods.concept_tuning import Encoder
from concept_tuning.methods.source_task import SourceTaskMethod
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.momentum import momentum_copy


class Lwf(SourceTaskMethod):
    """Fine-tuning with distillation from the network's start over the source classes.

    Attributes:
        start: The backbone and source classifier as they were; never trained, always in evaluation mode.
    """

    name = "lwf"
    summary = "Fine-tuning that keeps the pre-trained classifier's answers as they were at the start."
    reference = "Li, Hoiem, ECCV 2016 (arXiv 1606.09282)"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self.start = momentum_copy(Encoder(self.backbone, self.source_head)).eval()

    @property
    def source_tensors(self) -> tuple[str, ...]:
        """See :attr:`SourceTaskMethod.source_tensors`."""
        return (*super().source_tensors, "start.classifier.weight", "start.classifier.bias")

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights of eq. 1."""
        return {"cross_entropy": 1.0, "distillation": self.config.lwf.weight}

    def prepare(self, pictures: PictureSource) -> None:
        """Take over the pre-trained classifier, for training and as it is."""
        super().prepare(pictures)
        self.start.classifier.load_state_dict(self.source_head.state_dict())

    def train(self, mode: bool = True) -> Lwf:
        """Set the mode of all but the start, which goes by its pre-trained statistics."""
        super().train(mode)
        self.start.eval()
        return self

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        images = views[:, 0]
        features = pool(self.backbone(images))
        with torch.no_grad():
            _, start_logits = self.start(images)
        return {
            "cross_entropy": self.cross_entropy(self.classifier(features), labels),
            "distillation": distillation(
                self.source_head(features), start_logits, temperature=self.config.lwf.temperature
            ),
        }, {}
