"""L2-SP: decay towards the pre-trained parameters instead of zero (Li et al., ICML 2018, arXiv 1802.01483)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, pool
from concept_tuning.methods.starting_point import build_starting_point, without_weight_decay
from concept_tuning.models.backbone import Backbone


class L2Sp(Method):
    """Cross-entropy, alpha/2 |w - w0|^2 of the backbone and beta/2 |w|^2 of the classifier (equation 2).

    These stand in for the optimiser's weight decay, which is 0 for all parameters whatever ``optim.weight_decay`` is.
    """

    name = "l2-sp"
    summary = "Plain fine-tuning that decays towards the pre-trained parameters instead of zero."
    reference = "Li et al., ICML 2018, arXiv 1802.01483, equation 2"
    needs_pretrained = True
    kind: ClassVar[str] = "l2-sp"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        found = build_starting_point(self.kind, config, backbone)
        if found is None:
            raise ConfigError(f"There is no regulariser {self.kind!r}.")
        self.starting_point = found

    @property
    def term_weights(self) -> Mapping[str, float]:
        """See :attr:`~concept_tuning.methods.starting_point.StartingPoint.term_weights`."""
        return {"cross_entropy": 1.0, **self.starting_point.term_weights}

    def prepare(self, pictures: PictureSource) -> None:
        """See :meth:`~concept_tuning.methods.starting_point.StartingPoint.prepare`."""
        self.starting_point.prepare(pictures)

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        feature_map = self.backbone(views[:, 0])
        terms = {"cross_entropy": self.cross_entropy(self.classifier(pool(feature_map)), labels)}
        return {**terms, **self.starting_point.terms(self, views[:, 0], feature_map)}, {}

    def parameter_groups(self) -> list[dict[str, object]]:
        """See :meth:`Method.parameter_groups`; the terms stand in for the weight decay."""
        return without_weight_decay(super().parameter_groups())
