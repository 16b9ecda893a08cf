"""Where strangers' files come in: limits before anything is decoded, pictures told by content, nothing kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.data.cache import shrink
from concept_tuning.data.decode import TooManyPixels, UnreadableImage, decode_image
from concept_tuning.data.folders import is_hidden
from concept_tuning.data.unpacking import extract_archive
from concept_tuning.errors import DataError, StudioError

#: Of one file as it is sent, and of a picture in it.
MAX_BYTES, MAX_PIXELS = 20 * 2**20, 30_000_000
#: Of a batch: pictures, entries of an archive, its unpacked bytes, and how many times its own size those may be.
MAX_PICTURES, _MAX_ENTRIES, _MAX_UNPACKED, _MAX_RATIO = 100, 400, 200 * 2**20, 50.0
#: Short side in pixels in which a sender's picture is shown back.
_PREVIEW_SIDE = 640
_ZIP_MARK = b"PK\x03\x04"
_GONE = "The uploaded file is not there any more; upload it again."


class UploadError(StudioError):
    """An upload cannot be used; the message is for whoever sent it, and names no path."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchPicture:
    """One picture of a batch.

    Attributes:
        name: As its sender called it.
        sizes: The picture, (h, w, 3) uint8 RGB, once for each short side that was asked for, never enlarged; None
            where it cannot be used.
        reason: Why it cannot be used; empty where it can.
    """

    name: str
    sizes: tuple[np.ndarray, ...] | None
    reason: str = ""


def read_picture(upload: object, folder: Path) -> np.ndarray:
    """Return an uploaded picture, (H, W, 3) uint8 RGB, upright, without whatever else its file holds.

    Args:
        upload: What the page sends of an upload: a mapping whose ``path`` is where the server put it.
        folder: Where uploads are put; nothing outside it is read.

    Raises:
        UploadError: if there is none, or it is no picture within the limits.
    """
    if upload is None:
        raise UploadError("There is no picture yet: upload one, paste one, or choose an example.")
    return _decode(_bytes(_place(upload, folder)))


def read_batch(uploads: object, folder: Path, *, sides: Sequence[int]) -> list[BatchPicture]:
    """Return the pictures of several uploads, in which a zip archive stands for what is in it.

    Args:
        uploads: One mapping for each file, as of :func:`read_picture`.
        folder: Where uploads are put; nothing outside it is read.
        sides: Short sides in pixels to which each is made smaller at once, so that many fit into memory.

    Raises:
        UploadError: if there are none or too many, or an archive cannot be unpacked.
    """
    if not isinstance(uploads, Sequence) or isinstance(uploads, str) or not uploads:
        raise UploadError("There are no files yet: choose pictures, or a zip archive of pictures.")
    found: list[BatchPicture] = []
    for upload in uploads:
        for name, content in _files(upload, folder):
            if len(found) == MAX_PICTURES:
                raise UploadError(f"These are more than {MAX_PICTURES} files; send fewer at a time.")
            found.append(_batch_picture(name, content, sides))
    if not any(picture.sizes for picture in found):
        first = f" {found[0].name}: {found[0].reason}." if found else ""
        raise UploadError(f"There is no picture among these files.{first}")
    return found


def preview(path: Path) -> np.ndarray:
    """Return an uploaded picture made small, to show it to its sender; raises UploadError as :func:`read_picture`."""
    return shrink(_decode(_bytes(path)), _PREVIEW_SIDE)


def _place(upload: object, folder: Path) -> Path:
    path = upload.get("path") if isinstance(upload, Mapping) else None
    if not isinstance(path, str) or "\0" in path:
        raise UploadError(_GONE)
    found = Path(path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise UploadError(_GONE)
    return found


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UploadError(_GONE) from error
    if len(content) > MAX_BYTES:
        raise UploadError(f"The file is over {MAX_BYTES >> 20} MB; send a smaller one.")
    return content


def _decode(content: bytes) -> np.ndarray:
    try:
        return decode_image(content, max_pixels=MAX_PIXELS)
    except TooManyPixels as error:
        raise UploadError(
            f"The picture is too large: {error.width} x {error.height} pixels, and at most "
            f"{MAX_PIXELS // 1_000_000} million are taken. Send a smaller one."
        ) from error
    except UnreadableImage as error:
        raise UploadError(f"This cannot be used as a picture: {error}. Send another one.") from error


def _files(upload: Any, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of an upload, those in it if it is a zip archive."""
    path = _place(upload, folder)
    content = _bytes(path)
    name = str(upload.get("orig_name") or path.name)
    if not content.startswith(_ZIP_MARK):
        yield name, content
        return
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "archive"
        try:
            extract_archive(path, target, max_entries=_MAX_ENTRIES, max_bytes=_MAX_UNPACKED, max_ratio=_MAX_RATIO)
        except DataError as error:
            raise UploadError(f"{name}: {str(error).replace(f'{path}: ', '').replace(str(path), name)}") from error
        for file in sorted(target.rglob("*")):
            inside = file.relative_to(target)
            if file.is_file() and not any(is_hidden(part) for part in inside.parts):
                yield inside.as_posix(), _bytes(file)


def _batch_picture(name: str, content: bytes, sides: Sequence[int]) -> BatchPicture:
    try:
        pixels = _decode(content)
    except UploadError as error:
        return BatchPicture(name=name, sizes=None, reason=str(error))
    return BatchPicture(name=name, sizes=tuple(shrink(pixels, side) for side in sides))
