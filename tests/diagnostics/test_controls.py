from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_attribution import state

from concept_tuning.diagnostics import attribution, controls
from concept_tuning.diagnostics.control_maps import (
    CENTRE,
    CONTROLS,
    EDGES,
    RANDOM_SMOOTH,
    RANDOM_WEIGHTS,
    centre_prior,
    edge_maps,
    random_smooth_maps,
    source_of,
)
from concept_tuning.diagnostics.controls import (
    CONCENTRATION,
    DELETION,
    INSERTION,
    MASK_MEASURES,
    OUTSIDE,
    POINTING,
    POINTING_PART,
    ROAD,
    ControlledMaps,
    compare_with_controls,
    telling_parts,
)
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import load_result, save_result

MAPS = ("grad-cam", "eigen-cam")


def test_the_centre_prior_is_symmetric_about_the_middle() -> None:
    prior = centre_prior(2, 8)
    for other in (prior[:, ::-1], prior[:, :, ::-1], prior.transpose(0, 2, 1)):
        np.testing.assert_allclose(prior, other)
    # A quarter of the side from the middle is one standard deviation.
    ratio = prior[0, 3, 6] / prior[0, 3, 4]
    assert ratio == pytest.approx(np.exp(-((2.5 / 8) ** 2 - (0.5 / 8) ** 2) / (2 * 0.25**2)))


def test_edges_are_where_the_brightness_changes() -> None:
    images = np.zeros((1, 3, 12, 12), np.uint8)
    images[..., 6:] = 80
    found = edge_maps(images)[0]
    # Sobel weighs 1, 2, 1 rows: a step of 80 gives 4 * 80 on both sides of the edge.
    np.testing.assert_allclose(found[:, 5:7], 320)
    assert not found[:, :5].any()
    assert not found[:, 7:].any()
    np.testing.assert_allclose(edge_maps(images.transpose(0, 1, 3, 2))[0], found.T)


def test_random_maps_are_smooth_and_unlike_each_other() -> None:
    found = random_smooth_maps(20, 32, seed=1)
    assert (found.min((1, 2)) == 0).all()
    np.testing.assert_allclose(found.max((1, 2)), 1)
    assert np.abs(np.diff(found, axis=1)).max() < 0.3
    peaks = np.stack(np.unravel_index(found.reshape(20, -1).argmax(1), (32, 32)), axis=1)
    assert len(np.unique(peaks, axis=0)) > 15
    assert (found == random_smooth_maps(20, 32, seed=1)).all()


def masks_of(pictures: Pictures, size: int) -> np.ndarray:
    return np.stack([pictures.masks(place, size)["object"].numpy() for place in range(len(pictures))])


@pytest.fixture
def planted_answer(monkeypatch, subjects, pictures):
    """Let the network's own map be given, and that of random weights be an even one, in the order of pictures."""

    def give(maps: np.ndarray) -> None:
        original = subjects[0].inference_method
        served = {"own": 0, "random": 0}

        def attribute_all(method, images, targets, *, names, feature_map=None):
            kind = "own" if method is original else "random"
            start = served[kind]
            served[kind] += len(images)
            given = maps[start : start + len(images)] if kind == "own" else np.ones((len(images), 64, 64))
            return {name: torch.from_numpy(given.astype(np.float32)) for name in names}

        monkeypatch.setattr("concept_tuning.diagnostics.control_maps.attribute_all", attribute_all)

    return give


def compare(subjects, pictures, **arguments) -> ControlledMaps:
    defaults = {"maps": ("grad-cam",), "measures": MASK_MEASURES}
    return compare_with_controls(subjects[0], pictures, **{**defaults, **arguments})


def badges_of(result: ControlledMaps, measure: str) -> dict[str, bool]:
    return {badge.control: badge.beats for badge in result.badges if badge.measure == measure}


def test_a_map_of_the_object_beats_all_controls(subjects, pictures, planted_answer) -> None:
    planted_answer(gaussian_filter(masks_of(pictures, 64) * 1.0, sigma=(0, 1, 1)))
    result = compare(subjects, pictures)
    for measure in (OUTSIDE, CONCENTRATION):
        assert badges_of(result, measure) == dict.fromkeys(CONTROLS, True)
    for badge in result.badges:
        assert badge.beats == (badge.difference.low > 0)
        assert badge.difference.low <= badge.difference.value <= badge.difference.high
    even = next(v for v in result.values if v.source == source_of(RANDOM_WEIGHTS, "grad-cam") and v.measure == OUTSIDE)
    np.testing.assert_allclose(even.values, 1 - masks_of(pictures, 64).mean((1, 2)), rtol=1e-6)


