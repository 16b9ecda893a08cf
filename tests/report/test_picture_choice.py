from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.statistics import share
from concept_tuning.report.picture_choice import answer_choices, choose_keys

LABELS = np.array([0, 0, 1, 1])


def said(run: str, predicted: list[int], groups: np.ndarray | None = None) -> Predictions:
    answers = np.array(predicted)
    return Predictions(
        run=run,
        keys=("a", "b", "c", "d"),
        labels=LABELS,
        groups=groups,
        predicted=answers,
        probabilities=np.eye(2, dtype=np.float32)[answers],
        class_names=("gull", "jay"),
        group_names=("sea", "wood"),
        accuracy=share(answers == LABELS),
        classes=(),
    )


FOUND = {run: said(run, answers) for run, answers in (("one", [0, 1, 1, 0]), ("two", [1, 1, 1, 1]))}


def test_lost_rescued_and_disagreement() -> None:
    assert choose_keys(FOUND, answers=["lost: one right, two wrong"]) == ["a"]
    assert choose_keys(FOUND, answers=["rescued: one wrong, two right"]) == ["d"]
    assert choose_keys(FOUND, answers=["one and two disagree"]) == ["a", "d"]


def test_answers_of_each_run_hold_together() -> None:
    assert choose_keys(FOUND, answers=["one right"]) == ["a", "c"]
    assert choose_keys(FOUND, answers=["one wrong", "two wrong"]) == ["b"]
    assert choose_keys(FOUND, answers=["one right", "one wrong"]) == []
    assert choose_keys(FOUND, answers=["no such"]) == ["a", "b", "c", "d"]


def test_one_run_has_nothing_to_lose_and_three_disagree_in_pairs() -> None:
    assert list(answer_choices({"one": FOUND["one"]})) == ["one right", "one wrong"]
    three = answer_choices({**FOUND, "three": FOUND["one"]})
    assert [name for name in three if "disagree" in name] == [
        "one and two disagree",
        "one and three disagree",
        "two and three disagree",
    ]
    assert not three["one and three disagree"].any()


def test_class_group_and_what_comes_first() -> None:
    grouped = {"one": said("one", [0, 1, 1, 0], groups=np.array([0, 1, 0, 1]))}
    assert choose_keys(grouped, label=1) == ["c", "d"]
    assert choose_keys(grouped, group=1) == ["b", "d"]
    assert choose_keys(grouped, label=1, group=1) == ["d"]
    assert choose_keys(FOUND, group=1) == ["a", "b", "c", "d"]
    assert choose_keys(FOUND, first=["d", "b", "elsewhere"]) == ["d", "b", "a", "c"]
