"""Bi-Tuning: two contrasts beside the cross-entropy, one at the classifier, one at a projector.

J. Zhong, X. Wang, Z. Kou, J. Wang, M. Long, "Bi-tuning of Pre-trained Representations", arXiv 2011.06182. Loss:
cross-entropy + contrastive cross-entropy (class against stored features) + categorical contrast (projection
against stored projections). Keys come from a momentum copy on a second view and are kept for each class.

After the authors' code (Transfer-Learning-Library): unit vectors in both contrasts, the classifier's bias as
one more feature, the classifier as constant in its contrast, a linear projector. Other than there, queues
begin empty instead of with random vectors, the keys and the momentum copy move on after the optimiser's step,
and the projector, which is new here, learns at the heads' rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.losses.bi_tuning import classifier_contrast, with_bias_entry
from concept_tuning.losses.contrastive import image_contrast
from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, ViewKind, pool
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.class_queue import ClassQueue
from concept_tuning.models.momentum import momentum_copy, update_momentum_copy


class ProjectedEncoder(nn.Module):
    """A backbone and, where there is one, the projector on its pooled features."""

    def __init__(self, backbone: Backbone, projector: nn.Linear | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return pooled features (B, D) and projections (B, E), unit vectors, of normalised images."""
        features = pool(self.backbone(images))
        return features, None if self.projector is None else F.normalize(self.projector(features).float(), dim=1)


class BiTuning(Method):
    """Fine-tuning with two contrasts over queues of each class; either can be switched off by its weight."""

    name = "bi-tuning"
    summary = "Contrast of the classifier with stored features, and of projected features with stored ones."
    reference = "Zhong et al., arXiv 2011.06182"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        parts = config.bi_tuning
        self.parts = parts
        width = backbone.num_features
        self.projector = nn.Linear(width, parts.projection_dim) if parts.projector_weight > 0 else None
        if self.uses_keys:
            self.key_encoder = momentum_copy(self._query_encoder())
        if parts.classifier_weight > 0:
            self.feature_queue = ClassQueue(num_classes, parts.queue_size, (width + 1,))
        if parts.projector_weight > 0:
            self.projection_queue = ClassQueue(num_classes, parts.queue_size, (parts.projection_dim,))

    @property
    def uses_keys(self) -> bool:
        """Whether either contrast is on, so that a momentum copy is kept."""
        return self.parts.classifier_weight > 0 or self.parts.projector_weight > 0

    @property
    def view_kinds(self) -> tuple[ViewKind, ...]:
        """Two strong views, the query's and the key's."""
        return ("strong", "strong") if self.uses_keys else ("strong",)

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights of the total loss."""
        return {
            "cross_entropy": 1.0,
            "classifier_contrast": self.parts.classifier_weight,
            "projector_contrast": self.parts.projector_weight,
        }

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        features, projections = self._query_encoder()(views[:, 0])
        terms: LossTerms = {"cross_entropy": self.cross_entropy(self.classifier(features), labels)}
        if not self.uses_keys:
            return terms, {}
        keep: Keep = {"labels": labels}
        with torch.no_grad():
            key_features, key_projections = self.key_encoder(views[:, 1])
        if self.parts.classifier_weight > 0:
            keep["features"] = with_bias_entry(key_features)
            terms["classifier_contrast"] = self._classifier_contrast(features, labels)
        if projections is not None:
            keep["projections"] = key_projections
            terms["projector_contrast"] = image_contrast(
                projections,
                key_projections,
                self.projection_queue.keys,
                self.projection_queue.filled,
                labels,
                temperature=self.parts.temperature,
            )
        return terms, keep

    @torch.no_grad()
    def after_step(self, keep: Keep) -> None:
        """Queue the keys of the batch and move the key encoder towards the query encoder."""
        if not self.uses_keys:
            return
        if "features" in keep:
            self.feature_queue.enqueue(keep["features"], keep["labels"])
        if "projections" in keep:
            self.projection_queue.enqueue(keep["projections"], keep["labels"])
        update_momentum_copy(self._query_encoder(), self.key_encoder, self.parts.encoder_momentum)

    def _classifier_contrast(self, features: Tensor, labels: Tensor) -> Tensor:
        return classifier_contrast(
            with_bias_entry(features),
            self.classifier.weight,
            self.classifier.bias,
            self.feature_queue.keys,
            self.feature_queue.filled,
            labels,
            temperature=self.parts.temperature,
        )

    def _query_encoder(self) -> ProjectedEncoder:
        return ProjectedEncoder(self.backbone, self.projector)
