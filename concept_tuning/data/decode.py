"""Picture files to arrays: one function for pictures, one for masks, and one error for whatever is amiss.

Files are opened by the readers of a short list of formats rather than by :func:`PIL.Image.open`, whose own
limit on the size is one global number for the whole process; here each call has its limit. What a header asks for
beyond the size is held against it before Pillow acts on it (:mod:`concept_tuning.data.picture_headers`, for TIFF
:mod:`concept_tuning.data.tiff_headers`).
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from concept_tuning.data.orientation import upright
from concept_tuning.data.picture_headers import Excessive, Header, check_comments, check_scans, read_header
from concept_tuning.data.tiff_headers import MOST_LAYERS, read_tiff_header


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose resolution is not looked for: Pillow would copy what each tag of the EXIF block points to."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _File(io.BufferedReader):
    """A file of which no more is asked for at once than there is: reading makes room for whatever length it is told."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._most = max(os.fstat(self.fileno()).st_size, _CHUNK)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, as any file."""
        return super().read(size if size is None else min(size, self._most))


_READERS = (
    PngImagePlugin.PngImageFile,
    _JpegFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    WebPImagePlugin.WebPImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS: tuple[str, ...] = tuple(reader.format for reader in _READERS)
#: A picture of more pixels is decoded by one thread of a process at a time: decoding takes up to 30 bytes a pixel.
LARGE_PIXELS = 20_000_000
#: Tiles, and the rows that a run-length coding may skip in one step, may take so many pixels whatever the limit.
_ROOM_PIXELS = 4_000_000
_BMP_SKIPPED_ROWS = 255
#: All tiles together may hold so many times the pixels of their picture, beside those that any picture may have.
_TILED = 4
_PREFIX_BYTES, _CHUNK = 16, 1 << 20
_BIG_ENDIAN_BIGTIFF = b"MM\0+"  # which Pillow reads as a TIFF file of the old kind
_WHITE = (255, 255, 255, 255)
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_warning_filters = threading.Lock()
_turn = threading.RLock()
_kept = threading.local()


class UnreadableImage(Exception):  # noqa: N818  (named for what it tells the user)
    """A file cannot be used as a picture; the message says why, in words, without the file's name."""


class TooManyPixels(UnreadableImage):
    """A picture is over the limit; known from its header, before anything is decoded.

    Attributes:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: int, height: int, limit: int) -> None:
        super().__init__(
            f"too large: {width} x {height} pixels, and at most {limit} are allowed (setting data.max_pixels)"
        )
        self.width, self.height = width, height


@contextmanager
def keeping_turn() -> Iterator[None]:
    """Keep the turn of a large picture that is decoded in the block until its end, for what is done with the array.

    Pictures of over :data:`LARGE_PIXELS` are decoded by one thread of the process at a time. Without this the turn ends
    when the array is returned, and other threads may decode theirs while it is held.
    """
    before = getattr(_kept, "stack", None)
    with ExitStack() as _kept.stack:
        try:
            yield
        finally:
            _kept.stack = before


def decode_image(source: Path | bytes, *, max_pixels: int) -> np.ndarray:
    """Decode a picture of any common kind to RGB.

    The first frame of an animation is taken. Transparent places show white, as on a page. Grey of 12 or 16
    bits is brought to 8 by dropping its low bits. CMYK is converted without a colour profile (JPEG files with
    Adobe's inverted values are turned round). The picture is turned upright by its EXIF orientation.

    Args:
        source: A file, or the bytes of one, in one of :data:`FORMATS`.
        max_pixels: Most pixels (width times height); read from the header, before anything is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UnreadableImage: Missing, empty, cut off, damaged, too large (:class:`TooManyPixels`), or not such a picture.
    """
    with _loaded(source, max_pixels) as image:
        return upright(_rgb(image), image)


def decode_mask(source: Path | bytes, *, max_pixels: int) -> np.ndarray:
    """Decode a mask: inside is where the stored value is not zero, in colour where it is not black.

    Transparent places are outside. Values are not scaled, so that a 16-bit mask of 0 and 1 works too. A
    lossy format (JPEG) smears small values over the outside; such masks should be stored as PNG.

    Args:
        source: A file, or the bytes of one, in one of :data:`FORMATS`.
        max_pixels: Most pixels (width times height).

    Returns:
        (H, W) bool, turned upright as the picture is.

    Raises:
        UnreadableImage: As for :func:`decode_image`.
    """
    with _loaded(source, max_pixels) as image:
        if image.mode in {"1", "L", "F", *_DEEP_GREY} and not ("transparency" in image.info and image.mode == "L"):
            inside = np.nan_to_num(np.asarray(image)) != 0
        else:
            colour = np.asarray(image.convert("RGBA"))
            inside = colour[..., :3].any(axis=2) & (colour[..., 3] > 0)
        return upright(inside.astype(np.uint8), image).astype(bool)


@contextmanager
def _loaded(source: Path | bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open, check and decode; whatever goes wrong, in the block too, becomes an UnreadableImage."""
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else _File(source) as stream,
            _decoded(stream, max_pixels) as image,
        ):
            yield image
    except UnreadableImage:
        raise
    except Excessive as error:
        raise UnreadableImage(f"damaged, or made to exhaust the computer: {error}") from error
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except MemoryError as error:
        raise UnreadableImage("it does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too many pixels for its format ({error})") from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}" if error.errno else f"damaged or cut off ({error})"
        raise UnreadableImage(reason) from error
    except Exception as error:  # damaged files make the readers raise whatever their parsing trips over
        raise UnreadableImage("damaged or cut off") from error


