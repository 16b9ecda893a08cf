from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.results import Interval
from concept_tuning.report.picture_lists import cell_pictures, commonest_mistake, group_mistakes, pictures_of


def found(groups: bool = True) -> Predictions:
    """Six pictures of two classes and two groups; pictures b, c, e are wrong, c most surely of class 0."""
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.55, 0.45], [0.1, 0.9]], np.float32)
    return Predictions(
        run="r",
        keys=tuple("abcdef"),
        labels=np.array([0, 0, 0, 1, 1, 1]),
        groups=np.array([0, 1, 1, 0, 0, 1]) if groups else None,
        predicted=probabilities.argmax(1),
        probabilities=probabilities,
        class_names=("gull", "jay"),
        group_names=("sea", "wood") if groups else (),
        accuracy=Interval(value=0.5, low=0, high=1, n=6),
        classes=(),
    )


def test_a_cell_lists_its_pictures_the_surest_first() -> None:
    assert [(one.key, one.text) for one in cell_pictures(found(), 0, 1)] == [
        ("c", "says jay, 80 %"),
        ("b", "says jay, 60 %"),
    ]
    assert [one.text for one in cell_pictures(found(), 0, 0)] == ["right, 90 %"]


def test_the_cells_share_out_all_pictures() -> None:
    keys = [one.key for i in range(2) for j in range(2) for one in cell_pictures(found(), i, j)]
    assert sorted(keys) == list("abcdef")


def test_mistakes_of_a_group_are_those_of_its_class_there() -> None:
    assert [one.key for one in group_mistakes(found(), "gull", "wood")] == ["c", "b"]
    assert [one.key for one in group_mistakes(found(), "jay", "sea")] == ["e"]
    assert group_mistakes(found(), "jay", "wood") == []
    assert group_mistakes(found(groups=False), "gull", "wood") == []
    assert group_mistakes(found(), "gull", "desert") == []


def test_the_commonest_mistake() -> None:
    assert commonest_mistake(found()) == (0, 1)


def test_named_pictures_come_in_their_order() -> None:
    assert [(one.key, one.text) for one in pictures_of(found(), ["e", "x", "a"])] == [
        ("e", "jay: says gull, 55 %"),
        ("a", "gull: right, 90 %"),
    ]
