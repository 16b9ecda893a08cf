"""Where strangers' files come in: limits before anything is decoded, pictures told by content, nothing kept."""

from __future__ import annotations

import errno
import io
import re
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from concept_tuning.data.cache import shrink
from concept_tuning.data.decode import TooManyPixels, UnreadableImage, decode_image
from concept_tuning.data.folders import is_hidden
from concept_tuning.data.unpacking import extract_archive
from concept_tuning.errors import ArchiveError, DataError, StudioError

#: Of one file as it is sent, and of a picture in it.
MAX_BYTES, MAX_PIXELS = 20 * 2**20, 30_000_000
#: Of a batch: pictures, archives, entries of one, unpacked bytes of all, and how many times its own size those may be.
MAX_PICTURES, MAX_ARCHIVES, _MAX_ENTRIES, _MAX_UNPACKED, _MAX_RATIO = 100, 5, 400, 200 * 2**20, 50.0
#: Longest time for reading a batch, in seconds.
READ_SECONDS = 20.0
#: Short side in pixels in which a sender's picture is shown back.
_PREVIEW_SIDE = 640
#: Decoding a picture of thirty million pixels takes some hundred megabytes, so that few are decoded at once.
_DECODING = threading.BoundedSemaphore(2)
_ZIP_MARK = b"PK\x03\x04"
#: What is said elsewhere of settings, which a visitor of the demo cannot change.
_SETTINGS = re.compile(r"; if you trust it, raise data\.\w+| \(setting data\.\w+\)")
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
    reading = _Reading(folder, sides)
    for upload in _different(uploads):
        reading.take(upload)
    if not any(picture.sizes for picture in reading.found):
        first = f" {reading.found[0].name}: {reading.found[0].reason}" if reading.found else ""
        raise UploadError(f"There is no picture among these files.{first}")
    return reading.found


def fresh_picture(path: Path) -> bytes:
    """Return an uploaded picture made small, as a new WebP file, to show it to its sender.

    Raises:
        UploadError: as :func:`read_picture`.
    """
    file = io.BytesIO()
    Image.fromarray(shrink(_decode(_bytes(path)), _PREVIEW_SIDE)).save(file, format="WEBP", quality=85)
    return file.getvalue()


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
        with _DECODING:
            return decode_image(content, max_pixels=MAX_PIXELS)
    except TooManyPixels as error:
        raise UploadError(
            f"The picture is too large: {error.width} x {error.height} pixels, and at most "
            f"{MAX_PIXELS // 1_000_000} million are taken. Send a smaller one."
        ) from error
    except UnreadableImage as error:
        words = _SETTINGS.sub("", str(error))
        raise UploadError(f"This cannot be used as a picture: {words}. Send another one.") from error


def _is_of_the_server(error: DataError) -> bool:
    """Whether an archive is refused for what the server lacks, such as room, of which its words name the place."""
    behind = error.__cause__ and error.__cause__.__cause__
    return not isinstance(error, ArchiveError) and getattr(behind, "errno", None) != errno.ENAMETOOLONG


def _different(uploads: Sequence[object]) -> list[object]:
    """Return the uploads, each path once."""
    found: dict[str, object] = {}
    for upload in uploads[: MAX_PICTURES + 1]:
        path = upload.get("path") if isinstance(upload, Mapping) else None
        found.setdefault(str(path), upload)
    return list(found.values())


class _Reading:
    """Reads uploads one after another, within one limit of time, of pictures and of unpacked bytes for all of them."""

    def __init__(self, folder: Path, sides: Sequence[int]) -> None:
        self.found: list[BatchPicture] = []
        self._folder = folder
        self._sides = sides
        self._until = time.monotonic() + READ_SECONDS
        self._unpacked = 0
        self._archives = 0

    def take(self, upload: object) -> None:
        """Read an upload, or what is in it if it is a zip archive; raises UploadError for what holds for all."""
        name = _name(upload)
        try:
            path = _place(upload, self._folder)
            content = _bytes(path)
        except UploadError as error:
            self._add(BatchPicture(name=name, sizes=None, reason=str(error)))
            return
        if not content.startswith(_ZIP_MARK):
            self._read(name, content)
            return
        self._archives += 1
        if self._archives > MAX_ARCHIVES:
            raise UploadError(f"These are more than {MAX_ARCHIVES} archives; send fewer at a time.")
        with tempfile.TemporaryDirectory() as place:
            self._unpack(path, name, Path(place) / "archive")

    def _unpack(self, path: Path, name: str, target: Path) -> None:
        limit = _MAX_UNPACKED - self._unpacked
        try:
            extract_archive(path, target, max_entries=_MAX_ENTRIES, max_bytes=max(1, limit), max_ratio=_MAX_RATIO)
        except DataError as error:
            words = _SETTINGS.sub("", str(error).replace(f"{path}: ", "").replace(str(path), name))
            if _is_of_the_server(error):
                words = "it cannot be unpacked here just now, which is no fault of its own; try again later."
            raise UploadError(f"{name}: {words}") from error
        for file in sorted(target.rglob("*")):
            inside = file.relative_to(target)
            if not file.is_file():
                continue
            self._unpacked += file.stat().st_size
            if any(is_hidden(part) for part in inside.parts):
                continue
            try:
                content = _bytes(file)
            except UploadError as error:
                self._add(BatchPicture(name=inside.as_posix(), sizes=None, reason=str(error)))
                continue
            self._read(inside.as_posix(), content)

    def _read(self, name: str, content: bytes) -> None:
        try:
            pixels = _decode(content)
        except UploadError as error:
            self._add(BatchPicture(name=name, sizes=None, reason=str(error)))
            return
        self._add(BatchPicture(name=name, sizes=tuple(shrink(pixels, side) for side in self._sides)))

    def _add(self, picture: BatchPicture) -> None:
        if len(self.found) == MAX_PICTURES:
            raise UploadError(f"These are more than {MAX_PICTURES} files; send fewer at a time.")
        if time.monotonic() > self._until:
            raise UploadError("Reading these files takes too long; send fewer or smaller ones at a time.")
        self.found.append(picture)


def _name(upload: object) -> str:
    if not isinstance(upload, Mapping):
        return "?"
    return str(upload.get("orig_name") or Path(str(upload.get("path", "?"))).name)[:200]
