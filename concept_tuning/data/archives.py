"""Zip and tar archives of pictures, unpacked once into the cache."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from concept_tuning.config import DataConfig
from concept_tuning.data.csv_file import csv_table, is_listing
from concept_tuning.data.folders import SPLIT_NAMES, SUFFIXES, folder_table, is_hidden
from concept_tuning.data.printable import printable
from concept_tuning.data.table import ImageTable
from concept_tuning.data.unpacking import extract_archive, writing
from concept_tuning.errors import DataError

_DIGITS = 16


def archive_table(path: Path, config: DataConfig) -> ImageTable:
    """Unpack an archive into the cache, or find it there, and list its pictures.

    The archive's top may be any number of folders that hold nothing but the next one. If a single CSV file lies
    there whose first line names paths and labels, it counts (:func:`~concept_tuning.data.csv_file.csv_table`,
    without absolute paths, and with at most ``max_archive_entries`` pictures), else the class folders
    (:func:`~concept_tuning.data.folders.folder_table`).

    Args:
        path: The archive.
        config: The limits, ``max_pixels`` and the cache folder; unpacked archives lie in ``archives`` there,
            named by their content.

    Raises:
        DataError: The archive cannot be unpacked (:func:`extract_archive`), or its content cannot be used.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"The archive {path} cannot be read ({error.strerror}).") from error
    base = user_cache_path("concept-tuning") if config.cache_dir is None else Path(config.cache_dir).expanduser()
    target = base / "archives" / digest[:_DIGITS]
    if not target.is_dir():
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(target.with_name(f"{target.name}.lock"))
            lock.acquire()
        try:
            _extract_once(path, target, config)
        finally:
            lock.release()
    table = _open(path, target, config)
    return replace(table, source=str(path), stamp=lambda row: f"{digest}|{table.keys[row]}")


def _extract_once(path: Path, target: Path, config: DataConfig) -> None:
    """Unpack unless another process has done so; the caller holds the lock."""
    if target.is_dir():
        return
    for leftover in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    extract_archive(
        path,
        target,
        max_entries=config.max_archive_entries,
        max_bytes=config.max_archive_bytes,
        max_ratio=config.max_archive_ratio,
    )


def _open(path: Path, target: Path, config: DataConfig) -> ImageTable:
    """List what was unpacked; messages name the archive in place of the cache folder."""
    try:
        folder = _step_down(target)
        tables = sorted(entry for entry in folder.glob("*.[cC][sS][vV]") if not is_hidden(entry.name))
        if len(tables) == 1 and is_listing(tables[0]):
            return csv_table(tables[0], config, allow_absolute=False, most=config.max_archive_entries)
        return folder_table(folder, config)
    except DataError as error:
        shown = printable(str(target))  # as messages have it
        raise DataError(str(error).replace(shown, str(path)).replace(str(target), str(path))) from error


def _step_down(folder: Path) -> Path:
    """Go down through folders that hold nothing but one folder, unless that is a split or a class."""
    while True:
        below = _visible(folder)
        inner = [entry for entry in below if entry.is_dir()]
        if len(inner) != 1 or len(below) > 1 or inner[0].name.lower() in SPLIT_NAMES:
            return folder
        if not any(entry.is_dir() or entry.suffix.lower() == ".csv" for entry in _visible(inner[0])):
            return folder
        folder = inner[0]


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder and matters: folders, pictures and CSV files."""
    kinds = SUFFIXES | {".csv"}
    entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
    return [entry for entry in entries if entry.is_dir() or entry.suffix.lower() in kinds]
