"""Data sets that are folders of class folders: Caltech-101, EuroSAT and ImageNet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from concept_tuning.config import DataConfig
from concept_tuning.data.folders import natural_key, scan
from concept_tuning.data.known.catalogue import Known
from concept_tuning.data.known.files import (
    Listed,
    expected,
    explained,
    picture_table,
    ready_root,
    torchvision_class,
)
from concept_tuning.data.printable import printable
from concept_tuning.data.table import SPLITS, ImageTable, ProblemFile
from concept_tuning.errors import DataError

_INNER = {"caltech101": "101_ObjectCategories", "eurosat": "2750"}
_TORCHVISION = {"caltech101": "Caltech101", "eurosat": "EuroSAT"}
_NO_CLASSES = {"BACKGROUND_Google"}
_META = "meta.bin"


def class_folder_table(known: Known, config: DataConfig) -> ImageTable:
    """List the pictures of Caltech-101 or EuroSAT, which give no splits.

    Args:
        known: Its entry in the catalogue.
        config: ``root``, ``download`` and ``max_pixels`` are used.

    Raises:
        DataError: Files are missing, a class folder is empty, or the download failed.
    """
    root = ready_root(known, config, lambda part: torchvision_class(_TORCHVISION[known.name])(part, download=True))
    folder = root / known.folder
    listed, problems = _scanned(known, folder, _INNER[known.name], None)
    names = sorted({one.class_name for one in listed}, key=natural_key)
    return picture_table(known, folder, listed, names, config, problems=problems, inner=[_INNER[known.name]])


def imagenet_table(known: Known, config: DataConfig) -> ImageTable:
    """List the pictures of ImageNet's folders train and val, the latter as the test split.

    Classes are named by their folders (``n01440764``), with the words before them where ``meta.bin`` has them.

    Args:
        known: Its entry in the catalogue.
        config: ``root`` and ``max_pixels`` are used.

    Raises:
        DataError: A folder is missing, without class folders, or with an empty one; or a class is in val alone.
    """
    root = ready_root(known, config)
    training, problems = _scanned(known, root, "train", SPLITS.index("train"))
    testing, more = _scanned(known, root, "val", SPLITS.index("test"))
    words = _words(known, root)
    listed = [
        dataclasses.replace(one, class_name=words.get(one.class_name, one.class_name)) for one in training + testing
    ]
    folders = sorted({one.class_name for one in training + testing}, key=natural_key)
    names = [words.get(name, name) for name in folders]
    return picture_table(known, root, listed, names, config, problems=problems + more, inner=["train", "val"])


def _scanned(known: Known, folder: Path, inner: str, split: int | None) -> tuple[list[Listed], list[ProblemFile]]:
    """List the pictures of the class folders of one folder; raises DataError if one of them is empty."""
    listing = scan(folder / inner)
    listed, problems = [], [ProblemFile(f"{inner}/{one.key}", one.reason) for one in listing.problems]
    for path in sorted(listing.pictures):
        top, _, below = path.partition("/")
        if not below:
            problems.append(ProblemFile(f"{inner}/{path}", "lies outside any class folder"))
        elif top not in _NO_CLASSES:
            listed.append(Listed(path=f"{inner}/{path}", class_name=top, split=split))
    classes = {path for path in listing.folders if "/" not in path} - _NO_CLASSES
    empty = sorted(classes - {one.class_name for one in listed}, key=natural_key)
    if not classes or empty:
        fault = f"the class folder {printable(empty[0])} holds no pictures" if empty else "there are no class folders"
        raise DataError(f"`{known.name}` in {folder / inner}: {fault}. {expected(known)}")
    return listed, problems


def _words(known: Known, root: Path) -> dict[str, str]:
    """The names of ImageNet's classes by folder, as torchvision's file has them; empty without that file."""
    if not (root / _META).is_file():
        return {}
    from torchvision.datasets.imagenet import load_meta_file

    with explained(known, root):
        return {folder: f"{words[0]} ({folder})" for folder, words in load_meta_file(root)[0].items()}
