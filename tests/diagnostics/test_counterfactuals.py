from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from toys import SIZE, ToyMethod, toy_pictures, toy_subject

from concept_tuning.diagnostics.counterfactuals import Counterfactuals, _summary, background_counterfactuals
from concept_tuning.diagnostics.editing import EDITS, OTHER_CLASS
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.statistics import no_difference

OTHER, SAME, BLURRED, REMOVED = EDITS
#: The cells of the object, a square in the middle.
CENTRE = torch.zeros(4, 4)
CENTRE[1:3, 1:3] = 1


def birds(background_of: np.ndarray, labels: np.ndarray):
    """Pictures of a square in its class's colour channel before a background in a channel of its own."""
    colours = np.eye(3) * 200
    images = np.empty((len(labels), 3, SIZE, SIZE), dtype=np.uint8)
    images[:] = colours[background_of][:, :, None, None]
    inner = slice(SIZE // 4, 3 * SIZE // 4)
    images[:, :, inner, inner] = colours[labels][:, :, None, None]
    objects = np.zeros((len(labels), SIZE, SIZE), dtype=bool)
    objects[:, inner, inner] = True
    return images, objects


@pytest.fixture(scope="module")
def habitats():
    """Sixty pictures of three classes, each before its own class's background."""
    labels = np.arange(60) % 3
    images, objects = birds(labels, labels)
    return toy_pictures(images, labels, objects=objects)


def reads(where: torch.Tensor) -> ToyMethod:
    return ToyMethod(torch.eye(3) * 50, where)


def outcomes(found: Counterfactuals, number: int = 0) -> dict:
    return {one.kind: one for one in found.runs[number].outcomes}


def test_a_model_of_backgrounds_flips_and_one_of_objects_does_not(habitats) -> None:
    subjects = [toy_subject(reads(1 - CENTRE), name="ground"), toy_subject(reads(CENTRE), name="object")]
    found = background_counterfactuals(subjects, habitats)
    ground, bird = outcomes(found), outcomes(found, 1)
    assert found.runs[0].accuracy.value == found.runs[1].accuracy.value == 1
    assert ground[OTHER].flips.value == 1
    assert ground[SAME].flips.value == 0
    assert ground[BLURRED].flips.value == 0
    assert ground[REMOVED].flips.value == 0
    assert ground[OTHER].followed.value == 1
    assert np.array_equal(ground[OTHER].predicted, found.donor_classes[:, 0])
    assert found.runs[0].flip_gap.value == found.runs[0].background_gap.value == 1
    for kind in (OTHER, SAME, BLURRED):
        assert bird[kind].flips.value == 0
        assert bird[kind].probability_drop == pytest.approx(0, abs=1e-6)
    assert bird[OTHER].followed.value == 0
    assert found.runs[1].flip_gap.value == found.runs[1].background_gap.value == 0
    # where the object was, its own background is seen, here its class's
    assert bird[REMOVED].flips.value == 0
    assert found.left_out == 0


def test_known_features_give_the_same_result_in_fewer_passes(habitats) -> None:
    subject = toy_subject(reads(1 - CENTRE))
    seen: list[int] = []
    handle = subject.inference_method.backbone.register_forward_hook(lambda _m, images, _o: seen.append(len(images[0])))
    try:
        features = {subject.name: compute_features(subject, habitats)}
        seen.clear()
        known = background_counterfactuals([subject], habitats, features=features)
        assert sum(seen) == len(EDITS) * len(known.keys)
        fresh = background_counterfactuals([subject], habitats)
    finally:
        handle.remove()
    assert known.runs[0].outcomes[0].probability_drop == fresh.runs[0].outcomes[0].probability_drop
    np.testing.assert_array_equal(known.runs[0].predicted, fresh.runs[0].predicted)


def test_features_go_with_the_pictures_that_could_be_edited() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 60)
    images, objects = birds(labels, labels)
    objects[[3, 20, 41]] = False  # left out, in between
    pictures, subject = toy_pictures(images, labels, objects=objects), toy_subject(reads(CENTRE))
    features = compute_features(subject, pictures)
    fresh = background_counterfactuals([subject], pictures)
    known = background_counterfactuals([subject], pictures, features={subject.name: features})
    assert known.left_out == 3
    np.testing.assert_array_equal(known.runs[0].predicted, fresh.runs[0].predicted)
    np.testing.assert_array_equal(known.runs[0].predicted, known.labels)
    with pytest.raises(ValueError, match="features must be of the 30 pictures, got those of 60"):
        background_counterfactuals([subject], pictures.at(range(30)), features={subject.name: features})


