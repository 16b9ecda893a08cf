"""Attribution maps of a few pictures, kept for showing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch.nn import functional as F

from concept_tuning.diagnostics.attribution import METHODS, attribute_all, scale_to_one
from concept_tuning.diagnostics.features import Features
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array

#: Side in cells of the kept maps.
SIDE = 64


@dataclass(frozen=True, kw_only=True, config=RESULT)
class PictureMaps:
    """Maps of n pictures by each of m methods, of the class that the run predicts.

    Attributes:
        run: Name of the run.
        keys: Names of the pictures.
        names: Names of the methods, see :data:`concept_tuning.diagnostics.attribution.METHODS`.
        values: (m, n, s, s) float32, 0..1 within each map; all 0 where a map is blank.
        predicted: (n,) int64, the class that is explained.
        probabilities: (n, C) float32 of the prediction.
        labels: (n,) int64.
        class_names: The C classes.
    """

    run: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    values: Array
    predicted: Array
    probabilities: Array
    labels: Array
    class_names: tuple[str, ...]


def picture_maps(
    subject: Subject,
    pictures: Pictures,
    features: Features,
    *,
    places: Sequence[int],
    names: Sequence[str] = METHODS,
) -> PictureMaps:
    """Compute maps of the pictures at ``places``; integrated gradients and occlusion take most of the time."""
    size = subject.image_size
    targets = torch.from_numpy(features.predicted[list(places)])
    found = attribute_all(subject.inference_method, pictures.images(places, size), targets, names=names)
    values = torch.stack([found[name] for name in names])
    small = F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    scaled = scale_to_one(small.flatten(0, 1)).view_as(small)
    return PictureMaps(
        run=subject.name,
        keys=tuple(pictures.keys[place] for place in places),
        names=tuple(names),
        values=scaled.numpy().astype(np.float32),
        predicted=targets.numpy(),
        probabilities=features.probabilities[list(places)],
        labels=pictures.labels[list(places)],
        class_names=subject.run.class_names,
    )
