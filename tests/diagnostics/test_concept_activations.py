from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from concept_tuning.diagnostics.concept_activations import (
    Channels,
    cluster_patches,
    define_concepts,
    factorise_patches,
    group_channels,
    patches_of,
    strongest_patches,
)
from concept_tuning.diagnostics.results import Unavailable


def test_strongest_patch_and_its_box() -> None:
    maps = np.zeros((2, 3, 2, 4), np.float32)
    maps[0, 1, 1, 2] = 5
    maps[1, 1, 0, 0] = -1
    maps[1, 2] = -2
    maps[1, 2, 0, 3] = -1
    found = strongest_patches(maps)
    assert found.activations.tolist() == [[0, 5, 0], [0, 0, -1]]
    assert found.cells[0, 1] == 1 * 4 + 2
    assert found.cells[1, 2] == 3
    half = 32 / 224
    boxes = found.boxes(np.array([[0], [1]]), np.array([[1], [2]]))
    np.testing.assert_allclose(boxes[0, 0], [2.5 / 4 - half, 0.75 - half, 2.5 / 4 + half, 0.75 + half], rtol=1e-6)
    np.testing.assert_allclose(boxes[1, 0], [3.5 / 4 - half, 0.25 - half, 1, 0.25 + half], rtol=1e-6)


def planted_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    belongs = rng.permutation(np.repeat(np.arange(4), [3, 5, 6, 10]))
    causes = rng.normal(size=(200, 4, 2, 2))
    scale = rng.uniform(0.1, 30, 24)[:, None, None]
    return (causes[:, belongs] + 0.4 * rng.normal(size=(200, 24, 2, 2))) * scale + 7, belongs


def test_channels_that_fire_together_are_grouped_whatever_their_scale() -> None:
    maps, belongs = planted_groups(np.random.default_rng(0))
    found = group_channels(maps, count=4)
    assert adjusted_rand_score(belongs, found.weights.argmax(0)) == 1
    assert sorted(channel for part in found.members for channel in part) == list(range(24))
    expected = np.stack([maps[:, list(part)].mean(1) for part in found.members], axis=1)
    np.testing.assert_allclose(found.apply(maps.astype(np.float32)), expected, rtol=1e-4)
    assert len(group_channels(maps, count=1000).members) == 24
    assert group_channels(maps[:, :1], count=5).members == ((0,),)


def planted_factors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    parts = np.zeros((3, 12))
    for number in range(3):
        parts[number, 4 * number : 4 * number + 4] = rng.uniform(0.5, 2, 4)
    strength = rng.gamma(0.5, size=(60, 3, 4, 4)) * (rng.random((60, 3, 4, 4)) < 0.5)
    return np.einsum("nkhw,kd->ndhw", strength, parts), strength


def test_planted_factors_are_rebuilt_and_read_off_other_maps() -> None:
    maps, strength = planted_factors(np.random.default_rng(1))
    found = factorise_patches(maps, count=3)
    assert found.reconstruction_error < 0.02
    activations = found.apply(maps)
    rebuilt = np.einsum("nkhw,kd->ndhw", activations, found.model.components_)
    error = np.linalg.norm(rebuilt - maps) / np.linalg.norm(maps)
    assert error == pytest.approx(found.reconstruction_error, rel=1e-3)
    match = np.corrcoef(np.concatenate([patches_of(activations), patches_of(strength)], axis=1).T)[:3, 3:]
    assert (match.max(1) > 0.99).all()
    assert len(set(match.argmax(1))) == 3
    np.testing.assert_allclose(found.apply(2 * maps), 2 * activations, rtol=0.05, atol=0.02)
    assert factorise_patches(maps, count=1).reconstruction_error > 0.4


def test_no_factors_of_negative_maps_and_no_factors_at_all_of_silent_ones() -> None:
    for maps in (np.random.default_rng(2).normal(size=(4, 3, 2, 2)), np.zeros((4, 3, 2, 2))):
        found = factorise_patches(maps, count=2)
        assert isinstance(found, Unavailable)
        assert "at least 0" in found.reason


def test_planted_clusters_are_found_and_their_patches_are_nearest() -> None:
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 3, (50, 2, 2))
    centres = rng.normal(size=(3, 8)) * 10
    maps = (centres[kind] + 0.1 * rng.normal(size=(50, 2, 2, 8))).transpose(0, 3, 1, 2)
    found = cluster_patches(maps, count=3)
    assert adjusted_rand_score(kind.ravel(), found.apply(maps).argmax(1).ravel()) == 1
    patches = patches_of(maps)
    rebuilt = found.model.cluster_centers_[found.model.predict(patches)]
    assert found.reconstruction_error == pytest.approx(np.linalg.norm(patches - rebuilt) / np.linalg.norm(patches))
    assert found.reconstruction_error < 0.03
    assert len(cluster_patches(np.ones((2, 3, 2, 2)), count=5).names) == 1


def test_more_patches_than_are_fitted_are_drawn_from_all_and_the_error_is_that_of_all() -> None:
    maps = np.zeros((5000, 2, 1, 1))
    maps[:4500, 0], maps[4500:, 1] = 1, 1
    for found in (cluster_patches(maps, count=2), factorise_patches(maps, count=2)):
        assert found.reconstruction_error < 0.01
    alone = cluster_patches(maps, count=1)
    assert alone.model.labels_.shape == (4000,)
    assert alone.reconstruction_error == pytest.approx(np.sqrt(2 * 0.9 * 0.1), rel=0.01)


def test_views_are_the_same_for_the_same_seed_and_leave_the_global_random_state() -> None:
    maps = np.random.default_rng(4).gamma(1, size=(30, 10, 4, 4)).astype(np.float32)
    state = np.random.get_state()[1].copy()
    for view in ("channels", "groups", "factors", "clusters"):
        first, second = (define_concepts(view, maps, count=4, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.apply(maps), second.apply(maps))
        assert first.view == view
        assert len(first.names) == len(first.members) == first.apply(maps).shape[1]
    assert np.array_equal(np.random.get_state()[1], state)
    assert isinstance(define_concepts("channels", maps), Channels)
