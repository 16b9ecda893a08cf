"""The data sources by name, and how one becomes splits of cached pictures."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from concept_tuning.config import ARCHIVE_SUFFIXES, RunConfig
from concept_tuning.data.cache import ImageCache, open_cache
from concept_tuning.data.known.catalogue import KNOWN
from concept_tuning.data.known.opening import is_known, is_there, known_table
from concept_tuning.data.printable import printable
from concept_tuning.data.splits import check_coverage, split_table, splits_from_keys
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.data.units import check_given, partition
from concept_tuning.errors import DataError

CSV_SUFFIXES = (".csv",)
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One line of the list of data sources.

    Attributes:
        name: What ``data.source`` is set to; a path pattern for the user's own pictures.
        kind: ``generated``, ``packaged``, ``known`` or ``own``.
        offline: Whether it needs no network once installed.
        description: What is in it.
        note: Licence, splits, or how the files must be laid out.
        package: The Python package that holds or reads it, or None.
        layout: Lines that show how the files of a known data set lie below ``data.root``.
    """

    name: str
    kind: str
    offline: bool
    description: str
    note: str
    package: str | None = None
    layout: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether it can be used here as things are installed; a known data set, without ``data.root``."""
        if self.kind == "known" and self.package is None:
            return is_there(self.name)
        return self.package is None or find_spec(self.package) is not None


DATASETS: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        name="planted",
        kind="generated",
        offline=True,
        description="Drawn birds whose rare feature and shortcut are known; groups are habitats.",
        note="Drawn from data.data_seed; settings in the section `planted`.",
    ),
    DatasetEntry(
        name="elpv",
        kind="packaged",
        offline=True,
        description="2,624 photographs of solar cells, functional or defective; groups are cell types.",
        note="`pip install elpv-dataset` (91 MB); pictures CC BY-NC-SA 4.0. No module id: a random split may put "
        "cells of one module on both sides.",
        package="elpv_dataset",
    ),
    *(
        DatasetEntry(
            name=known.name,
            kind="known",
            offline=False,
            description=known.description,
            note=known.note,
            package=known.package,
            layout=known.layout,
        )
        for known in KNOWN
    ),
    DatasetEntry(
        name="path/to/folder",
        kind="own",
        offline=True,
        description="A folder of your own pictures.",
        note="One folder for each class, or train, val and test folders with the class folders inside. Several "
        "pictures of one plant or patient: units=folder or units=prefix.",
    ),
    DatasetEntry(
        name="path/to/archive.zip",
        kind="own",
        offline=True,
        description="A zip or tar archive of such a folder.",
        note=f"Ends in {', '.join(ARCHIVE_SUFFIXES)}.",
    ),
    DatasetEntry(
        name="path/to/list.csv",
        kind="own",
        offline=True,
        description="A CSV file that lists pictures and their labels.",
        note="One line for each picture; its path is relative to the CSV file. A column unit tells which pictures show "
        "one plant or patient.",
    ),
)

SOURCE_NAMES = tuple(entry.name for entry in DATASETS if entry.kind != "own")


class PictureStore(Protocol):
    """Where the decoded pictures of a split are."""

    def image(self, row: int) -> Tensor:
        """Return the picture of a row, (3, h, w) uint8."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """The pictures of one split.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        keys: Their n unique names.
        labels: (n,) int64 class indices.
        groups: (n,) int64 group indices, or None.
        rows: (n,) int64, the row of each in the table and in the cache.
        images: What holds the pictures of all splits, by row.
        units: (n,) int64, what each picture shows (a plant, a patient), or None where each is by itself.
    """

    name: str
    keys: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray | None
    rows: np.ndarray
    images: PictureStore
    units: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, i: int) -> Tensor:
        """Return picture ``i`` of the split, (3, h, w) uint8."""
        return self.images.image(int(self.rows[i]))


@dataclass(frozen=True, eq=False, kw_only=True)
class DataBundle:
    """A source made ready for training.

    Attributes:
        source: Name of the source as the user gave it.
        class_names: The C class names.
        group_names: The group names; empty where the source knows none.
        splits: ``train``, ``val`` and ``test``.
        problems: Files that were left out, and why.
        fingerprint: SHA-256 (hexadecimal) over the key, class, group and decoded content of every readable
            picture of the source, whatever the split, the image size and the order of the rows. Of drawn pictures
            the recipe counts, since other processors round other bits.
        used_fingerprint: The same over the pictures in the splits alone: it stays when others are added.
        unit_fingerprints: By split, a SHA-256 (hexadecimal) over which of its pictures show one plant or patient; None
            where each is by itself.
        validation_note: How validation was drawn, in words.
        copies: Pictures of the validation or test split whose decoded content is also that of a training
            picture of their class, as (its key, the training picture's key); what is measured on them is too good.
        conflicts: Pictures in the splits, whichever, whose decoded content is also that of a picture of another class,
            as (its key, its class, the other's key, the other's class), so that one of the two labels is wrong.
        table: The source itself, for full-size pictures and masks.
    """

    source: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    splits: dict[str, Split]
    problems: tuple[ProblemFile, ...]
    fingerprint: str
    used_fingerprint: str
    unit_fingerprints: Mapping[str, str | None]
    validation_note: str
    copies: tuple[tuple[str, str], ...]
    conflicts: tuple[tuple[str, str, str, str], ...] = ()
    table: ImageTable


def open_table(config: RunConfig, *, contained: bool = False) -> ImageTable:
    """List the pictures of ``config.data.source``; a name wins over a path that is spelt alike.

    Args:
        config: The run's settings.
        contained: Refuse a CSV file that names pictures outside its folder, by absolute paths or through links, as
            where another than the server's own user chose it. Every other source is held to its folder anyway.

    Raises:
        DataError: There is no such name or path, or the source cannot be used.
    """
    source = config.data.source
    if source == "planted":
        from concept_tuning.data.planted import planted_table

        return planted_table(config.planted, seed=config.data.data_seed)
    if source == "elpv":
        from concept_tuning.data.elpv import elpv_table

        return elpv_table(config.elpv, max_pixels=config.data.max_pixels)
    if is_known(source):
        return known_table(config.data)
    return _open_path(source, config, contained)


def load_data(
    config: RunConfig,
    *,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    splits: Mapping[str, Sequence[str]] | None = None,
    class_names: Sequence[str] | None = None,
    units: bool = True,
    contained: bool = False,
) -> DataBundle:
    """Open the source, decode its pictures into the cache (or find them there), and split them.

    Args:
        config: The run's settings.
        report: Is given a line of text now and then.
        progress: Is called with the number of pictures decoded and the number of all.
        splits: Keys of an earlier run's splits (:func:`~concept_tuning.data.splits.splits_to_json`), which
            are then reused exactly, without drawing anything.
        class_names: The classes when the saved ``splits`` were drawn, compared with those of now; None: not known.
        units: Take up which pictures show one plant or patient; False where the saved ``splits`` were drawn without.
        contained: As for :func:`open_table`.

    Raises:
        DataError: The source cannot be used, has fewer than two classes, or leaves a class without pictures
            in a split; or a picture of the saved ``splits`` is gone or unreadable, or the classes are others.
    """
    table = open_table(config, contained=contained)
    if not units:
        table = replace(table, units=None)
    if len(table.class_names) < 2:
        found = f"only the class {table.class_names[0]!r}" if table.class_names else "no class"
        raise DataError(f"{table.source} has {found}; at least two classes are needed to classify.")
    cache = open_cache(table, config.data, report=report, progress=progress)
    try:
        rows = _split_rows(table, cache, config, splits, class_names)
    except DataError as error:
        left_out = _left_out(table, cache)
        raise DataError(f"{error}{left_out}") from error
    return DataBundle(
        source=table.source,
        class_names=table.class_names,
        group_names=table.group_names,
        splits={name: _make_split(name, table, cache, chosen) for name, chosen in rows.items()},
        problems=table.problems + cache.problems,
        fingerprint=_fingerprint(table, cache, np.flatnonzero(cache.readable)),
        used_fingerprint=_fingerprint(table, cache, np.concatenate(list(rows.values()))),
        unit_fingerprints={
            name: None if table.units is None else partition(table.units, chosen, table.keys)
            for name, chosen in rows.items()
        },
        validation_note=table.validation_words,
        copies=_copies(table, cache, rows),
        conflicts=_conflicts(table, cache, np.concatenate(list(rows.values()))),
        table=table,
    )


def check_class_names(now: Sequence[str], before: Sequence[str]) -> None:
    """Raise :class:`DataError` unless the classes of a source are those that a run began with."""
    if tuple(now) != tuple(before):
        raise DataError(
            f"The classes are now {printable(', '.join(now))}, and were {printable(', '.join(before))} when the run "
            "began. Put the old ones back or start a new run."
        )


def _open_path(source: str, config: RunConfig, contained: bool) -> ImageTable:
    path = Path(source).expanduser()
    if path.is_dir():
        from concept_tuning.data.folders import folder_table

        return folder_table(path, config.data)
    if not path.exists():
        raise DataError(unknown_source(source))
    name = path.name.lower() if path.is_file() else ""  # a pipe would be waited for
    if name.endswith(CSV_SUFFIXES):
        from concept_tuning.data.csv_file import csv_table

        return csv_table(path, config.data, allow_absolute=not contained)
    if name.endswith(ARCHIVE_SUFFIXES):
        from concept_tuning.data.archives import archive_table

        return archive_table(path, config.data)
    raise DataError(
        f"{source} is neither a folder, nor an archive ({', '.join(ARCHIVE_SUFFIXES)}), nor a CSV file; "
        "set data.source to one of those."
    )


def unknown_source(source: str) -> str:
    """Return what to say of a source that is neither a name nor a path that is there."""
    near = difflib.get_close_matches(source.lower(), SOURCE_NAMES, n=1)
    if near:
        return f"There is no data set and no path {source!r}; did you mean {near[0]!r}?"
    inside = [entry.name for entry in DATASETS if entry.kind in ("generated", "packaged")]
    return (
        f"There is no path {source!r}. Set data.source to {' or '.join(inside)}, to a known data set "
        "(`concept-tuning datasets` lists them), or to the path of an existing folder, archive or CSV file."
    )


def _split_rows(
    table: ImageTable,
    cache: ImageCache,
    config: RunConfig,
    saved: Mapping[str, Sequence[str]] | None,
    class_names: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    if saved is None:
        rows = split_table(
            table.labels,
            table.groups,
            table.splits,
            config.data,
            class_names=table.class_names,
            usable=cache.readable,
            units=table.units,
        )
    else:
        rows = splits_from_keys(saved, table.keys)
        if class_names is not None:  # not before the pictures are known to be those of the run, whoever made it
            check_class_names(table.class_names, class_names)
        lost = [table.keys[row] for part in rows.values() for row in part if not cache.readable[row]]
        if lost:
            raise DataError(
                f"The data changed since the split was saved: {len(lost)} of its pictures cannot be decoded now. "
                "Restore them, or start a new run, which makes a new split."
            )
        if table.units is not None:
            check_given(table.units, rows)
    check_coverage(rows, table.labels, table.class_names)
    return rows


def _left_out(table: ImageTable, cache: ImageCache) -> str:
    """The unreadable files in words, those of the classes with the fewest remaining pictures first."""
    remaining = np.bincount(table.labels[cache.readable], minlength=len(table.class_names))
    unreadable = np.flatnonzero(~cache.readable)
    order = np.argsort(remaining[table.labels[unreadable]], kind="stable")
    problems = [cache.problems[place] for place in order] + list(table.problems)
    if not problems:
        return ""
    lines = [f"  {printable(problem.key)}: {printable(problem.reason)}" for problem in problems[:_NAMED]]
    rest = len(problems) - _NAMED
    return "\nLeft out as unusable:\n" + "\n".join(lines) + (f"\n  and {rest} more" if rest > 0 else "")


def _make_split(name: str, table: ImageTable, cache: ImageCache, rows: np.ndarray) -> Split:
    return Split(
        name=name,
        keys=tuple(table.keys[row] for row in rows),
        labels=table.labels[rows],
        groups=None if table.groups is None else table.groups[rows],
        rows=rows,
        images=cache,
        units=None if table.units is None or table.units.alone(rows) else table.units.codes[rows],
    )


def _copies(table: ImageTable, cache: ImageCache, rows: Mapping[str, np.ndarray]) -> tuple[tuple[str, str], ...]:
    def shown(row: int) -> tuple[bytes, int]:
        return cache.content(row), int(table.labels[row])

    trained = {shown(row): table.keys[row] for row in rows["train"]}
    held_out = np.concatenate([rows["val"], rows["test"]])
    return tuple((table.keys[row], trained[found]) for row in held_out if (found := shown(row)) in trained)


def _conflicts(table: ImageTable, cache: ImageCache, rows: np.ndarray) -> tuple[tuple[str, str, str, str], ...]:
    """Pair each picture with the first, by key, of the same content and another class; the first of all with none."""
    firsts: dict[bytes, dict[int, int]] = {}  # by content, the first row of each label
    found = []
    for row in sorted(rows.tolist(), key=table.keys.__getitem__):
        alike, label = firsts.setdefault(cache.content(row), {}), int(table.labels[row])
        other = next((first for other_label, first in alike.items() if other_label != label), None)
        if other is not None:
            name, other_name = table.class_names[label], table.class_names[table.labels[other]]
            found.append((table.keys[row], name, table.keys[other], other_name))
        alike.setdefault(label, row)
    return tuple(found)


def _fingerprint(table: ImageTable, cache: ImageCache, rows: np.ndarray) -> str:
    digest = hashlib.sha256()
    for row in sorted(rows.tolist(), key=table.keys.__getitem__):
        group = None if table.groups is None else table.group_names[table.groups[row]]
        content = cache.content(row).hex() if table.identity is None else table.identity(row)
        line = [table.keys[row], table.class_names[table.labels[row]], group, content]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
