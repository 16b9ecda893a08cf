"""A CSV file that lists pictures with their labels, and perhaps splits, groups and masks."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import math
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import decode_mask
from concept_tuning.data.folders import (
    SPLIT_NAMES,
    check_given_splits,
    class_list,
    key_text,
    natural_key,
    picture_readers,
    said_problems,
    validation_note,
)
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError

COLUMNS = {
    "path": ("path", "image", "file", "filename", "filepath", "imagepath"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "group": ("group",),
    "mask": ("mask", "maskpath"),
}
_DELIMITERS = ",;\t"


def csv_table(path: Path, config: DataConfig, *, allow_absolute: bool = True) -> ImageTable:
    """List the pictures that a CSV file names; each is decoded only when it is read.

    The first line names the columns, in any case and order: ``path`` (or ``image``, ``file``, ``filename``) and
    ``label`` (``class``, ``target``), and perhaps ``split``, ``group`` and ``mask`` (``mask_path``); others are
    passed over. Comma, semicolon or tab may separate; the text is UTF-8, or UTF-16 with its mark. Paths are
    relative to the file's folder and stay in it. Labels and groups are text; where all are numbers they are
    sorted as such, else naturally. Files that are not there are left out and listed as problems. Pictures
    without a mask have no entry ``object`` in ``masks``.

    Args:
        path: The CSV file.
        config: ``max_pixels`` is used.
        allow_absolute: Take absolute paths too; the file's author can then name any file of the machine.

    Raises:
        DataError: Naming the line: a column is lacking or named twice; a path twice; no label; an unknown
            split; a group or split for some pictures alone; a path that leaves the folder. Also a file that is
            no CSV, none of the pictures there, a class without pictures, fewer than two classes, or a class that
            training lacks.
    """
    folder = os.path.abspath(path.parent)
    records = _read(path, folder, allow_absolute)
    try:
        found, problems = _present(records)
        names, labels = _codes([record.label for record in records], [record.label for record in found])
        _check_classes(names, labels, problems)
        splits = _splits(found)
        if splits is not None:
            check_given_splits(set(splits.tolist()), lambda code: {names[n] for n in labels[splits == code]})
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    groups = [record.group for record in found]
    group_names, group_codes = _codes(groups, groups) if any(groups) else ((), None)
    keys = tuple(record.key for record in found)
    read, stamp = picture_readers([record.file for record in found], keys, config.max_pixels)
    return ImageTable(
        source=str(path),
        class_names=names,
        group_names=group_names,
        keys=keys,
        labels=labels,
        groups=group_codes,
        splits=splits,
        read=read,
        stamp=stamp,
        masks=_mask_reader([record.mask for record in found], config.max_pixels),
        problems=tuple(problems),
        validation_note=validation_note(splits),
    )


def is_listing(path: Path) -> bool:
    """Whether a CSV file's first line names a column of paths and one of labels."""
    try:
        _columns(path, _text(path))
    except DataError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    key: str
    file: str
    label: str
    split: str
    group: str
    mask: str


def _read(path: Path, folder: str, allow_absolute: bool) -> list[_Record]:
    """Return the checked lines of the file."""
    text = _text(path)
    columns, delimiter, width = _columns(path, text)
    records: list[_Record] = []
    line_of: dict[str, int] = {}
    filled = ((line, cells) for line, cells in _lines(path, text, delimiter) if any(cells))
    next(filled)  # the names of the columns
    for line, cells in filled:
        where = f"{path}, line {line}"
        if any(cells[width:]):
            raise DataError(
                f"{where}: {len(cells)} cells, but the first line names {width} columns; "
                "put a cell that contains the separator in double quotes."
            )
        value = {name: cells[n] if n < len(cells) else "" for name, n in columns.items()}
        record = _record(line, value, folder, allow_absolute, where)
        earlier = line_of.get(record.file, line_of.get(record.key))
        if earlier is not None:
            raise DataError(f"{path}: lines {earlier} and {line} name the same picture {record.key!r}; remove one.")
        line_of[record.file] = line_of[record.key] = line
        records.append(record)
    if not records:
        raise DataError(f"{path}: no pictures are listed below the first line; add a line for each.")
    for name, cells in (("split", [r.split for r in records]), ("group", [r.group for r in records])):
        if any(cells) and not all(cells):
            line = records[cells.index("")].line
            raise DataError(
                f"{path}, line {line}: the {name} is missing; give it for every picture, or leave the column out."
            )
    return records


