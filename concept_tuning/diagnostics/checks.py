"""Whether results that were read from files fit together, so that no page fails on files from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from concept_tuning.diagnostics.attention_maps import PositionMaps
from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.diagnostics.picture_maps import PictureMaps
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.errors import RunError

#: Fields with one entry for each picture, the maps of many methods apart.
_PER_PICTURE: dict[type, tuple[str, ...]] = {
    Predictions: ("labels", "groups", "predicted", "probabilities"),
    PictureMaps: ("labels", "predicted", "probabilities"),
    ConceptMaps: ("labels", "predicted", "channels", "scores", "maps", "boxes"),
    PositionMaps: ("weights", "mean"),
    Thumbnails: ("labels", "files"),
}
#: How thumbnails begin, in base64.
_WEBP = "UklGR"
#: Fields that hold class indices.
_CLASSES = ("labels", "predicted")


def check_pictures(result: Any, class_names: Sequence[str], name: str) -> None:
    """Check that a result of single pictures has a row for each, its diagnosis's classes, and only groups that exist.

    Args:
        result: Any result; others than those of single pictures pass.
        class_names: The classes of the diagnosis.
        name: What the diagnosis is called.

    Raises:
        RunError: if it has not.
    """
    if not class_names:
        raise RunError(f"The diagnosis {name} names no classes; make it again.")
    fields = {field: getattr(result, field) for field in _PER_PICTURE.get(type(result), ())}
    fits = all(len(values) == len(result.keys) for values in fields.values() if values is not None)
    fits = fits and all(_within(fields[field], len(class_names)) for field in _CLASSES if field in fields)
    if fits and "predicted" in fields:
        fits = result.class_names == tuple(class_names)
    if fits and fields.get("groups") is not None:
        fits = _within(fields["groups"], len(result.group_names))
    if fits and "probabilities" in fields:
        fits = fields["probabilities"].ndim == 2 and fields["probabilities"].shape[1] == len(class_names)
    if fits and isinstance(result, PictureMaps):
        fits = result.values.shape[:2] == (len(result.names), len(result.keys))
    if fits and isinstance(result, Thumbnails):
        fits = all(file.startswith(_WEBP) for file in result.files)
    if not fits:
        raise RunError(
            f"The {type(result).__name__} of the diagnosis {name} do not fit its pictures and classes; make it again."
        )


def _within(values: np.ndarray, count: int) -> bool:
    """Return whether indices are whole numbers from 0 to below a count."""
    return values.dtype.kind in "iu" and bool(((values >= 0) & (values < count)).all())
