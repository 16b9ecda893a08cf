"""A few pictures to begin with: of a run's test split, those first on which two runs disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from concept_tuning.config import PlantedConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.planted import planted_table
from concept_tuning.data.registry import open_table
from concept_tuning.data.table import SPLITS, ImageTable
from concept_tuning.diagnostics.given_picture import predict_given
from concept_tuning.diagnostics.pair import same_classes
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.errors import StudioError

#: Seed of the planted birds that are drawn for runs of other data.
_BIRDS_SEED = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class ExamplePicture:
    """A picture to try.

    Attributes:
        label: Its class.
        group: Its group; empty where it has none.
        pixels: (H, W, 3) uint8 RGB.
    """

    label: str
    group: str
    pixels: np.ndarray

    @property
    def name(self) -> str:
        """Class and group in words."""
        return f"{self.label}, {self.group}" if self.group else self.label


def held_out_examples(subject: Subject, *, count: int) -> list[ExamplePicture]:
    """Return pictures of a run's test split, evenly spaced; none where its data is not there any more."""
    try:
        table = open_table(subject.run.config)
        keys = subject.run.folder.read_json("split.json", "test")["test"]
    except StudioError:
        return []
    places = {key: row for row, key in enumerate(table.keys)}
    wanted = [keys[place] for place in np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int)]
    found = []
    for key in wanted:
        row = places.get(key)
        if row is None:
            continue
        try:
            pixels = table.read(row)
        except UnreadableImage:
            continue
        found.append(_example(table, row, pixels))
    return found


def planted_examples(count: int) -> list[ExamplePicture]:
    """Draw a few planted birds of the default settings."""
    table = planted_table(PlantedConfig(), seed=_BIRDS_SEED)
    assert table.splits is not None
    rows = np.flatnonzero(table.splits == SPLITS.index("test"))[:count]
    return [_example(table, int(row), table.read(int(row))) for row in rows]


def telling_first(examples: Sequence[ExamplePicture], a: Subject, b: Subject) -> list[ExamplePicture]:
    """Return the examples with those first on which two runs disagree most, by total variation distance.

    Left in their order where the runs do not know the same classes.
    """
    if not examples or not same_classes(a.run.class_names, b.run.class_names):
        return list(examples)
    pixels = [example.pixels for example in examples]
    places = [b.run.class_names.index(name) for name in a.run.class_names]
    first, second = predict_given(a, pixels), predict_given(b, pixels)[:, places]
    apart = first.argmax(1) != second.argmax(1)
    distance = np.abs(first - second).sum(1) / 2
    return [examples[place] for place in np.lexsort((-distance, ~apart))]


def _example(table: ImageTable, row: int, pixels: np.ndarray) -> ExamplePicture:
    group = "" if table.groups is None else table.group_names[table.groups[row]]
    return ExamplePicture(label=table.class_names[table.labels[row]], group=group, pixels=pixels)