@contextmanager
def _decoded(stream: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """Open and decode, each only after what it will take is known to be allowed; a large picture in its turn."""
    reader = _reader(stream)
    header = read_tiff_header(stream) if reader.format == "TIFF" else read_header(stream, str(reader.format))
    if header.canvas != (0, 0):
        _check_size(header.canvas, max_pixels)
    with _in_turn(header.canvas):
        with _quiet_about_size(header.canvas):
            image = _open(reader, stream)
        _check_size(image.size, max_pixels)
        room = _room(image, header, max_pixels)
        with _in_turn(room if header.canvas == (0, 0) else (0, 0)):  # where it does not have its turn already
            _check_work(image, header, stream, max_pixels)
            with _quiet_about_size(image.size):
                image.load()
            yield image


def _reader(stream: BinaryIO) -> type[ImageFile.ImageFile]:
    """Return what reads a file, by its first bytes."""
    prefix = stream.read(_PREFIX_BYTES)
    if not prefix:
        raise UnreadableImage("the file is empty")
    for reader in _READERS:
        accept = Image.OPEN[reader.format][1]
        if accept is None or accept(prefix) is True:
            if prefix.startswith(_BIG_ENDIAN_BIGTIFF):
                raise UnreadableImage("a BigTIFF file in big-endian order, which is not supported; store it as PNG")
            return reader
    raise UnreadableImage(f"not a picture in one of the formats {', '.join(FORMATS)}")


def _open(reader: type[ImageFile.ImageFile], stream: BinaryIO) -> ImageFile.ImageFile:
    stream.seek(0)
    try:
        return reader(stream)
    except SyntaxError as error:  # how a reader says that the header is not one of its own
        detail = "its header cannot be read" if error.__cause__ else error  # else: a parser's inner fault
        raise UnreadableImage(f"damaged or cut off {reader.format} file ({detail})") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage("it has no pixels")
    if width * height > max_pixels:
        raise TooManyPixels(width, height, max_pixels)


def _room(image: ImageFile.ImageFile, header: Header, max_pixels: int) -> tuple[int, int]:
    """Return the picture's size, or that of what its decoder makes room for, where that is larger."""
    room, what = header.tile, "its tiles"
    if any(tile.codec_name == "bmp_rle" for tile in image.tile):  # a step of four bytes may skip so many rows
        room, what = (image.width, image.height + _BMP_SKIPPED_ROWS), "its run-length coding"
    pixels, limit = room[0] * room[1], max(max_pixels, _ROOM_PIXELS)
    if pixels > limit:
        raise UnreadableImage(
            f"too large to be decoded: {what} may take as much room as {room[0]} x {room[1]} pixels, and at most "
            f"{limit} are allowed (setting data.max_pixels); store it as PNG"
        )
    return room if pixels > image.width * image.height else image.size


def _check_work(image: ImageFile.ImageFile, header: Header, stream: BinaryIO, max_pixels: int) -> None:
    """Raise Excessive if decoding takes far longer than the number of pixels lets one expect."""
    if image.format == "JPEG":
        check_scans(stream)
    if any(tile.codec_name == "ppm_plain" for tile in image.tile):
        check_comments(stream)
    if header.stored > _TILED * image.width * image.height + max(max_pixels, _ROOM_PIXELS):
        raise Excessive("most of its tiles lies beyond the picture")
    corners = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
    stored = sum(max(0, right - left) * max(0, bottom - top) for left, top, right, bottom in corners)
    if stored > MOST_LAYERS * image.width * image.height:
        raise Excessive("it stores its pixels many times over")


@contextmanager
def _in_turn(size: tuple[int, int]) -> Iterator[None]:
    """Wait for the turn of a large picture, and keep it for the block, or for that of :func:`keeping_turn`."""
    if size[0] * size[1] <= LARGE_PIXELS:
        yield
        return
    with ExitStack() as own:
        stack = getattr(_kept, "stack", None) or own
        stack.enter_context(_turn)
        stack.callback(_give_back_memory)
        yield


def _allocator_trim() -> Callable[[int], int] | None:
    """Return what makes the C library give freed memory back to the system; None where there is no such thing."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


_trim = _allocator_trim()


def _give_back_memory() -> None:
    """Give back what a large picture took: glibc would keep up to a gigabyte of it for each thread apart."""
    if _trim is not None:
        _trim(0)


@contextmanager
def _quiet_about_size(size: tuple[int, int]) -> Iterator[None]:
    """Silence Pillow's warning of very large pictures, which the caller's limit has already allowed.

    Warning filters belong to the whole process, so they are touched for such pictures alone and by one
    thread at a time.
    """
    if Image.MAX_IMAGE_PIXELS is None or size[0] * size[1] <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _rgb(image: Image.Image) -> np.ndarray:
    """Return the stored pixels as (H, W, 3) uint8, over white."""
    if image.mode in _DEEP_GREY:
        return np.repeat(_deep_grey(image)[..., None], 3, axis=2)
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range; store the picture with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _deep_grey(image: Image.Image) -> np.ndarray:
    """Bring 12- and 16-bit grey to (H, W) uint8."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and isinstance(image, TiffImagePlugin.TiffImageFile):
        raise UnreadableImage(
            "signed or 32-bit pixels have no known range; store the picture with 8 or unsigned 16 bits"
        )
    values = np.asarray(image)
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # stored with white as zero
        values = (1 << bits) - 1 - values
    grey = (values >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    return np.where(values == transparent, np.uint8(255), grey) if isinstance(transparent, int) else grey