def test_intervals_and_counts(habitats) -> None:
    found = background_counterfactuals([toy_subject(reads(torch.ones(4, 4)))], habitats)
    for one in found.runs[0].outcomes:
        assert one.flips.n == one.accuracy.n == 60
        assert one.flips.value == pytest.approx((one.predicted != found.runs[0].predicted).mean())
        assert one.flips.low <= one.flips.value <= one.flips.high
    gap = found.runs[0].flip_gap
    assert gap.value == pytest.approx(outcomes(found)[OTHER].flips.value - outcomes(found)[SAME].flips.value)


def test_unusual_backgrounds_hide_in_the_flip_gap_and_show_in_the_background_gap() -> None:
    """Test pictures before any background, donors of the training split before their own."""
    labels = np.arange(120) % 3
    grounds = np.where(np.arange(120) < 60, labels, np.random.default_rng(0).integers(0, 3, 120))
    images, objects = birds(grounds, labels)
    pictures = toy_pictures(images, labels, objects=objects, train=np.arange(60))
    pictures = dataclasses.replace(pictures, chosen=np.arange(60, 120))
    found = background_counterfactuals([toy_subject(reads(1 - CENTRE))], pictures)
    run = found.runs[0]
    assert found.donor_split == "train"
    assert run.background_gap.value == 1
    assert outcomes(found)[SAME].accuracy.value == 1
    assert outcomes(found)[SAME].flips.value > 0.4
    assert run.flip_gap.value < 0.6
    # a prediction that was the donor's class before has nothing to follow
    candidates = run.predicted != found.donor_classes[:, 0]
    assert 20 < candidates.sum() < 60
    assert outcomes(found)[OTHER].followed.n == candidates.sum()


def test_pictures_without_object_or_background_are_left_out() -> None:
    labels = np.arange(12) % 2
    images, objects = birds(labels, labels)
    objects[3], objects[8] = False, True
    pictures = toy_pictures(images, labels, objects=objects)
    found = background_counterfactuals([toy_subject(ToyMethod(torch.eye(3)[:2]))], pictures)
    assert found.left_out == 2
    assert set(pictures.keys) - set(found.keys) == {"test/3", "test/8"}
    assert not np.isin(found.donors, [3, 8]).any()
    assert len(found.runs[0].predicted) == 10


@pytest.mark.parametrize(("count", "enough"), [(9, False), (10, True)])
def test_fewer_than_ten_edited_pictures_give_no_interval(count: int, enough: bool) -> None:
    labels = np.arange(count) % 2
    images, objects = birds(labels, labels)
    found = background_counterfactuals(
        [toy_subject(ToyMethod(torch.eye(3)[:2]))], toy_pictures(images, labels, objects=objects)
    )
    assert isinstance(found, Unavailable) is not enough
    if not enough:
        assert found.reason.endswith("; 10 are needed.")


def test_where_no_prediction_changes_that_is_not_sure() -> None:
    labels = np.arange(12) % 2
    run = _summary("run", np.eye(2)[np.stack([labels] * (1 + len(EDITS)))], labels, 1 - labels, 0)
    assert run.flip_gap == run.background_gap == no_difference(12)
    assert run.flip_gap.low < 0 < run.flip_gap.high


def test_one_change_is_no_surer_than_none() -> None:
    labels = np.arange(500) % 2
    said = np.stack([labels] * (1 + len(EDITS)))
    said[1 + EDITS.index(OTHER_CLASS), 0] ^= 1
    run = _summary("run", np.eye(2)[said], labels, 1 - labels, 0)
    assert run.differing == (1, 1)
    assert run.flip_gap.value == pytest.approx(1 / 500)
    assert run.flip_gap.high >= no_difference(500).high


def test_what_is_called_the_backgrounds_class_is_set_against_the_same_before_their_own() -> None:
    labels = np.arange(100) % 2
    said = np.stack([labels] * (1 + len(EDITS)))
    said[1 + EDITS.index(OTHER_CLASS), :40] ^= 1
    said[1 + EDITS.index(SAME), 30:50] ^= 1
    run = _summary("run", np.eye(2)[said], labels, 1 - labels, 0)
    assert run.followed_gap.value == pytest.approx((40 - 20) / 100)
    assert run.followed_gap.low < 0.2 < run.followed_gap.high


