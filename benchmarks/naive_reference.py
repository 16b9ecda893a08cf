"""One Concept-Tuning training step written step by step, as slow as the method's published code.

It follows the description in Yang, Huang, Wei, ICCV 2023 (arXiv 2311.06868) and takes from the package only
the parameters to start with: a loop over the batch, one encoder call for each of the nine concepts, autograd
through the Sinkhorn iterations, a copy of the classifier at each call, queues that grow by ``torch.cat``,
attention with its full matrices, a momentum update parameter by parameter, all in the default memory format.
The tests hold the package to its loss values; ``step_cost.py`` measures how much slower it is.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.ops import roi_align

from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.models.front_door import FrontDoorHead


@dataclass(frozen=True)
class View:
    """One view of a batch as an encoder sees it: (B, 3, H, W), (B, D, h, w) and (B, C)."""

    images: Tensor
    feature_map: Tensor
    logits: Tensor


@dataclass(frozen=True)
class ImageConcepts:
    """The concepts of one image: all other classes, most confusing first, and the patches (P, 4) in pixels."""

    confusing: list[int]
    boxes: Tensor


class Encoder(nn.Module):
    """A backbone and a linear classifier on its pooled feature map."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
        self.classifier = copy.deepcopy(classifier)

    def forward(self, images: Tensor) -> View:
        """See a view."""
        feature_map = self.backbone(images)
        return View(images, feature_map, self.classifier(feature_map.mean((2, 3))))


class NaiveQueue:
    """The last ``size`` keys of each class, the oldest first."""

    def __init__(self, keys: Tensor, filled: Tensor, pointer: Tensor) -> None:
        """Take over the rings (C, K, ...) of the package's queue."""
        self.size = keys.shape[1]
        self.first_slot = [(int(at) - int(count)) % self.size for at, count in zip(pointer, filled, strict=True)]
        self.keys = [
            torch.stack([keys[label, (self.first_slot[label] + place) % self.size] for place in range(int(count))])
            if count
            else keys[label, :0]
            for label, count in enumerate(filled)
        ]

    def append(self, label: int, key: Tensor) -> None:
        """Put a key behind the others of its class; the oldest goes where there are more than ``size``."""
        self.keys[label] = torch.cat([self.keys[label], key[None]])
        if len(self.keys[label]) > self.size:
            self.keys[label] = self.keys[label][1:]
            self.first_slot[label] = (self.first_slot[label] + 1) % self.size

    def slots(self, label: int) -> list[int]:
        """Return for each key of a class its place in a ring of ``size``, to which the draws belong."""
        return [(self.first_slot[label] + place) % self.size for place in range(len(self.keys[label]))]


