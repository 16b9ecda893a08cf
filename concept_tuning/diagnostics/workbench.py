"""What all analyses of one diagnosis share: runs, pictures, and what the networks make of them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from concept_tuning.data.registry import DataBundle
from concept_tuning.diagnostics.concept_maps import ConceptMaps, find_concept_maps
from concept_tuning.diagnostics.features import Features, finite_features
from concept_tuning.diagnostics.pictures import Pictures, Subject, check_comparable, choose_pictures

#: Pictures shown one by one, with all their maps.
SHOWN = 8
#: Pictures on which analyses are made that need several passes for each, and those that need very many.
SOME, FEW = 200, 24


@dataclass(eq=False, kw_only=True)
class Workbench:
    """Runs side by side on the same pictures.

    Attributes:
        subjects: The runs; comparable on the split.
        bundle: Their data.
        split: The split looked at.
        count: At most this many of its pictures; None: all.
        seed: Of every random choice.
        source_folder: Pictures like those of the pre-training, for source frequencies without batch norm.
    """

    subjects: Sequence[Subject]
    bundle: DataBundle
    split: str = "test"
    count: int | None = 500
    seed: int = 0
    source_folder: Path | None = None
    _features: dict[str, Features] = field(default_factory=dict)
    _concepts: dict[str, ConceptMaps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise RunError if the runs cannot be laid side by side on the split."""
        check_comparable(self.subjects, split=self.split)

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures looked at, the same for every run."""
        return choose_pictures(self.bundle, split=self.split, count=self.count, seed=self.seed)

    @cached_property
    def training_pictures(self) -> Pictures:
        """As many pictures of the training split, where shortcuts are learnt."""
        return choose_pictures(self.bundle, split="train", count=self.count, seed=self.seed)

    @property
    def all_features(self) -> dict[str, Features]:
        """What every run's network makes of the pictures, by the run's name."""
        return {subject.name: self.features(subject) for subject in self.subjects}

    def features(self, subject: Subject) -> Features:
        """Return what a run's network makes of the pictures."""
        if subject.name not in self._features:
            self._features[subject.name] = finite_features(subject, self.pictures)
        return self._features[subject.name]

    def right(self, subject: Subject) -> np.ndarray:
        """Return (n,) bool: which pictures a run has right."""
        return self.features(subject).predicted == self.pictures.labels

    def concepts(self, subject: Subject) -> ConceptMaps:
        """Return a run's concepts of all the pictures."""
        if subject.name not in self._concepts:
            self._concepts[subject.name] = find_concept_maps(subject, self.pictures, self.features(subject))
        return self._concepts[subject.name]

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """Places of the pictures shown one by one: those the runs disagree on first, then wrong ones, then any."""
        right = np.stack([self.right(subject) for subject in self.subjects])
        disagree = right.any(0) & ~right.all(0)
        order = np.lexsort((np.random.default_rng(self.seed).permutation(right.shape[1]), right.all(0), ~disagree))
        half = SHOWN // 2  # the other half as they come, so that the sheet is not of failures alone
        chosen = list(order[:half])
        rest = np.random.default_rng(self.seed + 1).permutation(right.shape[1])
        chosen += [place for place in rest if place not in chosen][: SHOWN - half]
        return tuple(int(place) for place in chosen)

    @cached_property
    def some(self) -> tuple[int, ...]:
        """Places of at most :data:`SOME` of the pictures, drawn at random."""
        return self._drawn(SOME)

    @cached_property
    def few_pictures(self) -> Pictures:
        """At most :data:`FEW` of the pictures, drawn at random."""
        return self.pictures.at(self._drawn(FEW))

    def _drawn(self, count: int) -> tuple[int, ...]:
        total = len(self.pictures)
        chosen = np.random.default_rng(self.seed).choice(total, size=min(count, total), replace=False)
        return tuple(sorted(chosen.tolist()))
