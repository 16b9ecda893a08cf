"""Reading files of `torch.save` without running what they may hold, and without growing beyond their own size."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_ZIP = b"PK\x03\x04"


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
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are compressed, which torch.save never does")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are longer than the file, which torch.save never makes")
    with torch.serialization.safe_globals(list(known)):
        return torch.load(path, map_location="cpu", weights_only=True)
