"""What the header of a picture asks for, read before Pillow acts on it.

While it opens a picture, and before its size can be asked, Pillow makes canvases (animations) and joins comments and
EXIF blocks piece by piece; some decoders make room by other numbers than the picture's size. All of that is bounded
here, for TIFF in :mod:`concept_tuning.data.tiff_headers`. What is just damaged is left for Pillow to name.
"""

from __future__ import annotations

import io
import re
import struct
from typing import BinaryIO, NamedTuple

_GIF_HEADER_BYTES = 1 << 20
#: The head of a scan of a JPEG file: its length, and the one to four components in it.
_SCAN = re.compile(b"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MOST_SCANS = 200
#: Marks of a JPEG file that have no length and data after them, for Pillow.
_MARKS_ALONE = frozenset(bytes([mark]) for mark in (0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), *range(1, 0xC0)))
_START_OF_SCAN, _APP1 = b"\xda", b"\xe1"
#: A colour profile takes up to 255 segments of a JPEG file, and a large picture that is stored within some hundreds.
_MOST_SEGMENTS, _MOST_EXIF = 4096, 256
_COMMENT = re.compile(b"#")
_MOST_COMMENTS = 1000
_CHUNK = 1 << 20


class Excessive(Exception):  # noqa: N818  (named for what it tells the user)
    """A header asks for far more than a picture needs; the message says what, in words."""


class Header(NamedTuple):
    """What a header claims, as (width, height) in pixels; (0, 0) where Pillow makes no room by it.

    Attributes:
        canvas: What Pillow makes room for while it opens the file.
        tile: The pieces that libtiff makes room for, whatever the size of the picture.
        stored: Pixels of all these pieces together, with those that lie beyond the picture.
    """

    canvas: tuple[int, int] = (0, 0)
    tile: tuple[int, int] = (0, 0)
    stored: int = 0


def read_header(stream: BinaryIO, form: str) -> Header:
    """Read what the header of a picture that is no TIFF claims, from the start of the stream.

    Raises:
        Excessive: It asks for more than a picture needs.
    """
    stream.seek(0)
    try:
        if form == "JPEG":
            _check_segments(stream)
        canvas = {"GIF": _gif_canvas, "PNG": _png_canvas, "WEBP": _webp_canvas}.get(form)
        return Header(canvas(stream)) if canvas else Header()
    except (struct.error, IndexError):  # cut off, as Pillow will say
        return Header()


def check_scans(stream: BinaryIO) -> None:
    """Raise Excessive if a JPEG file, read up to its first scan, has far too many; each goes over the whole picture."""
    if 1 + _count(stream, _SCAN, 5, most=_MOST_SCANS) > _MOST_SCANS:
        raise Excessive(f"it is stored in more than {_MOST_SCANS} layers (JPEG scans)")


def check_comments(stream: BinaryIO) -> None:
    """Raise Excessive if there are far too many comments between the numbers of a plain PPM file."""
    if _count(stream, _COMMENT, 1, most=_MOST_COMMENTS) > _MOST_COMMENTS:
        raise Excessive(f"there are more than {_MOST_COMMENTS} comments between its numbers")


def _count(stream: BinaryIO, pattern: re.Pattern[bytes], width: int, *, most: int) -> int:
    """Count how often a pattern of so many bytes is in the rest of a stream, until it is over the most."""
    count, last = 0, b""
    while count <= most and (chunk := stream.read(_CHUNK)):
        chunk = last + chunk
        count += sum(1 for _ in pattern.finditer(chunk))
        last = chunk[len(chunk) - width + 1 :]
    return count


def _check_segments(stream: BinaryIO) -> None:
    """Follow Pillow's way to the first scan; it adds each piece of an EXIF block to a copy of those before."""
    stream.seek(2)
    segments = pieces = 0
    while (mark := _jpeg_mark(stream)) not in (b"", _START_OF_SCAN):
        if mark in _MARKS_ALONE:
            continue
        segments += 1
        length, start = struct.unpack(">H6s", stream.read(8))
        pieces += mark == _APP1 and start == b"Exif\0\0"
        if segments > _MOST_SEGMENTS or pieces > _MOST_EXIF:
            raise Excessive(f"it has over {_MOST_SEGMENTS} segments before its pixels, or {_MOST_EXIF} of EXIF data")
        stream.seek(max(length, 2) - 8, io.SEEK_CUR)


def _jpeg_mark(stream: BinaryIO) -> bytes:
    """Return the second byte of the next mark, and nothing at the end; filling before it is passed over."""
    byte = stream.read(1)
    while byte:
        while byte not in (b"\xff", b""):
            byte = stream.read(1)
        while byte == b"\xff":
            byte = stream.read(1)
        if byte != b"\0":
            return byte
        byte = stream.read(1)
    return b""


def _gif_canvas(stream: BinaryIO) -> tuple[int, int]:
    """Follow Pillow's way to the first frame; the canvas holds that and the logical screen."""
    data = stream.read(_GIF_HEADER_BYTES + 16)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    head = io.BytesIO(data)
    head.seek(13 + (3 << (flags & 7) + 1 if flags & 128 else 0))
    while (kind := head.read(1)) not in (b"", b";") and head.tell() <= _GIF_HEADER_BYTES:
        if kind == b"!":
            _skip_gif_extension(head)
        elif kind == b",":
            left, top, across, down = struct.unpack("<4H", head.read(8))
            return max(width, left + across), max(height, top + down)
    if head.tell() > _GIF_HEADER_BYTES:
        raise Excessive(f"its first frame comes only after {_GIF_HEADER_BYTES} bytes")
    return width, height


def _skip_gif_extension(head: BinaryIO) -> None:
    label, block = head.read(1), _gif_block(head)
    if label == b"\xfe":  # a comment ends at its first empty block; others, for Pillow, at the next
        while block:
            block = _gif_block(head)
        return
    if label == b"\xff" and block.startswith(b"NETSCAPE2.0"):
        _gif_block(head)
    while _gif_block(head):
        pass


def _gif_block(head: BinaryIO) -> bytes:
    length = head.read(1)
    return head.read(length[0]) if length else b""


def _png_canvas(stream: BinaryIO) -> tuple[int, int]:
    """Return the largest of the sizes before the pixels: for Pillow, any later one overrides the first."""
    canvas = (0, 0)
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"fdAT", b"IEND"):
            break
        after = stream.tell() + length + 4
        if name == b"IHDR":
            canvas = max(canvas, struct.unpack(">II", stream.read(8)), key=_area)
        stream.seek(after)
    return canvas


def _webp_canvas(stream: BinaryIO) -> tuple[int, int]:
    head = stream.read(30)
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
