"""Data sets whose pictures lie in a few large arrays: CIFAR-10 and CIFAR-100, and Fashion-MNIST."""

from __future__ import annotations

import functools
import gzip
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.folders import class_list
from concept_tuning.data.known.catalogue import BY_NAME, Known
from concept_tuning.data.known.files import explained, ready_root, torchvision_class
from concept_tuning.data.table import SPLITS, ImageTable
from concept_tuning.errors import DataError

_PARTS = ("train", "test")
_CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_FASHION_STEMS = {"train": "train", "test": "t10k"}
_FASHION_FOLDER = "FashionMNIST/raw"


class ArrayPictures:
    """Pictures of several arrays, which are loaded once, when the first is read; a pickle leaves them out.

    May be read from several threads and processes.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[np.ndarray]],
        keys: Sequence[str],
        counts: Sequence[int],
        stamps: Sequence[str],
    ) -> None:
        """Remember where the pictures are.

        Args:
            load: Returns the arrays, (n, h, w) grey or (n, h, w, 3) RGB uint8. To be pickled it must be a function
                of a module or a ``functools.partial`` of one.
            keys: The pictures' names.
            counts: Pictures of each array.
            stamps: What changes when the files of an array do, one text for each array.
        """
        self._load, self._keys, self._counts, self._stamps = load, tuple(keys), tuple(counts), tuple(stamps)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._arrays: Sequence[np.ndarray] | None = None
        self._fault = ""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ArrayPictures], tuple[Any, ...]]:
        return ArrayPictures, (self._load, self._keys, self._counts, self._stamps)

    def read(self, row: int) -> np.ndarray:
        """Return picture ``row``, (h, w, 3) uint8; raises :class:`UnreadableImage` if the files cannot be read."""
        part, place = self._place(row)
        picture = self._all()[part][place]
        return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else np.array(picture)

    def stamp(self, row: int) -> str:
        """Return the key and what changes with the picture's file."""
        return f"{self._keys[row]}|{self._stamps[self._place(row)[0]]}"

    def _place(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - int(self._starts[part])

    def _all(self) -> Sequence[np.ndarray]:
        with self._lock:
            if self._arrays is None and not self._fault:
                try:
                    arrays = self._load()
                except DataError as error:
                    self._fault = str(error)
                else:
                    if tuple(map(len, arrays)) == self._counts:
                        self._arrays = arrays
                    else:
                        self._fault = "the file holds another number of pictures than when it was opened"
            if self._arrays is None:
                raise UnreadableImage(self._fault)
            return self._arrays


def cifar_table(known: Known, config: DataConfig) -> ImageTable:
    """List the pictures of CIFAR-10 or CIFAR-100 (its 100 fine classes); torchvision checks the files' checksums.

    Args:
        known: Its entry in the catalogue.
        config: ``root`` and ``download`` are used.

    Raises:
        DataError: Files are missing or are not the official ones, or the download failed.
    """
    make = torchvision_class(_CIFAR[known.name])
    root = ready_root(known, config, lambda part: make(part, download=True))
    with explained(known, root):
        parts = [make(root, train=train) for train in (True, False)]
        labels = [np.array(part.targets, dtype=np.int64) for part in parts]
        files = [[root / known.folder / name for name, _ in one] for one in (make.train_list, make.test_list)]
        stamps = ["|".join(map(_stamp, of_part)) for of_part in files]
        names = [str(name) for name in parts[0].classes]
    return _table(known, names, labels, functools.partial(_cifar_pixels, known.name, root), stamps)


def fashion_table(known: Known, config: DataConfig) -> ImageTable:
    """List the pictures of Fashion-MNIST, from torchvision's layout or from the four files as they are published.

    Args:
        known: Its entry in the catalogue.
        config: ``root`` and ``download`` are used.

    Raises:
        DataError: Files are missing or damaged, or the download failed.
    """
    make = torchvision_class("FashionMNIST")
    root = ready_root(known, config, lambda part: make(part, download=True), lacking=fashion_lacking)
    files = [[_fashion_file(root, f"{_FASHION_STEMS[part]}-{kind}") for kind in _KINDS] for part in _PARTS]
    images = [pair[0] for pair in files]
    with explained(known, root):
        labels = [_idx(pair[1], 1).astype(np.int64) for pair in files]
        for image, of_part in zip(images, labels, strict=True):
            count = _idx_shape(_opened(image, 16), 3, image)[0]
            if count != len(of_part):
                raise ValueError(f"{image.name} holds {count} pictures, and its file of labels {len(of_part)}")
        stamps = [_stamp(image) for image in images]
    return _table(known, list(make.classes), labels, functools.partial(_fashion_pixels, images), stamps)


def _table(
    known: Known, names: Sequence[str], labels: Sequence[np.ndarray], load: Any, stamps: Sequence[str]
) -> ImageTable:
    """Make the table of a training and a test array."""
    together = np.concatenate(labels)
    if len(together) and not 0 <= together.min() <= together.max() < len(names):
        raise DataError(
            f"The labels of `{known.name}` lie in {together.min()}..{together.max()}, but there are {len(names)} "
            f"classes. Replace its files by those of {known.address}."
        )
    for part, of_part in zip(_PARTS, labels, strict=True):
        empty = [name for label, name in enumerate(names) if not np.any(of_part == label)]
        if empty:
            raise DataError(f"The {part} split of `{known.name}` has no picture of {class_list(empty)}.")
    counts = [len(of_part) for of_part in labels]
    keys = [f"{part}/{number:06d}" for part, count in zip(_PARTS, counts, strict=True) for number in range(count)]
    pictures = ArrayPictures(load, keys, counts, stamps)
    return ImageTable(
        source=known.name,
        class_names=tuple(names),
        group_names=(),
        keys=tuple(keys),
        labels=together,
        groups=None,
        splits=np.repeat(np.array([SPLITS.index(part) for part in _PARTS], dtype=np.int8), counts),
        read=pictures.read,
        stamp=pictures.stamp,
    )


def _cifar_pixels(name: str, root: Path) -> list[np.ndarray]:
    with explained(BY_NAME[name], root):
        return [torchvision_class(_CIFAR[name])(root, train=train).data for train in (True, False)]


def _fashion_pixels(images: Sequence[Path]) -> list[np.ndarray]:
    with explained(BY_NAME["fashion-mnist"], images[0].parent):
        return [_idx(image, 3) for image in images]


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{file.name}|{status.st_size}|{status.st_mtime_ns}"


_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def fashion_lacking(root: Path) -> str | None:
    """Say which of the four files is in neither place below a root; None if they are in one of them."""
    for folder in (root / _FASHION_FOLDER, root):
        missing = [
            name
            for name in (f"{stem}-{kind}" for stem in _FASHION_STEMS.values() for kind in _KINDS)
            if not any((folder / f"{name}{suffix}").is_file() for suffix in ("", ".gz"))
        ]
        if not missing:
            return None
        if len(missing) < len(_KINDS) * len(_PARTS):
            return str((folder / missing[0]).relative_to(root))
    return f"{_FASHION_FOLDER}/train-images-idx3-ubyte"


def _fashion_file(root: Path, name: str) -> Path:
    places = (root / folder / f"{name}{suffix}" for folder in (_FASHION_FOLDER, "") for suffix in ("", ".gz"))
    return next(place for place in places if place.is_file())


def _opened(path: Path, most: int = -1) -> bytes:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(most)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is cut off or damaged") from error


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a file of the format "idx" with unsigned bytes; raises ValueError if it is not one, or is cut off."""
    content = _opened(path)
    shape = _idx_shape(content, dimensions, path)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 * (dimensions + 1))
    if len(values) != np.prod(shape):
        raise ValueError(f"{path.name} should hold {np.prod(shape)} bytes of values and holds {len(values)}")
    return values.reshape(shape)


def _idx_shape(content: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    """Read the sizes from the head: two zeros, 8 for bytes, the number of sizes, and the sizes, 4 bytes each."""
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < 4 * (dimensions + 1):
        raise ValueError(f"{path.name} is no idx file of bytes in {dimensions} dimensions")
    return tuple(int(size) for size in np.frombuffer(content, dtype=">i4", count=dimensions, offset=4))
