"""A CSV file that lists pictures with their labels, and perhaps splits, groups, masks and units."""

from __future__ import annotations

import difflib
import math
import os
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np

from concept_tuning.config import DataConfig, UnitRule
from concept_tuning.data.containment import LEADS_OUT, Containment, file_fault
from concept_tuning.data.csv_lines import filled_lines, read_heading
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
from concept_tuning.data.printable import printable
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.data.units import Units, units_by_rule
from concept_tuning.errors import DataError

#: Most pictures that a list may name.
MOST_PICTURES = 2_000_000
_NOT_KNOWN = ("na", "n/a", "nan", "none", "null", "?", "-")
_REPEATED = ("label", "split", "group", "unit")


def csv_table(path: Path, config: DataConfig, *, allow_absolute: bool = True, most: int = MOST_PICTURES) -> ImageTable:
    """List the pictures that a CSV file names; each is decoded only when it is read.

    The first line names the columns, in any case and order: ``path`` (or ``image``, ``file``, ``filename``) and
    ``label`` (``class``, ``target``), and perhaps ``split``, ``group``, ``mask`` (``mask_path``) and ``unit``
    (``subject``, ``patient``); others are passed over. Comma, semicolon or tab may separate; the text is UTF-8, or
    UTF-16 with its mark. Paths are relative to the file's folder and stay in it. Labels and groups are text; where all
    are numbers they are sorted as such, else naturally. Files that are not there are left out and listed as problems.
    Pictures without a mask have no entry ``object`` in ``masks``. What several pictures show is their unit, which
    splits do not part; where it is empty or ``NA``, a picture is by itself.

    Args:
        path: The CSV file, of at most 256 MiB; it is read a line at a time.
        config: ``max_pixels`` is used, and ``units``, by the pictures' paths, where the file has no such column.
        allow_absolute: Take absolute paths too, and follow links out of the folder; the file's author can then
            name any file of the machine.
        most: Most pictures that it may name.

    Raises:
        DataError: Naming the line: a column is lacking or named twice; a path twice; no label; an unknown
            split; a group or split for some pictures alone; a path that leaves the folder. Also units both in a
            column and by a rule, or none by that rule; a file that is no CSV or too large, none of the pictures there,
            a class without pictures, fewer than two classes, or a class that training lacks.
    """
    folder = os.path.abspath(path.parent)
    records = _read(path, folder, allow_absolute, most)
    try:
        found, problems = _present(records, file_fault if allow_absolute else Containment(folder).fault)
        names, labels = _codes([record.label for record in records], [record.label for record in found])
        _check_classes(names, labels, problems)
        splits = _splits(found)
        if splits is not None:
            check_given_splits(set(splits.tolist()), lambda code: {names[n] for n in labels[splits == code]})
        units = _units(found, config.units)
    except DataError as error:
        raise DataError(f"{printable(str(path))}: {error}") from error
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
        units=units,
        read=read,
        stamp=stamp,
        masks=_mask_reader([record.mask for record in found], config.max_pixels),
        problems=tuple(problems),
        validation_note=validation_note(splits),
    )


def is_listing(path: Path) -> bool:
    """Whether a CSV file's first line names a column of paths and one of labels; no more than its head is read."""
    try:
        read_heading(path)
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
    unit: str


def _read(path: Path, folder: str, allow_absolute: bool, most: int) -> list[_Record]:
    """Return the checked lines of the file."""
    name, heading = printable(str(path)), read_heading(path)
    records: list[_Record] = []
    line_of: dict[str, int] = {}
    texts: dict[str, str] = {}  # so that a label that comes often is held once
    lines = filled_lines(path, heading)
    next(lines, None)  # the names of the columns
    for line, cells in lines:
        where = f"{name}, line {line}"
        if any(cells[heading.width :]):
            raise DataError(
                f"{where}: {len(cells)} cells, but the first line names {heading.width} columns; "
                "put a cell that contains the separator in double quotes."
            )
        value = {column: cells[n] if n < len(cells) else "" for column, n in heading.columns.items()}
        value |= {column: texts.setdefault(cell, cell) for column, cell in value.items() if column in _REPEATED}
        record = _record(line, value, folder, allow_absolute, where)
        earlier = line_of.get(record.file, line_of.get(record.key))
        if earlier is not None:
            raise DataError(f"{name}: lines {earlier} and {line} name the same picture {record.key!r}; remove one.")
        if len(records) == most:
            raise DataError(f"{where}: more than {most} pictures are listed; shorten the list, or use class folders.")
        line_of[record.file] = line_of[record.key] = line
        records.append(record)
    if not records:
        raise DataError(f"{name}: no pictures are listed below the first line; add a line for each.")
    for column, cells in (("split", [r.split for r in records]), ("group", [r.group for r in records])):
        if any(cells) and not all(cells):
            line = records[cells.index("")].line
            raise DataError(
                f"{name}, line {line}: the {column} is missing; give it for every picture, or leave the column out."
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
    return _Record(line, key, file, value["label"], split, value.get("group", ""), mask, _unit(value.get("unit", "")))


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


def _present(
    records: Sequence[_Record], fault_of: Callable[[str], str | None]
) -> tuple[list[_Record], list[ProblemFile]]:
    """Keep the lines whose picture is there; a mask that is not there is taken away from its line."""
    found: list[_Record] = []
    problems: list[ProblemFile] = []
    for record in records:
        fault, mask_fault = fault_of(record.file), fault_of(record.mask) if record.mask else None
        for what, one in (("picture", fault), ("mask", mask_fault)):
            if one == LEADS_OUT:
                raise DataError(
                    f"line {record.line}: the {what} of {record.key!r} lies outside the folder of the CSV file, to "
                    "which a link leads; put a copy in place of the link."
                )
        if fault:
            problems.append(ProblemFile(record.key, f"{fault} (line {record.line})"))
            continue
        if mask_fault:
            told = f"its mask {printable(record.mask)} is left out: {mask_fault} (line {record.line})"
            problems.append(ProblemFile(record.key, told))
            record = replace(record, mask="")
        found.append(record)
    if not found:
        raise DataError(
            "none of the listed pictures is there; paths are relative to the folder of the CSV file."
            + said_problems(problems)
        )
    return found, problems


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


def _unit(cell: str) -> str:
    """Return the unit that a cell names; empty where it says that it is not known, which makes no pictures one unit."""
    return "" if cell.lower() in _NOT_KNOWN else cell


def _units(records: Sequence[_Record], rule: UnitRule) -> Units | None:
    """Return what the pictures show, by the column or else by the rule."""
    if rule == "none":
        return None
    if not any(record.unit for record in records):
        return units_by_rule(rule, [record.key for record in records])
    if rule != "listed":
        raise DataError(
            f"the column of units and data.units={rule} both tell what stays together; leave one of them out."
        )
    return Units.of([record.unit or None for record in records], [record.key for record in records])


def _mask_reader(files: Sequence[str], max_pixels: int) -> Callable[[int], dict[str, np.ndarray]] | None:
    if not any(files):
        return None

    def masks(row: int) -> dict[str, np.ndarray]:
        return {"object": decode_mask(Path(files[row]), max_pixels=max_pixels)} if files[row] else {}

    return masks
