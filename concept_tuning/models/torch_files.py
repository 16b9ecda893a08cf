"""Reading files of `torch.save` without running what they may hold, and without growing beyond their own size."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

_ZIP = b"PK\x03\x04"
#: The records at the end of a zip file, from the last one backwards; those of large files (zip64) may be lacking.
_END, _LOCATOR, _LARGE_END = struct.Struct("<4s4H2IH"), struct.Struct("<4sIQI"), struct.Struct("<4sQ2H2I4Q")


def load_tensors(path: Path, *, known: Sequence[type] = ()) -> Any:
    """Return what a file holds, on the CPU, by torch's weights-only loader.

    `torch.save` stores what it writes as it is, whereas torch's reader also takes compressed records, of which a small
    file holds gigabytes: those are refused before anything is read.

    Args:
        path: The file.
        known: Classes that may be in it besides tensors and plain values.

    Raises:
        ValueError: if it would take more memory than the file is long.
        Exception: whatever a damaged file makes the loader stumble over.
    """
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP)) == _ZIP  # by which torch tells its present files from those of old
        if zipped:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
            _check_directory(file)
    if zipped:
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are compressed, which torch.save never does")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are longer than the file, which torch.save never makes")
    with torch.serialization.safe_globals(list(known)):
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_directory(file: BinaryIO) -> None:
    """Raise ValueError unless a zip file's directory ends where the records at its end begin.

    Python looks for it there, and torch where those records say; a file of two directories could show each its own.
    """
    length = file.seek(0, io.SEEK_END)
    most = _LARGE_END.size + _LOCATOR.size + _END.size
    file.seek(max(0, length - most))
    tail = file.read().rjust(most, b"\0")
    mark, *_, size, offset, comment = _END.unpack_from(tail, most - _END.size)
    sound, begin = mark == b"PK\5\6" and not comment, length - _END.size
    mark, _, place, _ = _LOCATOR.unpack_from(tail, _LARGE_END.size)
    if mark == b"PK\6\7":
        mark, *_, size, offset = _LARGE_END.unpack_from(tail)
        begin = length - most
        sound = sound and mark == b"PK\6\6" and place == begin
    if not sound or offset + size != begin:
        raise ValueError("its directory is not where torch.save writes it")