def test_rates_and_gaps_are_over_units_where_pictures_have_them() -> None:
    rng, unit = np.random.default_rng(0), np.repeat(np.arange(20), 6)
    labels = np.repeat(np.arange(20) % 2, 6)
    said = np.stack([labels, *((rng.random(20) < 0.5)[unit] ^ labels for _ in EDITS)])
    alone, whole = (_summary("run", np.eye(2)[said], labels, 1 - labels, 0, units) for units in (None, unit))
    pairs = [(alone.flip_gap, whole.flip_gap), (alone.background_gap, whole.background_gap)]
    pairs += [(one.flips, other.flips) for one, other in zip(alone.outcomes, whole.outcomes, strict=True)]
    pairs += [(alone.outcomes[EDITS.index(OTHER_CLASS)].followed, whole.outcomes[EDITS.index(OTHER_CLASS)].followed)]
    for narrow, wide in pairs:
        assert wide.value == narrow.value
        assert wide.n == narrow.n == 120
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_examples_are_the_edited_pictures(habitats) -> None:
    found = background_counterfactuals([toy_subject(reads(CENTRE))], habitats, examples=5)
    assert [one.place for one in found.examples] == [0, 1, 2, 3, 4]
    inner = slice(SIZE // 4, 3 * SIZE // 4)
    for one in found.examples:
        views = dict(zip(EDITS, one.edits, strict=True))
        for kind in (OTHER, SAME, BLURRED):
            assert np.array_equal(views[kind][inner, inner], one.original[inner, inner])
        donor = found.donor_classes[one.place, 0]
        assert (views[OTHER][0, 0] == np.eye(3)[donor] * 200).all()
        assert (views[REMOVED] == one.original[0, 0]).all()
        assert one.donors[0] == found.donor_keys[found.donors[one.place, 0]]
    assert background_counterfactuals([toy_subject(reads(CENTRE))], habitats, examples=0).examples == ()


def test_runs_of_different_sizes_share_the_donors(habitats) -> None:
    """A run of half the size, in the first place of the gallery."""
    small = toy_subject(reads(1 - CENTRE), name="small")
    small.run.config.data.image_size = SIZE // 2
    found = background_counterfactuals([small, toy_subject(reads(1 - CENTRE), name="large")], habitats, examples=2)
    assert found.examples[0].original.shape == (SIZE // 2, SIZE // 2, 3)
    assert np.array_equal(outcomes(found)[OTHER].predicted, outcomes(found, 1)[OTHER].predicted)
    assert (outcomes(found)[OTHER].predicted == found.donor_classes[:, 0]).all()


def test_without_masks_or_donors_it_is_said(habitats) -> None:
    bare = toy_pictures(*[np.zeros((4, 3, SIZE, SIZE), np.uint8), np.arange(4) % 2])
    found = background_counterfactuals([toy_subject(ToyMethod(torch.eye(3)[:2]))], bare)
    assert isinstance(found, Unavailable)
    assert "masks" in found.reason
    images, objects = birds(np.zeros(4, int), np.zeros(4, int))
    alone = toy_pictures(images, np.zeros(4, int), objects=objects)
    found = background_counterfactuals([toy_subject(ToyMethod(torch.eye(3)[:2]))], alone)
    assert isinstance(found, Unavailable)
    assert "0 of 4" in found.reason


def test_planted_birds(subjects, pictures, tmp_path) -> None:
    method = subjects[1].method
    before = {name: value.clone() for name, value in method.state_dict().items()}
    told: list[tuple[int, int]] = []
    found = background_counterfactuals(
        subjects, pictures, examples=3, progress=lambda done, total: told.append((done, total))
    )
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert told[-1] == (2 * len(found.keys), 2 * len(found.keys))
    assert [run.run for run in found.runs] == ["vanilla", "concept-tuning"]
    first = found.examples[0]
    inside = pictures.masks(pictures.keys.index(first.key), 64)["object"].numpy()
    for edited in first.edits[:3]:
        assert np.array_equal(edited[inside], first.original[inside])
        assert not np.array_equal(edited[~inside], first.original[~inside])
    save_result(found, tmp_path / "found.json")
    again = load_result(Counterfactuals, tmp_path / "found.json")
    assert again.runs[0].flip_gap == found.runs[0].flip_gap
    assert np.array_equal(again.examples[2].edits[3], found.examples[2].edits[3])
    repeated = background_counterfactuals(subjects, pictures, examples=0)
    assert np.array_equal(repeated.donors, found.donors)
    assert repeated.runs[1].background_gap == found.runs[1].background_gap
