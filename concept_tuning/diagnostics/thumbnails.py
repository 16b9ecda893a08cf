"""Small copies of the pictures that results speak of, so that they can be shown where the data is not."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, WebPImagePlugin
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import RESULT, Array
from concept_tuning.errors import RunError

#: Side of a thumbnail, in pixels.
SIDE = 112
#: Largest side of a stored picture that is shown, be it a stranger's.
_LARGEST = 2048
#: Of the files, 0..100; above 100 they are lossless.
QUALITY, LOSSLESS = 88, 101


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Thumbnails:
    """Pictures as a network sees them, resized and cropped to a square.

    Attributes:
        keys: Their m unique names.
        files: Each as a WebP file in base64.
        labels: (m,) int64 class indices.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]
    labels: Array

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def image(self, key: str) -> np.ndarray:
        """Return the picture of that name, (s, s, 3) uint8.

        Raises:
            KeyError: if it is not among them.
            RunError: if it is damaged, or larger than any network's input.
        """
        with self._opened(key) as (_, picture):
            return np.asarray(picture.convert("RGB"))

    def file(self, key: str) -> bytes:
        """Return the picture of that name as a WebP file, of which the header alone was looked at.

        Raises:
            KeyError: if it is not among them.
            RunError: as :meth:`image`, but for damage after the header.
        """
        with self._opened(key) as (content, _):
            return content

    def address(self, key: str) -> str:
        """Return :meth:`file` as a data address, which a browser opens; raises as that.

        A page takes this, not the bytes: Streamlit would open those by any reader that Pillow has.
        """
        return f"data:image/webp;base64,{base64.b64encode(self.file(key)).decode('ascii')}"

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[bytes, Image.Image]]:
        """Open a picture by the reader of WebP alone, whatever it may be: others start programs or have no limit.

        Nothing is decoded yet. Raises KeyError and RunError, also for what goes wrong in the block.
        """
        if key not in self.keys:
            raise KeyError(key)
        try:
            content = base64.b64decode(self.files[self.keys.index(key)], validate=True)
            with WebPImagePlugin.WebPImageFile(io.BytesIO(content)) as picture:
                if max(picture.size) > _LARGEST:
                    raise RunError(f"The stored picture {key} is larger than {_LARGEST} pixels; diagnose again.")
                yield content, picture
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise RunError(f"The stored picture {key} is damaged; diagnose again.") from error


def pack_thumbnails(
    keys: Sequence[str], images: np.ndarray, labels: np.ndarray, *, quality: int = QUALITY
) -> Thumbnails:
    """Return thumbnails of (m, s, s, 3) uint8 pictures."""
    return Thumbnails(keys=tuple(keys), files=tuple(_file(image, quality) for image in images), labels=labels)


def make_thumbnails(pictures: Pictures, keys: Iterable[str], *, side: int = SIDE, quality: int = QUALITY) -> Thumbnails:
    """Make thumbnails of the named pictures, in the pictures' order, each once; unknown names are left out.

    Args:
        pictures: The pictures of the analysis.
        keys: Names of the wanted ones.
        side: Side in pixels.
        quality: Of the files.
    """
    wanted = set(keys)
    places = [place for place, key in enumerate(pictures.keys) if key in wanted]
    files = (_file(pictures.image(place, side).permute(1, 2, 0).contiguous().numpy(), quality) for place in places)
    return Thumbnails(
        keys=tuple(pictures.keys[place] for place in places), files=tuple(files), labels=pictures.labels[places]
    )


def _file(image: np.ndarray, quality: int) -> str:
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(file, format="WEBP", quality=min(quality, 100), lossless=quality >= LOSSLESS, exact=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
