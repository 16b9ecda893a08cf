"""Decoded pictures on disk: each is decoded once, made small, and then read one at a time.

A cache is one folder, named by what it was made from:

- ``pixels.bin``: the pictures one after another, (h, w, 3) uint8;
- ``index.npy``: (N, 3) int64, offset in bytes, height and width of each row; -1 for an unreadable one;
- ``content.npy``: (N, 32) uint8, SHA-256 of each row's shape and full-size decoded bytes;
- ``meta.json``: format, side, sizes, digests of the two arrays, and the unreadable rows with the reasons;
- ``used``: an empty file whose time of change says when the cache was last opened.

It is built in a folder beside its place and moved there whole, so that a half-built one is never read. When one is
built, those that have not been opened for :data:`KEPT_DAYS` are removed: pictures that change leave a cache behind each
time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from platformdirs import user_cache_path
from torch import Tensor

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import UnreadableImage, keeping_turn
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError

FORMAT = 1
LONGEST_ASPECT = 4
#: Days for which a cache is kept that nobody opens; pictures whose cache is gone are decoded again.
KEPT_DAYS = 60
_NAME = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = hashlib.sha256().digest_size
_MOST_THREADS = 4
_REPORT_SECONDS = 5.0
_PIXELS, _INDEX, _CONTENT, _META, _USED = "pixels.bin", "index.npy", "content.npy", "meta.json", "used"

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


def cache_side(config: DataConfig) -> int:
    """Short side of a cached picture, in pixels: a quarter more than the network input, as room to crop."""
    return round(config.image_size * 1.25)


def cache_root(config: DataConfig) -> Path:
    """Folder that holds the caches: ``images`` in ``config.cache_dir`` or in the user's cache folder."""
    base = user_cache_path("concept-tuning") if config.cache_dir is None else Path(config.cache_dir).expanduser()
    return base / "images"


def cache_key(table: ImageTable, config: DataConfig) -> str:
    """Name of a table's cache: SHA-256 over the format, the side, the size limit, and each key and stamp."""
    digest = hashlib.sha256(f"{FORMAT},{cache_side(config)},{config.max_pixels}\n".encode())
    for row, key in enumerate(table.keys):
        digest.update(json.dumps([key, _stamp(table, row)]).encode() + b"\n")
    return digest.hexdigest()


