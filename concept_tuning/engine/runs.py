"""The run folder: everything a run is, in files that survive a closed tab, a restart and a kill.

Layout::

    config.json          every setting            split.json       keys of each split, by split
    data.json            classes, groups, fingerprint, problem files
    versions.json        versions of Python and the libraries, platform
    predicts.json        which splits are predicted in the end; only of a run that does not predict all
    status.json          state, progress, time left (replaced atomically)
    metrics.jsonl        one line a step and an evaluation; no clock values, so runs compare byte for byte
    checkpoints/         the last good checkpoints best/model.safetensors  the best epoch's weights
    predictions/         probabilities of every split
    results.json         measures of validation and test
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from concept_tuning.config import RunConfig
from concept_tuning.data.table import SPLITS
from concept_tuning.engine.processes import born
from concept_tuning.errors import RunError

#: What a start leaves that was killed before its settings stood, and what a run leaves that failed before its first
#: checkpoint.
_FIRST_FILE = re.compile(r"\.lock|(versions|predicts)\.json|\.(versions|predicts|config)\.json\.\d+\.tmp")
_FAILED_FILE = re.compile(
    r"\.lock|(config|split|data|versions|predicts|status)\.json|metrics\.jsonl|(error|process)\.log|stop-requested|\..+\.\d+\.tmp"
)
#: Largest files that are read, in bytes: splits name every picture, some ten million in a GiB; metrics have a line a
#: step, some 800,000 in a quarter of that. What is read for every list of the runs is small.
_LARGEST = {
    "split.json": 1 << 30,
    "data.json": 1 << 30,
    "metrics.jsonl": 1 << 28,
    "config.json": 1 << 22,
    "status.json": 1 << 22,
}
_LARGE = 1 << 26
#: Most of a name that goes into the name of a run folder, in bytes of UTF-8; file systems take 255 for the whole.
_PART_BYTES = 64
#: Windows' mark of a folder that is a link to another.
_JUNCTION = 0xA0000003
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: How long somebody may read a file that is to be replaced, on Windows.
_READER_SECONDS = 1.0
#: How long a start may take that only looks whether a folder is free.
_LOOK_SECONDS = 1.0
_LIBRARIES = ("concept-tuning-studio", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "safetensors")


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The settings; a folder without this file is not a run."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_weights(self) -> Path:
        """Weights of the best epoch by validation."""
        return self.path / "best" / "model.safetensors"

    def predictions_file(self, split: str) -> Path:
        """Probabilities of a split."""
        return self.path / "predictions" / f"{split}.safetensors"

    @classmethod
    def create(cls, path: Path, config: RunConfig, *, splits: Sequence[str] = SPLITS) -> RunFolder:
        """Make a new run folder and write its settings.

        Args:
            path: The folder.
            config: The settings.
            splits: Which splits are predicted in the end, also by who resumes it.

        Raises:
            RunError: if the folder already holds a run or other files, or cannot be written, as by a name that is too
                long.
        """
        folder = cls(Path(path))
        try:
            folder._refuse_taken()
            folder.path.mkdir(parents=True, exist_ok=True)
            with folder.locked():
                folder._refuse_taken()  # by another that was started at the same moment
                folder._clear()
                folder.write_json("versions.json", versions())
                if tuple(splits) != SPLITS:
                    folder.write_json("predicts.json", {"splits": list(splits)})
                folder.write_json("config.json", config.to_dict())
        except OSError as error:
            full = error.errno in _FULL
            what = "the disk is full. Free some space" if full else f"{error.strerror}. Name another --run-dir"
            raise RunError(f"Cannot write the run folder {path}: {what}, and start again.") from error
        return folder

    def _refuse_taken(self) -> None:
        """Raise :class:`RunError` unless there is no folder, an empty one, or what a killed or failed start left."""
        if self.config_file.exists():
            if self.status().get("state") != "failed" or not self._holds_only(_FAILED_FILE):
                raise RunError(
                    f"{self.path} already holds a run. Go on with it by `concept-tuning resume {self.path}`, "
                    "or name another --run-dir."
                )
        elif self.path.exists() and not self._holds_only(_FIRST_FILE):
            raise RunError(f"{self.path} exists and is not an empty folder; name another --run-dir.")

    def _holds_only(self, names: re.Pattern[str]) -> bool:
        return self.path.is_dir() and all(names.fullmatch(file.name) for file in self.path.iterdir())

    def _clear(self) -> None:
        """Remove what a killed or failed start left; last what tells that it failed, so that it can be repeated."""
        last = (self.path / "status.json", self.config_file)
        for file in self.path.iterdir():
            if file not in last and file.name != ".lock" and _FAILED_FILE.fullmatch(file.name):
                file.unlink()
        for file in last:
            file.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder; raises :class:`RunError` if there is no run or it cannot be looked into."""
        folder = cls(Path(path))
        try:
            found = folder.config_file.is_file()
        except OSError as error:  # of a name that is too long, or for lack of rights
            raise RunError(f"{path} cannot be opened: {error.strerror or error}.") from error
        if not found:
            raise RunError(f"{path} is not a run folder: it has no config.json.")
        return folder

    def config(self) -> RunConfig:
        """Return the run's settings."""
        return RunConfig.from_dict(self.read_json("config.json", "method"))

    def splits(self) -> tuple[str, ...]:
        """Return the splits that are predicted in the end; raises :class:`RunError` if that cannot be read."""
        if not (self.path / "predicts.json").exists():
            return SPLITS
        found = self.read_json("predicts.json", "splits")["splits"]
        if not isinstance(found, list) or not all(name in SPLITS for name in found):
            raise RunError(f"{self.path / 'predicts.json'} does not name splits; the run folder is damaged.")
        return tuple(found)

    def read_json(self, name: str, *keys: str) -> dict[str, Any]:
        """Read one of the run's JSON files; raises :class:`RunError` if it is missing, damaged or lacks a key."""
        path = self.path / name
        try:
            found = json.loads(read_whole(path).decode("utf-8"))
        except FileNotFoundError as error:
            raise RunError(f"The run folder {self.path} has no {name}; it is not whole.") from error
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({error}); the run folder is damaged.") from error
        if not isinstance(found, dict) or not set(keys) <= set(found):
            lacking = ", ".join(keys) or "an object"
            raise RunError(f"{path} does not hold what it should ({lacking}); the run folder is damaged.")
        return found

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file so that a reader sees the old one or the new one, never a part."""
        write_atomically(self.path / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def status(self) -> dict[str, Any]:
        """Return the last written status; an empty one where there is none yet."""
        return self.read_json("status.json") if (self.path / "status.json").is_file() else {}

    def refuse_links(self) -> None:
        """Raise :class:`RunError` if the folder holds anything but files and folders, before anything is written in it.

        In a stranger's run, a link would have files outside overwritten or removed. The folder itself may be reached
        through a link.
        """
        waiting = [self.path]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        found = entry.stat(follow_symlinks=False)
                        mode, junction = found.st_mode, getattr(found, "st_reparse_tag", 0) == _JUNCTION
                        if stat.S_ISDIR(mode) and not junction:
                            waiting.append(Path(entry))
                        elif junction or not stat.S_ISREG(mode):
                            kind = "a link" if junction or stat.S_ISLNK(mode) else "no plain file"
                            raise RunError(
                                f"{entry.path} is {kind}, which can lead out of the run folder; nothing was done. "
                                "Put a plain file or folder in its place, or remove it."
                            )
            except FileNotFoundError:
                pass  # removed meanwhile by the process that holds the lock
            except OSError as error:
                raise RunError(f"{self.path} cannot be looked through: {error.strerror or error}.") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; raises :class:`RunError` while another works on it, or if it is read-only.

        The lock is the operating system's and falls with the process, however it ends.
        """
        file = self._lock_file
        if file.is_symlink():
            raise RunError(f"The run folder {self.path} cannot be worked on: {file} is a link. Remove it first.")
        lock = FileLock(file)
        try:
            lock.acquire(timeout=_LOOK_SECONDS)
        except Timeout as error:
            raise RunError(
                f"Another process is working on {self.path}; wait for it to end or stop it first."
            ) from error
        except OSError as error:
            full = error.errno in _FULL
            what = "the disk is full. Free some space" if full else f"{error.strerror or error}. Make it writable"
            raise RunError(f"The run folder {self.path} cannot be worked on: {what} first.") from error
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process works on the run, by its lock.

        The lock is only looked at: no file is made or changed, no link followed, and watchers do not see each other.
        False too where it cannot be told: there is no lock, it is no plain file, or it may not be read.
        """
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe is not waited for
        try:
            descriptor = os.open(self._lock_file, flags)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(descriptor).st_mode) and _is_locked(descriptor)
        finally:
            os.close(descriptor)

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"


def _is_locked(descriptor: int) -> bool:
    """Whether another holds the lock of an open file, as :mod:`filelock` takes it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return True
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing would not do it if the server was forked meanwhile
    return False


