"""Results from files that do not fit the diagnosis they lie in are refused, and fitting ones pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from concept_tuning.diagnostics.checks import check_pictures
from concept_tuning.diagnostics.picture_maps import PictureMaps
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.statistics import share
from concept_tuning.diagnostics.thumbnails import Thumbnails, pack_thumbnails
from concept_tuning.errors import RunError

CLASSES, LABELS = ("gull", "jay"), np.array([0, 1, 1])


def predictions(**changes: object) -> Predictions:
    fields: dict[str, object] = {
        "run": "run",
        "keys": ("a", "b", "c"),
        "labels": LABELS,
        "groups": np.array([0, 1, 0]),
        "predicted": LABELS,
        "probabilities": np.eye(2, dtype=np.float32)[LABELS],
        "class_names": CLASSES,
        "group_names": ("sea", "wood"),
        "accuracy": share(np.ones(3, bool)),
        "classes": (),
    }
    return Predictions(**{**fields, **changes})


def maps(values: np.ndarray) -> PictureMaps:
    return PictureMaps(
        run="run",
        keys=("a", "b", "c"),
        names=("grad-cam",),
        values=values,
        predicted=LABELS,
        probabilities=np.eye(2, dtype=np.float32)[LABELS],
        labels=LABELS,
        class_names=CLASSES,
    )


THUMBNAILS = pack_thumbnails(("a", "b", "c"), np.zeros((3, 4, 4, 3), np.uint8), LABELS)


@pytest.mark.parametrize(
    "result", [predictions(), predictions(groups=None), maps(np.zeros((1, 3, 4, 4))), THUMBNAILS, share(LABELS == 1)]
)
def test_what_fits_passes(result: object) -> None:
    check_pictures(result, CLASSES, "seen")


@pytest.mark.parametrize(
    "result",
    [
        predictions(keys=("a", "b")),
        predictions(labels=np.array([0, 1, 2])),
        predictions(predicted=np.array([0, -1, 1])),
        predictions(labels=LABELS.astype(float)),
        predictions(groups=np.array([0, 1, 2])),
        predictions(probabilities=np.zeros((3, 1), np.float32)),
        predictions(class_names=("gull",)),
        maps(np.zeros((2, 3, 4, 4))),
        dataclasses.replace(THUMBNAILS, files=("R0lGODlh",) * 3),
    ],
    ids=["keys", "labels", "predicted", "kind", "groups", "probabilities", "classes", "maps", "files"],
)
def test_what_does_not_fit_is_named(result: Predictions | PictureMaps | Thumbnails) -> None:
    with pytest.raises(RunError, match=f"The {type(result).__name__} of the diagnosis seen do not fit"):
        check_pictures(result, CLASSES, "seen")


def test_a_diagnosis_without_classes_is_named() -> None:
    with pytest.raises(RunError, match="The diagnosis seen names no classes"):
        check_pictures(predictions(), (), "seen")
