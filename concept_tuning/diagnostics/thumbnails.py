"""Small copies of the pictures that results speak of, so that they can be shown where the data is not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import RESULT, Array

#: Side of a thumbnail, in pixels.
SIDE = 112


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Thumbnails:
    """Pictures as a network sees them, resized and cropped to a square.

    Attributes:
        keys: Their m unique names.
        images: (m, s, s, 3) uint8 RGB.
        labels: (m,) int64 class indices.
    """

    keys: tuple[str, ...]
    images: Array
    labels: Array

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def image(self, key: str) -> np.ndarray:
        """Return the picture of that name, (s, s, 3) uint8; raises KeyError if it is not among them."""
        try:
            return self.images[self.keys.index(key)]
        except ValueError:
            raise KeyError(key) from None


def make_thumbnails(pictures: Pictures, keys: Iterable[str], *, side: int = SIDE) -> Thumbnails:
    """Make thumbnails of the named pictures, in the pictures' order, each once; unknown names are left out.

    Args:
        pictures: The pictures of the analysis.
        keys: Names of the wanted ones.
        side: Side in pixels.
    """
    wanted = set(keys)
    places = [place for place, key in enumerate(pictures.keys) if key in wanted]
    images = np.zeros((0, side, side, 3), np.uint8)
    if places:
        images = pictures.images(places, side).permute(0, 2, 3, 1).contiguous().numpy()
    return Thumbnails(
        keys=tuple(pictures.keys[place] for place in places), images=images, labels=pictures.labels[places]
    )
