"""The arithmetic of `benchmarks/rare_parts.py` against slow references and closed forms, and one tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rare_parts import (
    DRAWS,
    against_chance,
    against_parts,
    aligned,
    coverage,
    exchanged,
    hidden_picture,
    main,
    mean_where_shown,
    over_pairs,
    rarity,
    relabelled,
    report,
)
from sklearn.metrics import roc_auc_score

from concept_tuning.data.planted import species_pairs
from concept_tuning.data.registry import load_data
from concept_tuning.diagnostics.concept_activations import Channels, strongest_patches
from concept_tuning.diagnostics.pictures import choose_pictures
from concept_tuning.diagnostics.rare_features import measure_rare_features
from concept_tuning.diagnostics.rare_selection import RareFeatureSettings, raise_to_floor, source_of_levels
from concept_tuning.diagnostics.source_frequency import PretrainedMaps
from concept_tuning.settings import build_config

TINY = ["--species", "4", "--seeds", "0", "--image-sizes", "64", "--count", "24", "--shuffles", "2"]
SMALL = ["--set", "test_images=24", "draw_size=64"]


def test_coverage_is_the_auc_of_pixels() -> None:
    rng = np.random.default_rng(0)
    cell = 5
    masks = rng.random((3, 2, 3 * cell, 4 * cell)) < 0.2
    masks[1, 0] = False
    maps = rng.integers(4, size=(3, 6, 3, 4)).astype(np.float32)
    shares = masks.reshape(3, 2, 3, cell, 4, cell).mean((3, 5))
    found = coverage(maps, shares)
    pixels = maps.repeat(cell, axis=2).repeat(cell, axis=3)
    for i, p, k in np.ndindex(found.shape):
        if masks[i, p].any():
            expected = roc_auc_score(masks[i, p].ravel(), pixels[i, k].ravel())
            assert found[i, p, k] == pytest.approx(expected)
        else:
            assert np.isnan(found[i, p, k])
    np.testing.assert_allclose(mean_where_shown(found)[0], found[[0, 2], 0].mean(0))
    assert np.isnan(mean_where_shown(found[1:2])[0]).all()


def test_names_are_dealt_the_same_way_throughout() -> None:
    flags = np.zeros((3, 4, 10))
    flags[:, :, 7] = 1
    # All pairs in all data sets chose one concept: they are all hit or all missed, with probability 1 in 10.
    together = relabelled(flags, np.full((3, 4), 2), draws=4000)
    assert set(np.unique(together)) == {0.0, 1.0}
    assert together.mean() == pytest.approx(0.1, abs=0.02)
    # Four concepts, the same in every data set: at most one of them can be the one of ten that is rare.
    apart = relabelled(flags, np.tile(np.arange(4), (3, 1)), draws=4000)
    assert set(np.unique(apart)) == {0.0, 0.25}
    assert apart.mean() == pytest.approx(0.1, abs=0.02)


def test_parts_are_exchanged_within_a_pair_and_missing_ones_left_out() -> None:
    hits = np.array([[[1.0, 0.0], [1.0, np.nan]]]).repeat(2, axis=0)
    drawn = exchanged(hits, draws=4000)
    assert set(np.unique(drawn)) == {0.5, 1.0}
    assert drawn.mean() == pytest.approx(0.75, abs=0.02)


def test_other_parts_are_counted_without_the_telling_one() -> None:
    rare = np.zeros((1, 2, 5), bool)
    rare[0, :, 3] = True
    found = against_parts(rare, np.array([[[3, 0, -1], [3, 3, 1]]]), np.array([0, 0]))
    assert (found["hits"], found["n"]) == (1, 3)
    # Both tellers hit: 1 of 2 choices in the first pair, 2 of 3 in the second.
    assert found["p"] == pytest.approx(1 / 3, abs=0.03)


def test_hits_and_quadrants_are_those_of_the_chosen_concepts() -> None:
    low, useful = np.zeros((1, 4, 8), bool), np.zeros((1, 4, 8), bool)
    low[:, :, :2], useful[:, :, 1:4] = True, True
    rank = np.broadcast_to(np.linspace(0, 1, 8), low.shape)
    found = against_chance({"low": low, "useful": useful, "rank": rank}, np.array([[0, 1, 2, 7]]))
    assert found["quadrants"] == {"rare": 1, "low only": 1, "useful only": 1, "neither": 1}
    assert (found["hits"], found["n"], found["chance"]) == (1, 4, 1 / 8)
    # Concept 1 is among four of eight drawn with probability 1/2.
    assert found["p"] == pytest.approx(0.5, abs=0.03)
    assert found["binomial p"] == pytest.approx(1 - (7 / 8) ** 4)
    certain = against_chance({"low": ~low | low, "useful": ~low | low, "rank": rank}, np.array([[0, 1, 2, 7]]))
    assert (certain["rate"][0], certain["chance"], certain["p"]) == (1.0, 1.0, 1.0)


def test_groups_are_matched_by_the_channels_they_share() -> None:
    first = [(0, 1, 2), (3, 4), (5,)]
    order = aligned([(5, 6), (0, 1), (3, 4, 2)], first)
    assert order.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="as many concepts"):
        aligned([(0, 1)], first)


def test_rarity_is_that_of_the_analysis() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    maps = rng.normal(size=(60, 20, 2, 2)).astype(np.float32)
    maps[:, :8] += (labels * rng.random((8, 1))).T[:, :, None, None]
    frozen = PretrainedMaps(
        maps=np.maximum(maps, 0), standardised=maps, floor=np.zeros(20, np.float32), link="relu", missing=None
    )
    concepts, settings = Channels(20), RareFeatureSettings(resamples=20, rare_share=0.3)
    expected = measure_rare_features(
        concepts,
        frozen,
        {},
        labels,
        keys=tuple(map(str, range(60))),
        class_names=("a", "b", "c"),
        settings=settings,
    )
    activations = raise_to_floor(strongest_patches(maps), concepts, frozen).activations
    low, useful, frequency = rarity(activations, labels, source_of_levels(concepts, frozen, None), settings)
    np.testing.assert_array_equal(low, expected.rarity.low)
    np.testing.assert_array_equal(low & useful, expected.rarity.rare)
    np.testing.assert_array_equal(frequency, expected.source.frequency)
    assert 0 < (low & useful).sum() < useful.sum()


def test_hiding_a_crest_changes_the_crest_alone() -> None:
    values = {"species": 4, "images": 8, "validation_images": 8, "test_images": 16, "image_size": 96, "draw_size": 96}
    config = build_config(data="planted", method="vanilla", overrides={**values, "data_seed": 3})
    pictures = choose_pictures(load_data(config), split="test", count=None)
    part_of = {species: pair.part for pair in species_pairs(config.planted) for species in pair.species}
    looked = 0
    for place, label in enumerate(pictures.labels):
        part = part_of[int(label)]
        if part != "crest":
            continue  # a bird that hides its feet or beak sits in something or turns its head
        shown, hidden = pictures.image(place, 96), hidden_picture(config, pictures, place)
        changed = (shown.int() - hidden.int()).abs().amax(0) > 40
        near = torch.nn.functional.max_pool2d(pictures.masks(place, 96)[f"part:{part}"][None].float(), 7, 1, 3)[0] > 0
        assert changed.any()
        assert not (changed & ~near).any()
        looked += 1
    assert looked


def test_one_tiny_run_is_recorded_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    main(["run", *TINY, *SMALL, "--record", str(path)])
    printed = capsys.readouterr().out
    record = json.loads(path.read_text())
    assert record["commit"]
    assert record["command"].startswith("python benchmarks/rare_parts.py run --species 4 --seeds 0")
    assert record["draws"] == DRAWS
    assert [block["view"] for block in record["blocks"]] == ["channels", "groups"]
    for block in record["blocks"]:
        assert block["shuffled"]["shuffles"] == 2
        for row in block["parts"]:
            assert row["n"] == 2
            assert sum(row["quadrants"].values()) == 2
            assert {pair["part"] for pair in row["pairs"]} == {"feet", "crest"}
            assert 0 <= row["chance"] <= row["low chance"] <= 0.1 + 1 / 64
    main(["report", "--record", str(path)])
    assert capsys.readouterr().out == printed
    assert report(record) + "\n" == printed
    with pytest.raises(SystemExit, match="is missing"):
        main(["report", "--record", str(tmp_path / "none.json")])


def test_a_network_that_kept_no_statistics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="never been trained"):
        main(["run", *TINY, "--backbone", "test_efficientnet", *SMALL, "weights=random", "--record", str(tmp_path)])


def test_interval_over_pairs_does_not_shrink_with_repeated_data_sets() -> None:
    def pairs(data_sets: int) -> list[dict]:
        return [{"low": [True] * data_sets, "useful": [number < 4] * data_sets} for number in range(8)]

    assert over_pairs(pairs(1)) == over_pairs(pairs(50))
    low, high = map(int, over_pairs(pairs(1)).split(" to "))
    assert low < 25 < 75 < high
    assert over_pairs(pairs(1)[:2]) == "-"
