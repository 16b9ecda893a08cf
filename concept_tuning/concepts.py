"""Finding the concepts of an image: ranked channels, their activation maps and their patches.

Part 1b.1 of Concept-Tuning (arXiv 2311.06868).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

#: Spacing of the concepts' starts in the paper, and the number of channels it was chosen for.
_PAPER_STEP, _PAPER_CHANNELS = 250, 2048


@dataclass(frozen=True)
class Concepts:
    """The concepts of a batch of images; concept 0 is the most class-discriminative.

    Attributes:
        confusing: (B, C - 1) int64, the other classes, most confusing first.
        groups: (B, P, channels) int64, the channels of each concept.
        maps: (B, P, h, w), the sum of each concept's channels.
        boxes: (B, P, 4), the patches as (x1, y1, x2, y2) in pixels of the image.
    """

    confusing: Tensor
    groups: Tensor
    maps: Tensor
    boxes: Tensor


@torch.no_grad()
def find_concepts(
    feature_map: Tensor,
    logits: Tensor,
    labels: Tensor,
    classifier_weight: Tensor,
    *,
    image_size: tuple[int, int] | int,
    side: float,
    concepts: int = 9,
    channels: int = 30,
    step: int | None = None,
    confusing_for_score: int = 3,
) -> Concepts:
    """Find the concepts of images and the patch of each; part 1b.1, without gradient.

    Args:
        feature_map: (B, D, h, w) of the images.
        logits: (B, C) of the momentum copy.
        labels: (B,) int64, 0..C-1.
        classifier_weight: (C, D).
        image_size: (height, width) of the images in pixels, or the side of square ones.
        side: Side of a patch in pixels, > 0.
        concepts: Number P of concepts of an image.
        channels: Channels of a concept.
        step: Ranks between the starts of two concepts; None: :func:`default_step`.
        confusing_for_score: Most confusing classes that a channel's score is set against.

    Raises:
        ValueError: If the shapes do not fit together or a setting is out of range.
    """
    confusing = confusing_classes(logits, labels, logits.shape[1])
    groups = channel_groups(
        classifier_weight,
        labels,
        confusing[:, :confusing_for_score],
        concepts=concepts,
        channels=channels,
        step=default_step(classifier_weight.shape[1]) if step is None else step,
    )
    maps = concept_maps(feature_map, groups)
    return Concepts(confusing, groups, maps, peak_boxes(maps, image_size=image_size, side=side))


def confusing_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the classes with the highest logits, the label left out, highest first.

    Args:
        logits: (B, C), C >= 2.
        labels: (B,) int64, 0..C-1.
        count: Number of classes, >= 1; clipped to C - 1.

    Returns:
        (B, min(count, C - 1)) int64.

    Raises:
        ValueError: If the shapes do not fit together, there are fewer than two classes, or ``count`` < 1.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[1] < 2:
        raise ValueError(
            f"logits must be (B, C) with C >= 2 and labels (B,), got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}.")
    others = _other_classes(labels, logits.shape[1])
    chosen = logits.gather(1, others).topk(min(count, others.shape[1]), dim=1).indices
    return others.gather(1, chosen)


def default_step(features: int) -> int:
    """Return the ranks between the starts of two concepts: the paper's 250 of 2048 channels, in proportion."""
    return max(1, round(_PAPER_STEP * features / _PAPER_CHANNELS))


