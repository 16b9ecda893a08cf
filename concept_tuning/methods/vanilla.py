"""Plain fine-tuning: cross-entropy on one strong view."""

from __future__ import annotations

from torch import Tensor

from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool


class Vanilla(Method):
    """Fine-tune backbone and classifier with cross-entropy, the baseline of every table."""

    name = "vanilla"
    summary = "Plain fine-tuning of the pre-trained network with cross-entropy."
    reference = "the usual baseline"

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        logits = self.classifier(pool(self.backbone(views[:, 0])))
        return {"cross_entropy": self.cross_entropy(logits, labels)}, {}
