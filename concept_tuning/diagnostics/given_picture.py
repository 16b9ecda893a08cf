"""What runs make of pictures that somebody hands over, of no data set and of no known class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from concept_tuning.data.cache import cache_side, shrink
from concept_tuning.data.registry import DataBundle, Split
from concept_tuning.data.table import ImageTable
from concept_tuning.diagnostics.attribution import CAMS
from concept_tuning.diagnostics.concept_maps import find_concept_maps
from concept_tuning.diagnostics.features import finite_features
from concept_tuning.diagnostics.picture_maps import picture_maps
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.switches import PREDICTION, front_door_switches, switched_probabilities

#: Class of a picture whose class nobody told.
UNKNOWN = -1
_SPLIT = "given"


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenAnswer:
    """A run's view of a given picture.

    Attributes:
        run: Name of the run.
        class_names: The C classes that it knows.
        probabilities: (C,) float32 of the run's fixed prediction rule.
        view: (S, S, 3) uint8, what the network sees: the middle square of the picture in its own size.
        maps: (s, s) float32 attribution maps 0..1 of the predicted class by name; all 0 where one is blank.
        boxes: (P, 4) float32 concept patches x1, y1, x2, y2 in shares 0..1 of the view, by the channels that speak
            most for the predicted class first.
        switched: (C,) float32 probabilities of the fixed rule under each setting of the front-door head's
            attentions, everything on first; empty without that head.
        switch_maps: (h, w) float32 >= 0 maps of that head under each setting, in logits, see
            :class:`~concept_tuning.diagnostics.switches.SwitchMaps`; empty without it.
    """

    run: str
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    view: np.ndarray
    maps: Mapping[str, np.ndarray]
    boxes: np.ndarray
    switched: Mapping[str, np.ndarray]
    switch_maps: Mapping[str, np.ndarray]

    @cached_property
    def ranking(self) -> tuple[tuple[str, float], ...]:
        """The classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return tuple((self.class_names[place], float(self.probabilities[place])) for place in order)

    @property
    def top(self) -> str:
        """The class it says."""
        return self.ranking[0][0]


class _InMemory:
    """Decoded pictures as a run's own data would be kept, by their place."""

    def __init__(self, pixels: Sequence[np.ndarray], side: int) -> None:
        self._images = [torch.from_numpy(shrink(image, side).transpose(2, 0, 1).copy()) for image in pixels]

    def image(self, row: int) -> Tensor:
        return self._images[row]


def given_pictures(subject: Subject, pixels: Sequence[np.ndarray]) -> Pictures:
    """Return pictures as a run's own data would hold them, of class :data:`UNKNOWN`, named by their place.

    They are made smaller as the run's training pictures were, so that a picture of its data gets the same answer here.

    Args:
        subject: The run.
        pixels: (H, W, 3) uint8 RGB each, of any size.

    Raises:
        ValueError: if one has another shape or type.
    """
    for image in pixels:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"pictures must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    keys = tuple(str(place) for place in range(len(pixels)))
    labels = np.full(len(pixels), UNKNOWN, dtype=np.int64)
    rows = np.arange(len(pixels), dtype=np.int64)
    images = _InMemory(pixels, cache_side(subject.run.config.data))
    split = Split(name=_SPLIT, keys=keys, labels=labels, groups=None, rows=rows, images=images)
    table = ImageTable(
        source=_SPLIT,
        class_names=subject.run.class_names,
        group_names=(),
        keys=keys,
        labels=labels,
        groups=None,
        splits=None,
        read=lambda row: pixels[row],
        stamp=lambda row: keys[row],
    )
    bundle = DataBundle(
        source=_SPLIT,
        class_names=subject.run.class_names,
        group_names=(),
        splits={_SPLIT: split},
        problems=(),
        fingerprint="",
        used_fingerprint="",
        unit_fingerprints={},
        validation_note="",
        copies=(),
        table=table,
    )
    return Pictures(split=split, chosen=rows, bundle=bundle)


def predict_given(subject: Subject, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Return (n, C) float32 probabilities of a run's fixed rule for given pictures, see :func:`given_pictures`.

    Raises:
        RunError: if the network gives values that are not finite.
        ValueError: as :func:`given_pictures`.
    """
    return finite_features(subject, given_pictures(subject, pixels)).probabilities


def look_at_given(subject: Subject, pixels: np.ndarray) -> GivenAnswer:
    """Compute everything of one given picture that takes a moment only; the model is left as found.

    Not for two threads at once. Raises as :func:`predict_given`.
    """
    pictures = given_pictures(subject, [pixels])
    features = finite_features(subject, pictures)
    maps = picture_maps(subject, pictures, features, places=[0], names=CAMS)
    switches = front_door_switches(subject, pictures, features, places=[0])
    shown = None if isinstance(switches, Unavailable) else switches.maps
    return GivenAnswer(
        run=subject.name,
        class_names=subject.run.class_names,
        probabilities=features.probabilities[0],
        view=pictures.image(0, subject.image_size).permute(1, 2, 0).contiguous().numpy(),
        maps={name: values[0] for name, values in zip(maps.names, maps.values, strict=True)},
        boxes=(find_concept_maps(subject, pictures, features).boxes[0] / subject.image_size).astype(np.float32),
        switched={name: found[PREDICTION][0] for name, found in switched_probabilities(subject, features).items()},
        switch_maps={} if shown is None else {name: shown.values[row, 0] for row, name in enumerate(shown.names)},
    )


def slow_map_of_given(subject: Subject, pixels: np.ndarray, name: str) -> np.ndarray:
    """Compute an (s, s) float32 map 0..1 that :func:`look_at_given` leaves out, as integrated gradients.

    Raises:
        ValueError: if there is no such map; and as :func:`look_at_given`.
    """
    pictures = given_pictures(subject, [pixels])
    found = picture_maps(subject, pictures, finite_features(subject, pictures), places=[0], names=[name])
    values: np.ndarray = found.values[0, 0]
    return values
