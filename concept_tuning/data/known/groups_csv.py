"""Data sets with groups in CSV files: Waterbirds (Sagawa et al., arXiv 1911.08731) and ISIC 2019."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.folders import natural_key
from concept_tuning.data.known.catalogue import Known
from concept_tuning.data.known.files import Listed, explained, picture_table, ready_root
from concept_tuning.data.printable import printable
from concept_tuning.data.table import SPLITS, ImageTable, ProblemFile
from concept_tuning.data.units import Units
from concept_tuning.errors import DataError

_BIRDS = ("landbird", "waterbird")
_PLACES = ("land", "water")
_DIAGNOSES = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus",
    "BCC": "basal cell carcinoma",
    "AK": "actinic keratosis",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
    "SCC": "squamous cell carcinoma",
}
_UNKNOWN = "UNK"
_NOT_RECORDED = "not recorded"


def waterbirds_table(known: Known, config: DataConfig) -> ImageTable:
    """List the birds; groups are the backgrounds, land and water.

    Args:
        known: Its entry in the catalogue.
        config: ``root`` and ``max_pixels`` are used.

    Raises:
        DataError: ``metadata.csv`` is missing, lacks a column, or has a line with another value than is known; or no
            picture of a class is there.
    """
    folder = ready_root(known, config) / known.folder
    path = folder / "metadata.csv"
    listed, place_of = [], {}
    with explained(known, folder.parent):
        for line, row in _rows(path, ("img_filename", "y", "split", "place")):
            name = row["img_filename"]
            codes = [_code(path, line, column, row[column], 3 if column == "split" else 2) for column in _CODED]
            listed.append(Listed(path=name, class_name=_BIRDS[codes[0]], split=codes[1]))
            place_of[name] = codes[2]
    table = picture_table(known, folder, listed, _BIRDS, config)
    groups = np.array([place_of[key] for key in table.keys], dtype=np.int64)
    return dataclasses.replace(
        table, group_names=_PLACES, groups=groups, validation_note="given with the data, balanced over the backgrounds"
    )


_CODED = ("y", "split", "place")


@dataclass(frozen=True, slots=True)
class _Lesion:
    """A line of ISIC's ground truth with its metadata."""

    path: str
    diagnosis: str
    place: str
    lesion: str | None


def isic_table(known: Known, config: DataConfig) -> ImageTable:
    """List the skin lesions; groups are the places on the body.

    Several pictures may show one lesion, which is their unit: validation, and the test where its labels are not there,
    are cut by whole lesions.

    Args:
        known: Its entry in the catalogue.
        config: ``root`` and ``max_pixels`` are used.

    Raises:
        DataError: A file is missing, lacks a column or has a line that cannot be used; or no picture of a class is
            there.
    """
    root = ready_root(known, config)
    with explained(known, root):
        training = _lesions(root, "ISIC_2019_Training")
        testing = _lesions(root, "ISIC_2019_Test") if (root / "ISIC_2019_Test_GroundTruth.csv").is_file() else []
    problems = []
    unknown = [one for one in testing if one.diagnosis == _UNKNOWN]
    if unknown:
        reason = f"{len(unknown)} pictures of the class {_UNKNOWN}, which training lacks, are left out"
        problems.append(ProblemFile("ISIC_2019_Test_GroundTruth.csv", reason))
    used = training + [one for one in testing if one.diagnosis != _UNKNOWN]
    split_of = dict.fromkeys((one.path for one in testing), SPLITS.index("test"))
    names = [_DIAGNOSES[code] for code in _DIAGNOSES]
    listed = [
        Listed(path=one.path, class_name=_DIAGNOSES[one.diagnosis], split=split_of.get(one.path, 0)) for one in used
    ]
    table = picture_table(known, root, listed, names, config, problems=problems)
    return _grouped(table, {one.path: one for one in used})


def _grouped(table: ImageTable, lesion_of: dict[str, _Lesion]) -> ImageTable:
    """Add the groups and the units."""
    lesions = [lesion_of[key] for key in table.keys]
    group_names = tuple(sorted({one.place for one in lesions}, key=natural_key))
    group_of = {name: n for n, name in enumerate(group_names)}
    return dataclasses.replace(
        table,
        group_names=group_names,
        groups=np.array([group_of[one.place] for one in lesions], dtype=np.int64),
        units=Units.of([one.lesion for one in lesions], table.keys),
    )


def _lesions(root: Path, part: str) -> list[_Lesion]:
    """Read the ground truth and the metadata of one part of ISIC 2019."""
    about = {row["image"]: row for _, row in _rows(root / f"{part}_Metadata.csv", ("image", "anatom_site_general"))}
    path = root / f"{part}_GroundTruth.csv"
    found = []
    for line, row in _rows(path, ("image", *_DIAGNOSES)):
        image = row["image"]
        marked = [code for code in (*_DIAGNOSES, _UNKNOWN) if float(row.get(code) or 0) == 1]
        if len(marked) != 1 or (marked == [_UNKNOWN] and part == "ISIC_2019_Training"):
            several = ", ".join(_DIAGNOSES)
            raise DataError(f"{path}, line {line}: {printable(image)} must have a 1 for exactly one of {several}.")
        if image not in about:
            raise DataError(f"{path}, line {line}: {printable(image)} is not in {part}_Metadata.csv.")
        place = about[image]["anatom_site_general"] or _NOT_RECORDED
        # The authors' own test is not questioned.
        lesion = about[image].get("lesion_id") or None if part == "ISIC_2019_Training" else None
        found.append(_Lesion(f"{part}_Input/{image}.jpg", marked[0], place, lesion))
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file as its lines' numbers and cells by column; raises DataError where a column is missing."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}, line 1: there is no column {missing[0]!r}; it needs {', '.join(columns)}.")
        return [(reader.line_num, {name: str(cell or "").strip() for name, cell in row.items()}) for row in reader]


def _code(path: Path, line: int, column: str, cell: str, several: int) -> int:
    if cell not in map(str, range(several)):
        raise DataError(f"{path}, line {line}: {column} is {cell!r}, and must be one of 0 to {several - 1}.")
    return int(cell)