def test_a_map_that_is_a_control_does_not_beat_it(subjects, pictures, planted_answer) -> None:
    planted_answer(centre_prior(len(pictures), 64))
    result = compare(subjects, pictures)
    for measure in (OUTSIDE, CONCENTRATION, POINTING):
        assert badges_of(result, measure)[CENTRE] is False
    same = next(badge for badge in result.badges if badge.control == CENTRE and badge.measure == OUTSIDE)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)


def test_a_map_off_the_object_loses(subjects, pictures, planted_answer) -> None:
    planted_answer(~masks_of(pictures, 64) * 1.0)
    result = compare(subjects, pictures)
    assert badges_of(result, OUTSIDE) == dict.fromkeys(CONTROLS, False)
    assert all(badge.difference.high < 0 for badge in result.badges if badge.measure == OUTSIDE)


def test_blank_maps_are_counted_and_left_out(subjects, pictures, planted_answer) -> None:
    maps = masks_of(pictures, 64) * 1.0
    maps[[2, 5, 7]] = 0
    planted_answer(maps)
    result = compare(subjects, pictures)
    found = next(values for values in result.values if (values.source, values.measure) == ("grad-cam", OUTSIDE))
    assert (found.n, found.blank) == (13, 3)
    assert np.flatnonzero(np.isnan(found.values)).tolist() == [2, 5, 7]
    assert found.mean == 0
    centre = next(values for values in result.values if (values.source, values.measure) == (CENTRE, OUTSIDE))
    assert (centre.n, centre.blank, np.isfinite(centre.values).sum()) == (13, 0, 16)
    assert centre.mean == pytest.approx(np.delete(centre.values, [2, 5, 7]).mean()), "over the same pictures"
    assert all(badge.difference.n == 13 for badge in result.badges if badge.measure == OUTSIDE)
    maps[:8] = 0
    planted_answer(maps)
    result = compare(subjects, pictures)
    assert not [badge for badge in result.badges if badge.measure == OUTSIDE]
    reasons = {entry.analysis: entry.reason for entry in result.unavailable}
    assert reasons[f"grad-cam against {EDGES}: {OUTSIDE}"].endswith("needed; there are 8.")


def test_the_part_is_that_of_the_species(subjects, pictures, planted_answer) -> None:
    telling = telling_parts(subjects[0].run.config)
    shown = [pictures.masks(i, 64)[telling[label]].numpy() for i, label in enumerate(pictures.labels)]
    assert len(telling) == len(pictures.bundle.class_names)
    planted_answer(np.stack(shown) * 1.0)
    result = compare(subjects, pictures)
    found = next(values for values in result.values if (values.source, values.measure) == ("grad-cam", POINTING_PART))
    seen = np.array([part.any() for part in shown])
    assert found.n == seen.sum() >= 10
    assert (found.values[seen] == 1).all()
    assert found.blank == 0  # a part too small to be seen is no blank map
    assert badges_of(result, POINTING_PART)[RANDOM_SMOOTH]


def test_without_masks_only_the_network_can_be_asked(subjects, pictures) -> None:
    bare = dataclasses.replace(pictures.bundle, table=dataclasses.replace(pictures.bundle.table, masks=None))
    unmasked = Pictures(split=pictures.split, chosen=pictures.chosen, bundle=bare)
    result = compare(subjects, unmasked, measures=(*MASK_MEASURES, ROAD, INSERTION, DELETION), perturbed=12)
    assert {entry.analysis for entry in result.unavailable} == set(MASK_MEASURES)
    assert all("masks" in entry.reason for entry in result.unavailable)
    assert {values.measure for values in result.values} == {ROAD, INSERTION, DELETION}
    assert {badge.measure for badge in result.badges} == {ROAD, INSERTION, DELETION}
    for values in result.values:
        assert np.isfinite(values.values).sum() + values.blank == 12
        assert np.isnan(values.values).sum() == 4 + values.blank
        low = -0.5 if values.measure == ROAD else 0
        assert ((values.values >= low) & (values.values <= 1))[np.isfinite(values.values)].all()


def test_masks_of_other_data_have_no_telling_part(subjects, pictures) -> None:
    run, config = subjects[0].run, subjects[0].run.config
    data = dataclasses.replace(config.data, source="birds.csv")
    elsewhere = dataclasses.replace(run, config=dataclasses.replace(config, data=data))
    result = compare([dataclasses.replace(subjects[0], run=elsewhere)], pictures)
    (missing,) = result.unavailable
    assert (missing.analysis, missing.reason) == (
        POINTING_PART,
        "Which part tells a class is known for planted birds alone.",
    )
    assert {values.measure for values in result.values} == {OUTSIDE, CONCENTRATION, POINTING}


