"""Concept-Tuning: rare concepts by contrast of patches, shortcuts by front-door adjustment.

Y. Yang, L.-K. Huang, Y. Wei, "Concept-wise Fine-tuning Matters in Preventing Negative Transfer",
ICCV 2023 (arXiv 2311.06868).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.concepts import Concepts, crop_patches, default_step, find_concepts, pool_boxes
from concept_tuning.config import ConceptTuningConfig, RunConfig
from concept_tuning.losses.bottleneck import gaussian_kl
from concept_tuning.losses.contrastive import image_contrast
from concept_tuning.losses.rare_concept import concept_contrast
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, ViewKind, pool
from concept_tuning.methods.starting_point import build_starting_point, without_weight_decay
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.class_queue import ClassQueue
from concept_tuning.models.front_door import FrontDoorHead
from concept_tuning.models.momentum import frozen_running_statistics, momentum_copy, update_momentum_copy

#: Widest latent bottleneck taken by default.
DEFAULT_LATENT = 256


@dataclass(frozen=True)
class _View:
    """One view of a batch as an encoder sees it."""

    images: Tensor
    feature_map: Tensor
    logits: Tensor


class Encoder(nn.Module):
    """A backbone and the classifier on its pooled features: what the key copy is a copy of."""

    def __init__(self, backbone: Backbone, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map (B, D, h, w) and logits (B, C) of normalised images."""
        feature_map = self.backbone(images)
        return feature_map, self.classifier(pool(feature_map))


