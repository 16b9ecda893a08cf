"""The two runs that the demo compares, and what it asks of them; all of it in the worker's thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.demo.intake import BatchPicture, UploadError, read_batch, read_picture
from app.demo.worker import Worker
from concept_tuning.data.cache import cache_side, shrink
from concept_tuning.diagnostics.attribution import CAMS, METHODS
from concept_tuning.diagnostics.diagnose import load_subjects
from concept_tuning.diagnostics.example_pictures import ExamplePicture
from concept_tuning.diagnostics.given_picture import GivenAnswer, look_at_given, predict_given, slow_map_of_given
from concept_tuning.diagnostics.pair import same_classes
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.errors import RunError

#: Longest time in seconds for a batch; for a picture it is the worker's own.
BATCH_SECONDS = 90.0


@dataclass(frozen=True, eq=False)
class Looked:
    """A picture that both runs have looked at.

    Attributes:
        sizes: The picture, (h, w, 3) uint8, as each run's data would hold it.
        answers: Each run's view of it.
        example: The example that it is; None for what a visitor sent.
    """

    sizes: tuple[np.ndarray, np.ndarray]
    answers: tuple[GivenAnswer, GivenAnswer]
    example: ExamplePicture | None = None


@dataclass(frozen=True)
class BatchRow:
    """What both runs say of a picture of a batch.

    Attributes:
        name: Of the picture.
        tops: The class that each says; empty where the picture cannot be used.
        probabilities: Of those classes, 0..1.
        agree: Whether they say the same; None where they do not know the same classes.
        reason: Why the picture cannot be used; empty where it can.
    """

    name: str
    tops: tuple[str, ...]
    probabilities: tuple[float, ...]
    agree: bool | None
    reason: str


class Pair:
    """Two runs and the worker that asks them.

    Attributes:
        subjects: The runs, named apart.
        folder: Where uploads are put.
    """

    def __init__(self, subjects: tuple[Subject, Subject], worker: Worker, folder: Path) -> None:
        self.subjects = subjects
        self.folder = folder
        self._worker = worker

    @property
    def names(self) -> tuple[str, str]:
        """Of the runs."""
        return self.subjects[0].name, self.subjects[1].name

    @property
    def methods(self) -> tuple[str, str]:
        """By which the runs were trained."""
        first, second = (subject.run.config.method for subject in self.subjects)
        return first, second

    @property
    def comparable(self) -> bool:
        """Whether both know the same classes."""
        first, second = (subject.run.class_names for subject in self.subjects)
        return same_classes(first, second)

    def look(self, pixels: np.ndarray, example: ExamplePicture | None = None) -> Looked:
        """Ask both runs everything quick about a picture, (H, W, 3) uint8; raises as :meth:`Worker.ask`."""
        sizes = self._sizes(pixels)
        answers = self._worker.ask(_both, look_at_given, self.subjects, sizes)
        return Looked(sizes, answers, example)

    def look_at_upload(self, upload: object) -> Looked:
        """Ask about an upload; raises UploadError besides."""
        return self.look(read_picture(upload, self.folder))

    def with_map(self, looked: Looked, name: str) -> Looked:
        """Return what was looked at with a map of that name, computed if it is not there yet.

        Raises:
            UploadError: if there is no such map.
        """
        if name not in METHODS:
            raise UploadError(f"There is no map {name[:40]!r}; choose one of {', '.join(METHODS)}.")
        if name in CAMS or all(name in answer.maps for answer in looked.answers):
            return looked
        found = self._worker.ask(
            _both, lambda run, size: slow_map_of_given(run, size, name), self.subjects, looked.sizes
        )
        first, second = (
            replace(answer, maps={**answer.maps, name: values})
            for answer, values in zip(looked.answers, found, strict=True)
        )
        return Looked(looked.sizes, (first, second), looked.example)

    def compare(self, upload: object) -> dict[str, Any]:
        """Return what both runs say of an upload, as plain values: the answer of the endpoint ``/compare``."""
        sizes = self._sizes(read_picture(upload, self.folder))
        found = self._worker.ask(_both, lambda run, size: predict_given(run, [size])[0], self.subjects, sizes)
        first, second = (_said(run, values) for run, values in zip(self.subjects, found, strict=True))
        agree = first["top_class"] == second["top_class"] if self.comparable else None
        return {"a": first, "b": second, "agree": agree}

    def compare_batch(self, uploads: object) -> list[BatchRow]:
        """Return what both runs say of several uploads, disagreements first, unusable files last."""
        pictures = read_batch(uploads, self.folder, sides=self._sides)
        usable = [picture for picture in pictures if picture.sizes]
        found = self._worker.ask(self._predict_batch, usable, seconds=BATCH_SECONDS)
        rows = [self._row(picture, tuple(values[place] for values in found)) for place, picture in enumerate(usable)]
        rows.sort(key=lambda row: (row.agree is not False, row.agree is not None, min(row.probabilities)))
        return rows + [
            BatchRow(picture.name, (), (), None, picture.reason) for picture in pictures if not picture.sizes
        ]

    def about(self) -> dict[str, Any]:
        """Return what the two runs are, as plain values: the answer of the endpoint ``/about``."""
        first, second = (
            {
                "name": subject.name,
                "method": subject.run.config.method,
                "backbone": subject.run.config.backbone.architecture,
                "image_size": subject.image_size,
                "classes": list(subject.run.class_names),
            }
            for subject in self.subjects
        )
        return {"a": first, "b": second, "same_classes": self.comparable}

    @property
    def _sides(self) -> tuple[int, int]:
        first, second = (cache_side(subject.run.config.data) for subject in self.subjects)
        return first, second

    def _sizes(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = (shrink(pixels, side) for side in self._sides)
        return first, second

    def _predict_batch(self, pictures: list[BatchPicture]) -> tuple[np.ndarray, ...]:
        return tuple(
            predict_given(subject, [picture.sizes[place] for picture in pictures if picture.sizes])
            for place, subject in enumerate(self.subjects)
        )

    def _row(self, picture: BatchPicture, probabilities: tuple[np.ndarray, ...]) -> BatchRow:
        said = [_said(run, values) for run, values in zip(self.subjects, probabilities, strict=True)]
        tops = tuple(str(one["top_class"]) for one in said)
        return BatchRow(
            name=picture.name,
            tops=tops,
            probabilities=tuple(float(values.max()) for values in probabilities),
            agree=tops[0] == tops[1] if self.comparable else None,
            reason="",
        )


def load_pair(first: Path, second: Path) -> tuple[Subject, Subject]:
    """Load two runs, named by their folders, and apart where those are called the same.

    Raises:
        RunError: if one is no finished run, or both are the same folder.
    """
    if first.resolve() == second.resolve():
        raise RunError(f"{first} was given twice; give another run for --run-b.")
    a, b = (replace(subject, name=subject.name.replace("/", "-")) for subject in load_subjects([first, second]))
    return (a, b) if a.name != b.name else (replace(a, name=f"{a.name} (a)"), replace(b, name=f"{b.name} (b)"))


def _both(question: Any, subjects: tuple[Subject, Subject], sizes: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    return question(subjects[0], sizes[0]), question(subjects[1], sizes[1])


def _said(subject: Subject, probabilities: np.ndarray) -> Mapping[str, Any]:
    names = subject.run.class_names
    return {
        "name": subject.name,
        "probabilities": {name: float(value) for name, value in zip(names, probabilities, strict=True)},
        "top_class": names[int(np.argmax(probabilities))],
    }
