"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011), with bounding boxes and places of parts as masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.known.catalogue import Known
from concept_tuning.data.known.files import Listed, explained, picture_table, ready_root
from concept_tuning.data.printable import printable
from concept_tuning.data.table import SPLITS, ImageTable, ProblemFile
from concept_tuning.errors import DataError

PART_RADIUS = 0.05
"""Radius of a part's disc as a share of the bounding box's longer side."""

_URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
_MD5 = "97eceeb196236b17998738112f37df78"


def cub_table(known: Known, config: DataConfig) -> ImageTable:
    """List the birds; masks are ``object``, the bounding box, and ``part:<name>``, a disc around the part's place.

    Discs end at the bounding box, and are empty where the part is not to be seen. A copy without the files of boxes
    has no masks, one without those of parts has ``object`` alone; ``problems`` then says so.

    Args:
        known: Its entry in the catalogue.
        config: ``root``, ``download`` and ``max_pixels`` are used.

    Raises:
        DataError: A list is missing, or damaged at a line that is named; the lists do not fit each other; no picture
            of a class is there; or the download failed.
    """
    root = ready_root(known, config, _fetch)
    folder = root / known.folder
    with explained(known, root):
        paths = _lines(folder / "images.txt", 1)
        class_names = _lines(folder / "classes.txt", 1)
        labels = _for_each(folder / "image_class_labels.txt", paths)
        training = _for_each(folder / "train_test_split.txt", paths)
        names = _class_names(class_names)
        listed = [
            Listed(path=f"images/{path}", class_name=names[labels[number][0]], split=_split(training[number][0]))
            for number, (path,) in paths.items()
        ]
    table = picture_table(known, folder, listed, tuple(names.values()), config)
    with explained(known, root):
        return _with_masks(table, folder, {f"images/{path}": number for number, (path,) in paths.items()})


@dataclass(frozen=True, eq=False)
class BirdMasks:
    """The masks of CUB's pictures.

    Attributes:
        read: Decodes a picture, for its size.
        boxes: (N, 4) left, top, width and height of the bird, in pixels.
        parts: (N, P, 3) x, y in pixels, and 1 where the part is to be seen.
        part_names: The P parts.
    """

    read: Callable[[int], np.ndarray]
    boxes: np.ndarray
    parts: np.ndarray
    part_names: tuple[str, ...]

    def __call__(self, row: int) -> dict[str, np.ndarray]:
        """Return the masks of picture ``row``, each (H, W) bool."""
        height, width = self.read(row).shape[:2]
        left, top, box_width, box_height = self.boxes[row].tolist()
        bird = np.zeros((height, width), dtype=bool)
        bird[
            max(0, math.floor(top)) : max(0, math.ceil(top + box_height)),
            max(0, math.floor(left)) : max(0, math.ceil(left + box_width)),
        ] = True
        found = {"object": bird}
        y, x = np.ogrid[0.5:height, 0.5:width]
        radius = max(1.5, PART_RADIUS * max(box_width, box_height))
        for name, (part_x, part_y, visible) in zip(self.part_names, self.parts[row].tolist(), strict=True):
            disc = (x - part_x) ** 2 + (y - part_y) ** 2 <= radius**2
            found[f"part:{name}"] = disc & bird if visible else np.zeros_like(bird)
        return found


def _with_masks(table: ImageTable, folder: Path, number_of: dict[str, str]) -> ImageTable:
    """Add the masks as far as the copy has the files for them."""
    if not (folder / "bounding_boxes.txt").is_file():
        return _without(table, "bounding_boxes.txt", "there are no masks")
    numbers = [number_of[key] for key in table.keys]
    box_of = _for_each(folder / "bounding_boxes.txt", number_of.values(), 4)
    boxes = np.array([box_of[number] for number in numbers], dtype=np.float64)
    names: tuple[str, ...] = ()
    parts = np.zeros((len(table), 0, 3))
    missing = next((name for name in ("parts", "part_locs") if not (folder / f"parts/{name}.txt").is_file()), None)
    if missing:
        table = _without(table, f"parts/{missing}.txt", "there are no masks of parts")
    else:
        names, parts = _parts(folder / "parts", numbers)
    return dataclasses.replace(table, masks=BirdMasks(table.read, boxes, parts, names))


def _without(table: ImageTable, name: str, what: str) -> ImageTable:
    return dataclasses.replace(
        table, problems=(*table.problems, ProblemFile(name, f"there is no such file, so {what}"))
    )


def _parts(folder: Path, numbers: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the parts and their places, (N, P, 3)."""
    name_of = {number: name for number, (name,) in _lines(folder / "parts.txt", 1).items()}
    column = {number: n for n, number in enumerate(name_of)}
    row_of = {number: n for n, number in enumerate(numbers)}
    places = np.zeros((len(numbers), len(column), 3))
    for line, text in enumerate((folder / "part_locs.txt").read_text(encoding="utf-8").splitlines(), start=1):
        cells = text.split()
        if len(cells) != 5 or cells[1] not in column:
            raise DataError(f"{folder / 'part_locs.txt'}, line {line}: {text!r} is no picture, part, x, y and 0 or 1.")
        if cells[0] in row_of:
            places[row_of[cells[0]], column[cells[1]]] = [float(cell) for cell in cells[2:]]
    return tuple(name_of.values()), places


def _class_names(lines: dict[str, list[str]]) -> dict[str, str]:
    """Name the classes without number and underscores where that leaves them different."""
    plain = {number: name.partition(".")[2].replace("_", " ") or name for number, (name,) in lines.items()}
    return plain if len(set(plain.values())) == len(plain) else {number: name for number, (name,) in lines.items()}


def _split(cell: str) -> int:
    return SPLITS.index({"1": "train", "0": "test"}[cell])


def _lines(path: Path, cells: int) -> dict[str, list[str]]:
    """Read lines of a number and so many cells; the last cell may hold spaces."""
    found: dict[str, list[str]] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        number, *rest = text.strip().split(" ", cells)
        if len(rest) != cells or number in found:
            raise DataError(f"{path}, line {line}: {text!r} is not a new number and {cells} more.")
        found[number] = rest
    return found


def _for_each(path: Path, numbers: Iterable[str], cells: int = 1) -> dict[str, list[str]]:
    """Read a list that must have a line for each picture and none for others."""
    found = _lines(path, cells)
    wanted = set(numbers)
    for number in sorted(wanted ^ found.keys()):
        shown = printable(number)
        raise DataError(
            f"{path}: there is no line for picture {shown}."
            if number in wanted
            else f"{path}: picture {shown} is not in images.txt."
        )
    return found


def _fetch(part: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(_URL, str(part), md5=_MD5)
