"""Picture data sets of the Hugging Face Hub, through the package ``datasets``."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.config import HUB_PREFIX, DataConfig
from concept_tuning.data.containment import Containment
from concept_tuning.data.decode import UnreadableImage, decode_image
from concept_tuning.data.folders import SPLIT_NAMES, check_given_splits, natural_key, validation_note
from concept_tuning.data.known.files import default_root
from concept_tuning.data.printable import printable, printable_lines
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError

PACKAGE = "datasets"
_IMAGES = ("image", "img", "picture", "jpg", "png")
_switch = threading.Lock()
_LABELS = ("label", "labels", "fine_label", "class", "target")


def hub_table(config: DataConfig) -> ImageTable:
    """List the pictures of a data set of the Hub, or of a copy of one in a folder.

    A folder ``owner/name`` below ``config.root`` is read without the net. Otherwise what is in the cache of the
    package ``datasets`` is used (in ``config.root`` if that is given), and downloaded if ``config.download`` is set.
    No code of a data set is run. Rows without a label are left out.

    Args:
        config: ``source``, ``root``, ``download`` and ``max_pixels`` are used.

    Raises:
        DataError: The name is not ``hf:owner/name`` or ``hf:owner/name:subset``; the package is not installed; the
            data set is not there; or it has no column, or several, of pictures or labels.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?", config.source.removeprefix(HUB_PREFIX))
    if match is None:
        raise DataError(
            f"{config.source!r} names no data set of the Hub; write hf:owner/name, or hf:owner/name:subset."
        )
    if find_spec(PACKAGE) is None:
        raise DataError(
            f"Data sets of the Hub need the package `{PACKAGE}`, which is not installed: `pip install {PACKAGE}`, or "
            "`pip install 'concept-tuning-studio[hub]'`."
        )
    parts, place = _loaded(match[1], match[2], config)
    try:
        return _table(parts, config, place)
    except DataError as error:
        raise DataError(f"{config.source}: {error}") from error


@dataclass(frozen=True, eq=False)
class HubPictures:
    """The pictures, as the bytes of their files.

    Attributes:
        parts: By split, its data set with the column of pictures alone, not decoded.
        column: Name of that column.
        places: (N,) split and row there of each picture.
        stamps: By split, what changes with its files.
        max_pixels: Pictures with more are unreadable.
        place: Where the files of rows without bytes must lie.
    """

    parts: Mapping[str, Any]
    column: str
    places: Sequence[tuple[str, int]]
    stamps: Mapping[str, str]
    max_pixels: int
    place: Containment

    def read(self, row: int) -> np.ndarray:
        """Return picture ``row``, (H, W, 3) uint8.

        Raises:
            UnreadableImage: As for :func:`~concept_tuning.data.decode.decode_image`; or the row has no picture, or
                names a file outside the copy and the caches.
        """
        split, place = self.places[row]
        stored = self.parts[split][place][self.column]
        if stored and stored.get("bytes") is not None:
            return decode_image(stored["bytes"], max_pixels=self.max_pixels)
        if stored and stored.get("path"):
            if fault := self.place.fault(stored["path"]):
                raise UnreadableImage(fault)
            return decode_image(Path(stored["path"]), max_pixels=self.max_pixels)
        raise UnreadableImage("the row holds no picture")

    def stamp(self, row: int) -> str:
        """Return the picture's name and what changes with its file."""
        split, place = self.places[row]
        return f"{_key(split, place)}|{self.stamps[split]}"


def _loaded(name: str, subset: str | None, config: DataConfig) -> tuple[Mapping[str, Any], Containment]:
    """Return the splits, and where the files of their pictures must lie."""
    import datasets

    root = None if config.root is None else Path(config.root).expanduser()
    copy = None if root is None else root / name
    # No revision is pinned: the user names the data, `datasets` 4 runs no code of it, and runs keep a fingerprint.
    try:
        if copy is not None and copy.is_dir():
            cache = str(default_root() / "huggingface")
            return datasets.load_dataset(str(copy), subset, cache_dir=cache), Containment(copy, cache)  # nosec B615
        with nullcontext() if config.download else _offline():
            own = None if root is None else str(root)
            return datasets.load_dataset(name, subset, cache_dir=own), Containment(*_caches(own))  # nosec B615
    except Exception as error:  # the net, the disk, the Hub's refusals and damaged files each raise their own
        told = printable_lines(str(error).strip().rstrip(".")) or type(error).__name__
        ways = "Set `root` to a folder that has it as owner/name below it"
        if not config.download:
            ways += ", or `download=true` to have it downloaded"
        raise DataError(f"{config.source} cannot be opened: {told}. {ways}.") from error


