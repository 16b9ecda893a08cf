"""Core-tuning: a focal contrast with mixed hard pairs, and a classifier trained on the mixtures too.

Y. Zhang, B. Hooi, D. Hu, J. Liang, J. Feng, "Unleashing the Power of Contrastive Self-Supervised Visual Models
via Contrast-Regularized Fine-Tuning", NeurIPS 2021 (arXiv 2102.06605), section 4. Loss: cross-entropy over the
pooled features and two mixtures for each, with mixed labels + eta * focal contrast of their projections.

- Hard positive: share lambda ~ Beta(alpha, alpha) of the least similar feature of the same class, the rest
  of the most similar one of another class.
- Semi-hard negative: share max(lambda, 0.8) of a feature of another class drawn at random, the rest the
  image's own.

The paper is followed where the authors' code departs from it: there the plain features are detached, so that
the backbone learns from mixtures alone; a generated positive counts as one only if its mixed label happens to
equal another's; an image may have a positive of another class; the mean over positives is one over all pairs;
and the anchors include the mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.losses.core_tuning import Partners, beta_shares, find_partners, focal_contrast, mix
from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool
from concept_tuning.models.backbone import Backbone

#: Least share of the other class in a generated negative.
NEGATIVE_SHARE = 0.8


class CoreTuning(Method):
    """Fine-tuning with a focal contrast over mixed hard pairs and a smooth classifier.

    On several processes an image's partners come from its process's share of the batch alone, so that the results
    differ from one process's.
    """

    name = "core-tuning"
    summary = "Contrast with mixed hard pairs, and cross-entropy on mixed features, for a smooth classifier."
    reference = "Zhang et al., NeurIPS 2021 (arXiv 2102.06605)"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        parts = config.core_tuning
        self.parts = parts
        width = backbone.num_features
        self.projector: nn.Module | None = None
        if parts.weight > 0:
            self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, parts.projection_dim))

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights of the total loss."""
        return {"cross_entropy": 1.0, "focal_contrast": self.parts.weight}

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        features = pool(self.backbone(views[:, 0]))
        draws = context.uniform(len(labels), 3, device=torch.device("cpu"))
        shares = beta_shares(draws[:, :2], self.parts.mixup).to(features.device)
        partners = find_partners(features, labels, draws[:, 2].to(features.device))
        classes = F.one_hot(labels, self.classifier.out_features).float()
        mixed = torch.cat([features, *_mixtures(features, partners, shares)])
        targets = torch.cat([classes, *_mixtures(classes, partners, shares)])
        terms: LossTerms = {"cross_entropy": self.cross_entropy(self.classifier(mixed), targets)}
        if self.projector is not None:
            anchors, positives, negatives = F.normalize(self.projector(mixed).float(), dim=1).chunk(3)
            terms["focal_contrast"] = focal_contrast(
                anchors,
                positives,
                negatives,
                labels,
                partners.has_negative,
                temperature=self.parts.temperature,
                focal=self.parts.focal,
            )
        return terms, {}


def _mixtures(values: Tensor, partners: Partners, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hard positives and semi-hard negatives (B, E) of features or of labels, by shares (B, 2)."""
    positive = mix(values[partners.positive], values[partners.negative], _where_mixed(shares[:, 0], partners))
    negative = mix(values[partners.random_negative], values, shares[:, 1].clamp(min=NEGATIVE_SHARE))
    return positive, negative


def _where_mixed(shares: Tensor, partners: Partners) -> Tensor:
    """Return the shares (B,), 1 where a batch of one class has nothing to mix a positive with."""
    return torch.where(partners.has_negative, shares, 1.0)
