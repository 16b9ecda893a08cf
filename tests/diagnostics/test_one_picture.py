from __future__ import annotations

import numpy as np
import pytest
from toys import toy_pictures

from concept_tuning.diagnostics import features as features_module
from concept_tuning.diagnostics.attention_maps import position_attention
from concept_tuning.diagnostics.attribution import CAMS
from concept_tuning.diagnostics.concept_maps import find_concept_maps
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.one_picture import (
    look_at,
    match_two,
    object_mask,
    one_map,
    pick_pictures,
    small_pictures,
)
from concept_tuning.diagnostics.picture_maps import picture_maps
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.switches import front_door_switches
from concept_tuning.diagnostics.transport_links import transport_links
from concept_tuning.errors import RunError

PLACE = 5


@pytest.fixture
def one(pictures):
    return pick_pictures(pictures.bundle, [pictures.keys[PLACE]])


def test_pictures_come_in_the_order_asked_for(pictures) -> None:
    keys = [pictures.keys[3], pictures.keys[1]]
    assert pick_pictures(pictures.bundle, keys).keys == tuple(keys)
    with pytest.raises(RunError, match="no picture nowhere"):
        pick_pictures(pictures.bundle, [keys[0], "nowhere"])


def test_one_picture_is_seen_as_among_all(subjects, pictures, one) -> None:
    run = subjects[1]
    found, features = look_at(run, one), compute_features(run, pictures)
    assert found.key == pictures.keys[PLACE]
    maps = picture_maps(run, pictures, features, places=[PLACE], names=CAMS)
    np.testing.assert_allclose(found.results["picture-maps"].values, maps.values, atol=1e-4)
    np.testing.assert_allclose(found.results["picture-maps"].probabilities, maps.probabilities, atol=1e-5)
    concepts = find_concept_maps(run, pictures, features, places=[PLACE])
    assert np.array_equal(found.results["concept-maps"].channels, concepts.channels)
    np.testing.assert_allclose(found.results["concept-maps"].boxes, concepts.boxes, atol=1e-3)
    attention = position_attention(run, pictures, features, places=[PLACE])
    np.testing.assert_allclose(found.results["position-attention"].weights, attention.weights, atol=1e-5)
    switches = front_door_switches(run, pictures, features, places=[PLACE])
    np.testing.assert_allclose(found.results["switches"].maps.values, switches.maps.values, atol=1e-4)


def test_switched_probabilities_are_the_prediction_and_what_becomes_of_it(subjects, one) -> None:
    found = look_at(subjects[1], one)
    assert list(found.switched) == ["everything on", "position off", "channel off", "both off"]
    said = found.results["picture-maps"].probabilities[0]
    np.testing.assert_allclose(found.switched["everything on"], said, atol=1e-6)
    shift = {name: np.abs(values - said).sum() / 2 for name, values in found.switched.items()}
    told = {o.name: o.probability_shift for o in found.results["switches"].outcomes if o.reads == "prediction"}
    assert shift == pytest.approx(told, abs=1e-6)


def test_without_a_head_it_says_so_and_has_the_rest(subjects, one) -> None:
    found = look_at(subjects[0], one)
    assert found.switched == {}
    for analysis in ("position-attention", "switches"):
        assert isinstance(found.results[analysis], Unavailable)
    assert found.results["picture-maps"].names == CAMS


def test_a_slow_map_is_made_alone(subjects, pictures, one) -> None:
    found = one_map(subjects[0], one, "occlusion")
    assert (found.names, found.keys) == (("occlusion",), (pictures.keys[PLACE],))
    assert found.values.shape[:2] == (1, 1)


def test_a_match_keeps_the_order_of_the_two(subjects, pictures) -> None:
    run = subjects[1]
    features = compute_features(run, pictures)
    concepts = find_concept_maps(run, pictures, features)
    (expected,) = transport_links(run, pictures, features, concepts, pairs=[(6, 2)])
    found = match_two(run, pick_pictures(pictures.bundle, [pictures.keys[6], pictures.keys[2]]))
    assert found.keys == expected.keys == (pictures.keys[6], pictures.keys[2])
    np.testing.assert_allclose(found.costs, expected.costs, atol=1e-4)


def test_masks_and_small_pictures(subjects, one) -> None:
    mask = object_mask(subjects[0], one)
    assert mask is not None
    assert mask.shape == (subjects[0].image_size,) * 2
    assert 0 < mask.mean() < 1
    assert small_pictures(subjects[0], one).keys == one.keys
    bare = toy_pictures(np.zeros((1, 3, 64, 64), np.uint8), np.zeros(1, np.int64))
    assert object_mask(subjects[0], bare) is None


def test_wrong_counts_and_broken_networks_are_refused(subjects, pictures, one, monkeypatch) -> None:
    with pytest.raises(ValueError, match="one picture"):
        look_at(subjects[0], pictures)
    with pytest.raises(ValueError, match="two pictures"):
        match_two(subjects[0], one)
    features = compute_features(subjects[0], one)
    features.scores[0, 0] = np.nan
    monkeypatch.setattr(features_module, "compute_features", lambda *known: features)
    with pytest.raises(RunError, match="not finite"):
        look_at(subjects[0], one)
