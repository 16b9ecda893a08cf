"""Where pictures for training may come from: uploads, and folders of the server below one that is allowed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from platformdirs import user_cache_path

from app import state
from concept_tuning.config import ARCHIVE_SUFFIXES
from concept_tuning.engine.records import list_runs
from concept_tuning.engine.turns import run_error
from concept_tuning.errors import DataError, RunError

#: Largest upload, in megabytes; larger data goes through a folder on the server.
UPLOAD_MEGABYTES = 500
_CHUNK = 1 << 20
_LISTED, _DEPTH = 300, 2
_DIGITS = 16
_DIGEST = re.compile(rf"-(?:[0-9a-f]{{{_DIGITS}}}|[0-9a-f]{{8}})(?=\.)")  # the short ones are of older uploads
_ANOTHER = "Whoever runs the server allows another folder by the environment variable CONCEPT_TUNING_DATA."


def allowed_root() -> Path:
    """Return the folder of the server below which data may be used: ``CONCEPT_TUNING_DATA``, or where it started."""
    return Path(os.environ.get("CONCEPT_TUNING_DATA") or ".").expanduser().resolve()


def uploads_root() -> Path:
    """Return the folder of all uploads."""
    return state.ROOT / "uploads"


def inside(root: Path, text: str) -> Path:
    """Return the path that a user named below a root.

    Raises:
        DataError: if it leads out of the root or to what others uploaded, links followed, or there is no such folder
            or file.
    """
    try:
        path = (root / text.strip()).resolve()
        there = path.is_relative_to(root) and path.exists()
        uploaded = path.is_relative_to(root) and _shows_uploads(path)
    except PermissionError as error:
        raise DataError(f"{text} cannot be looked into: the server has no permission.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{_shortened(text)!r} is no path.") from error
    if not path.is_relative_to(root):
        raise DataError(f"{text} is outside {root}, the folder that may be used; name one inside it. {_ANOTHER}")
    if uploaded:
        raise DataError(f"{text} may hold what others uploaded; upload your own archive, or name another folder.")
    if not there:
        raise DataError(f"There is no {text} in {root}, the folder that may be used. {_ANOTHER}")
    return path


def suggestions(root: Path) -> list[str]:
    """Return folders and archives near the root by their path in it; hidden ones, links and uploads left out."""
    kept = _uploaded()
    found = [path for path in _near(root, _DEPTH) if not any(path.is_relative_to(folder) for folder in kept)]
    return sorted(path.relative_to(root).as_posix() for path in found)[:_LISTED]


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
    stem = plain_name(Path(name.replace("\\", "/")).name[: -len(ending)])[:40] or "pictures"
    digest = _digest(stream)
    target = folder / f"{stem}-{digest}{ending}"
    part = folder / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        if target.is_file():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        stream.seek(0)
        with part.open("wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK)
        part.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise run_error("The upload cannot be kept", error) from error
    return target


def plain_name(text: str) -> str:
    """Return a text with a dash for all that cannot be in the name of a run or file; empty if nothing is left."""
    return re.sub(r"[^\w-]+", "-", text).strip("-")


def called_upload(path: Path) -> str:
    """Return what an upload is called by people: its name without the mark of its content."""
    return _DIGEST.sub("", path.name)


def as_called(text: str, source: str, called: str) -> str:
    """Return a message that calls a source as the user does, not by its place on the server."""
    if not called:
        return text
    return text.replace(str(Path(source).resolve()), called).replace(source, called)


def _digest(stream: IO[bytes]) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()[:_DIGITS]


def uploads(folder: Path) -> list[Path]:
    """Return the archives that were uploaded before, the newest first; raises RunError if they cannot be listed."""
    found: list[tuple[float, Path]] = []
    try:
        for path in folder.iterdir():
            if path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.name[0] != ".":
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found.append((path.stat().st_mtime, path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise run_error("The earlier uploads cannot be listed", error) from error
    return [path for _, path in sorted(found, reverse=True)]


def delete_upload(path: Path, root: Path) -> None:
    """Remove an upload.

    Args:
        path: The archive.
        root: Folder of the runs.

    Raises:
        RunError: while a run of the root trains on it, or if it cannot be removed.
    """
    users = [run.name for run in list_runs(root) if run.working and Path(run.source) == path.resolve()]
    if users:
        raise RunError(
            f"{called_upload(path)} is being used by the run {users[0]}; wait for its end, or stop it first."
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise run_error(f"{called_upload(path)} cannot be deleted", error) from error


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _uploaded() -> tuple[Path, Path]:
    """Return the folder of all uploads, and that of what was unpacked from them."""
    return uploads_root().resolve(), (user_cache_path("concept-tuning") / "archives").resolve()


def _shows_uploads(path: Path) -> bool:
    """Whether a path lies among uploads or what was unpacked from them, or is a folder in which the latter is seen."""
    archives, unpacked = _uploaded()
    there = [folder for folder in (path, *path.parents) if folder.exists()]
    # Asked of the system, since runs/Uploads is runs/uploads on some.
    if any(_exists(kept) and folder.samefile(kept) for kept in (archives, unpacked) for folder in there):
        return True
    if not (_exists(unpacked) and unpacked.is_relative_to(path)):
        return False
    return not any(part[0] in "._" for part in unpacked.relative_to(path).parts)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # nobody here can look into it
        return False


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