@pytest.fixture(scope="module")
def results(subjects, pictures) -> tuple[ControlledMaps, ...]:
    measures = (*MASK_MEASURES, ROAD)
    return tuple(
        compare_with_controls(s, pictures, maps=MAPS, measures=measures, perturbed=10, seed=2) for s in subjects
    )


def test_the_network_explains_what_it_predicts(subjects, pictures, results) -> None:
    for subject, result in zip(subjects, results, strict=True):
        assert result.targets.tolist() == compute_features(subject, pictures).predicted.tolist()
        pairs = {(values.source, values.measure) for values in result.values}
        sources = {*result.maps, *(source_of(control, name) for control in CONTROLS for name in result.maps)}
        assert pairs == {(source, measure) for source in sources for measure in (*MASK_MEASURES, ROAD)}
        assert {values.measure for values in result.values if not values.n + values.blank} <= {POINTING_PART}


def test_controls_of_the_picture_are_the_same_for_all_runs(results) -> None:
    first, second = ({(v.source, v.measure): v.values for v in result.values} for result in results)
    for control in (RANDOM_SMOOTH, CENTRE, EDGES):
        np.testing.assert_array_equal(first[control, OUTSIDE], second[control, OUTSIDE])
    name = source_of(RANDOM_WEIGHTS, "grad-cam")
    assert not np.array_equal(first[name, OUTSIDE], second[name, OUTSIDE], equal_nan=True)


def test_the_comparison_repeats_itself_and_leaves_the_model(subjects, pictures, results) -> None:
    methods = subjects[1].method, subjects[1].inference_method
    before = [state(method) for method in methods]
    random = torch.get_rng_state()
    again = compare_with_controls(
        subjects[1], pictures, maps=MAPS, measures=(*MASK_MEASURES, ROAD), perturbed=10, seed=2
    )
    assert [state(method) for method in methods] == before
    assert torch.equal(torch.get_rng_state(), random)
    for found, expected in zip(again.values, results[1].values, strict=True):
        np.testing.assert_array_equal(found.values, expected.values)
    assert again.badges == results[1].badges


def test_known_features_give_the_same_with_no_pass_of_the_own_network(subjects, pictures, monkeypatch) -> None:
    monkeypatch.setattr(controls, "BATCH", 6)
    monkeypatch.setattr(attribution, "BATCH", 4)
    features = compute_features(subjects[1], pictures)
    backbone, passes = subjects[1].inference_method.backbone, []
    handle = backbone.register_forward_hook(lambda *_: passes.append(1))
    try:
        fresh = compare_with_controls(subjects[1], pictures, maps=MAPS, measures=MASK_MEASURES)
        assert passes
        passes.clear()
        known = compare_with_controls(subjects[1], pictures, maps=MAPS, measures=MASK_MEASURES, features=features)
        assert not passes
    finally:
        handle.remove()
    np.testing.assert_array_equal(known.targets, fresh.targets)
    for found, expected in zip(known.values, fresh.values, strict=True):
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, err_msg=f"{found.source} {found.measure}")


def test_features_of_other_pictures_are_refused(subjects, pictures) -> None:
    features = compute_features(subjects[1], pictures)
    with pytest.raises(ValueError, match="features must be of the 12 pictures, got those of 16"):
        compare_with_controls(subjects[1], pictures.at(range(12)), features=features)


def test_an_error_leaves_the_model_as_found(subjects, pictures, monkeypatch) -> None:
    methods = subjects[0].method, subjects[0].inference_method
    before = [state(method) for method in methods]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr(controls, "road", fail)
    with pytest.raises(RuntimeError, match="stop"):
        compare(subjects, pictures, measures=(ROAD,))
    assert [state(method) for method in methods] == before


def test_results_are_read_back_equal(tmp_path, results) -> None:
    save_result(results[0], tmp_path / "controls.json")
    found = load_result(ControlledMaps, tmp_path / "controls.json")
    assert found.badges == results[0].badges
    assert found.unavailable == results[0].unavailable
    for ours, theirs in zip(found.values, results[0].values, strict=True):
        assert (ours.source, ours.measure, ours.n, ours.blank) == (
            theirs.source,
            theirs.measure,
            theirs.n,
            theirs.blank,
        )
        np.testing.assert_array_equal(ours.values, theirs.values)


def test_unknown_names_are_refused(subjects, pictures) -> None:
    with pytest.raises(ValueError, match="got CAM"):
        compare(subjects, pictures, maps=("CAM",))
    with pytest.raises(ValueError, match="got truth"):
        compare(subjects, pictures, measures=("truth",))