class ImageCache:
    """The pictures of one table, read one at a time, so that the memory does not grow with their number.

    Can be pickled (it then carries its path alone and opens the files again) and be read from several
    processes and threads at once.

    Attributes:
        path: Its folder.
        side: Short side that larger pictures were brought to, in pixels.
        readable: (N,) bool, False for pictures that could not be decoded.
        problems: The pictures that could not be decoded, and why.
        fingerprint: SHA-256 (hexadecimal) over the decoded content of all rows in order.
    """

    def __init__(self, path: Path) -> None:
        """Open a finished cache; raises :class:`DataError` if it is missing or damaged."""
        self.path = Path(path)
        try:
            meta = json.loads((self.path / _META).read_text(encoding="utf-8"))
            self._index = np.load(self.path / _INDEX)
            self._content = np.load(self.path / _CONTENT)
            fault = _fault(meta, self._index, self._content, (self.path / _PIXELS).stat().st_size)
            if fault is None:
                self.side = int(meta["side"])
                self.fingerprint = str(meta["content_sha256"])
                self.problems = tuple(ProblemFile(key, reason) for key, reason in meta["problems"])
                self._pixels = _PixelFile(self.path / _PIXELS)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            fault = str(error) or type(error).__name__
        if fault is not None:
            raise DataError(f"The image cache {self.path} is damaged ({fault}); delete that folder.")
        self.readable = self._index[:, 0] >= 0

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[type[ImageCache], tuple[Path]]:
        return ImageCache, (self.path,)

    def image(self, row: int) -> Tensor:
        """Return picture ``row`` as its own (3, h, w) uint8 tensor.

        Raises:
            IndexError: There is no such row.
            DataError: The picture could not be decoded when the cache was made.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is outside 0..{len(self) - 1}")
        offset, height, width = self._index[row].tolist()
        if offset < 0:
            raise DataError(f"Picture {row} of the image cache {self.path} could not be decoded when it was made.")
        pixels = self._pixels.read(offset, height * width * 3)
        return torch.from_numpy(pixels).view(height, width, 3).permute(2, 0, 1)

    def content(self, row: int) -> bytes:
        """Return the SHA-256 of picture ``row`` as decoded at full size; zeros if it is unreadable."""
        return self._content[row].tobytes()


def open_cache(
    table: ImageTable, config: DataConfig, *, report: Report | None = None, progress: Progress | None = None
) -> ImageCache:
    """Open the cache of a table, and make it first where there is none that can be used.

    A picture is centrally cropped where its long side is over four times the short one, and brought to a
    short side of :func:`cache_side` pixels with antialiasing; it is never enlarged. Pictures are decoded in
    a few threads, large ones (:data:`~concept_tuning.data.decode.LARGE_PIXELS`) in turn, so ``table.read`` is called
    from several at once; the files do not depend on the threads.
    A damaged cache is made again, and so is one with an unreadable picture that has become readable.

    Args:
        table: The pictures; each is read at most once while the cache is made.
        config: Image size, size limit and cache folder.
        report: Is given a line of text now and then.
        progress: Is called with the number of pictures done and the number of all.

    Raises:
        DataError: The cache folder cannot be written or its disk is full.
    """
    report = report or _ignore
    root = cache_root(config)
    path = root / cache_key(table, config)
    with suppress(OSError):  # before it is read, so that nobody removes it meanwhile
        os.utime(path / _USED)
    cache = _open_good(path, table)
    if cache is None:
        with _explained(root, lambda: 3.0 * len(table) * cache_side(config) ** 2), _locked(path, report):
            cache = _open_good(path, table)
            if cache is None:
                if path.exists():
                    report("The image cache is damaged or out of date and is made again.")
                _remove_unused(root)
                _build(table, path, cache_side(config), report, progress)
                cache = ImageCache(path)
    with suppress(OSError):
        (path / _USED).touch()
    return cache


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Crop to an aspect ratio of at most four and bring the short side to ``side`` pixels, never enlarging.

    Args:
        pixels: (H, W, 3) uint8.
        side: Wanted short side, in pixels.

    Returns:
        (h, w, 3) uint8, contiguous.
    """
    height, width = pixels.shape[:2]
    longest = LONGEST_ASPECT * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    pixels = pixels[top : top + longest, left : left + longest]
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short > side:
        shape = (max(side, round(width * side / short)), max(side, round(height * side / short)))
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(image.resize(shape, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels)


class _PixelFile:
    """A file that several threads read from at once, and that stays open though its folder goes."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = Lock()
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, count: int) -> np.ndarray:
        """Return bytes as an array of their own; raises DataError if the file ends before."""
        pixels = np.empty(count, dtype=np.uint8)
        if hasattr(os, "preadv"):
            found = os.preadv(self._descriptor, [pixels.data], offset)
        else:
            with self._lock:  # where there is no reading at a place
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                data = os.read(self._descriptor, count)
            found, pixels[: len(data)] = len(data), np.frombuffer(data, dtype=np.uint8)
        if found != count:
            raise DataError("The image cache ends too early; delete its folder, and it is made again.")
        return pixels


@dataclass(frozen=True)
class _Decoded:
    pixels: np.ndarray | None
    digest: bytes
    reason: str = ""


def _decode_row(table: ImageTable, row: int, side: int) -> _Decoded:
    with keeping_turn():
        return _decode_small(table, row, side)


def _decode_small(table: ImageTable, row: int, side: int) -> _Decoded:
    try:
        pixels = table.read(row)
    except UnreadableImage as error:
        return _Decoded(None, bytes(_DIGEST_BYTES), str(error))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"picture {table.keys[row]!r} was read as {pixels.shape} {pixels.dtype}, not (H, W, 3) uint8")
    digest = hashlib.sha256(f"{pixels.shape[0]},{pixels.shape[1]};".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return _Decoded(shrink(pixels, side), digest.digest())


def _decode_all(table: ImageTable, side: int) -> Iterator[_Decoded]:
    """Decode in threads and hand over in order; only a few pictures are held at a time."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for row in range(len(table)):
            waiting.append(pool.submit(_decode_row, table, row, side))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _build(table: ImageTable, path: Path, side: int, report: Report, progress: Progress | None) -> None:
    """Make the cache beside its place and move it there; the caller holds the lock."""
    for leftover in path.parent.glob(f"{path.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    part = path.parent / f"{path.name}.part-{uuid.uuid4().hex}"
    part.mkdir()
    try:
        _write(table, part, side, report, progress)
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_unused(root: Path) -> None:
    """Remove the caches in a folder that have long not been opened; what cannot be removed stays."""
    for used in root.glob(f"*/{_USED}"):
        path = used.parent
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        with suppress(OSError):  # another process makes or removes it, or the disk is read-only
            if not _NAME.fullmatch(path.name) or not _is_old(used):
                continue
            with lock.acquire(timeout=0):
                if _is_old(used):  # still
                    shutil.rmtree(path, ignore_errors=True)


def _is_old(used: Path) -> bool:
    return used.stat().st_mtime < time.time() - KEPT_DAYS * 86_400


def _write(table: ImageTable, part: Path, side: int, report: Report, progress: Progress | None) -> None:
    count = len(table)
    index = np.full((count, 3), -1, dtype=np.int64)
    content = np.zeros((count, _DIGEST_BYTES), dtype=np.uint8)
    problems: list[tuple[str, str]] = []
    offset = 0
    report(f"Decoding {count} pictures into the cache, once.")
    last_report = time.monotonic()
    row = 0

    def needed_bytes() -> float:
        return offset / row * count if offset else 3.0 * count * side**2

    with _explained(part.parent, needed_bytes), (part / _PIXELS).open("wb") as file:
        for row, decoded in enumerate(_decode_all(table, side), start=1):
            if decoded.pixels is None:
                problems.append((table.keys[row - 1], decoded.reason))
            else:
                file.write(decoded.pixels.data)
                index[row - 1] = offset, *decoded.pixels.shape[:2]
                content[row - 1] = np.frombuffer(decoded.digest, dtype=np.uint8)
                offset += decoded.pixels.nbytes
            if progress is not None:
                progress(row, count)
            if time.monotonic() - last_report > _REPORT_SECONDS:
                last_report = time.monotonic()
                report(f"Decoded {row} of {count} pictures.")
        file.flush()
        os.fsync(file.fileno())
        np.save(part / _INDEX, index)
        np.save(part / _CONTENT, content)
        meta = {"format": FORMAT, "side": side, "count": count, "pixel_bytes": offset, "problems": problems}
        meta |= {"index_sha256": _array_sha(index), "content_sha256": _array_sha(content)}
        (part / _META).write_text(json.dumps(meta), encoding="utf-8")


def _open_good(path: Path, table: ImageTable) -> ImageCache | None:
    """Open a cache if it is whole, of this many rows, and its unreadable pictures still are."""
    try:
        cache = ImageCache(path)
    except DataError:
        return None
    if len(cache) != len(table) or any(_reads(table, int(row)) for row in np.flatnonzero(~cache.readable)):
        return None
    return cache


def _reads(table: ImageTable, row: int) -> bool:
    try:
        table.read(row)
    except UnreadableImage:
        return False
    return True


def _fault(meta: dict[str, object], index: np.ndarray, content: np.ndarray, pixel_bytes: int) -> str | None:
    """What is wrong with a cache's files, in words; None if nothing is."""
    count = meta["count"]
    if meta["format"] != FORMAT:
        return f"format {meta['format']}, not {FORMAT}"
    if index.shape != (count, 3) or index.dtype != np.int64 or content.shape != (count, _DIGEST_BYTES):
        return "an index of another size"
    if _array_sha(index) != meta["index_sha256"] or _array_sha(content) != meta["content_sha256"]:
        return "a changed index"
    if pixel_bytes != meta["pixel_bytes"]:
        return f"{pixel_bytes} bytes of pixels, not {meta['pixel_bytes']}"
    return None


def _array_sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _stamp(table: ImageTable, row: int) -> str:
    try:
        return table.stamp(row)
    except OSError as error:  # the file went away after it was listed; reading it says so too
        return f"missing: {error.errno}"


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Let one process at a time make a cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("Another process is decoding the same pictures; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(root: Path, needed_bytes: Callable[[], float]) -> Iterator[None]:
    """Turn a full or unwritable disk into words."""
    elsewhere = "or set data.cache_dir to a folder"
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            megabytes = max(1, round(needed_bytes() / 1e6))
            raise DataError(
                f"The disk is full: the image cache needs about {megabytes} MB in {root}. "
                f"Free that much there, {elsewhere} on a larger disk."
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}:
            raise DataError(
                f"The image cache cannot be written in {root} ({error.strerror}). "
                f"Make that folder writable, {elsewhere} that is."
            ) from error
        raise


def _ignore(_: str) -> None:
    pass
