"""The one form in which every data source hands over its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from concept_tuning.data.units import Units

SPLITS = ("train", "val", "test")
LIKE_TRAINING = "like training"


@dataclass(frozen=True)
class ProblemFile:
    """A file that was left out, and why, in words for the user."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageTable:
    """All pictures of a source before splitting: plain columns, and a way to read one picture.

    Attributes:
        source: Name of the source as the user gave it.
        class_names: Names of the classes; ``labels`` index them.
        group_names: Names of the groups (e.g. habitats); empty where the source knows none.
        keys: Unique stable name of each picture: a relative path with ``/``, or ``train/000012``.
        labels: (N,) int64, 0..C-1.
        groups: (N,) int64 indexing ``group_names``, or None.
        splits: (N,) int8 codes into :data:`SPLITS`, or None where splitting is left to us.
        units: What each picture shows (a plant, a patient), which no split that we draw may part; None: each is by
            itself.
        read: Decodes picture i to (H, W, 3) uint8 RGB; raises
            :class:`concept_tuning.data.decode.UnreadableImage`.
        stamp: A cheap string that changes when picture i's bytes may have (path, size and time of
            change of a file; the recipe of a drawn picture).
        identity: What a picture is known by in the data's fingerprint, for pictures that are drawn and may differ in
            a last bit from one machine to another; None: by its decoded content.
        masks: Ground-truth masks of picture i, name to (H, W) bool, ``object`` first and
            ``part:<name>`` for parts; None where the source has none.
        problems: Files that were left out while listing.
        validation_note: How validation was drawn, in words ("like training", "balanced over habitats"), whatever units
            there are.
    """

    source: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    keys: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None
    read: Callable[[int], np.ndarray]
    stamp: Callable[[int], str]
    units: Units | None = None
    identity: Callable[[int], str] | None = None
    masks: Callable[[int], dict[str, np.ndarray]] | None = None
    problems: tuple[ProblemFile, ...] = ()
    validation_note: str = LIKE_TRAINING

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def validation_words(self) -> str:
        """How validation was drawn, in words, also whether whole units were."""
        drawn = self.units is not None and self.validation_note == LIKE_TRAINING
        return f"{self.validation_note}, by whole units" if drawn else self.validation_note
