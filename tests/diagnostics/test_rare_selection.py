from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from concept_tuning.diagnostics.concept_activations import Channels, define_concepts, strongest_patches
from concept_tuning.diagnostics.information import candidate_levels, information_test, presence_information
from concept_tuning.diagnostics.rare_results import Rarity
from concept_tuning.diagnostics.rare_selection import (
    SWEEP,
    LevelFrequency,
    RareFeatureSettings,
    analysed_maps,
    find_rarity,
    in_source_units,
    lowest_frequencies,
    presence_test,
    raise_to_floor,
    source_of_levels,
)
from concept_tuning.diagnostics.rare_use import PRETRAINED, split_thirds
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.source_frequency import PretrainedMaps, group_deviations

SETTINGS = RareFeatureSettings(permutations=199, band_level=0.99, resamples=300)
#: Levels in deviations of a normal source, as those of a batch norm.
GAUSSIAN = LevelFrequency(frequency=lambda levels: norm.sf(levels), basis="last batch norm", note="")


def maps_of(standardised: np.ndarray, *, floor: float = 0.0) -> PretrainedMaps:
    """What a network makes of pictures whose batch norm is followed by a ReLU that is silent below ``floor``."""
    z = standardised.astype(np.float32)
    low = np.full(z.shape[1], floor, np.float32)
    return PretrainedMaps(maps=np.maximum(z - floor, 0), standardised=z, floor=low, link="relu", missing=None)


def without_batch_norm(maps: PretrainedMaps) -> PretrainedMaps:
    said = Unavailable(analysis="source frequency", reason="The network has no batch norm.")
    return replace(maps, standardised=None, floor=np.full(maps.maps.shape[1], -np.inf), link="other", missing=said)


def noise(seed: int = 0, *, n: int = 30, channels: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, channels, 2, 2))


