"""Unpacking zip and tar archives with nothing in them trusted.

An archive is refused as a whole at the first entry that is unsafe: one that would land outside the folder, a
link, a device, an encrypted one. What an archive says of its own size is never believed; bytes are counted as
they are written.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from concept_tuning.data.archive_streams import (
    AGAIN,
    HEADER_BYTES,
    TarStream,
    XzStream,
    ZipStream,
    too_many_entries,
)
from concept_tuning.errors import ArchiveError, DataError

_OPENERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", XzStream),
    (b"", open),
)
_ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _UTF8 = 0x1 | 0x40 | 0x2000, 0x800
_DRIVE = re.compile(r".:", re.DOTALL)  # Windows takes any character before a colon for a drive
_DEEPEST = 64
_CHUNK = 1 << 18
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    MemoryError,
    RecursionError,  # tarfile goes one deeper with each header that describes the next
)


def extract_archive(path: Path, target: Path, *, max_entries: int, max_bytes: int, max_ratio: float) -> None:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz, told by its first bytes) into a new folder.

    It is unpacked beside ``target`` and moved there whole, so that ``target`` is complete if it exists, and
    nothing is left behind on failure. Files get neither owners, permissions nor times from the archive.

    Args:
        path: The archive.
        target: The folder to make; it must not exist.
        max_entries: Most files and folders in it.
        max_bytes: Most bytes of all files together.
        max_ratio: Most bytes of all files together as a multiple of the archive's own.

    Raises:
        ArchiveError: A damaged or encrypted archive; one that is over a limit or holds no files; an entry that is a
            link or special file, has an absolute or climbing name, or the same name as another (but for case or
            accents).
        DataError: No such archive; a full or unwritable disk; ``target`` exists.
    """
    if not path.is_file():
        raise DataError(f"There is no archive {path}; give the path of a zip or tar file that exists.")
    if os.path.lexists(target):
        raise DataError(f"{target} exists already; remove it, or unpack {path} to another place.")
    part = target.parent / f"{target.name}.part-{uuid.uuid4().hex}"
    try:
        with writing(part):
            part.mkdir(parents=True)
        unpacking = _Unpacking(part, path.stat().st_size, max_entries, max_bytes, max_ratio)
        with path.open("rb") as stream:
            mark = stream.read(8)
        if mark.startswith(_ZIP_MARKS):
            _unpack_zip(path, unpacking)
        else:
            _unpack_tar(path, next(opener for start, opener in _OPENERS if mark.startswith(start)), unpacking)
        if not unpacking.files:
            raise DataError("there are no files in it.")
        with writing(part):
            part.rename(target)
    except DataError as error:
        kind = DataError if isinstance(error.__cause__, OSError) else ArchiveError  # the disk's fault or its own
        raise kind(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise ArchiveError(
            f"{path}: it cannot be unpacked, as it is damaged, cut off, or neither zip nor tar "
            f"({str(error) or type(error).__name__}). Copy or make it again."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def member_parts(name: str) -> tuple[str, ...]:
    """Split an entry's name into the parts of a safe relative path; backslashes count as slashes.

    Raises:
        DataError: The name is absolute, has a drive letter, climbs, or is nested over 64 folders deep.
    """
    text = name.replace("\\", "/")
    parts = tuple(part for part in text.split("/") if part not in {"", "."})
    if text.startswith("/") or any(_DRIVE.match(part) for part in parts):
        raise DataError(f"the entry {_shown(name)} has an absolute name; {AGAIN}")
    if any(not part.strip().strip(". ") for part in parts):  # "..", and "... " too, which some systems read alike
        raise DataError(f"the entry {_shown(name)} leads out of the archive's folder; {AGAIN}")
    if "\0" in name or (os.name == "nt" and ":" in text):
        raise DataError(f"the entry {_shown(name)} has a name that is not allowed; rename it.")
    if len(parts) > _DEEPEST:
        raise DataError(f"the entry {_shown(name)} is nested more than {_DEEPEST} folders deep.")
    return parts


class _Unpacking:
    """Writes entries below one folder, and holds the count of what was written against the limits."""

    def __init__(self, folder: Path, packed_bytes: int, max_entries: int, max_bytes: int, max_ratio: float) -> None:
        self.files = 0
        self._folder = folder
        self._written = 0
        self.max_entries = max_entries
        self._limits = (packed_bytes, max_bytes, max_ratio)
        self._seen: dict[str, tuple[str, bool]] = {}

    def check_entries(self, count: int) -> None:
        """Raise DataError if there are too many entries."""
        if count > self.max_entries:
            raise too_many_entries(self.max_entries)

    def add_folder(self, name: str) -> None:
        """Make a folder."""
        parts = member_parts(name)
        self._claim(parts, is_file=False)
        with writing(self._folder):
            os.makedirs(os.path.join(self._folder, *parts), exist_ok=True)

    def add_file(self, name: str, stream: IO[bytes]) -> int:
        """Write a file; returns its number of bytes."""
        parts = member_parts(name)
        if not parts:
            raise DataError(f"the entry {_shown(name)} is a file without a name; {AGAIN}")
        self._claim(parts, is_file=True)
        place = os.path.join(self._folder, *parts)
        before = self._written
        with ExitStack() as stack:
            with writing(self._folder):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                file = stack.enter_context(open(place, "xb"))
            while chunk := stream.read(_CHUNK):
                self._written += len(chunk)
                self._check_bytes()
                with writing(self._folder):
                    file.write(chunk)
            with writing(self._folder):
                file.close()
        self.files += 1
        return self._written - before

    def _check_bytes(self) -> None:
        packed, limit, ratio = self._limits
        if self._written > limit:
            raise DataError(f"it unpacks to more than {limit} bytes; if you trust it, raise data.max_archive_bytes.")
        if self._written > ratio * packed:
            raise DataError(
                f"it unpacks to more than {ratio:g} times its own size, as archives do that are made to fill a "
                "disk; if you trust it, raise data.max_archive_ratio."
            )

    def _claim(self, parts: tuple[str, ...], *, is_file: bool) -> None:
        """Enter a path and the folders above it; raises DataError where two cannot be told apart everywhere."""
        for depth in range(1, len(parts) + 1):
            spelt, file_here = "/".join(parts[:depth]), is_file and depth == len(parts)
            folded = unicodedata.normalize("NFC", spelt).lower()
            if folded not in self._seen:
                self._seen[folded] = (spelt, file_here)
                continue
            known, was_file = self._seen[folded]
            if known != spelt:
                raise DataError(
                    f"the entries {_shown(known)} and {_shown(spelt)} cannot be told apart on every computer; "
                    "rename one of them."
                )
            if was_file or file_here:
                raise DataError(f"the entry {_shown(spelt)} is in it twice; {AGAIN}")
        self.check_entries(len(self._seen))


def _unpack_zip(path: Path, unpacking: _Unpacking) -> None:
    with ZipStream(path, unpacking.max_entries) as stream, zipfile.ZipFile(stream) as archive:
        stream.opened()
        unpacking.check_entries(len(archive.infolist()))
        for info in archive.infolist():
            name = _zip_name(info)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise DataError(_not_a_file(name, "link" if kind == stat.S_IFLNK else "special file"))
            if name.endswith(("/", "\\")) or kind == stat.S_IFDIR:
                unpacking.add_folder(name)
                continue
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"the entry {_shown(name)} is encrypted; make the archive without a password.")
            if info.compress_type not in _ZIP_METHODS:  # the others unpack without bounds in one step
                raise DataError(
                    f"the entry {_shown(name)} is compressed in an unusual way (method {info.compress_type}); "
                    "make the archive with ordinary zip compression (deflate)."
                )
            with archive.open(info) as content:
                if unpacking.add_file(name, content) != info.file_size:
                    raise zipfile.BadZipFile(f"{_shown(name)} has another size than it says")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The entry's name; names that macOS writes in UTF-8 without saying so are read as what they are."""
    name = info.orig_filename
    if name.isascii() or info.flag_bits & _UTF8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _unpack_tar(path: Path, opener: Any, unpacking: _Unpacking) -> None:
    with opener(path, "rb") as stream:
        metered = TarStream(stream)
        with tarfile.open(fileobj=cast("IO[bytes]", metered), mode="r|", bufsize=tarfile.RECORDSIZE) as archive:
            end = 0
            for count, member in enumerate(archive, start=1):
                unpacking.check_entries(count)
                metered.count_header(end, member.offset_data)
                end = archive.offset
                cast("Any", archive).members.clear()  # which tarfile keeps, with whatever their headers say
                archive.pax_headers = {}  # and what holds for all that follow, which no file needs here
                if member.isdir():
                    unpacking.add_folder(member.name)
                    continue
                if not member.isreg() or member.sparse is not None:
                    raise DataError(_not_a_file(member.name, _tar_kind(member)))
                data = archive.extractfile(member)
                with metered.unlimited():
                    unpacking.add_file(member.name, cast("IO[bytes]", data))
            start = archive.offset - (metered.position - len(metered.tail))
            end_mark = metered.tail[start : start + tarfile.BLOCKSIZE]
            if end_mark != bytes(tarfile.BLOCKSIZE):  # tarfile stops in silence at a cut or damaged header
                raise tarfile.ReadError("its end mark is lacking")
        stream.read(HEADER_BYTES)  # padding; the checksum behind it is compared at the end


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "link"
    return "file with holes" if member.isreg() else "special file"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failed write into words."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"it has an entry whose name is too long for this disk; {AGAIN}") from error
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DataError(
                f"the disk is full while it is unpacked to {folder.parent}. Free some space there, or set "
                "data.cache_dir to a folder on a larger disk."
            ) from error
        raise DataError(
            f"it cannot be unpacked to {folder.parent} ({error.strerror or error}). Make that folder writable, or "
            "set data.cache_dir to one that is."
        ) from error


def _not_a_file(name: str, kind: str) -> str:
    return f"the entry {_shown(name)} is a {kind}; {AGAIN}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}...")