def _record(line: int, value: dict[str, str], folder: str, allow_absolute: bool, where: str) -> _Record:
    for name in ("path", "label"):
        if not value[name]:
            raise DataError(f"{where}: the {name} is missing; fill it in or remove the line.")
    split = value.get("split", "")
    if split and split.lower() not in SPLIT_NAMES:
        near = difflib.get_close_matches(split.lower(), SPLIT_NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use train, val or test."
        raise DataError(f"{where}: there is no split {split!r}; {hint}")
    key, file = _resolve(value["path"], folder, allow_absolute, where)
    mask = value.get("mask", "")
    if mask:
        mask = _resolve(mask, folder, allow_absolute, where)[1]
    return _Record(line, key, file, value["label"], split, value.get("group", ""), mask)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not {encoding.upper()} text; save the file as CSV in UTF-8.") from error


def _columns(path: Path, text: str) -> tuple[dict[str, int], str, int]:
    """Return the place of each known column, the separator, and the number of columns."""
    first = next((line for line in re.split(r"[\r\n]+", text) if line.strip(" ,;\t")), None)
    if first is None:
        raise DataError(f"{path} is empty; its first line must name the columns path and label.")
    for delimiter in _DELIMITERS:
        header = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))
        names = [re.sub(r"[\s_-]", "", name).lower() for name in header]
        places = {column: [n for n, name in enumerate(names) if name in known] for column, known in COLUMNS.items()}
        if places["path"] and places["label"]:
            for column, where in places.items():
                if len(where) > 1:
                    several = " and ".join(repr(header[n].strip()) for n in where)
                    raise DataError(f"{path}, line 1: {several} both name the {column}; rename or remove one of them.")
            return {column: where[0] for column, where in places.items() if where}, delimiter, len(header)
    raise DataError(
        f"{path}, line 1: it must name the columns path and label (and perhaps split, group, mask), separated by "
        f"comma, semicolon or tab; found {first[:80]!r}."
    )


def _lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line that each record starts on, from 1, and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: it cannot be read as CSV ({error}); look for a stray quote.") from error


def _resolve(cell: str, folder: str, allow_absolute: bool, where: str) -> tuple[str, str]:
    """Return a picture's key and file; raises DataError where the path is not allowed."""
    if "\0" in cell:
        raise DataError(f"{where}: the path {cell!r} contains a zero character; remove it.")
    name = cell.replace("\\", "/")
    windows = PureWindowsPath(name)
    if posixpath.isabs(name) or windows.is_absolute() or (os.name == "nt" and windows.drive):
        if not allow_absolute:
            raise DataError(f"{where}: the path {cell!r} is absolute; give it relative to the CSV file's folder.")
        normal = posixpath.normpath(name)
        return key_text(normal), normal
    normal = posixpath.normpath(name)
    if normal == ".." or normal.startswith("../"):
        raise DataError(
            f"{where}: the path {cell!r} leaves the folder of the CSV file; put the picture inside it, or move "
            "the CSV file up."
        )
    return key_text(normal), _spelt_as_stored(folder, normal)


def _spelt_as_stored(folder: str, name: str) -> str:
    """The file of a relative path, whichever way its accents are stored on disk."""
    file = os.path.join(folder, name)
    if name.isascii() or os.path.exists(file):
        return file
    others = (os.path.join(folder, unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))
    return next((other for other in others if os.path.exists(other)), file)


def _present(records: Sequence[_Record]) -> tuple[list[_Record], list[ProblemFile]]:
    """Keep the lines whose picture is there; a mask that is not there is taken away from its line."""
    found: list[_Record] = []
    problems: list[ProblemFile] = []
    for record in records:
        fault, mask = file_fault(record.file), record.mask
        if fault:
            problems.append(ProblemFile(record.key, f"{fault} (line {record.line})"))
            continue
        if mask and (fault := file_fault(mask)):
            problems.append(ProblemFile(record.key, f"its mask {mask} is left out: {fault} (line {record.line})"))
            mask = ""
        found.append(replace(record, mask=mask))
    if not found:
        raise DataError(
            "none of the listed pictures is there; paths are relative to the folder of the CSV file."
            + said_problems(problems)
        )
    return found, problems


def file_fault(file: str) -> str | None:
    """Why a file cannot be opened as a picture; None if nothing speaks against it."""
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return None if stat.S_ISREG(mode) else "not a regular file"


def _codes(values: Sequence[str], used: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the different ``values`` in order, and the place of each of ``used`` among them, int64."""
    different = set(values)
    key: Callable[[str], tuple[object, ...]] = natural_key
    if all(math.isfinite(_number(value)) for value in different):
        key = _by_number
    names = tuple(sorted(different, key=key))
    place = {name: n for n, name in enumerate(names)}
    return names, np.array([place[value] for value in used], dtype=np.int64)


def _by_number(name: str) -> tuple[object, ...]:
    return _number(name), name


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_classes(names: Sequence[str], labels: np.ndarray, problems: Sequence[ProblemFile]) -> None:
    if len(names) < 2:
        raise DataError(f"there is only the class {names[0]!r}; at least two classes are needed.")
    counts = np.bincount(labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"none of the pictures of {class_list(empty)} is there; put them in place or remove their lines."
            + said_problems(problems)
        )


def _splits(records: Sequence[_Record]) -> np.ndarray | None:
    if not records[0].split:
        return None
    return np.array([SPLIT_NAMES[record.split.lower()] for record in records], dtype=np.int8)


def _mask_reader(files: Sequence[str], max_pixels: int) -> Callable[[int], dict[str, np.ndarray]] | None:
    if not any(files):
        return None

    def masks(row: int) -> dict[str, np.ndarray]:
        return {"object": decode_mask(Path(files[row]), max_pixels=max_pixels)} if files[row] else {}

    return masks