class StatusWriter:
    """Keeps ``status.json`` up to date without writing it more than once a second."""

    def __init__(self, folder: RunFolder, *, active: bool = True, interval: float = 1.0) -> None:
        self._folder = folder
        self._active = active
        self._interval = interval
        self._written = 0.0
        self._values: dict[str, Any] = {}

    def update(self, *, force: bool = False, **values: Any) -> None:
        """Merge values into the status and write it, at once if ``force`` or the state changed."""
        changed = values.get("state", self._values.get("state")) != self._values.get("state")
        self._values.update(values)
        now = time.monotonic()
        if not self._active or not (force or changed or now - self._written >= self._interval):
            return
        self._written = now
        pid, written = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        stamp = {"pid": pid, "born": born(pid), "updated": written}
        self._folder.write_json("status.json", self._values | stamp)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by ``text`` in one step, on disk before it becomes visible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a dead process of the same id; a link would be written through
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Put a file in place of another; on Windows not before whoever reads that one has closed it."""
    until = time.monotonic() + _READER_SECONDS
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() >= until:
                raise
        time.sleep(0.02)


def read_whole(path: Path, most: int | None = None) -> bytes:
    """Return the content of a file of a run folder or diagnosis, be it a stranger's.

    Args:
        path: The file.
        most: Bytes at most; None: what a run writes in a file of that name.

    Raises:
        RunError: if it is a link, a pipe, a device or a folder, or larger.
        OSError: if there is none or it cannot be read.
    """
    check_size(path, most)
    return path.read_bytes()


def check_size(path: Path, most: int | None = None) -> int:
    """Return how many bytes a file of a run folder or diagnosis has; raises as :func:`read_whole`, which reads it."""
    found, most = path.lstat(), most or _LARGEST.get(path.name, _LARGE)
    if not stat.S_ISREG(found.st_mode):
        raise RunError(f"{path} cannot be read: it is no plain file; the folder is damaged.")
    if found.st_size > most:
        raise RunError(f"{path} cannot be read: it has more than {most >> 20} MiB, which is too much.")
    return found.st_size


def versions() -> Mapping[str, str]:
    """Return the versions of Python, the platform and the libraries a result depends on."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def default_run_dir(config: RunConfig, *, root: Path = Path("runs")) -> Path:
    """Return a fresh, telling folder name of at most 200 bytes: data, method, backbone, seed and time.

    Long names of data and backbone are cut.
    """
    source = Path(config.data.source).stem if config.data.source else "data"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parts = (source, config.method, config.backbone.architecture, f"seed{config.engine.seed}", stamp)
    plain = ("".join(c if c.isalnum() or c in "-." else "-" for c in part) for part in parts)
    name = "_".join(part.encode()[:_PART_BYTES].decode(errors="ignore") for part in plain)
    name = name.lstrip(".")  # a hidden folder is none of the runs that are listed
    candidate, count = root / name, 2
    while os.path.lexists(candidate):
        candidate, count = root / f"{name}-{count}", count + 1
    return candidate
