"""What the header of a picture asks for, read before Pillow acts on it.

While it opens a picture, and before its size can be asked, Pillow makes canvases (animations), copies what the tags of
a TIFF directory point to (each as often as it is pointed to) and joins comments piece by piece; some decoders make room
by other numbers than the picture's size. All of that is bounded here. What is just damaged is left for Pillow to name.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_GIF_HEADER_BYTES = 1 << 20
#: The head of a scan of a JPEG file: its length, and the one to four components in it.
_SCAN = re.compile(b"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MOST_SCANS = 200
_COMMENT = re.compile(b"#")
_MOST_COMMENTS = 1000
_CHUNK = 1 << 20

#: Bytes of an element by the type of a TIFF tag, and the formats of whole numbers.
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TIFF_TEXTS, _TIFF_FRACTIONS = (1, 2, 7), (5, 10)
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_ORIENTATION = 274
#: Tags that point to further directories, which Pillow reads along: EXIF, GPS, interoperability.
_TIFF_POINTERS = (34665, 34853, 40965)
_TIFF_ENTRIES = 4096  # as libtiff has it
_TIFF_ELEMENTS = 1 << 20
_TIFF_SLACK = 1 << 16


class Excessive(Exception):  # noqa: N818  (named for what it tells the user)
    """A header asks for far more than a picture needs; the message says what, in words."""


class Header(NamedTuple):
    """What a header claims, as (width, height) in pixels; (0, 0) where Pillow makes no room by it.

    Attributes:
        canvas: What Pillow makes room for while it opens the file.
        tile: The pieces that libtiff makes room for, whatever the size of the picture.
    """

    canvas: tuple[int, int] = (0, 0)
    tile: tuple[int, int] = (0, 0)


def read_header(stream: BinaryIO, form: str) -> Header:
    """Read what the header of a picture claims, from the start of the stream.

    Raises:
        Excessive: It asks for more than a picture needs.
    """
    stream.seek(0)
    try:
        if form == "TIFF":
            return Header(tile=_Directories(stream).tile())
        canvas = {"GIF": _gif_canvas, "PNG": _png_canvas, "WEBP": _webp_canvas}.get(form)
        return Header(canvas(stream)) if canvas else Header()
    except (struct.error, IndexError):  # cut off, as Pillow will say
        return Header()


def check_scans(stream: BinaryIO) -> None:
    """Raise Excessive if a JPEG file, read up to its first scan, has far too many; each goes over the whole picture."""
    for count, _ in enumerate(_marks(stream, _SCAN, 5), start=2):
        if count > _MOST_SCANS:
            raise Excessive(f"it is stored in more than {_MOST_SCANS} layers (JPEG scans)")


def check_comments(stream: BinaryIO) -> None:
    """Raise Excessive if there are far too many comments between the numbers of a plain PPM file."""
    for count, _ in enumerate(_marks(stream, _COMMENT, 1), start=1):
        if count > _MOST_COMMENTS:
            raise Excessive(f"there are more than {_MOST_COMMENTS} comments between its numbers")


def exif_orientation(block: bytes) -> int | None:
    """Return the orientation that an EXIF block gives, and None where it is damaged or gives none.

    Pillow would copy what each tag of it points to, which may be the whole block each time.
    """
    start, found = 0, None
    while block.startswith(b"Exif\0\0", start):
        start += 6
    order = {b"II": "<", b"MM": ">"}.get(block[start : start + 2])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}I", block, start + 4)
        (count,) = struct.unpack_from(f"{order}H", block, start + place)
        for entry in range(start + place + 2, start + place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", block, entry)
            if tag == _ORIENTATION and (kind, number) in ((3, 1), (3, 2), (4, 1)):
                (found,) = struct.unpack_from(order + _TIFF_WHOLE[kind], block, entry + 8)
    except struct.error:  # cut off
        pass
    return found


def _marks(stream: BinaryIO, pattern: re.Pattern[bytes], width: int) -> Iterator[bytes]:
    """Find a pattern of so many bytes in the rest of a stream."""
    last = b""
    while chunk := stream.read(_CHUNK):
        chunk = last + chunk
        for mark in pattern.finditer(chunk):
            yield mark.group()
        last = chunk[len(chunk) - width + 1 :]


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


class _Directories:
    """The first directory of a TIFF file and those it points to, as both Pillow and libtiff read them."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(16)
        self._stream = stream
        self._order = "<" if head.startswith(b"II") else ">"
        self._big = head[2] == 43
        if head[3] == 43:  # Pillow would read it as the old kind, and libtiff as the new
            raise Excessive("big-endian BigTIFF files are not read")
        self._length = stream.seek(0, io.SEEK_END)
        (self._first,) = struct.unpack_from(self._order + ("Q" if self._big else "I"), head, 8 if self._big else 4)

    def tile(self) -> tuple[int, int]:
        """Return the width and the length of the tiles, the largest of each that is named; raises Excessive."""
        found = self._check(self._first)
        for pointer in _TIFF_POINTERS:
            for place in found.get(pointer, ()):
                self._check(place)
        return max(found.get(_TILE_WIDTH, (0,))), max(found.get(_TILE_LENGTH, (0,)))

    def _check(self, place: int) -> dict[int, list[int]]:
        """Check how much a directory points to, and return the whole numbers that stand in it, by tag."""
        found: dict[int, list[int]] = {}
        copied = elements = 0
        inline = 8 if self._big else 4
        for tag, kind, number, value in self._entries(place):
            size = number * _TIFF_BYTES.get(kind, 0)
            if size <= inline:
                if number == 1 and kind in _TIFF_WHOLE:
                    found.setdefault(tag, []).append(struct.unpack_from(self._order + _TIFF_WHOLE[kind], value)[0])
                continue
            (start,) = struct.unpack(self._order + ("Q" if self._big else "I"), value)
            if start + size > self._length:  # which is not read
                continue
            copied += size
            elements += 0 if kind in _TIFF_TEXTS else number * (16 if kind in _TIFF_FRACTIONS else 1)
        if copied > self._length + _TIFF_SLACK:
            raise Excessive("its tags together point to more bytes than there are in the file")
        if elements > _TIFF_ELEMENTS:
            raise Excessive("its tags hold too many numbers")
        return found

    def _entries(self, place: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield tag, type, number of elements, and the last field of each entry of a directory."""
        count, form = ("Q", "HHQ8s") if self._big else ("H", "HHI4s")
        counter, entry = struct.Struct(self._order + count), struct.Struct(self._order + form)
        if place + counter.size > self._length:
            return
        self._stream.seek(place)
        (number,) = counter.unpack(self._stream.read(counter.size))
        if number > _TIFF_ENTRIES:
            raise Excessive(f"its directory has more than {_TIFF_ENTRIES} tags")
        table = self._stream.read(number * entry.size)
        yield from entry.iter_unpack(table[: len(table) // entry.size * entry.size])
