"""Answers to given pictures: those of the data give what the data gives; the model stays as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from concept_tuning.data.decode import UnreadableImage
from concept_tuning.diagnostics import example_pictures
from concept_tuning.diagnostics.example_pictures import held_out_examples, planted_examples, telling_first
from concept_tuning.diagnostics.given_picture import (
    UNKNOWN,
    given_pictures,
    look_at_given,
    predict_given,
    slow_map_of_given,
)
from concept_tuning.diagnostics.one_picture import look_at, pick_pictures
from concept_tuning.engine.evaluation import PREDICTION, predict_split
from concept_tuning.errors import RunError


def _pixels(subject, count: int) -> list[np.ndarray]:
    bundle = subject.run.data()
    return [bundle.table.read(int(row)) for row in bundle.splits["test"].rows[:count]]


@pytest.mark.parametrize("place", [0, 1])
def test_a_picture_of_the_data_gets_the_answer_that_evaluation_gives(subjects, place: int) -> None:
    subject = subjects[place]
    config = subject.run.config
    expected = predict_split(
        subject.method,
        subject.run.data().splits["test"],
        image_size=config.data.image_size,
        batch_size=4,
        device=torch.device("cpu"),
    ).probabilities[PREDICTION]
    found = predict_given(subject, _pixels(subject, 5))
    assert found == pytest.approx(expected[:5], abs=1e-5)


@pytest.mark.parametrize("place", [0, 1])
def test_a_look_is_what_the_dashboard_shows_of_the_same_picture(subjects, place: int) -> None:
    subject = subjects[place]
    bundle = subject.run.data()
    shown = look_at(subject, pick_pictures(bundle, bundle.splits["test"].keys[:1]))
    found = look_at_given(subject, _pixels(subject, 1)[0])
    maps = shown.results["picture-maps"]
    assert found.probabilities == pytest.approx(maps.probabilities[0], abs=1e-5)
    for row, name in enumerate(maps.names):
        assert found.maps[name] == pytest.approx(maps.values[row, 0], abs=1e-4)
    concepts = shown.results["concept-maps"]
    assert found.boxes * subject.image_size == pytest.approx(concepts.boxes[0], abs=1e-3)
    assert list(found.switched) == list(shown.switched)
    for name, values in shown.switched.items():
        assert found.switched[name] == pytest.approx(values, abs=1e-5)
    assert bool(found.switch_maps) is (place == 1)
    assert found.view.shape == (subject.image_size, subject.image_size, 3)
    assert found.top == subject.run.class_names[int(maps.predicted[0])]
    shares = [share for _, share in found.ranking]
    assert shares == sorted(shares, reverse=True)


def test_a_slow_map_is_in_the_same_size_as_the_quick_ones(subjects) -> None:
    pixels = _pixels(subjects[0], 1)[0]
    values = slow_map_of_given(subjects[0], pixels, "integrated-gradients")
    assert values.shape == look_at_given(subjects[0], pixels).maps["grad-cam"].shape
    assert values.max() == pytest.approx(1)


def test_the_model_is_left_as_it_was(subjects) -> None:
    before = {name: value.clone() for name, value in subjects[1].method.state_dict().items()}
    look_at_given(subjects[1], np.zeros((50, 70, 3), np.uint8))
    after = subjects[1].method.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not subjects[1].method.training


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
)
def test_other_shapes_are_refused(subjects, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        predict_given(subjects[0], [image])


def test_nobody_told_the_class(subjects) -> None:
    pictures = given_pictures(subjects[0], [np.zeros((9, 9, 3), np.uint8)] * 2)
    assert pictures.labels.tolist() == [UNKNOWN, UNKNOWN]
    assert not pictures.has_masks
    assert pictures.groups is None


def test_a_network_gone_wrong_is_said(subjects) -> None:
    weight = subjects[0].method.classifier.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        with pytest.raises(RunError, match="not finite"):
            predict_given(subjects[0], [np.zeros((9, 9, 3), np.uint8)])
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_examples_come_from_the_test_split_and_those_that_tell_come_first(subjects) -> None:
    found = held_out_examples(subjects[0], count=6)
    bundle = subjects[0].run.data()
    test = [bundle.table.read(int(row)) for row in bundle.splits["test"].rows]
    assert len(found) == 6
    assert all(any(np.array_equal(example.pixels, other) for other in test) for example in found)
    ordered = telling_first(found, *subjects)
    pixels = [example.pixels for example in ordered]
    first, second = (predict_given(subject, pixels) for subject in subjects)
    apart = first.argmax(1) != second.argmax(1)
    assert apart.tolist() == sorted(apart, reverse=True)
    assert len(planted_examples(2)) == 2
    assert telling_first([], *subjects) == []


def test_examples_whose_data_is_gone_are_left_out(subjects, monkeypatch, tmp_path) -> None:
    whole = held_out_examples(subjects[0], count=3)
    run, config = subjects[0].run, subjects[0].run.config
    keys = run.folder.read_json("split.json", "test")["test"]
    table = run.data().table

    def read(row: int) -> np.ndarray:
        if table.keys[row] == keys[0]:
            raise UnreadableImage("cut short")
        return table.read(row)

    other_keys = tuple("elsewhere" if key == keys[-1] else key for key in table.keys)
    less = dataclasses.replace(table, keys=other_keys, read=read)
    with monkeypatch.context() as patch:
        patch.setattr(example_pictures, "open_table", lambda config: less)
        (left,) = held_out_examples(subjects[0], count=3)
    assert np.array_equal(left.pixels, whole[1].pixels)
    gone = dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(tmp_path / "gone")))
    subject = dataclasses.replace(subjects[0], run=dataclasses.replace(run, config=gone))
    assert held_out_examples(subject, count=3) == []
