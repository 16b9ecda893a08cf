"""Co-Tuning: the pre-trained classifier is trained along, on what the labels mean in source classes.

K. You, Z. Kou, M. Long, J. Wang, "Co-Tuning for Transfer Learning", NeurIPS 2020. Loss (eq. 1): cross-entropy
of the target classes + lambda * cross-entropy of the source classes with p(y_s | y_t) as target, where
p(y_s | y_t) is learnt before the training, see :mod:`concept_tuning.models.relationship`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.losses.co_tuning import source_cross_entropy
from concept_tuning.methods.base import Keep, LossTerms, PictureSource, StepContext, pool
from concept_tuning.methods.source_task import SourceTaskMethod
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.relationship import learn_relationship


class CoTuning(SourceTaskMethod):
    """Fine-tuning of both classifiers, the target's and the source's.

    Attributes:
        relationship: (C, S) float32, p(source class | target class).
    """

    name = "co-tuning"
    summary = "Fine-tuning of the pre-trained classifier too, on the source classes that go with each label."
    reference = "You, Kou, Long, Wang, NeurIPS 2020"

    relationship: Tensor

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        classes = self.source_head.out_features
        self.register_buffer("relationship", torch.full((num_classes, classes), 1 / classes))

    @property
    def source_tensors(self) -> tuple[str, ...]:
        """See :attr:`SourceTaskMethod.source_tensors`."""
        return (*super().source_tensors, "relationship")

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights of eq. 1."""
        return {"cross_entropy": 1.0, "source_cross_entropy": self.config.co_tuning.weight}

    def prepare(self, pictures: PictureSource) -> None:
        """Take over the pre-trained classifier and learn what it says of each target class."""
        super().prepare(pictures)
        train, val = self._source_probabilities(pictures, "train"), self._source_probabilities(pictures, "val")
        learnt = learn_relationship(*train, *val, num_classes=len(self.relationship))
        self.relationship.copy_(torch.from_numpy(learnt))

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        features = pool(self.backbone(views[:, 0]))
        return {
            "cross_entropy": self.cross_entropy(self.classifier(features), labels),
            "source_cross_entropy": source_cross_entropy(self.source_head(features), self.relationship, labels),
        }, {}

    @torch.no_grad()
    def _source_probabilities(
        self, pictures: PictureSource, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the source probabilities (N, S) and labels (N,) of a split, in evaluation mode."""
        training = self.training
        self.eval()
        try:
            found = [
                (self.source_head(pool(self.backbone(batch.images))).double().softmax(1).cpu(), batch.labels.cpu())
                for batch in pictures.batches(split)
            ]
        finally:
            self.train(training)
        probabilities, labels = zip(*found, strict=True)
        return torch.cat(probabilities).numpy(), torch.cat(labels).numpy()