def fit_groups(features: int, *, concepts: int, channels: int, step: int) -> tuple[int, int]:
    """Return the (channels, step) with which all concepts fit into ``features`` ranked channels.

    They are taken as given where they fit. Otherwise ``channels`` is cut to ``features``, and ``step`` to the
    largest with which the last concept still ends within the ranks. Neighbouring concepts then share more
    channels; at ``channels >= features`` every concept is all channels.

    Raises:
        ValueError: If a number is below 1.
    """
    if min(features, concepts, channels, step) < 1:
        raise ValueError(
            f"features, concepts, channels and step must be >= 1, got {features}, {concepts}, {channels} and {step}."
        )
    channels = min(channels, features)
    if concepts > 1:
        step = min(step, (features - channels) // (concepts - 1))
    return channels, step


def channel_groups(
    classifier_weight: Tensor, labels: Tensor, confusing: Tensor, *, concepts: int, channels: int, step: int
) -> Tensor:
    """Rank the channels for each image and cut the ranking into concepts.

    With n confusing classes a channel scores n W_y - sum of W_c; the ranking is descending. Concept p takes
    ``channels`` neighbouring ranks from rank p * ``step``; see :func:`fit_groups` for networks with few channels.

    Args:
        classifier_weight: (C, D).
        labels: (B,) int64, 0..C-1.
        confusing: (B, n) int64, n >= 1, classes other than the label.
        concepts: Number P of concepts.
        channels: Channels of a concept.
        step: Ranks between the starts of two concepts.

    Returns:
        (B, P, channels) int64 channel indices, by rank.

    Raises:
        ValueError: If the shapes do not fit together or a number is below 1.
    """
    if (
        classifier_weight.ndim != 2
        or labels.ndim != 1
        or confusing.ndim != 2
        or len(confusing) != len(labels)
        or confusing.shape[1] < 1
    ):
        raise ValueError(
            "classifier_weight must be (C, D), labels (B,) and confusing (B, n) with n >= 1, got "
            f"{tuple(classifier_weight.shape)}, {tuple(labels.shape)} and {tuple(confusing.shape)}."
        )
    features = classifier_weight.shape[1]
    channels, step = fit_groups(features, concepts=concepts, channels=channels, step=step)
    scores = confusing.shape[1] * classifier_weight[labels] - classifier_weight[confusing].sum(1)
    ranking = scores.argsort(dim=1, descending=True, stable=True)
    starts = torch.arange(concepts, device=labels.device) * step
    return ranking[:, starts[:, None] + torch.arange(channels, device=labels.device)]


def concept_maps(feature_map: Tensor, groups: Tensor) -> Tensor:
    """Return the activation map of each concept, the sum of its channels' maps.

    Args:
        feature_map: (B, D, h, w).
        groups: (B, P, channels) int64, 0..D-1.

    Returns:
        (B, P, h, w) in float32 at least: half precision could tie the peaks of a map.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if feature_map.ndim != 4 or groups.ndim != 3 or len(groups) != len(feature_map):
        raise ValueError(
            "feature_map must be (B, D, h, w) and groups (B, P, channels), got "
            f"{tuple(feature_map.shape)} and {tuple(groups.shape)}."
        )
    member = torch.zeros(*groups.shape[:2], feature_map.shape[1], device=feature_map.device)
    member.scatter_(2, groups, 1)
    dtype = torch.promote_types(feature_map.dtype, torch.float32)
    with torch.autocast(feature_map.device.type, enabled=False):
        return torch.einsum("bpd,bdhw->bphw", member.to(dtype), feature_map.to(dtype))


def peak_boxes(maps: Tensor, *, image_size: tuple[int, int] | int, side: float) -> Tensor:
    """Return the patch of each concept: a square around the centre of its map's peak cell.

    The square is clipped to the image, not shifted into it, so that a patch at the border is smaller.

    Args:
        maps: (B, P, h, w).
        image_size: (height, width) of the image in pixels, or the side of a square one.
        side: Side of the square in pixels, > 0.

    Returns:
        (B, P, 4) float32 boxes (x1, y1, x2, y2) in pixels, 0 being the outer edge of the first pixel.

    Raises:
        ValueError: If ``maps`` is not (B, P, h, w) or a size is not positive.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if maps.ndim != 4 or side <= 0 or min(height, width) < 1:
        raise ValueError(
            "maps must be (B, P, h, w), side > 0 and image_size >= 1, got "
            f"{tuple(maps.shape)}, {side} and {image_size}."
        )
    rows, columns = maps.shape[2:]
    peak = maps.flatten(2).argmax(2)
    y = (peak // columns + 0.5) * (height / rows)
    x = (peak % columns + 0.5) * (width / columns)
    half = side / 2
    left, right = (x - half).clamp(0, width), (x + half).clamp(0, width)
    top, bottom = (y - half).clamp(0, height), (y + half).clamp(0, height)
    return torch.stack([left, top, right, bottom], dim=2)


def crop_patches(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut patches from images and resample each to one size by RoIAlign.

    Args:
        images: (B, 3, H, W).
        boxes: (B, P, 4) as :func:`peak_boxes` gives them.
        size: Side of the result in pixels, >= 1.

    Returns:
        (B * P, 3, size, size) in the images' type, the patches of an image in a row.

    Raises:
        ValueError: If the shapes do not fit together or ``size`` < 1.
    """
    if images.ndim != 4 or boxes.ndim != 3 or boxes.shape[::2] != (len(images), 4) or size < 1:
        raise ValueError(
            "images must be (B, 3, H, W), boxes (B, P, 4) and size >= 1, got "
            f"{tuple(images.shape)}, {tuple(boxes.shape)} and {size}."
        )
    return _align(images, boxes, size)


def pool_boxes(feature_map: Tensor, boxes: Tensor, *, image_size: tuple[int, int] | int) -> Tensor:
    """Return the mean feature of each patch, read by RoIAlign from the image's own feature map.

    The cheap stand-in for encoding the patches: no further pass through the network, but the receptive fields
    reach beyond the patch.

    Args:
        feature_map: (B, D, h, w) of the images.
        boxes: (B, P, 4) in pixels, as :func:`peak_boxes` gives them.
        image_size: (height, width) of the images in pixels, or the side of square ones.

    Returns:
        (B, P, D) in the feature map's type; gradient flows to ``feature_map``.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if feature_map.ndim != 4 or boxes.ndim != 3 or boxes.shape[::2] != (len(feature_map), 4):
        raise ValueError(
            "feature_map must be (B, D, h, w) and boxes (B, P, 4), got "
            f"{tuple(feature_map.shape)} and {tuple(boxes.shape)}."
        )
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    rows, columns = feature_map.shape[2:]
    scale = boxes.new_tensor([columns / width, rows / height, columns / width, rows / height])
    return _align(feature_map, boxes * scale, 1).view(*boxes.shape[:2], -1)


def _align(source: Tensor, boxes: Tensor, size: int) -> Tensor:
    """RoIAlign with as many samples a bin as the largest box has cells a bin.

    torchvision can choose the number by itself, but for each box and from rounded numbers, so that two
    devices may differ; one number, with some slack, does not.
    """
    batch, count = boxes.shape[:2]
    index = torch.arange(batch, device=boxes.device).repeat_interleave(count)
    rois = torch.cat([index[:, None].to(boxes.dtype), boxes.flatten(0, 1)], dim=1).float()
    largest = float((boxes[..., 2:] - boxes[..., :2]).max()) if boxes.numel() else 1.0
    samples = max(1, math.ceil(largest / size - 1e-3))
    patches = roi_align(source.float(), rois, output_size=size, sampling_ratio=samples, aligned=True)
    return patches.to(source.dtype)


def _other_classes(labels: Tensor, classes: int) -> Tensor:
    """Return (B, C - 1): all classes but the label, ascending."""
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    return others + (others >= labels[:, None]).long()
