"""Batch spectral shrinkage: suppress what does not transfer (Chen et al., NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from concept_tuning.losses.spectral_shrinkage import spectral_shrinkage
from concept_tuning.methods.base import Keep, LossTerms, Method, StepContext, pool


class Bss(Method):
    """Cross-entropy and eta times the smallest squared singular values of a batch's features.

    On several processes the singular values are those of each one's share of the batch, so that the results differ from
    one process's.
    """

    name = "bss"
    summary = "Plain fine-tuning that shrinks the weakest directions of a batch's features."
    reference = "Chen et al., NeurIPS 2019, equations 3 and 4"

    @property
    def term_weights(self) -> Mapping[str, float]:
        """The paper's eta."""
        return {"cross_entropy": 1.0, "spectral_shrinkage": self.config.bss.weight}

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        features = pool(self.backbone(views[:, 0]))
        return {
            "cross_entropy": self.cross_entropy(self.classifier(features), labels),
            "spectral_shrinkage": spectral_shrinkage(features, count=self.config.bss.singular_values),
        }, {}
