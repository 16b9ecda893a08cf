"""What every fine-tuning method offers the trainer: named loss terms, what to keep, and predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import DataBundle
from concept_tuning.models.backbone import Backbone

LossTerms = dict[str, Tensor]
Keep = dict[str, Tensor]
ViewKind = Literal["strong", "mild"]


@dataclass(frozen=True)
class StepContext:
    """Randomness of one training step, the same on every process.

    Every draw is made for the whole batch over all processes and sliced, so the numbers an image gets
    do not depend on how many processes share the batch.
    """

    generator: torch.Generator
    """Generator on the CPU, seeded by the run's seed and the step alone."""
    rank: int = 0
    processes: int = 1
    progress: float = 0.0
    """Share of the training that is done before the step, 0..1."""
    groups: Tensor | None = None
    """(B,) int64 group of each image; None where the data has no groups."""

    def normal(self, batch: int, *shape: int, device: torch.device) -> Tensor:
        """Return (batch, *shape) standard normal numbers for this process' images."""
        drawn = torch.randn((batch * self.processes, *shape), generator=self.generator)
        return self._share(drawn, batch).to(device)

    def uniform(self, batch: int, *shape: int, device: torch.device) -> Tensor:
        """Return (batch, *shape) numbers in [0, 1) for this process' images."""
        drawn = torch.rand((batch * self.processes, *shape), generator=self.generator)
        return self._share(drawn, batch).to(device)

    def summed(self, values: Tensor) -> Tensor:
        """Return detached values of any shape, summed over the processes."""
        found = values.detach().clone()
        if self.processes > 1:
            torch.distributed.all_reduce(found)
        return found

    def _share(self, drawn: Tensor, batch: int) -> Tensor:
        return drawn[self.rank * batch : (self.rank + 1) * batch]


@dataclass(frozen=True)
class Batch:
    """Some pictures of a split as the network takes them, without augmentation.

    Attributes:
        images: (B, 3, S, S) float32, normalised, on the method's device.
        labels: (B,) int64.
        groups: (B,) int64, or None where the data has no groups.
        units: (B,) int64, what each shows (a plant, a patient), or None where each is by itself.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None
    units: Tensor | None = None


class PictureSource(Protocol):
    """The run's pictures, for what a method does with them before or after the training."""

    def batches(self, split: str) -> Iterator[Batch]:
        """Yield all pictures of ``train`` or ``val`` once, in their order."""
        ...

    def group_counts(self) -> Tensor | None:
        """Return (C, G) int64 training pictures of each class in each group; None where the data has no groups."""
        ...


class Method(nn.Module, ABC):
    """A way to fine-tune: a backbone, its heads, and the loss terms of a batch.

    On several processes each gets its share of a batch. The results are one process's, up to rounding, unless the
    backbone has batch norms, whose statistics are of a share, or the method's class says otherwise.

    Attributes:
        name: As in ``method=``.
        summary: What it does, in a sentence.
        reference: Where it comes from.
        needs_groups: Whether it cannot do without group labels.
        even_groups: Whether its batches are drawn evenly over the classes within groups, and not as the data lie.
        needs_pretrained: Whether it cannot begin with random weights.
        trains_in_turns: Whether there are steps in which some trained parameters get no gradient; several processes
            then look each step for those they must not wait for.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[str]
    needs_groups: ClassVar[bool] = False
    even_groups: ClassVar[bool] = False
    needs_pretrained: ClassVar[bool] = False
    trains_in_turns: ClassVar[bool] = False

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.num_features, num_classes)

    @property
    def view_kinds(self) -> tuple[ViewKind, ...]:
        """Kinds of the augmented views a training image is needed in (``strong`` or ``mild``)."""
        return ("strong",)

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weight of each loss term in the total."""
        return {"cross_entropy": 1.0}

    def caution(self, data: DataBundle) -> str:
        """Return what is to be known, before the training, of the method on such data; empty if nothing is."""
        return ""

    def prepare(self, pictures: PictureSource) -> None:
        """Look at the pictures once, before the first step of a run; what is found must be in the state dict."""

    def finish(self, pictures: PictureSource) -> bool:
        """Change the best epoch's weights after the training; returns whether anything was changed."""
        return False

    @abstractmethod
    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """Compute the loss terms of a batch.

        Args:
            views: (B, V, 3, H, W) normalised views, in the order of :attr:`view_kinds`.
            labels: (B,) int64.
            context: The step's randomness.

        Returns:
            The unweighted loss terms by name (scalars), and detached (B, ...) tensors that
            :meth:`after_step` is given back, gathered over all processes in rank order.
        """

    def after_step(self, keep: Keep) -> None:
        """Update what the method keeps (queues, momentum copy) after the optimiser's step."""

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the loss terms."""
        weights = self.term_weights
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    @property
    def prediction_heads(self) -> tuple[str, ...]:
        """Names of the heads whose mean probability is the prediction."""
        return ("classifier",)

    def classify(self, feature_map: Tensor) -> dict[str, Tensor]:
        """Return (B, C) logits of each head for a feature map (B, D, h, w)."""
        return {"classifier": self.classifier(pool(feature_map))}

    def head_logits(self, images: Tensor) -> dict[str, Tensor]:
        """Return (B, C) logits of each head for normalised images (B, 3, H, W)."""
        return self.classify(self.backbone(images))

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Return (B, C) probabilities of each head, and under ``prediction`` those of the fixed rule."""
        heads = {name: logits.float().softmax(1) for name, logits in self.head_logits(images).items()}
        return {**heads, "prediction": self.combine(heads)}

    def combine(self, heads: Mapping[str, Tensor]) -> Tensor:
        """Apply the fixed prediction rule to (B, C) values of each head: the mean over :attr:`prediction_heads`."""
        first, *others = (heads[name] for name in self.prediction_heads)
        return sum(others, start=first) / (1 + len(others))

    def inference_modules(self) -> dict[str, nn.Module]:
        """Return the parts that prediction needs, for export."""
        return {"backbone": self.backbone, "classifier": self.classifier}

    def inference_state(self) -> dict[str, Tensor]:
        """Return the tensors of :meth:`inference_modules` by the names that a run's files have them under."""
        return {
            f"{part}.{name}": value
            for part, module in self.inference_modules().items()
            for name, value in module.state_dict().items()
        }

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the optimiser's groups: the backbone at its own rate, all other trained parameters at ``lr``."""
        optim = self.config.optim
        in_backbone = {id(parameter) for parameter in self.backbone.parameters()}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        heads = [parameter for parameter in trained if id(parameter) not in in_backbone]
        backbone = [parameter for parameter in trained if id(parameter) in in_backbone]
        groups: list[dict[str, object]] = [{"name": "heads", "params": heads, "lr": optim.lr}]
        if backbone:
            groups.append({"name": "backbone", "params": backbone, "lr": optim.lr * optim.backbone_lr_scale})
        return groups

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with the run's label smoothing, in float32."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.config.optim.label_smoothing)


def pool(feature_map: Tensor) -> Tensor:
    """Return the global average pool (B, D) of a feature map (B, D, h, w)."""
    return feature_map.mean(dim=(2, 3))
