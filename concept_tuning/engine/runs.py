"""The run folder: everything a run is, in files that survive a closed tab, a restart and a kill.

Layout::

    config.json          every setting            split.json       keys of each split, by split
    data.json            classes, groups, fingerprint, problem files
    versions.json        versions of Python and the libraries, platform
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
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from concept_tuning.config import RunConfig
from concept_tuning.errors import RunError

_FIRST_FILE = re.compile(r"versions\.json|\.(versions|config)\.json\.\d+\.tmp")
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
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make a new run folder and write its settings.

        Raises:
            RunError: if the folder already holds a run or other files, or cannot be written.
        """
        folder = cls(Path(path))
        if folder.config_file.exists() and not folder._clear_failed_start():
            raise RunError(
                f"{path} already holds a run. Go on with it by `concept-tuning resume {path}`, "
                "or name another --run-dir."
            )
        if folder.path.exists() and not folder._free():
            raise RunError(f"{path} exists and is not an empty folder; name another --run-dir.")
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.write_json("versions.json", versions())
            folder.write_json("config.json", config.to_dict())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the disk is full. Free some space" if full else f"{error.strerror}. Name another --run-dir"
            raise RunError(f"Cannot write the run folder {path}: {what}, and start again.") from error
        return folder

    def _free(self) -> bool:
        """Whether the folder is empty, or holds only what a start leaves that was killed before its settings stood."""
        return self.path.is_dir() and all(_FIRST_FILE.fullmatch(file.name) for file in self.path.iterdir())

    def _clear_failed_start(self) -> bool:
        """Empty a folder whose run failed before its first checkpoint; return whether it was one."""
        if self.status().get("state") != "failed" or self.checkpoints.exists():
            return False
        with self.locked():
            for name in ("config", "split", "data", "versions", "status"):
                (self.path / f"{name}.json").unlink(missing_ok=True)
            for name in ("metrics.jsonl", "error.log"):
                (self.path / name).unlink(missing_ok=True)
        (self.path / ".lock").unlink(missing_ok=True)
        return True

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder; raises :class:`RunError` if there is no run."""
        folder = cls(Path(path))
        if not folder.config_file.is_file():
            raise RunError(f"{path} is not a run folder: it has no config.json.")
        return folder

    def config(self) -> RunConfig:
        """Return the run's settings."""
        return RunConfig.from_dict(self.read_json("config.json", "method"))

    def read_json(self, name: str, *keys: str) -> dict[str, Any]:
        """Read one of the run's JSON files; raises :class:`RunError` if it is missing, damaged or lacks a key."""
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
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

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; raises :class:`RunError` while another works on it, or if it is read-only.

        The lock is the operating system's and falls with the process, however it ends.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"Another process is working on {self.path}; wait for it to end or stop it first."
            ) from error
        except OSError as error:
            raise RunError(
                f"The run folder {self.path} cannot be worked on: {error.strerror or error}. Make it writable first."
            ) from error
        try:
            yield
        finally:
            lock.release()


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
        stamp = {"pid": os.getpid(), "updated": datetime.now(UTC).isoformat(timespec="seconds")}
        self._folder.write_json("status.json", self._values | stamp)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by ``text`` in one step, on disk before it becomes visible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def versions() -> Mapping[str, str]:
    """Return the versions of Python, the platform and the libraries a result depends on."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def default_run_dir(config: RunConfig, *, root: Path = Path("runs")) -> Path:
    """Return a fresh, telling folder name: data, method, backbone, seed and time."""
    source = Path(config.data.source).stem if config.data.source else "data"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parts = (source, config.method, config.backbone.architecture, f"seed{config.engine.seed}", stamp)
    name = "_".join("".join(c if c.isalnum() or c in "-." else "-" for c in part) for part in parts)
    name = name.lstrip(".")  # a hidden folder is none of the runs that are listed
    candidate, count = root / name, 2
    while candidate.exists():
        candidate, count = root / f"{name}-{count}", count + 1
    return candidate
