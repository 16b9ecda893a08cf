"""What the directories of a TIFF file ask for, read before Pillow and libtiff act on it.

Pillow copies what the tags of a directory point to (each as often as it is pointed to), follows the directories that
tags point to, and makes an object of each strip or tile that is named; libtiff makes room for a whole tile and decodes
each of them, however little of it lies in the picture. All of that is bounded here, or told, where the limit of pixels
bounds it. What is just damaged is left for Pillow to name.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from concept_tuning.data.picture_headers import Excessive, Header

#: A picture whose colours are stored apart has as many layers; none has more.
MOST_LAYERS = 8
#: Bytes of an element by the type of a tag, and the formats of whole numbers.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TEXTS, _FRACTIONS = (1, 2, 7), (5, 10)
_SIZES = (256, 257, 322, 323)  # width and length of the picture, and of a tile
_STRIPS, _TILES = _PIECES = (273, 324)
#: Tags that point to further directories, which Pillow reads along; where there is the last, it takes that of the same
#: number within the first. Otherwise that is not followed and may lead astray, as in files that Pillow writes.
_EXIF, _GPS, _INTEROPERABILITY = _POINTERS = (34665, 34853, 40965)
_MOST_ENTRIES = 4096  # as libtiff has it
_MOST_NUMBERS = 1 << 20
#: Strips or tiles, for each of which Pillow takes some 230 bytes, and how many more than a picture can have are let be.
_MOST_PIECES, _SPARE_PIECES = 1 << 18, 4096
_SLACK = 1 << 16


def read_tiff_header(stream: BinaryIO) -> Header:
    """Read what the first directory of a TIFF file, from the start of the stream, and those it points to claim.

    Raises:
        Excessive: They ask for more than a picture needs.
    """
    stream.seek(0)
    try:
        return _Directories(stream).header()
    except (struct.error, IndexError):  # cut off, as Pillow will say
        return Header()


class _Directories:
    """The first directory of a TIFF file and those it points to, as both Pillow and libtiff read them."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(16)
        self._stream = stream
        self._order = "<" if head.startswith(b"II") else ">"
        self._big = head[2] == 43
        self._length = stream.seek(0, io.SEEK_END)
        (self._first,) = struct.unpack_from(self._order + ("Q" if self._big else "I"), head, 8 if self._big else 4)

    def header(self) -> Header:
        """Return what is claimed; raises Excessive."""
        found = self._check(self._first, (*_SIZES, *_POINTERS))
        for pointer in _POINTERS:
            if pointer in found:
                self._check_pointed(found[pointer], inner=pointer == _EXIF and _INTEROPERABILITY in found)
        width, length, *tile = (max(0, found.get(tag, 0)) for tag in _SIZES)
        tiles = -(-width // tile[0]) * -(-length // tile[1]) if all(tile) else 0
        for tag, most in ((_STRIPS, length), (_TILES, tiles)):
            if found.get(tag, 0) > min(MOST_LAYERS * most + _SPARE_PIECES, _MOST_PIECES):
                raise Excessive("it is stored in far more strips or tiles than it can have")
        return Header(tile=(tile[0], tile[1]), stored=tiles * tile[0] * tile[1])

    def _check_pointed(self, place: int, *, inner: bool) -> None:
        """Check a directory that is pointed to and, where Pillow looks for that too, what it points to itself."""
        found = self._check(place, (_INTEROPERABILITY,) if inner else ())
        if _INTEROPERABILITY in found:
            self._check(found[_INTEROPERABILITY], ())

    def _check(self, place: int, single: Sequence[int]) -> dict[int, int]:
        """Check how much a directory points to.

        Args:
            place: Of the directory.
            single: Tags that must hold one whole number, which stands in the entry itself, and stand there once: Pillow
                and libtiff would take it from elsewhere as well, or one the first of several and one the last.

        Returns:
            The numbers of these tags, and how many strips and tiles are named at most.
        """
        found: dict[int, int] = {}
        copied = elements = 0
        inline = 8 if self._big else 4
        for tag, kind, number, value in self._entries(place):
            size = number * _BYTES.get(kind, 0)
            if tag in single:
                if tag in found or number != 1 or kind not in _WHOLE or size > inline:
                    raise Excessive(f"its tag {tag} does not hold one number, as it should")
                (found[tag],) = struct.unpack_from(self._order + _WHOLE[kind], value)
            if size <= inline:
                continue
            (start,) = struct.unpack(self._order + ("Q" if self._big else "I"), value)
            if start + size > self._length:  # which is not read
                continue
            copied += size
            elements += 0 if kind in _TEXTS else number * (16 if kind in _FRACTIONS else 1)
            if tag in _PIECES:
                found[tag] = max(found.get(tag, 0), number)
        if copied > self._length + _SLACK:
            raise Excessive("its tags together point to more bytes than there are in the file")
        if elements > _MOST_NUMBERS:
            raise Excessive("its tags hold too many numbers")
        return found

    def _entries(self, place: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield tag, type, number of elements, and the last field of each entry of a directory."""
        count, form = ("Q", "HHQ8s") if self._big else ("H", "HHI4s")
        counter, entry = struct.Struct(self._order + count), struct.Struct(self._order + form)
        if not 0 <= place <= self._length - counter.size:
            return
        self._stream.seek(place)
        (number,) = counter.unpack(self._stream.read(counter.size))
        if number > _MOST_ENTRIES:
            raise Excessive(f"its directory has more than {_MOST_ENTRIES} tags")
        table = self._stream.read(number * entry.size)
        yield from entry.iter_unpack(table[: len(table) // entry.size * entry.size])