class ConceptTuning(Method):
    """Concept-Tuning with every part switchable; the paper's total loss by default."""

    name = "concept-tuning"
    summary = "Contrast of rare concepts between patches, and front-door adjustment against shortcuts."
    reference = "Yang, Huang, Wei, ICCV 2023 (arXiv 2311.06868)"

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        super().__init__(config, backbone, num_classes)
        parts = config.concept_tuning
        self.parts = parts
        width = backbone.num_features
        self.front_door: FrontDoorHead | None = None
        if parts.front_door:
            self.front_door = FrontDoorHead(
                width,
                num_classes,
                position=parts.position_attention,
                channel=parts.channel_attention,
                aggregate=parts.aggregate,
                latent_dim=parts.latent_dim or min(DEFAULT_LATENT, width),
                bottleneck=parts.bottleneck,
            )
        if self.uses_keys:
            self.key_encoder = momentum_copy(self._query_encoder())
        if parts.image_weight > 0:
            self.image_queue = ClassQueue(num_classes, parts.queue_size, (num_classes,))
        if parts.concept_weight > 0:
            self.concept_queue = ClassQueue(num_classes, parts.queue_size, (parts.concepts, num_classes))
            self.patch_size = patch_size(backbone, config)
        self.starting_point = build_starting_point(parts.regulariser, config, backbone)

    @property
    def uses_keys(self) -> bool:
        """Whether either contrast is on, so that a momentum copy is kept."""
        return self.parts.image_weight > 0 or self.parts.concept_weight > 0

    @property
    def view_kinds(self) -> tuple[ViewKind, ...]:
        """One strong view for the front door alone, two with a contrast, and two mild ones for patches."""
        if not self.uses_keys:
            return ("strong",)
        if self.parts.concept_weight > 0 and self.parts.views == 4:
            return ("strong", "strong", "mild", "mild")
        return ("strong", "strong")

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights of the paper's total loss."""
        return {
            "cross_entropy": 1.0,
            "front_door_cross_entropy": 1.0,
            "bottleneck_kl": self.parts.beta,
            "image_contrast": self.parts.image_weight,
            "concept_contrast": self.parts.concept_weight,
            **({} if self.starting_point is None else self.starting_point.term_weights),
        }

    def prepare(self, pictures: PictureSource) -> None:
        """Prepare the regulariser, if there is one."""
        if self.starting_point is not None:
            self.starting_point.prepare(pictures)

    def parameter_groups(self) -> list[dict[str, object]]:
        """See :meth:`Method.parameter_groups`; a regulariser's terms stand in for the weight decay."""
        groups = super().parameter_groups()
        return groups if self.starting_point is None else without_weight_decay(groups)

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`."""
        query = self._query_view(views[:, 0])
        terms: LossTerms = {"cross_entropy": self.cross_entropy(query.logits, labels)}
        terms.update(self._front_door_terms(query.feature_map, labels, context))
        if self.starting_point is not None:
            terms.update(self.starting_point.terms(self, views[:, 0], query.feature_map))
        if not self.uses_keys:
            return terms, {}
        keep: Keep = {"labels": labels}
        key = self._key_view(views[:, 1])
        if self.parts.image_weight > 0:
            keep["image_keys"] = F.normalize(key.logits.float(), dim=1)
            terms["image_contrast"] = image_contrast(
                F.normalize(query.logits.float(), dim=1),
                keep["image_keys"],
                self.image_queue.keys,
                self.image_queue.filled,
                labels,
                temperature=self.parts.temperature,
            )
        if self.parts.concept_weight > 0:
            terms["concept_contrast"], keep["concept_keys"] = self._concept_contrast(views, query, key, labels, context)
        return terms, keep

    @torch.no_grad()
    def after_step(self, keep: Keep) -> None:
        """Queue the keys of the batch and move the key encoder towards the query encoder."""
        if not self.uses_keys:
            return
        if "image_keys" in keep:
            self.image_queue.enqueue(keep["image_keys"], keep["labels"])
        if "concept_keys" in keep:
            self.concept_queue.enqueue(keep["concept_keys"], keep["labels"])
        update_momentum_copy(self._query_encoder(), self.key_encoder, self.parts.encoder_momentum)

    @property
    def prediction_heads(self) -> tuple[str, ...]:
        """The heads that ``concept_tuning.prediction`` names, as far as they are there."""
        if self.front_door is None or self.parts.prediction == "classifier":
            return ("classifier",)
        return ("front_door",) if self.parts.prediction == "front-door" else ("classifier", "front_door")

    def classify(
        self, feature_map: Tensor, *, use_position: bool = True, use_channel: bool = True
    ) -> dict[str, Tensor]:
        """Return the logits of the classifier and, where it is on, of the front-door head.

        Either attention of that head can be switched off (:meth:`FrontDoorHead.forward`).
        """
        heads = super().classify(feature_map)
        if self.front_door is not None:
            output = self.front_door(feature_map, use_position=use_position, use_channel=use_channel)
            heads["front_door"] = output.logits
        return heads

    def inference_modules(self) -> dict[str, nn.Module]:
        """Return backbone, classifier and front-door head; keys and queues serve training alone."""
        modules = super().inference_modules()
        if self.front_door is not None:
            modules["front_door"] = self.front_door
        return modules

    def _front_door_terms(self, feature_map: Tensor, labels: Tensor, context: StepContext) -> LossTerms:
        if self.front_door is None:
            return {}
        noise = None
        if self.parts.bottleneck and self.training:
            noise = context.normal(len(labels), self.front_door.latent_dim, device=labels.device)
        output = self.front_door(feature_map, noise=noise)
        terms = {"front_door_cross_entropy": self.cross_entropy(output.logits, labels)}
        if output.deviation is not None:
            terms["bottleneck_kl"] = gaussian_kl(
                output.mean.float(), output.deviation.float(), deviation_form=self.parts.kl_deviation
            )
        return terms

    def _concept_contrast(
        self, views: Tensor, query: _View, key: _View, labels: Tensor, context: StepContext
    ) -> tuple[Tensor, Tensor]:
        """Return the concept loss and the key concept sets (B, P, C); part 1b of the method."""
        parts = self.parts
        query_view, key_view, finder = query, key, query
        finder_weight = self.classifier.weight
        if parts.views == 4:
            finder = self._key_view(views[:, 2])
            finder_weight = self.key_encoder.classifier.weight
            key_view = self._key_view(views[:, 3])
            query_view = finder if parts.patches == "encoder" else self._query_view(views[:, 2])
        with torch.no_grad():
            query_concepts = self._find(finder, finder_weight, labels)
            key_concepts = self._find(key_view, self.key_encoder.classifier.weight, labels)
            with self._key_precision(labels.device):
                key_sets = self._embed(key_view, key_concepts, self.key_encoder).float()
        query_sets = self._embed(query_view, query_concepts, self._query_encoder())
        loss = concept_contrast(
            query_sets,
            key_sets,
            self.concept_queue.keys,
            self.concept_queue.filled,
            labels,
            query_concepts.confusing[:, : parts.confusing_for_negatives],
            temperature=parts.temperature,
            positive_pairs=parts.positive_pairs,
            negative_pairs=parts.negative_pairs,
            epsilon=parts.transport_epsilon,
            max_iterations=parts.transport_iterations,
            tolerance=parts.transport_tolerance,
            draws=context.uniform(len(labels), 1 + parts.queue_size, device=labels.device),
        )
        return loss, key_sets

    def _find(self, view: _View, weight: Tensor, labels: Tensor) -> Concepts:
        """Find the concepts of a view without gradient; part 1b.1 of the method."""
        size = view.images.shape[-1]
        return concepts_of(view.feature_map, view.logits, labels, weight, image_size=size, parts=self.parts)

    def _embed(self, view: _View, concepts: Concepts, encoder: Encoder) -> Tensor:
        """Embed the concept patches of a view as unit vectors (B, P, C); part 1b.2 of the method."""
        if self.parts.patches == "encoder":
            features = patch_features(view.images, concepts.boxes, encoder.backbone, size=self.patch_size)
        else:
            features = pool_boxes(view.feature_map.float(), concepts.boxes, image_size=view.images.shape[-1])
        return concept_embeddings(features, encoder.classifier)

    def _query_encoder(self) -> Encoder:
        return Encoder(self.backbone, self.classifier)

    def _query_view(self, images: Tensor) -> _View:
        return _View(images, *self._query_encoder()(images))

    @torch.no_grad()
    def _key_view(self, images: Tensor) -> _View:
        with self._key_precision(images.device):
            feature_map, logits = self.key_encoder(images)
        return _View(images, feature_map, logits)

    def _key_precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return what the key encoder's passes run in; the losses take its outputs as float32 either way."""
        if self.parts.key_precision == "same":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


def concepts_of(
    feature_map: Tensor, logits: Tensor, labels: Tensor, weight: Tensor, *, image_size: int, parts: ConceptTuningConfig
) -> Concepts:
    """Find the concepts of images with a run's settings, without gradient; part 1b.1 of the method.

    Args:
        feature_map: (B, D, h, w) of the images.
        logits: (B, C) of the encoder's classifier.
        labels: (B,) int64, the classes whose concepts are looked for.
        weight: (C, D) of that classifier.
        image_size: Side of the square images in pixels.
        parts: Number and size of the concepts.
    """
    return find_concepts(
        feature_map.detach().float(),
        logits.detach().float(),
        labels,
        weight.detach().float(),
        image_size=image_size,
        concepts=parts.concepts,
        channels=parts.concept_channels,
        step=parts.concept_step or default_step(feature_map.shape[1]),
        side=parts.patch_fraction * image_size,
        confusing_for_score=parts.confusing_for_score,
    )


def patch_features(images: Tensor, boxes: Tensor, backbone: Backbone, *, size: int) -> Tensor:
    """Return the pooled features (B, P, D) of patches run through the encoder; part 1b.2 of the method.

    All patches go through in one call; batch norms in training mode leave their running statistics as they are.

    Args:
        images: (B, 3, H, W), normalised.
        boxes: (B, P, 4) in pixels, as :class:`~concept_tuning.concepts.Concepts` has them.
        backbone: The encoder's backbone.
        size: Side in pixels at which patches go through, see :func:`patch_size`.
    """
    patches = crop_patches(images, boxes, size).contiguous(memory_format=_memory_format(images))
    with frozen_running_statistics(backbone):
        return pool(backbone(patches)).reshape(*boxes.shape[:2], -1)


def concept_embeddings(features: Tensor, classifier: nn.Linear) -> Tensor:
    """Return unit vectors (B, P, C) of patches' pooled features (B, P, D), the classifier taken as constant.

    In float32, also in an autocast: the transport's costs are told apart by less than bfloat16 can tell.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits = F.linear(features.float(), classifier.weight.detach().float(), classifier.bias.detach().float())
        return F.normalize(logits, dim=2)


def patch_size(backbone: Backbone, config: RunConfig) -> int:
    """Return the side in pixels at which concept patches go through the encoder.

    It is ``patch_fraction`` of the image's side, rounded to a multiple of the backbone's stride (64 px
    at 224 px and stride 32, as in the paper), or the next larger multiple the network accepts.
    """
    size = config.data.image_size
    stride = backbone.stride
    wanted = max(1, round(config.concept_tuning.patch_fraction * size / stride)) * stride
    for side in range(wanted, size, stride):
        if backbone.accepts(side):
            return side
    return size


def _memory_format(images: Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
