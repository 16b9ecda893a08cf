"""Group DRO: train for the worst group (Sagawa et al., ICLR 2020, arXiv 1911.08731)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.errors import TrainingError
from concept_tuning.losses.group_dro import group_means, reweighted
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, pool
from concept_tuning.models.backbone import Backbone


class GroupDro(Method):
    """The mean of the groups' losses by weights that grow with a group's loss; a group is a class within a group.

    It needs to know the group of every training picture, which the other methods do not. The paper's remedy against
    fitting the smallest group by heart is a strong weight decay or early stopping, besides the adjustment.
    """

    name = "group-dro"
    summary = "Fine-tuning for the group with the greatest loss; needs group labels."
    reference = "Sagawa et al., ICLR 2020, arXiv 1911.08731, algorithm 1 and equation 5"
    needs_groups = True
    weights: Tensor
    margins: Tensor

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self.register_buffer("weights", torch.zeros(num_classes, 0))
        self.register_buffer("margins", torch.zeros(num_classes, 0))

    def prepare(self, pictures: PictureSource) -> None:
        """Begin with equal weights of all classes within groups that have training pictures."""
        counts = pictures.group_counts()
        if counts is None:
            raise TrainingError("group-dro needs group labels, and these pictures have none.")
        there = counts > 0
        self.weights = there.float() / there.sum()
        self.margins = torch.where(there, self.config.group_dro.adjustment / counts.clamp(min=1).sqrt(), 0.0)

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`; a group's mean is over the whole batch, however many processes share it."""
        if context.groups is None:
            raise TrainingError("group-dro needs group labels, and these pictures have none.")
        logits = self.classifier(pool(self.backbone(views[:, 0]))).float()
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.config.optim.label_smoothing)
        cells = labels * self.weights.shape[1] + context.groups
        means, sizes = group_means(losses, cells, count=self.weights.numel())
        counts = context.summed(sizes)
        share = sizes / counts.clamp(min=1)
        adjusted = torch.where(counts > 0, context.summed(share * means) + self.margins.flatten(), 0.0)
        weights = reweighted(self.weights.flatten(), adjusted, step_size=self.config.group_dro.step_size)
        loss = (weights * share * means).sum() * context.processes  # the processes' gradients are averaged, not summed
        return {"cross_entropy": loss}, {"group_losses": adjusted.detach()[None]}

    def after_step(self, keep: Keep) -> None:
        """Keep the groups' new weights, from their losses, which are the same on every process."""
        losses = keep["group_losses"][0]
        weights = reweighted(self.weights.flatten(), losses, step_size=self.config.group_dro.step_size)
        self.weights = weights.view_as(self.weights)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Take the groups' number from the state, which :meth:`prepare` found when the run began."""
        for name in ("weights", "margins"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, state_dict[f"{prefix}{name}"].clone())
        super()._load_from_state_dict(state_dict, prefix, *args)