def _caches(own: str | None) -> list[str | Path]:
    """Return where the package keeps files: its cache of data sets, or one of one's own, and the Hub's of downloads."""
    from datasets import config
    from huggingface_hub import constants

    kept = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH]
    return [*(kept if own is None else [own]), constants.HF_HUB_CACHE]


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the package off the net, which it otherwise asks for what is in its cache; the switch is the process's."""
    import datasets
    from huggingface_hub import constants

    with _switch:
        before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _table(parts: Mapping[str, Any], config: DataConfig, place: Containment) -> ImageTable:
    import datasets

    codes, problems = _split_codes(list(parts))
    first = parts[next(iter(codes))].features
    image = _column("pictures", [name for name, kind in first.items() if isinstance(kind, datasets.Image)], _IMAGES)
    label = _label_column(first)
    places: list[tuple[str, int]] = []
    values: list[str] = []
    splits: list[int] = []
    for split, code in codes.items():
        texts = _labels(parts[split], label)
        rows = [row for row, text in enumerate(texts) if text is not None]
        if len(rows) < len(texts):
            problems.append(ProblemFile(split, f"{len(texts) - len(rows)} of {len(texts)} rows have no label"))
        places += [(split, row) for row in rows]
        values += [str(texts[row]) for row in rows]
        splits += [code] * len(rows)
    names = _names(first[label], values)
    label_of = {name: n for n, name in enumerate(names)}
    labels = np.array([label_of[value] for value in values], dtype=np.int64)
    given = np.array(splits, dtype=np.int8) if len(codes) > 1 else None
    if given is not None:
        check_given_splits(set(splits), lambda code: {names[n] for n in labels[given == code]})
    pictures = HubPictures(
        parts={
            split: parts[split].select_columns([image]).cast_column(image, datasets.Image(decode=False))
            for split in codes
        },
        column=image,
        places=places,
        stamps={split: _stamp(parts[split]) for split in codes},
        max_pixels=config.max_pixels,
        place=place,
    )
    return ImageTable(
        source=config.source,
        class_names=names,
        group_names=(),
        keys=tuple(_key(*place) for place in places),
        labels=labels,
        groups=None,
        splits=given,
        read=pictures.read,
        stamp=pictures.stamp,
        problems=tuple(problems),
        validation_note=validation_note(given),
    )


def _split_codes(names: Sequence[str]) -> tuple[dict[str, int], list[ProblemFile]]:
    """Return the splits that are used with their codes, and the others as problems."""
    if len(names) == 1:
        return {names[0]: 0}, []
    codes = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    if 0 not in codes.values():
        raise DataError(f"none of its splits {printable(', '.join(names))} is called train.")
    others = [ProblemFile(name, "a split that is none of train, validation and test") for name in names]
    return codes, [problem for problem in others if problem.key not in codes]


def _column(what: str, found: Sequence[str], preferred: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    chosen = next((name for name in preferred if name in found), None)
    if chosen is None:
        told = (
            f"several columns of {what} ({printable(', '.join(found))}), none of them called"
            if found
            else f"no column of {what},"
        )
        raise DataError(f"it has {told} {' or '.join(preferred)}. Store it as a folder or CSV file instead.")
    return chosen


def _label_column(features: Mapping[str, Any]) -> str:
    import datasets

    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not classes:
        classes = [name for name in _LABELS if isinstance(features.get(name), datasets.Value)][:1]
    return _column("labels", classes, _LABELS)


def _labels(part: Any, column: str) -> list[str | None]:
    """Return the labels of a split as texts; None where there is none, which the Hub writes as -1."""
    values = part[column]
    names = getattr(part.features[column], "names", None)
    if names is None:
        return [None if value is None else str(value) for value in values]
    return [None if value is None or value < 0 else names[value] for value in values]


def _names(feature: Any, values: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that have pictures, in the data set's order."""
    used = set(values)
    ordered = getattr(feature, "names", None) or sorted(used, key=natural_key)
    return tuple(name for name in ordered if name in used)


def _key(split: str, row: int) -> str:
    return f"{split}/{row:06d}"


def _stamp(part: Any) -> str:
    files = [Path(file["filename"]) for file in part.cache_files]
    if not files:
        return str(part._fingerprint)  # held in memory
    return "|".join(f"{file}|{file.stat().st_size}|{file.stat().st_mtime_ns}" for file in files)
