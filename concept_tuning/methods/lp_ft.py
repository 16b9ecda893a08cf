"""LP-FT: a linear probe first, then everything (Kumar et al., ICLR 2022, arXiv 2202.10054).

Fine-tuning with a classifier drawn at random distorts good features before the classifier has caught up (their
theorem 3.2); a classifier that was probed first leaves them nearly where they were.

The paper tunes two stages, each with a learning rate and a schedule of its own. Here both are parts of one run, with
one schedule over all its steps, so that a method's budget is the same as the others'. With the cosine, fine-tuning
therefore begins below the peak rate: at half of it, without warm-up, where the probe takes half of the steps. The
backbone's own rate (``backbone_lr_scale``) is of the second part alone, for the backbone does not move in the first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool


class LpFt(Method):
    """Train the classifier on frozen features for a share of the steps, then backbone and classifier."""

    name = "lp-ft"
    summary = "A linear probe for the first part of the training, then plain fine-tuning."
    reference = "Kumar et al., ICLR 2022, arXiv 2202.10054"
    trains_in_turns = True

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`; while probing, the backbone is in evaluation mode and gets no gradient."""
        if context.progress < self.config.lp_ft.probe_share:
            features = self._frozen_features(views[:, 0])
        else:
            features = pool(self.backbone(views[:, 0]))
        return {"cross_entropy": self.cross_entropy(self.classifier(features), labels)}, {}

    @torch.no_grad()
    def _frozen_features(self, images: Tensor) -> Tensor:
        mode = self.backbone.training
        self.backbone.eval()
        try:
            return pool(self.backbone(images))
        finally:
            self.backbone.train(mode)
