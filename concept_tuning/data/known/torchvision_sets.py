"""Data sets of picture files whose lists of files, labels and splits torchvision reads.

The lists are private attributes of torchvision's classes (0.24 to 0.29); the tests read a miniature of each layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_tuning.config import DataConfig
from concept_tuning.data.known.catalogue import Known
from concept_tuning.data.known.files import Listed, explained, picture_table, ready_root, torchvision_class
from concept_tuning.data.table import SPLITS, ImageTable


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """How torchvision reads one.

    Attributes:
        class_name: Its class in ``torchvision.datasets``.
        splits: The class's name of each split of ours that the data gives.
        rows: The (file, label) pairs of an instance.
    """

    class_name: str
    splits: Mapping[str, str]
    rows: Callable[[Any], Iterable[tuple[Any, int]]]


def _zipped(data: Any) -> Iterable[tuple[Any, int]]:
    return zip(data._image_files, data._labels, strict=True)


_TRAIN_TEST = {"train": "train", "test": "test"}
_ALL = {"train": "train", "val": "val", "test": "test"}
_READERS = {
    "stanford-cars": _Reader(class_name="StanfordCars", splits=_TRAIN_TEST, rows=lambda data: data._samples),
    "aircraft": _Reader(class_name="FGVCAircraft", splits=_ALL, rows=_zipped),
    "dtd": _Reader(class_name="DTD", splits=_ALL, rows=_zipped),
    "flowers102": _Reader(class_name="Flowers102", splits=_ALL, rows=_zipped),
    "oxford-pets": _Reader(
        class_name="OxfordIIITPet",
        splits={"train": "trainval", "test": "test"},
        rows=lambda data: zip(data._images, data._labels, strict=True),
    ),
    "food101": _Reader(class_name="Food101", splits=_TRAIN_TEST, rows=_zipped),
}


def listed_table(known: Known, config: DataConfig) -> ImageTable:
    """List the pictures of Stanford Cars, FGVC-Aircraft, DTD, Flowers102, Oxford Pets or Food-101.

    Keys are paths below the data set's own folder; classes are in the official order.

    Args:
        known: Its entry in the catalogue.
        config: ``root``, ``download`` and ``max_pixels`` are used.

    Raises:
        DataError: Files are missing, damaged or laid out in another way; no picture of a class is there; or the
            download failed.
    """
    reader = _READERS[known.name]
    make = torchvision_class(reader.class_name)
    root = ready_root(known, config, lambda part: make(part, split=reader.splits["train"], download=True))
    folder = root / known.folder
    listed: list[Listed] = []
    names: dict[str, None] = {}
    for split, theirs in reader.splits.items():
        with explained(known, root):
            data = make(root, split=theirs)
            rows = [(Path(file).relative_to(folder).as_posix(), int(label)) for file, label in reader.rows(data)]
            name_of = _names(known, data, [label for _, label in rows])
            found = [Listed(path=path, class_name=name_of[label], split=SPLITS.index(split)) for path, label in rows]
        listed += found
        names |= dict.fromkeys(name_of.values())
    return picture_table(known, folder, listed, tuple(names), config)


def _names(known: Known, data: Any, labels: list[int]) -> dict[int, str]:
    """Return the class of each label; raises ValueError for a label without one."""
    if known.name == "oxford-pets":  # which names the classes that are in the list alone, in order of their labels
        return dict(zip(sorted(set(labels)), data.classes, strict=True))
    names = dict(enumerate(data.classes))
    for label in labels:
        if label not in names:
            raise ValueError(f"label {label} is outside 0..{len(names) - 1}")
    return names
