"""Group DRO: train for the worst group (Sagawa et al., ICLR 2020, arXiv 1911.08731).

Algorithm 1 draws a group uniformly and then an image of it, and the authors' code (github.com/kohpangwei/group_DRO)
draws batches so with ``--reweight_groups``, which its commands for group DRO always have. So does this class.

What differs from the paper or the authors' code:

- The weights rise by a batch's group means (the authors' code's way) and not by a single image's loss (algorithm 1's).
- The best epoch, and of a search the best trial, are by default those with the best mean accuracy over validation
  images, which are distributed as training's are. The paper chooses by the accuracy of the worst group
  (``select_by=worst-group``), so its figures of the worst group are not to be expected.
- The paper's remedy against fitting the smallest group by heart is a strong weight decay or early stopping, besides the
  adjustment; the run's own settings decide the decay, and its label smoothing is in the groups' losses.
- The reported loss is the groups' mean losses by their weights. The authors' code reports it with the adjustment in it,
  which has no gradient.
- Groups without pictures have no weight. The authors' code starts them like the others, and divides by 0 for their
  adjustment.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.errors import RunError, TrainingError
from concept_tuning.losses.group_dro import group_means, reweighted
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, pool
from concept_tuning.models.backbone import Backbone


class GroupDro(Method):
    """The groups' losses by weights that grow with a group's loss; a group is a class within a group of the data.

    It needs to know the group of every training picture, which most other methods do not, and draws its batches evenly
    over these groups. The module says what differs from the paper.
    """

    name = "group-dro"
    summary = "Fine-tuning for the group with the greatest loss; needs group labels."
    reference = "Sagawa et al., ICLR 2020, arXiv 1911.08731, algorithm 1 and equation 5"
    needs_groups = True
    even_groups = True
    weights: Tensor
    sizes: Tensor

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self.register_buffer("weights", torch.zeros(num_classes, 0))
        self.register_buffer("sizes", torch.zeros(num_classes, 0, dtype=torch.int64))

    def prepare(self, pictures: PictureSource) -> None:
        """Begin with equal weights of all classes within groups that have training pictures."""
        counts = pictures.group_counts()
        if counts is None:
            raise TrainingError("group-dro needs group labels, and these pictures have none.")
        there = counts > 0
        self.sizes = counts
        self.weights = there.float() / there.sum()

    @property
    def margins(self) -> Tensor:
        """The adjustment C / sqrt(n) of each class within each group, (C, G); 0 where there are no pictures."""
        root = self.sizes.clamp(min=1).sqrt()
        return torch.where(self.sizes > 0, self.config.group_dro.adjustment / root, 0.0)

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`; a group's mean is over the whole batch, however many processes share it."""
        if context.groups is None:
            raise TrainingError("group-dro needs group labels, and these pictures have none.")
        logits = self.classifier(pool(self.backbone(views[:, 0]))).float()
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.config.optim.label_smoothing)
        cells = labels * self.weights.shape[1] + context.groups
        means, sizes = group_means(losses, cells, count=self.weights.numel())
        present = context.summed(sizes)
        share = sizes / present.clamp(min=1)
        adjusted = context.summed(share * means) + self.margins.flatten()
        weights = reweighted(self.weights.flatten(), adjusted, step_size=self.config.group_dro.step_size)
        loss = (weights * share * means).sum()
        loss = loss * context.processes  # the processes' gradients are averaged, not summed
        return {"cross_entropy": loss}, {"group_losses": adjusted.detach()[None]}

    def after_step(self, keep: Keep) -> None:
        """Keep the groups' new weights, from their losses, which are the same on every process."""
        losses = keep["group_losses"][0]
        weights = reweighted(self.weights.flatten(), losses, step_size=self.config.group_dro.step_size)
        self.weights = weights.view_as(self.weights)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Take the groups' number from the state, which :meth:`prepare` found when the run began.

        Raises:
            RunError: for a state without the groups' sizes, which an earlier version left.
        """
        if f"{prefix}sizes" not in state_dict:
            raise RunError(
                "This run of group-dro began with an earlier version, which drew its batches otherwise, "
                "and cannot go on. Start a new run; in a bench, remove the folders of group-dro's runs."
            )
        for name in ("weights", "sizes"):
            setattr(self, name, state_dict[f"{prefix}{name}"].to(getattr(self, name).device, copy=True))
        super()._load_from_state_dict(state_dict, prefix, *args)
