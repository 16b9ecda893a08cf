"""Group DRO: train for the worst group (Sagawa et al., ICLR 2020, arXiv 1911.08731).

Algorithm 1 draws a group uniformly and then an image of it, and the authors' code (github.com/kohpangwei/group_DRO)
draws batches so with ``--reweight_groups``, which its commands for group DRO always have. Here batches are drawn as
the data lie, as for every method, and a small group is absent from most. A group that is present therefore counts 1 / P
times, P being the probability that a batch has an image of it: in the loss, and in the exponent of its weight. Over the
batches, the loss by given weights q is then sum_g q_g L_g, and a weight rises at the rate L_g, however small its group
is. Where every group is in every batch, P is 1 and a step is the authors' code's.

What differs from the paper and the authors' code:

- A small group comes seldom and then counts much, about N / (B n) times for n of N images in batches of B, where
  uniform draws show it in every batch. The steps are noisier, and each of its images is seen once an epoch.
- The weights rise by a batch's group means (the code's way) and not by a single image's loss (algorithm 1's).
- The adjustment C / sqrt(n_g) of equation 5 raises a group's weight when the group is present, 1 / P times, which comes
  to the same over the steps; the code adds it in each step, and only if it is above 0 for all groups.
- The best epoch, and of a search the best trial, are those with the best mean accuracy over validation images, which
  are distributed as training's are. The paper chooses by the accuracy of the worst group, so its figures of the worst
  group are not to be expected.
- The paper's remedy against fitting the smallest group by heart is a strong weight decay or early stopping, besides the
  adjustment; the run's own settings decide the decay, and its label smoothing is in the groups' losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.errors import RunError, TrainingError
from concept_tuning.losses.group_dro import group_means, presence, reweighted
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, pool
from concept_tuning.models.backbone import Backbone


class GroupDro(Method):
    """The groups' losses by weights that grow with a group's loss; a group is a class within a group of the data.

    It needs to know the group of every training picture, which the other methods do not. The module says what differs
    from the paper, above all that batches are drawn as the data lie and how that is made up for.
    """

    name = "group-dro"
    summary = "Fine-tuning for the group with the greatest loss; needs group labels."
    reference = "Sagawa et al., ICLR 2020, arXiv 1911.08731, algorithm 1 (batches as the data lie) and equation 5"
    needs_groups = True
    weights: Tensor
    counts: Tensor

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        self.register_buffer("weights", torch.zeros(num_classes, 0))
        self.register_buffer("counts", torch.zeros(num_classes, 0, dtype=torch.int64))

    def prepare(self, pictures: PictureSource) -> None:
        """Begin with equal weights of all classes within groups that have training pictures."""
        counts = pictures.group_counts()
        if counts is None:
            raise TrainingError("group-dro needs group labels, and these pictures have none.")
        there = counts > 0
        self.counts = counts
        self.weights = there.float() / there.sum()

    @property
    def margins(self) -> Tensor:
        """The adjustment C / sqrt(n) of each class within each group, (C, G); 0 where there are no pictures."""
        root = self.counts.clamp(min=1).sqrt()
        return torch.where(self.counts > 0, self.config.group_dro.adjustment / root, 0.0)

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
        chance = presence(self.counts.flatten(), batch=len(labels) * context.processes)
        factors = torch.where(present > 0, 1 / chance, 0.0)
        adjusted = factors * (context.summed(share * means) + self.margins.flatten())
        weights = reweighted(self.weights.flatten(), adjusted, step_size=self.config.group_dro.step_size)
        loss = (weights * factors * share * means).sum()
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
        if f"{prefix}counts" not in state_dict:
            raise RunError(
                "This run of group-dro began with an earlier version, which weighed rare groups otherwise, "
                "and cannot go on. Start a new run."
            )
        for name in ("weights", "counts"):
            setattr(self, name, state_dict[f"{prefix}{name}"].clone())
        super()._load_from_state_dict(state_dict, prefix, *args)
