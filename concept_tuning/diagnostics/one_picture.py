"""What a run makes of a single picture, in a second or two: what a diagnosis keeps of a few, for any picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from concept_tuning.data.registry import DataBundle
from concept_tuning.diagnostics.attention_maps import position_attention
from concept_tuning.diagnostics.attribution import CAMS
from concept_tuning.diagnostics.concept_maps import find_concept_maps
from concept_tuning.diagnostics.features import finite_features
from concept_tuning.diagnostics.picture_maps import PictureMaps, picture_maps
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.switches import PREDICTION, front_door_switches, switched_probabilities
from concept_tuning.diagnostics.thumbnails import Thumbnails, make_thumbnails
from concept_tuning.diagnostics.transport_links import TransportLinks, transport_links
from concept_tuning.errors import RunError


@dataclass(frozen=True, eq=False, kw_only=True)
class OnePicture:
    """A run's view of one picture.

    Attributes:
        key: Name of the picture.
        results: Results of this picture alone by the name of their analysis (``picture-maps``, ``concept-maps``,
            ``position-attention``, ``switches``), an :class:`~concept_tuning.diagnostics.results.Unavailable`
            where the run lacks what it needs. Of maps, those of :data:`~concept_tuning.diagnostics.attribution.CAMS`.
        switched: (C,) float32 probabilities of the run's fixed rule under each setting of the front-door head's
            attentions, everything on first; empty without that head.
    """

    key: str
    results: Mapping[str, Any]
    switched: Mapping[str, np.ndarray]


def pick_pictures(bundle: DataBundle, keys: Sequence[str], *, split: str = "test") -> Pictures:
    """Return pictures of a split by their names, in that order; raises RunError if one is not in it."""
    source = bundle.splits[split]
    places = {key: place for place, key in enumerate(source.keys)}
    unknown = [key for key in keys if key not in places]
    if unknown:
        raise RunError(f"There is no picture {unknown[0]} in the {split} split; choose another one.")
    return Pictures(split=source, chosen=np.array([places[key] for key in keys], dtype=np.int64), bundle=bundle)


def look_at(subject: Subject, pictures: Pictures) -> OnePicture:
    """Compute everything that a page shows of one picture, with the quick maps.

    Args:
        subject: The run; its model is left as found, and not for two threads at once.
        pictures: The one picture.

    Raises:
        RunError: if the network gives values that are not finite.
        ValueError: unless there is one picture.
    """
    if len(pictures) != 1:
        raise ValueError(f"one picture is looked at, got {len(pictures)}")
    features = finite_features(subject, pictures)
    switches = front_door_switches(subject, pictures, features, places=[0])
    return OnePicture(
        key=pictures.keys[0],
        results={
            "picture-maps": picture_maps(subject, pictures, features, places=[0], names=CAMS),
            "concept-maps": find_concept_maps(subject, pictures, features),
            "position-attention": position_attention(subject, pictures, features),
            "switches": switches,
        },
        switched={name: found[PREDICTION][0] for name, found in switched_probabilities(subject, features).items()},
    )


def one_map(subject: Subject, pictures: Pictures, name: str) -> PictureMaps:
    """Compute one kind of map, such as the slow ones that :func:`look_at` leaves out; raises as it does."""
    return picture_maps(
        subject, pictures, finite_features(subject, pictures), places=range(len(pictures)), names=[name]
    )


def match_two(subject: Subject, pictures: Pictures) -> TransportLinks:
    """Match the concepts of two pictures, the first's with the second's; raises as :func:`look_at`."""
    if len(pictures) != 2:
        raise ValueError(f"two pictures are matched, got {len(pictures)}")
    features = finite_features(subject, pictures)
    concepts = find_concept_maps(subject, pictures, features)
    return transport_links(subject, pictures, features, concepts, pairs=[(0, 1)])[0]


def object_mask(subject: Subject, pictures: Pictures) -> np.ndarray | None:
    """Return where the object of the first picture is, (S, S) bool; None where the data has no masks."""
    return pictures.masks(0, subject.image_size)["object"].numpy() if pictures.has_masks else None


def small_pictures(subject: Subject, pictures: Pictures) -> Thumbnails:
    """Return thumbnails of the pictures; the run says only what data they are of."""
    return make_thumbnails(pictures, pictures.keys)