class NaiveConceptTuning:
    """The trained network, its momentum copy, the queues and the optimiser of a slow training loop.

    Args:
        method: Where parameters, queues and settings are copied from; the faithful mode (four views, patches
            through the encoder, both attentions summed, a bottleneck), else ValueError.
        patch_calls: ``nine`` sends the patches of a batch through an encoder concept by concept, ``together``
            at once. With batch norms the two normalise over different sets of patches.
        transport_dtype: Precision of the Sinkhorn iterations.
    """

    def __init__(
        self,
        method: ConceptTuning,
        *,
        patch_calls: Literal["nine", "together"] = "nine",
        transport_dtype: torch.dtype = torch.float32,
    ) -> None:
        parts = method.parts
        if method.front_door is None or not (
            parts.image_weight > 0
            and parts.concept_weight > 0
            and (parts.views, parts.patches, parts.aggregate, parts.kl_deviation) == (4, "encoder", "sum", "sigma")
            and parts.position_attention
            and parts.channel_attention
            and parts.bottleneck
        ):
            raise ValueError(f"Only the faithful mode has a slow reference, got {parts}.")
        self.parts = parts
        self.patch_calls = patch_calls
        self.transport_dtype = transport_dtype
        self.patch_size = method.patch_size
        self.query = Encoder(method.backbone, method.classifier)
        self.key = Encoder(method.key_encoder.backbone, method.key_encoder.classifier)
        self.front_door = copy.deepcopy(method.front_door)
        self.image_queue = NaiveQueue(*copy.deepcopy(tuple(method.image_queue.buffers())))
        self.concept_queue = NaiveQueue(*copy.deepcopy(tuple(method.concept_queue.buffers())))
        optim = method.config.optim
        self.smoothing = optim.label_smoothing
        heads = [*self.query.classifier.parameters(), *self.front_door.parameters()]
        self.optimizer = torch.optim.SGD(
            [
                {"params": heads, "lr": optim.lr},
                {"params": list(self.query.backbone.parameters()), "lr": optim.lr * optim.backbone_lr_scale},
            ],
            momentum=optim.sgd_momentum,
            nesterov=True,
            weight_decay=optim.weight_decay,
        )

    def step(self, views: Tensor, labels: Tensor, noise: Tensor, draws: Tensor) -> dict[str, float]:
        """Do one training step and return the unweighted loss terms.

        Args:
            views: (B, 4, 3, H, W) normalised views: two strong, two mild.
            labels: (B,) int64.
            noise: (B, L) standard normal, for the bottleneck.
            draws: (B, 1 + K) in [0, 1): which of the heaviest pairs of the own key set and of each queued one.
        """
        parts = self.parts
        query = self.query(views[:, 0])
        with torch.no_grad():
            key = self.key(views[:, 1])
            finder = self.key(views[:, 2])
            key_view = self.key(views[:, 3])
            query_concepts = self._find(finder, labels)
            key_sets = self._embed(self.key, views[:, 3], self._find(key_view, labels))
        query_sets = self._embed(self.query, views[:, 2], query_concepts)
        image_queries, image_keys = F.normalize(query.logits, dim=1), F.normalize(key.logits, dim=1)
        logits, mean, deviation = front_door(self.front_door, query.feature_map, noise)
        terms = {
            "cross_entropy": F.cross_entropy(query.logits, labels, label_smoothing=self.smoothing),
            "front_door_cross_entropy": F.cross_entropy(logits, labels, label_smoothing=self.smoothing),
            "bottleneck_kl": (0.5 * (mean**2 + deviation**2 - 1) - deviation.log()).sum(1).mean(),
            "image_contrast": self._image_contrast(image_queries, image_keys, labels),
            "concept_contrast": self._concept_contrast(query_sets, key_sets, labels, query_concepts, draws),
        }
        total = (
            terms["cross_entropy"]
            + terms["front_door_cross_entropy"]
            + parts.beta * terms["bottleneck_kl"]
            + parts.image_weight * terms["image_contrast"]
            + parts.concept_weight * terms["concept_contrast"]
        )
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        for image, label in enumerate(labels.tolist()):
            self.image_queue.append(label, image_keys[image])
            self.concept_queue.append(label, key_sets[image])
        self._move_key_encoder()
        return {name: value.item() for name, value in terms.items()}

    def _find(self, view: View, labels: Tensor) -> list[ImageConcepts]:
        """Find each image's concepts by the key encoder; part 1b.1 of the method."""
        parts, weight, size = self.parts, self.key.classifier.weight, view.images.shape[-1]
        features, rows, columns = view.feature_map.shape[1:]
        step, length = concept_ranks(features, parts.concepts, parts.concept_channels, parts.concept_step)
        found = []
        for image, label in enumerate(labels.tolist()):
            order = view.logits[image].argsort(descending=True).tolist()
            confusing = [other for other in order if other != label]
            nearest = confusing[: parts.confusing_for_score]
            score = len(nearest) * weight[label]
            for other in nearest:
                score = score - weight[other]
            ranking = score.argsort(descending=True, stable=True)
            boxes = []
            for concept in range(parts.concepts):
                channels = ranking[concept * step : concept * step + length]
                activation = view.feature_map[image, channels].sum(0)
                row, column = divmod(int(activation.argmax()), columns)
                x, y = (column + 0.5) * size / columns, (row + 0.5) * size / rows
                half = parts.patch_fraction * size / 2
                boxes.append([max(0, x - half), max(0, y - half), min(size, x + half), min(size, y + half)])
            found.append(ImageConcepts(confusing, torch.tensor(boxes, device=labels.device)))
        return found

    def _embed(self, encoder: Encoder, images: Tensor, concepts: list[ImageConcepts]) -> Tensor:
        """Embed the patches as unit vectors (B, P, C), without a trace in the batch norms; part 1b.2."""
        samples = math.ceil(round(self.parts.patch_fraction * images.shape[-1] / self.patch_size, 3))
        patches = [
            roi_align(
                images,
                [item.boxes[concept : concept + 1] for item in concepts],
                output_size=self.patch_size,
                sampling_ratio=samples,
                aligned=True,
            )
            for concept in range(self.parts.concepts)
        ]
        if self.patch_calls == "together":
            patches = [torch.stack(patches, dim=1).flatten(0, 1)]
        embedded = []
        for images_of_call in patches:
            classifier = copy.deepcopy(encoder.classifier).requires_grad_(False)
            buffers = {name: buffer.clone() for name, buffer in encoder.backbone.named_buffers()}
            features = functional_call(encoder.backbone, buffers, (images_of_call,)).mean((2, 3))
            embedded.append(F.normalize(classifier(features), dim=1))
        if self.patch_calls == "together":
            return embedded[0].unflatten(0, (len(images), -1))
        return torch.stack(embedded, dim=1)

    def _image_contrast(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        """Contrast images; part 1a."""
        losses = []
        for image, label in enumerate(labels.tolist()):
            positives = torch.cat([keys[image][None], self.image_queue.keys[label]])
            negatives = torch.cat([keys for other, keys in enumerate(self.image_queue.keys) if other != label])
            losses.append(contrast(positives @ queries[image], negatives @ queries[image], self.parts.temperature))
        return torch.stack(losses).mean()

    def _concept_contrast(
        self, queries: Tensor, keys: Tensor, labels: Tensor, concepts: list[ImageConcepts], draws: Tensor
    ) -> Tensor:
        """Match and contrast concepts; parts 1b.3 and 1b.4. The sets of one image are matched in one call."""
        parts = self.parts
        losses = []
        for image, label in enumerate(labels.tolist()):
            positives = torch.cat([keys[image][None], self.concept_queue.keys[label]])
            others = concepts[image].confusing[: parts.confusing_for_negatives]
            sets = torch.cat([positives, *(self.concept_queue.keys[other] for other in others)])
            cost = 1 - queries[image] @ sets.mT
            plan = sinkhorn(
                cost.to(self.transport_dtype),
                parts.transport_epsilon,
                parts.transport_iterations,
                parts.transport_tolerance,
            )
            plan, similarity = plan.flatten(1), 1 - cost.flatten(1)
            drawn = draws[image, [0, *(1 + slot for slot in self.concept_queue.slots(label))]]
            heaviest = plan[: len(positives)].topk(parts.positive_pairs).indices
            chosen = heaviest.gather(1, (drawn * parts.positive_pairs).long()[:, None])
            positive = similarity[: len(positives)].gather(1, chosen)
            heaviest = plan[len(positives) :].topk(parts.negative_pairs).indices
            negative = similarity[len(positives) :].gather(1, heaviest)
            losses.append(contrast(positive.flatten(), negative.flatten(), parts.temperature))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _move_key_encoder(self) -> None:
        """Move each parameter of the key encoder towards the trained one."""
        momentum = self.parts.encoder_momentum
        for ours, theirs in zip(self.key.parameters(), self.query.parameters(), strict=True):
            ours.copy_(momentum * ours + (1 - momentum) * theirs)


def concept_ranks(features: int, concepts: int, channels: int, step: int | None) -> tuple[int, int]:
    """Return spacing and length of the groups of ranked channels.

    The spacing is 250 at 2048 features, in proportion; the groups are kept within the features there are.
    """
    length = min(channels, features)
    spacing = step or max(1, round(250 * features / 2048))
    while spacing * (concepts - 1) + length > features:
        spacing -= 1
    return spacing, length


def contrast(positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return KL(uniform over the positives || softmax over all) of one image's similarities."""
    probabilities = (torch.cat([positives, negatives]) / temperature).log_softmax(0)
    return -math.log(len(positives)) - probabilities[: len(positives)].mean()


def sinkhorn(cost: Tensor, epsilon: float, max_iterations: int, tolerance: float) -> Tensor:
    """Return the plans (S, P, P) of one image's sets, in the log domain, every iteration recorded by autograd.

    Stops when the sum of absolute changes of the first dual, averaged over the sets, is below ``tolerance``.
    """
    sets, rows, columns = cost.shape
    first, second = cost.new_zeros(sets, rows), cost.new_zeros(sets, columns)
    for _ in range(max_iterations):
        before = first
        first = epsilon * (-math.log(rows) - torch.logsumexp((second[:, None, :] - cost) / epsilon, dim=2))
        second = epsilon * (-math.log(columns) - torch.logsumexp((first[:, :, None] - cost) / epsilon, dim=1))
        if (first - before).abs().sum(1).mean().item() < tolerance:
            break
    return torch.exp((first[:, :, None] + second[:, None, :] - cost) / epsilon)


def front_door(head: FrontDoorHead, feature_map: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (B, C), mean and deviation (B, L) by the parameters of ``head``; part 2 of the method."""
    position, channel = head.position, head.channel
    cells = feature_map.flatten(2)
    energy = position.query(feature_map).flatten(2).mT @ position.key(feature_map).flatten(2)
    by_position = position.value(feature_map).flatten(2) @ energy.softmax(2).mT
    gram = cells @ cells.mT
    by_channel = (gram.amax(2, keepdim=True) - gram).softmax(2) @ cells
    attended = (position.gamma * by_position + cells) + (channel.gamma * by_channel + cells)
    mean, raw = head.latent(attended.mean(2)).chunk(2, dim=1)
    deviation = F.softplus(raw - 5)
    return head.classifier(mean + deviation * noise), mean, deviation
