"""The concepts of pictures as the method sees them: ranked channels, their maps and their patches.

Part on rare features of Concept-Tuning (arXiv 2311.06868). A run that was not trained by that method is looked
at with its default settings and the run's own classifier, so that runs can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from concept_tuning.concepts import default_step, fit_groups, pool_boxes
from concept_tuning.diagnostics.features import BATCH, Features, network_input
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array
from concept_tuning.methods.base import pool
from concept_tuning.methods.concept_tuning import concept_embeddings, concepts_of, patch_features, patch_size

LabelKind = Literal["predicted", "true"]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ConceptMaps:
    """The P concepts of n pictures; concept 0 is the most class-discriminative.

    Attributes:
        run: Name of the run.
        keys: Unique names of the pictures.
        class_names: The C class names.
        label_kind: Whether the concepts are of the predicted or of the true class.
        labels: (n,) int64, that class.
        predicted: (n,) int64, the class predicted by the run's fixed rule.
        image_size: Side in pixels of the square pictures that ``boxes`` refer to.
        confusing: (n, m) int64, the most confusing classes that the channel score is set against.
        channels: (n, P, K) int64, the channels of each concept, by rank.
        ranks: (P, K) int64, their ranks, 0 being the most discriminative channel; the same for every picture.
        scores: (n, P, K) float32 channel scores m W_y - sum of W_c over the confusing classes.
        maps: (n, P, h, w) float32, the sum of each concept's channels.
        boxes: (n, P, 4) float32 patches (x1, y1, x2, y2) in pixels, centred on the peak cells.
    """

    run: str
    keys: tuple[str, ...]
    class_names: tuple[str, ...]
    label_kind: LabelKind
    labels: Array
    predicted: Array
    image_size: int
    confusing: Array
    channels: Array
    ranks: Array
    scores: Array
    maps: Array
    boxes: Array


@torch.inference_mode()
def find_concept_maps(
    subject: Subject,
    pictures: Pictures,
    features: Features,
    *,
    label: LabelKind = "predicted",
    places: Sequence[int] | None = None,
) -> ConceptMaps:
    """Find the concepts of pictures with the run's own settings; part 1b.1 of the method.

    The trained network ranks the confusing classes, since a loaded run has no momentum copy.

    Args:
        subject: The run.
        pictures: The pictures.
        features: What its network makes of them.
        label: Take the concepts of the predicted or of the true class.
        places: The pictures wanted, 0..len(pictures)-1; None: all.
    """
    chosen = np.arange(len(pictures)) if places is None else np.asarray(places, dtype=np.int64)
    classifier, parts = subject.method.classifier, subject.run.config.concept_tuning
    labels = torch.from_numpy((features.predicted if label == "predicted" else pictures.labels)[chosen])
    feature_map = torch.from_numpy(features.maps[chosen])
    found = concepts_of(
        feature_map,
        classifier(pool(feature_map)),
        labels,
        classifier.weight,
        image_size=subject.image_size,
        parts=parts,
    )
    confusing = found.confusing[:, : parts.confusing_for_score]
    scores = confusing.shape[1] * classifier.weight[labels] - classifier.weight[confusing].sum(1)
    return ConceptMaps(
        run=subject.name,
        keys=tuple(np.array(pictures.keys)[chosen].tolist()),
        class_names=subject.run.class_names,
        label_kind=label,
        labels=labels.numpy(),
        predicted=features.predicted[chosen],
        image_size=subject.image_size,
        confusing=confusing.numpy(),
        channels=found.groups.numpy(),
        ranks=_group_ranks(subject),
        scores=scores.gather(1, found.groups.flatten(1)).view(found.groups.shape).numpy(),
        maps=found.maps.numpy(),
        boxes=found.boxes.numpy(),
    )


@torch.inference_mode()
def concept_sets(
    subject: Subject, pictures: Pictures, features: Features, concepts: ConceptMaps, *, places: Sequence[int]
) -> Tensor:
    """Embed the concepts of pictures as unit vectors (m, P, C); part 1b.2 of the method.

    Patches go through the encoder, or are read from the feature map where the run was trained so.

    Args:
        subject: The run.
        pictures: The pictures.
        features: What its network makes of them.
        concepts: The concepts of all of them, in their order.
        places: The m pictures wanted, 0..len(pictures)-1.
    """
    if concepts.keys != pictures.keys:
        raise ValueError("concepts must be of all the pictures, in their order")
    method, config = subject.method, subject.run.config
    boxes = torch.from_numpy(concepts.boxes[list(places)])
    if config.concept_tuning.patches == "feature-map":
        maps = torch.from_numpy(features.maps[list(places)])
        return concept_embeddings(pool_boxes(maps, boxes, image_size=subject.image_size), method.classifier)
    size = patch_size(method.backbone, config)
    parts = []
    for start in range(0, len(places), BATCH):
        some = list(places[start : start + BATCH])
        images = network_input(method, pictures.images(some, subject.image_size))
        parts.append(patch_features(images, boxes[start : start + BATCH], method.backbone, size=size))
    return concept_embeddings(torch.cat(parts), method.classifier)


def _group_ranks(subject: Subject) -> np.ndarray:
    """Return the (P, K) ranks that the run's concepts take."""
    parts, width = subject.run.config.concept_tuning, subject.method.backbone.num_features
    step = parts.concept_step or default_step(width)
    channels, step = fit_groups(width, concepts=parts.concepts, channels=parts.concept_channels, step=step)
    return np.arange(parts.concepts)[:, None] * step + np.arange(channels)
