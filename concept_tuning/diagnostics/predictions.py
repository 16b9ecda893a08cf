"""What a run says of every picture: predictions, accuracy of each class, and which classes it mistakes for which."""

from __future__ import annotations

import numpy as np
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.features import Features
from concept_tuning.diagnostics.groups import NamedRate, named_rates
from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import RESULT, Array, Interval
from concept_tuning.diagnostics.statistics import share


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Predictions:
    """A run's predictions of n pictures.

    Attributes:
        run: Name of the run.
        keys: Unique names of the pictures.
        labels: (n,) int64 class indices.
        groups: (n,) int64 group indices; None where the pictures have none.
        predicted: (n,) int64 classes by the run's fixed rule.
        probabilities: (n, C) float32 of that rule.
        class_names: The C classes.
        group_names: The groups.
        accuracy: Share predicted right, with its Wilson interval.
        classes: The same for each class that has pictures.
    """

    run: str
    keys: tuple[str, ...]
    labels: Array
    groups: Array | None
    predicted: Array
    probabilities: Array
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    accuracy: Interval
    classes: tuple[NamedRate, ...]

    @property
    def right(self) -> np.ndarray:
        """(n,) bool: which pictures are predicted right."""
        return self.predicted == self.labels

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int64 pictures by class (row) and prediction (column)."""
        classes = len(self.class_names)
        return np.bincount(self.labels * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def cell(self, label: int, predicted: int) -> tuple[str, ...]:
        """Return the names of the pictures of a class that are predicted as another, the surest mistakes first."""
        places = np.flatnonzero((self.labels == label) & (self.predicted == predicted))
        order = np.argsort(-self.probabilities[places, predicted], kind="stable")
        return tuple(self.keys[place] for place in places[order])


def collect_predictions(run: str, pictures: Pictures, features: Features) -> Predictions:
    """Collect what a run predicts of the pictures from what its network makes of them."""
    right, names = features.predicted == pictures.labels, pictures.bundle.class_names
    return Predictions(
        run=run,
        keys=pictures.keys,
        labels=pictures.labels,
        groups=pictures.groups,
        predicted=features.predicted,
        probabilities=features.probabilities,
        class_names=names,
        group_names=pictures.bundle.group_names,
        accuracy=share(right, units=pictures.units),
        classes=named_rates(right, pictures.labels, names, units=pictures.units),
    )
