from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.predictions import Predictions, collect_predictions
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.statistics import wilson


@pytest.fixture(scope="module")
def found(subjects, pictures) -> Predictions:
    return collect_predictions("vanilla", pictures, compute_features(subjects[0], pictures))


def test_confusion_is_that_of_scikit_learn(found) -> None:
    expected = confusion_matrix(found.labels, found.predicted, labels=range(len(found.class_names)))
    assert np.array_equal(found.confusion, expected)
    hits = int(np.trace(expected))
    assert found.accuracy == wilson(hits, len(found.labels))
    for place, rate in enumerate(found.classes):
        assert rate.accuracy == wilson(int(expected[place, place]), int(expected[place].sum()))


def test_cells_hold_their_pictures_surest_first() -> None:
    probabilities = np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]], np.float32)
    made = Predictions(
        run="a",
        keys=("p", "q", "r", "s"),
        labels=np.array([0, 0, 1, 0]),
        groups=None,
        predicted=probabilities.argmax(1),
        probabilities=probabilities,
        class_names=("owl", "tern"),
        group_names=(),
        accuracy=wilson(2, 4),
        classes=(),
    )
    assert made.cell(0, 1) == ("p", "q")
    assert made.cell(1, 0) == ()
    assert made.confusion.tolist() == [[1, 2], [0, 1]]
    assert made.right.tolist() == [False, False, True, True]


def test_they_are_read_back_equal(found, tmp_path) -> None:
    save_result(found, tmp_path / "found.json")
    read = load_result(Predictions, tmp_path / "found.json")
    assert np.array_equal(read.probabilities, found.probabilities)
    assert (read.keys, read.accuracy, read.classes) == (found.keys, found.accuracy, found.classes)
