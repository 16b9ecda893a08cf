"""Where pictures for training may come from: uploads, and folders of the server below one that is allowed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from concept_tuning.config import ARCHIVE_SUFFIXES
from concept_tuning.engine.turns import run_error
from concept_tuning.errors import DataError

#: Largest upload, in megabytes; larger data goes through a folder on the server.
UPLOAD_MEGABYTES = 500
_CHUNK = 1 << 20
_LISTED, _DEPTH = 300, 2


def allowed_root() -> Path:
    """Return the folder of the server below which data may be used: ``CONCEPT_TUNING_DATA``, or where it started."""
    return Path(os.environ.get("CONCEPT_TUNING_DATA") or ".").expanduser().resolve()


def inside(root: Path, text: str) -> Path:
    """Return the path that a user named below a root.

    Raises:
        DataError: if it leads out of the root, links followed, or there is no such folder or file.
    """
    try:
        path = (root / text.strip()).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{text!r} is no path.") from error
    if not path.is_relative_to(root):
        raise DataError(f"{text} is outside the folder that may be used; name a folder inside it.")
    if not path.exists():
        raise DataError(f"There is no {text} in the folder that may be used.")
    return path


def suggestions(root: Path) -> list[str]:
    """Return folders and archives near the root by their path in it, hidden ones and links left out."""
    return sorted(path.relative_to(root).as_posix() for path in _near(root, _DEPTH))[:_LISTED]


def save_upload(name: str, stream: IO[bytes], folder: Path) -> Path:
    """Keep an uploaded archive in a folder, once however often it is uploaded.

    Args:
        name: As the user called it; the end counts, and the rest is kept as far as it is plain.
        stream: Its bytes.
        folder: Made where it is missing.

    Raises:
        DataError: if it is no archive by its name.
        RunError: if it cannot be written, such as on a full disk; no part of it is left.
    """
    ending = next((suffix for suffix in ARCHIVE_SUFFIXES[::-1] if name.lower().endswith(suffix)), None)
    if ending is None:
        raise DataError(f"{name} is no archive; upload one that ends in {', '.join(ARCHIVE_SUFFIXES)}.")
    stem = re.sub(r"[^\w-]+", "-", Path(name.replace("\\", "/")).name[: -len(ending)]).strip("-")[:40] or "pictures"
    digest = _digest(stream)
    target = folder / f"{stem}-{digest}{ending}"
    if target.is_file():
        return target
    part = folder / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream.seek(0)
        with part.open("wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise run_error("The upload cannot be kept", error) from error
    return target


def _digest(stream: IO[bytes]) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()[:8]


def uploads(folder: Path) -> list[Path]:
    """Return the archives that were uploaded before, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.name[0] != "."]
    return sorted(found, key=lambda path: -path.stat().st_mtime)


def _near(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if entry.name[0] not in "._" and not entry.is_symlink()]
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            yield entry
            if depth > 1:
                yield from _near(entry, depth - 1)
        elif entry.name.lower().endswith((*ARCHIVE_SUFFIXES, ".csv")):
            yield entry
