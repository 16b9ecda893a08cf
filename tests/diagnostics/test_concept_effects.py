from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toys import SIZE, ToyMethod, toy_pictures, toy_subject

from concept_tuning.diagnostics import concept_effects as module
from concept_tuning.diagnostics.concept_effects import (
    ConceptEffects,
    auc_interval,
    concept_effects,
    removal_effect,
    suspicion_score,
)
from concept_tuning.diagnostics.features import class_scores, compute_features
from concept_tuning.diagnostics.results import Interval, Unavailable, load_result, save_result

CELL = SIZE // 4
RED, GREEN, BLUE = range(3)


def cell(row: int, column: int) -> tuple[slice, slice]:
    return slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)


@pytest.fixture(scope="module")
def planted():
    """Class 0 has a red object; class 1 has nothing but, mostly, a green patch, which class 0 has now and then.

    Blue patches lie anywhere and mean nothing.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = np.zeros((80, 3, SIZE, SIZE), dtype=np.uint8)
    objects = np.zeros((80, SIZE, SIZE), dtype=bool)
    for i, label in enumerate(labels):
        objects[i][cell(1, 1)] = True
        if label == 0:
            images[i, RED][cell(1, 1)] = rng.integers(180, 256)
        if rng.random() < (0.8, 0.3)[1 - label]:
            images[i, GREEN][cell(3, rng.integers(0, 4))] = rng.integers(180, 256)
        if rng.random() < 0.5:
            images[i, BLUE][cell(0, rng.integers(0, 4))] = rng.integers(180, 256)
    weight = torch.tensor([[60.0, 0, 0], [0, 60, 0]])
    method = ToyMethod(weight)
    method.classifier.bias.data[0] = 1.0  # nothing seen: class 0
    subject = toy_subject(method)
    return subject, toy_pictures(images, labels, objects=objects), images


@pytest.fixture(scope="module")
def found(planted) -> ConceptEffects:
    subject, pictures, _ = planted
    return concept_effects(subject, pictures, compute_features(subject, pictures), count=3)


def by_colour(found: ConceptEffects, planted) -> dict[int, object]:
    """Concepts by the colour of their strongest patch."""
    images = planted[2]
    named = {}
    for one in found.concepts:
        left, top, right, bottom = one.boxes[0].round().astype(int)
        named[int(images[one.examples[0], :, top:bottom, left:right].sum((1, 2)).argmax())] = one
    return named


def test_the_planted_shortcut_is_the_most_suspicious(found, planted) -> None:
    named = by_colour(found, planted)
    assert set(named) == {RED, GREEN, BLUE}
    assert named[GREEN] is found.concepts[0]
    assert (named[GREEN].pulled_class, named[RED].pulled_class) == (1, 0)
    assert named[GREEN].pull.value > 0.9
    assert named[RED].pull.value > 0.9
    assert named[BLUE].pull.value < 0.7
    assert named[BLUE].suspicion < named[RED].suspicion < named[GREEN].suspicion
    assert [one.rank for one in found.concepts] == [1, 2, 3]


def test_how_often_a_class_has_the_concept(found, planted) -> None:
    _, pictures, images = planted
    green = (images[:, GREEN] > 0).any((1, 2))
    one = by_colour(found, planted)[GREEN]
    assert np.array_equal(found.present[:, one.index], green)
    rates = [green[pictures.labels == label].mean() for label in (0, 1)]
    np.testing.assert_allclose(one.by_class[:, 0], rates)
    assert (one.by_class[:, 1] < rates).all()
    assert one.reliability == pytest.approx(rates[1] / sum(rates))
    red = by_colour(found, planted)[RED]
    assert red.reliability == 1
    assert red.suspicion == pytest.approx(max(0, 2 * red.pull.value - 1) / 2)


def test_removal_takes_its_share_of_the_score(found, planted) -> None:
    """A linear head: without green, the green logit falls by its weight times the green there is."""
    subject, pictures, _ = planted
    features = compute_features(subject, pictures)
    one = by_colour(found, planted)[GREEN]
    here = found.present[:, one.index]
    fall = 60 * features.pooled[here, GREEN].mean()
    np.testing.assert_allclose(one.effect, [-fall / 2, fall / 2], rtol=0.05)
    less = features.pooled.copy()
    less[:, GREEN] = 0
    now = np.zeros(80, dtype=int)  # nobody is left to speak for class 1
    assert one.flips.value == pytest.approx((now != features.predicted)[here].mean())
    assert one.flips.n == here.sum()


def test_masks_say_what_is_on_the_object(found, planted) -> None:
    named = by_colour(found, planted)
    assert found.masks.outside[named[RED].index] < 0.05
    assert found.masks.outside[named[GREEN].index] > 0.95
    np.testing.assert_allclose(found.masks.even, 15 / 16)
    subject, pictures, _ = planted
    bare = dataclasses.replace(pictures, bundle=toy_pictures(planted[2], pictures.labels).bundle)
    again = concept_effects(subject, bare, compute_features(subject, bare), count=3)
    assert isinstance(again.masks, Unavailable)
    assert [one.suspicion for one in again.concepts] == [one.suspicion for one in found.concepts]


def test_patches_alone_are_less_like_the_class_than_its_pictures_or_not(found, planted) -> None:
    """A green patch on black is all that class 1 ever shows; a red one all that class 0 does."""
    named = by_colour(found, planted)
    assert named[GREEN].alone.value < 0.5
    assert named[BLUE].alone.value > 0.6


def test_the_auc_is_by_ranks() -> None:
    rng = np.random.default_rng(0)
    above, below = rng.integers(0, 6, 30) + 1, rng.integers(0, 6, 75)
    truth = np.repeat([1, 0], [30, 75])
    for paired, values in ((False, below), (True, below[:30])):
        found = auc_interval(above, values, paired=paired)
        wanted = roc_auc_score(truth[: 30 + len(values)], np.concatenate([above, values]))
        assert found.value == pytest.approx(wanted)
        assert found.low < found.value < found.high
    # chance is 1/2 whatever the shares, which average precision would not give
    assert auc_interval(np.ones(5), np.ones(95), paired=False).value == 0.5


def test_the_bootstrap_of_a_paired_auc_draws_pictures_together() -> None:
    """Where the two differ by next to nothing on pictures that differ much, pairs hardly move the AUC."""
    values = np.arange(40.0)
    paired = auc_interval(values + 0.1, values, paired=True)
    loose = auc_interval(values + 0.1, values, paired=False)
    assert paired.high - paired.low < (loose.high - loose.low) / 5


def test_the_control_of_a_paste_is_a_patch_of_another_picture(planted, monkeypatch) -> None:
    """Same host, same place, pixels of another host: all but the concept is alike."""
    subject, pictures, images = planted
    seen: list[np.ndarray] = []

    def record(method, batch):
        seen.append(batch.numpy())
        return np.random.default_rng(0).random((len(batch), 2))

    monkeypatch.setattr(module, "_probabilities", record)
    sources = torch.full((2, 3, SIZE, SIZE), 99, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 16, 16], [32, 32, 64, 64]])
    here = np.arange(80) < 40
    found = module._pull(subject, pictures, here, 1, sources, boxes, 0)
    assert found.pull.value == 0.5  # the same numbers on both sides
    assert (found.shift.value, found.newly_called.value) == (0, 0)
    pasted, control = seen
    free = images[40::2]  # of the other class, without the concept
    assert len(pasted) == 20
    for i, (one, other) in enumerate(zip(pasted, control, strict=True)):
        left, top, right, bottom = boxes[i % 2].int().tolist()
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        inside[top:bottom, left:right] = True
        assert (one[:, inside] == 99).all()
        assert np.array_equal(one[:, ~inside], other[:, ~inside])
        host = [k for k, image in enumerate(free) if np.array_equal(image[:, ~inside], one[:, ~inside])]
        assert host
        assert any(np.array_equal(image[:, inside], other[:, inside]) for k, image in enumerate(free) if [k] != host)
    assert any(not (one == free).all((1, 2, 3)).any() for one in control)


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_a_pull_has_the_change_of_the_probability_and_of_the_answers_beside_it(planted, monkeypatch, scale) -> None:
    """A rank knows nothing of how large the probabilities are that it ranks."""
    subject, pictures, _ = planted
    rng, calls = np.random.default_rng(0), []

    def answer(method, batch):
        calls.append(len(batch))
        high = scale * ((0.7 if len(calls) == 1 else 0.2) + 0.1 * rng.random(len(batch)))
        return np.stack([1 - high, high], axis=1)

    monkeypatch.setattr(module, "_probabilities", answer)
    patches = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.tensor([[0.0, 0, 16, 16]])
    found = module._pull(subject, pictures, np.zeros(80, bool), 1, *patches, 0)
    assert found.pull.low == 1
    assert found.shift.value == pytest.approx(0.5 * scale, rel=0.1)
    assert 0 < found.shift.low < found.shift.value < found.shift.high
    assert found.newly_called.value == (1 if scale == 1 else 0)


def test_suspicion() -> None:
    def pull(value: float) -> Interval:
        return Interval(value=value, low=0, high=1, n=10)

    assert suspicion_score(None, 0.5) is None
    assert suspicion_score(pull(0.3), 0.0) == 0
    assert suspicion_score(pull(1.0), 0.0) == 1
    assert suspicion_score(pull(1.0), 1.0) == 0.5
    assert suspicion_score(pull(0.75), 0.5) == pytest.approx(0.375)


def test_without_pictures_of_other_classes_no_pull_is_given(planted) -> None:
    subject, _, images = planted
    one_class = toy_pictures(images[::2], np.zeros(40, dtype=np.int64))
    result = concept_effects(subject, one_class, compute_features(subject, one_class), count=3)
    missing = [one for one in result.concepts if one.pulled_class == 0]
    assert missing
    assert all(one.pull is None and one.suspicion is None for one in missing)
    assert all(np.isnan(one.by_class[1]).all() for one in result.concepts)
    assert [one.suspicion is None for one in result.concepts] == sorted(
        one.suspicion is None for one in result.concepts
    )


def test_removing_nothing_changes_nothing(subjects, pictures) -> None:
    subject = subjects[1]
    features = compute_features(subject, pictures)
    maps = torch.from_numpy(features.maps)
    effect, flips = removal_effect(subject.method, maps, scores=features.scores, predicted=features.predicted)
    np.testing.assert_allclose(effect, 0, atol=1e-5)
    assert not flips.any()
    effect, _ = removal_effect(subject.method, maps * 0, scores=features.scores, predicted=features.predicted)
    with torch.no_grad():
        fall = torch.from_numpy(features.scores) - class_scores(subject.method, maps * 0)
    np.testing.assert_allclose(effect, (fall - fall.mean(1, keepdim=True)).mean(0), atol=1e-5)


def test_planted_birds(subjects, pictures, tmp_path) -> None:
    for subject in subjects:
        state = {name: value.clone() for name, value in subject.method.state_dict().items()}
        features = compute_features(subject, pictures)
        found = concept_effects(subject, pictures, features, count=5)
        again = concept_effects(subject, pictures, features, count=5)
        assert [one.suspicion for one in again.concepts] == [one.suspicion for one in found.concepts]
        assert all(torch.equal(value, state[name]) for name, value in subject.method.state_dict().items())
        assert sum(one.energy for one in found.concepts) == pytest.approx(1, rel=1e-4)
        assert sorted(one.index for one in found.concepts) == list(range(found.present.shape[1]))
        save_result(found, tmp_path / "effects.json")
        read = load_result(ConceptEffects, tmp_path / "effects.json")
        assert [(one.suspicion, one.pull, one.alone, one.examples) for one in read.concepts] == [
            (one.suspicion, one.pull, one.alone, one.examples) for one in found.concepts
        ]
        assert np.array_equal(read.masks.outside, found.masks.outside)


def test_examples_have_the_concept(planted, monkeypatch) -> None:
    """A picture where a concept fires most, but another one more in each of its cells, does not have it."""
    subject, pictures, _ = planted
    discover = module.discover_concepts

    def outdone(*known, **settings):
        found = discover(*known, **settings)
        present = found.present.copy()
        strongest = found.strengths.max((2, 3)).argmax(0)
        present[strongest, np.arange(present.shape[1])] = False
        return dataclasses.replace(found, present=present)

    monkeypatch.setattr(module, "discover_concepts", outdone)
    found = concept_effects(subject, pictures, compute_features(subject, pictures), count=3)
    for one in found.concepts:
        assert one.examples
        assert found.present[list(one.examples), one.index].all()