def planted(seed: int, *, n: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Twenty concepts of four classes: 0 is seldom strong and marks class 0, 1 is common and marks class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    activations = rng.normal(size=(n, 20, 4)).max(2)
    activations[labels == 0, 0] += 4
    activations[labels == 1, 1] -= 3
    return activations, labels


def rarity_of(activations, labels, *, networks=None, settings=SETTINGS, source=GAUSSIAN) -> Rarity:
    return find_rarity(
        activations,
        presence_test(activations, labels, settings),
        source,
        networks={PRETRAINED: activations} if networks is None else networks,
        orders={PRETRAINED: activations},
        right={},
        labels=labels,
        classes=int(labels.max()) + 1,
        parts=split_thirds(labels, seed=settings.seed),
        settings=settings,
    )


def test_lowest_frequencies_of_a_hand_table() -> None:
    frequency = np.array([0.5, 0.1, 0.3, 0.1, 0.2, 0.0, 0.4, 0.9, 0.8, 0.7])
    varies = np.ones(10, bool)
    assert np.flatnonzero(lowest_frequencies(frequency, varies, 0.1)).tolist() == [5]
    assert np.flatnonzero(lowest_frequencies(frequency, varies, 0.2)).tolist() == [1, 3, 5]  # of equals all
    assert np.flatnonzero(lowest_frequencies(frequency, varies, 0.3)).tolist() == [1, 3, 5]
    assert np.flatnonzero(lowest_frequencies(frequency, varies, 0.001)).tolist() == [5]
    assert lowest_frequencies(frequency, varies, 1.0).all()


def test_the_order_of_concepts_does_not_say_which_of_equals_are_low() -> None:
    frequency = np.array([0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    varies = np.array([True, True, True, False, *[True] * 6])
    for order in (np.arange(10), np.arange(10)[::-1], np.random.default_rng(0).permutation(10)):
        found = lowest_frequencies(frequency[order], varies[order], 0.1)
        assert sorted(order[found].tolist()) == [0, 1, 2]


def test_concepts_that_never_vary_are_not_low_however_rare() -> None:
    varies = np.array([False, True, True, False])
    assert lowest_frequencies(np.array([0, 0.3, 0.2, 0]), varies, 0.25).tolist() == [False, False, True, False]
    assert lowest_frequencies(np.array([0, 0.3, 0.2, 0]), varies, 1.0).tolist() == varies.tolist()
    assert not lowest_frequencies(np.zeros(4), np.zeros(4, bool), 0.5).any()


def test_concepts_are_in_source_units_for_channels_and_groups_of_a_batch_norm_alone() -> None:
    frozen = maps_of(noise())
    for view, known in (("channels", True), ("groups", True), ("factors", False), ("clusters", False)):
        concepts = define_concepts(view, frozen.maps, standardised=frozen.standardised, count=3)
        assert in_source_units(concepts, frozen) is known
        assert not in_source_units(concepts, without_batch_norm(frozen))
        expected = concepts.apply(frozen.standardised if known else frozen.maps)
        np.testing.assert_array_equal(analysed_maps(concepts, frozen), expected)
        np.testing.assert_array_equal(analysed_maps(concepts, without_batch_norm(frozen)), concepts.apply(frozen.maps))


def test_channels_are_raised_to_where_the_relu_lets_them_through_and_groups_are_not() -> None:
    frozen = maps_of(noise(), floor=1.5)
    channels = Channels(6)
    strongest = strongest_patches(analysed_maps(channels, frozen))
    raised = raise_to_floor(strongest, channels, frozen)
    assert (strongest.activations < 1.5).any()
    np.testing.assert_array_equal(raised.activations, np.maximum(strongest.activations, 1.5))
    np.testing.assert_array_equal(raised.cells, strongest.cells)
    # What is above the floor is what the network passes on.
    np.testing.assert_array_equal(raised.activations > 1.5, frozen.maps.max((2, 3)) > 0)
    groups = define_concepts("groups", frozen.maps, standardised=frozen.standardised, count=3)
    assert raise_to_floor(strongest, groups, frozen) is strongest
    assert raise_to_floor(strongest, channels, without_batch_norm(frozen)) is strongest


def test_frequency_of_channels_and_groups_is_that_of_the_gaussian_tail() -> None:
    frozen = maps_of(noise(n=200))
    found = source_of_levels(Channels(6), frozen, None)
    levels = np.linspace(-1, 3, 6)
    np.testing.assert_allclose(found.frequency(levels), 1 - norm.cdf(levels), rtol=1e-9)
    assert found.basis == "last batch norm"
    assert "Gaussian" in found.note
    assert "correlations" not in found.note
    assert "shortcut" in source_of_levels(Channels(6), replace(frozen, link="other"), None).note
    groups = define_concepts("groups", frozen.maps, standardised=frozen.standardised, count=2)
    grouped = source_of_levels(groups, frozen, None)
    deviations = group_deviations(frozen.standardised, groups.weights)
    assert (deviations < 0.9).all()
    np.testing.assert_allclose(grouped.frequency(np.ones(2)), norm.sf(1 / deviations), rtol=1e-9)
    assert "correlations" in grouped.note


def test_a_folder_of_pictures_gives_what_the_batch_norm_does_not() -> None:
    frozen, source = maps_of(noise()), maps_of(noise(1, n=40))
    clusters = define_concepts("clusters", frozen.maps, count=3)
    for concepts, target in ((clusters, frozen), (Channels(6), without_batch_norm(frozen))):
        found = source_of_levels(concepts, target, source)
        assert found.basis == "source-like pictures"
        assert "40 pictures" in found.note
        maps = concepts.apply(source.maps)
        levels = np.median(maps, axis=(0, 2, 3)) + 0.1
        patches = maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
        expected = [sum(x > level for x in row) / len(row) for row, level in zip(patches, levels, strict=True)]
        np.testing.assert_allclose(found.frequency(levels), expected)
    # Channels whose batch norm is known do not need the folder.
    assert source_of_levels(Channels(6), frozen, source).basis == "last batch norm"


def test_without_statistics_or_folder_it_is_said_in_words() -> None:
    frozen = maps_of(noise())
    factors = define_concepts("factors", frozen.maps, count=2)
    found = source_of_levels(factors, frozen, None)
    assert isinstance(found, Unavailable)
    assert "factors or clusters" in found.reason
    assert "source_folder" in found.reason
    bare = without_batch_norm(frozen)
    assert source_of_levels(Channels(6), bare, None) == bare.missing


def test_levels_are_refined_among_all_pictures_and_what_is_useful_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    activations, labels = planted(0)
    found = presence_test(activations, labels, SETTINGS)
    coarse = information_test(activations, labels, permutations=199, band_level=0.99)
    for name in ("information", "null_mean", "band", "p_value", "familywise", "useful"):
        np.testing.assert_array_equal(getattr(found, name), getattr(coarse, name))
    # The best level lies between the pictures of class 0 and the others; that of the coarse search among the others.
    inside, outside = activations[labels == 0, 0].min(), activations[labels != 0, 0].max()
    assert outside > coarse.levels[0]
    assert found.levels[0] == pytest.approx((np.float64(inside) + outside) / 2)
    refined = presence_information(activations > found.levels, labels)
    assert (refined >= coarse.information - 1e-12).all()
    every = candidate_levels(activations, count=10_000)
    best = [presence_information(activations > levels, labels) for levels in every.T]
    np.testing.assert_allclose(refined, np.max(best, axis=0), atol=1e-12)
    monkeypatch.setattr("concept_tuning.diagnostics.rare_selection._CELLS", 1)
    np.testing.assert_array_equal(presence_test(activations, labels, SETTINGS).levels, found.levels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_rare_concept_is_the_only_rare_one(seed: int) -> None:
    activations, labels = planted(seed)
    found = rarity_of(activations, labels)
    assert np.flatnonzero(found.rare).tolist() == [0]
    assert found.low.sum() == 2
    assert not found.low[1]  # as useful, but common
    presence = presence_test(activations, labels, SETTINGS)
    assert presence.useful[:2].all()
    assert GAUSSIAN.frequency(presence.levels)[0] < 0.01
    assert GAUSSIAN.frequency(presence.levels)[1] > 0.5
    assert (found.threshold.share, found.threshold.low, found.threshold.rare) == (0.1, 2, 1)
    assert found.threshold.frequency == GAUSSIAN.frequency(presence.levels)[found.low].max()
    assert found.threshold.expected_by_chance == pytest.approx(0.01 * 2)


def test_the_same_concept_is_not_rare_where_the_source_saw_it_often() -> None:
    activations, labels = planted(0)
    often = LevelFrequency(frequency=lambda levels: norm.sf(levels - 4 * (np.arange(20) == 0)), basis="", note="")
    found = rarity_of(activations, labels, source=often)
    assert not found.low[0]
    assert not found.rare[0]
    assert presence_test(activations, labels, SETTINGS).useful[0]


def test_sweep_is_monotone_in_the_share_and_holds_the_threshold() -> None:
    activations, labels = planted(3)
    found = rarity_of(activations, labels, settings=replace(SETTINGS, rare_share=0.2))
    assert tuple(point.share for point in found.sweep) == SWEEP
    for name in ("low", "rare", "frequency", "expected_by_chance"):
        values = [getattr(point, name) for point in found.sweep]
        assert values == sorted(values)
    assert all(point.rare <= point.low for point in found.sweep)
    assert [point.low for point in found.sweep] == [1, 1, 2, 4, 6, 10]
    assert found.threshold == found.sweep[3]
    assert found.threshold.low == found.low.sum()
    assert found.threshold.rare == found.rare.sum()


def test_shuffled_labels_flag_at_the_nominal_rate_and_no_more_of_the_low_ones() -> None:
    settings = RareFeatureSettings(permutations=99, resamples=10)
    useful = rare = low = 0
    for seed in range(12):
        activations, labels = planted(seed, n=120)
        labels = np.random.default_rng(100 + seed).permutation(labels)
        found = rarity_of(activations, labels, settings=replace(settings, seed=seed))
        useful += int(presence_test(activations, labels, replace(settings, seed=seed)).useful.sum())
        rare, low = rare + int(found.rare.sum()), low + int(found.low.sum())
    assert binom.ppf(0.001, 240, 0.05) <= useful <= binom.ppf(0.999, 240, 0.05)
    assert rare <= binom.ppf(0.999, low, 0.05)


def test_an_informative_rare_channel_of_a_run_is_a_raised_change() -> None:
    activations, labels = planted(4, n=320)
    weak = activations.copy()
    weak[::8, 0] = activations[1::8, 0][: len(weak[::8])]  # half of class 0 looks like class 1
    run = weak.copy()
    run[:, 0] = activations[:, 0]
    found = rarity_of(weak, labels, networks={PRETRAINED: weak, "run": run, "same": weak})
    assert found.rare[0]
    changes = {(change.before, change.after): change for change in found.changes}
    assert changes[PRETRAINED, "run"].verdict == "raised"
    assert changes["run", "same"].verdict == "lowered"
    same = changes[PRETRAINED, "same"]
    assert (same.total.value, same.total.low, same.total.high) == (0, 0, 0)
    assert same.verdict == "no change shown"
    assert same.others.value == 0


def test_rare_concepts_of_a_third_are_chosen_without_the_others() -> None:
    activations, labels = planted(5)
    last = split_thirds(labels) == 2
    rng = np.random.default_rng(0)
    activations[last, 0] = rng.normal(size=last.sum())  # useful in the other thirds alone
    found = rarity_of(activations, labels)
    assert isinstance(found.changes, Unavailable)
    assert "A third of the pictures shows no rare concept" in found.changes.reason


def test_choosing_concepts_on_the_pretrained_network_gains_nothing_for_a_run() -> None:
    """Two networks of useless concepts: chosen and learnt on the same pictures, the chosen ones' tables are worst."""
    settings = RareFeatureSettings(permutations=40, rare_share=0.5, resamples=100)
    changes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels, shift = np.arange(120) % 4, rng.normal(0, 1.5, 40)
        before, after = (shift + rng.normal(size=(120, 40)) for _ in range(2))
        networks = {PRETRAINED: before, "run": after}
        found = rarity_of(before, labels, networks=networks, settings=replace(settings, seed=seed)).changes
        if not isinstance(found, Unavailable):
            changes.append(found[0])
    assert len(changes) >= 12
    values = np.array([change.per_concept.value for change in changes])
    assert abs(values.mean()) < 2.5 * values.std() / len(values) ** 0.5
    assert sum(change.verdict == "raised" for change in changes) <= 0.15 * len(changes)


def test_where_nothing_varies_nothing_is_rare() -> None:
    found = rarity_of(np.ones((40, 5)), np.arange(40) % 2)
    assert not found.low.any()
    assert not found.rare.any()
    assert (found.threshold.low, found.threshold.frequency) == (0, 0)
    assert isinstance(found.changes, Unavailable)


def test_result_is_the_same_for_a_seed_and_survives_saving(tmp_path) -> None:
    activations, labels = planted(6)
    networks = {PRETRAINED: activations, "run": 2 * activations}
    found = rarity_of(activations, labels, networks=networks)
    for again in (rarity_of(activations, labels, networks=networks), None):
        if again is None:
            save_result(found, tmp_path / "rarity.json")
            again = load_result(Rarity, tmp_path / "rarity.json")
        for name in ("low", "rare"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
            assert getattr(again, name).dtype == bool
        for name in ("threshold", "sweep", "uses", "changes"):
            assert getattr(again, name) == getattr(found, name)
    assert len(found.changes) == 1
