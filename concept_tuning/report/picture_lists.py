"""Lists of pictures behind a number: those of a cell of the confusion matrix, and the mistakes within a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.figures.labels import percent


@dataclass(frozen=True, kw_only=True)
class ListedPicture:
    """A picture with what a run says of it.

    Attributes:
        key: Its name.
        text: The answer and its probability; the class too where the list is not of one class.
    """

    key: str
    text: str


def cell_pictures(found: Predictions, label: int, predicted: int) -> list[ListedPicture]:
    """Return the pictures of a class that are predicted as a class, those of which the run is surest first."""
    return _listed(found, np.flatnonzero((found.labels == label) & (found.predicted == predicted)))


def group_mistakes(found: Predictions, class_name: str, group: str) -> list[ListedPicture]:
    """Return the pictures of a class in a group that are wrong, the surest first; none where there are no groups."""
    if found.groups is None or class_name not in found.class_names or group not in found.group_names:
        return []
    inside = (found.labels == found.class_names.index(class_name)) & (found.groups == found.group_names.index(group))
    return _listed(found, np.flatnonzero(inside & ~found.right))


def commonest_mistake(found: Predictions) -> tuple[int, int]:
    """Return class and prediction of the cell with most mistakes; (0, 0) where nothing is wrong."""
    wrong = found.confusion.copy()
    np.fill_diagonal(wrong, 0)
    label, predicted = divmod(int(wrong.argmax()), len(wrong))
    return label, predicted


def pictures_of(found: Predictions, keys: list[str]) -> list[ListedPicture]:
    """Return the pictures of these names in their order, with their classes; unknown ones are left out."""
    places = {key: place for place, key in enumerate(found.keys)}
    return _told(found, [places[key] for key in keys if key in places], classes=True)


def _listed(found: Predictions, places: np.ndarray) -> list[ListedPicture]:
    sure = found.probabilities[places, found.predicted[places]]
    return _told(found, places[np.argsort(-sure, kind="stable")].tolist())


def _told(found: Predictions, places: list[int], *, classes: bool = False) -> list[ListedPicture]:
    pictures = []
    for place in places:
        said, label = int(found.predicted[place]), int(found.labels[place])
        text = "right" if said == label else f"says {found.class_names[said]}"
        whose = f"{found.class_names[label]}: " if classes else ""
        sure = percent(float(found.probabilities[place, said]), 0)
        pictures.append(ListedPicture(key=found.keys[place], text=f"{whose}{text}, {sure}"))
    return pictures
