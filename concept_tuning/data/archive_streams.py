"""Streams of archives that are read only so far, whatever the archive says of itself."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from concept_tuning.errors import DataError

AGAIN = "make the archive again, of plain files and folders alone."
HEADER_BYTES = 1 << 20
#: Bytes that each entry of a zip or tar archive may have, on average, beside its data.
_ZIP_ENTRY_BYTES, _TAR_ENTRY_BYTES = 256, 8192
_ZIP_END_BYTES = 1 << 17
_ZIP_ENTRY_MARK = b"PK\x01\x02"
_XZ_MARK = b"\xfd7zXZ\0"
_XZ_MEMORY = 128 << 20  # `xz -9` makes archives that take half as much
_CHUNK = 1 << 16


def too_many_entries(limit: int) -> DataError:
    """Return what is said of an archive of too many entries."""
    return DataError(
        f"there are more than {limit} files and folders in it; if you trust it, raise data.max_archive_entries."
    )


class ZipStream(io.BufferedReader):
    """A zip file whose directory is weighed and counted before zipfile makes a record of each entry in it.

    What the end of the file says of the directory's entries and bytes is not asked, as it may lie: zipfile reads the
    directory in one piece, and that is looked at.
    """

    def __init__(self, path: Path, max_entries: int) -> None:
        super().__init__(io.FileIO(path))
        self._max_entries = max_entries
        self._opening = True

    def opened(self) -> None:
        """From here on, anything may be read."""
        self._opening = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read; while the archive is opened, raises DataError where it is more than a directory may take."""
        if not self._opening:
            return super().read(size)
        most = _ZIP_END_BYTES + _ZIP_ENTRY_BYTES * self._max_entries
        whole = size is None or size < 0
        wanted = most + 1 if whole else min(size or 0, most + 1)
        data = super().read(wanted)
        if len(data) > most:
            raise DataError(
                f"the list of what is in it takes more than {most} bytes, far more than {self._max_entries} files and "
                "folders need; if you trust it, raise data.max_archive_entries."
            )
        if not whole and data.count(_ZIP_ENTRY_MARK) > self._max_entries:  # each entry begins with the mark
            raise too_many_entries(self._max_entries)
        return data


class XzStream:
    """What is in an xz file of one or several streams; what stands after them is ignored, as by lzma.open.

    That would make room for a dictionary of up to four gigabytes, and stumble over zeros between streams, as xz allows.
    """

    def __init__(self, path: Path, mode: str = "rb") -> None:
        self._file = open(path, mode)  # noqa: SIM115  (closed with this)
        self._rest = b""
        self._over = False
        self._decompressor = _new_decompressor()

    def __enter__(self) -> XzStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the end; raises DataError where too large a dictionary is asked for."""
        data = bytearray()
        while len(data) < size and (piece := self._next(size - len(data))):
            data += piece
        return bytes(data)

    def _next(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof and not self._begin_again():
                return b""
            piece = self._rest
            if not piece and self._decompressor.needs_input:
                piece = self._file.read(_CHUNK)
                if not piece:
                    raise EOFError("it ends too early")
            self._rest = b""
            try:
                data = self._decompressor.decompress(piece, size)
            except lzma.LZMAError as error:
                if "Memory usage limit" in str(error):
                    raise DataError(
                        f"it takes more than {_XZ_MEMORY} bytes of memory to be unpacked; make it again, with xz -9 "
                        "or less."
                    ) from error
                raise
            if data:
                return data

    def _begin_again(self) -> bool:
        """Go on to the next of several xz streams in one file; zeros may be between them."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not self._over and not rest:
            piece = self._file.read(_CHUNK)
            self._over = not piece
            rest = piece.lstrip(b"\0")
        rest += self._file.read(max(0, len(_XZ_MARK) - len(rest)))
        self._over = self._over or not rest.startswith(_XZ_MARK)
        if self._over:
            return False
        self._rest, self._decompressor = rest, _new_decompressor()
        return True


def _new_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class TarStream:
    """A tar stream that is read only so far between two entries, however long a header claims to be."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.position = 0
        self.tail = b""
        self._stream = stream
        self._end: int | None = HEADER_BYTES
        self._headers = self._entries = self._after = 0

    def read(self, size: int) -> bytes:
        """Read; raises DataError in too long a header."""
        chunk = self._stream.read(size)
        self.position += len(chunk)
        self.tail = (self.tail + chunk)[-2 * tarfile.RECORDSIZE :]
        if self._end is not None and self.position > self._end:
            raise DataError(f"a header in it is longer than {HEADER_BYTES} bytes; {AGAIN}")
        return chunk

    def count_header(self, begin: int, end: int) -> None:
        """Count the headers of one more entry, by the places of the first and of what follows; raises DataError."""
        self._entries += 1
        self._headers += end - begin
        if self._headers > HEADER_BYTES + _TAR_ENTRY_BYTES * self._entries:
            raise DataError(f"its headers are longer than {_TAR_ENTRY_BYTES} bytes for each entry; {AGAIN}")
        self._end = self.position + HEADER_BYTES

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Read the data of a file."""
        self._end = None
        yield
        self._end = self.position + HEADER_BYTES
