"""What a source holds, for a look before training: counts, a few pictures, and the files that are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from concept_tuning.config import RunConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.registry import load_data, open_table
from concept_tuning.data.splits import check_coverage, split_table
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """A training picture.

    Attributes:
        key: Its name.
        label: Name of its class.
        group: Name of its group; None where there are none.
        image: (h, w, 3) uint8 RGB, at most the asked side.
    """

    key: str
    label: str
    group: str | None
    image: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Survey:
    """What a source holds.

    Attributes:
        class_names: The C classes.
        group_names: The G groups; empty where the source knows none.
        counts: By split, (C,) int64 pictures of each class.
        cells: (C, G) int64 training pictures of each class in each group; None without groups.
        samples: Training pictures, the classes in turn.
        problems: Files that are left out, and why.
        copies: Held-out pictures that are also training pictures of their class, as (its key, the training picture's
            key); None unless every picture was decoded.
        conflicts: Pictures that are also in another class, as (its key, its class, the other's key, the other's class);
            None unless every picture was decoded.
        checked: Whether every picture was decoded; otherwise problems are those of listing and of the samples alone.
        validation_note: How validation was drawn, in words.
        units: By split, how many plants, patients or places its pictures show; None where each is by itself.
    """

    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    counts: dict[str, np.ndarray]
    cells: np.ndarray | None
    samples: tuple[Sample, ...]
    problems: tuple[ProblemFile, ...]
    copies: tuple[tuple[str, str], ...] | None
    conflicts: tuple[tuple[str, str, str, str], ...] | None
    checked: bool
    validation_note: str
    units: dict[str, int] | None


def survey(
    config: RunConfig,
    *,
    check: bool = False,
    samples: int = 12,
    side: int = 160,
    progress: Callable[[int, int], None] | None = None,
    contained: bool = False,
) -> Survey:
    """Survey the source of a run.

    Args:
        config: Its settings.
        check: Decode every picture, into the cache that training then uses; otherwise only the samples.
        samples: Most pictures to show.
        side: Longest side of these, in pixels.
        progress: Is called with the number of pictures decoded and the number of all, if they are checked.
        contained: Refuse a CSV file that names pictures outside its folder, by absolute paths or through links.

    Raises:
        DataError: the source cannot be used, has fewer than two classes, or leaves a class without pictures in a split.
    """
    if check:
        bundle = load_data(config, progress=progress, contained=contained)
        table, problems, copies, conflicts = bundle.table, bundle.problems, bundle.copies, bundle.conflicts
        rows = {name: split.rows for name, split in bundle.splits.items()}
    else:
        table, copies, conflicts = open_table(config, contained=contained), None, None
        rows, problems = _listed_rows(table, config), table.problems
    shown, unreadable = _samples(table, rows["train"], samples, side)
    known = {problem.key for problem in problems}
    classes = len(table.class_names)
    cells = None
    if table.groups is not None:
        cells = np.zeros((classes, len(table.group_names)), dtype=np.int64)
        np.add.at(cells, (table.labels[rows["train"]], table.groups[rows["train"]]), 1)
    return Survey(
        class_names=table.class_names,
        group_names=table.group_names,
        counts={name: np.bincount(table.labels[part], minlength=classes) for name, part in rows.items()},
        cells=cells,
        samples=shown,
        problems=problems + tuple(problem for problem in unreadable if problem.key not in known),
        copies=copies,
        conflicts=conflicts,
        checked=check,
        validation_note=table.validation_words,
        units=None
        if table.units is None
        else {name: len(np.unique(table.units.codes[part])) for name, part in rows.items()},
    )


def _listed_rows(table: ImageTable, config: RunConfig) -> dict[str, np.ndarray]:
    if len(table.class_names) < 2:
        raise DataError(f"{table.source} has fewer than two classes; at least two are needed to classify.")
    rows = split_table(
        table.labels, table.groups, table.splits, config.data, class_names=table.class_names, units=table.units
    )
    check_coverage(rows, table.labels, table.class_names)
    return rows


def _samples(table: ImageTable, rows: np.ndarray, most: int, side: int) -> tuple[tuple[Sample, ...], list[ProblemFile]]:
    """Take the first training pictures of each class in turn."""
    labels = table.labels[rows]
    turn = np.zeros(len(rows), dtype=np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange(np.sum(labels == label))
    found, unreadable = [], []
    for row in rows[np.lexsort((labels, turn))][:most]:
        try:
            image = Image.fromarray(table.read(int(row)))
        except UnreadableImage as error:
            unreadable.append(ProblemFile(table.keys[row], str(error)))
            continue
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        group = None if table.groups is None else table.group_names[table.groups[row]]
        label = table.class_names[table.labels[row]]
        found.append(Sample(key=table.keys[row], label=label, group=group, image=np.asarray(image)))
    return tuple(found), unreadable
