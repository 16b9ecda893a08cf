from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics import concept_discovery
from concept_tuning.diagnostics.concept_discovery import discover_concepts


def planted_maps(seed: int = 0, *, signed: bool = False, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps (n, 20, 3, 3) in which each cell shows one of four directions, the directions, and which (n, 3, 3)."""
    rng = np.random.default_rng(seed)
    atoms = np.zeros((4, 20))
    atoms[np.arange(4).repeat(5), np.arange(20)] = rng.uniform(0.5, 1, 20) * (rng.choice([-1, 1], 20) if signed else 1)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    which = rng.integers(0, 4, (n, 3, 3))
    strength = rng.uniform(2, 4, (n, 3, 3))
    maps = (atoms[which] * strength[..., None]).transpose(0, 3, 1, 2)
    noise = rng.normal(0, 0.02, maps.shape)
    return (maps + (noise if signed else np.abs(noise))).astype(np.float32), atoms, which


@pytest.mark.parametrize("signed", [False, True])
def test_planted_directions_are_found(signed: bool) -> None:
    maps, atoms, which = planted_maps(signed=signed)
    found = discover_concepts(maps, count=4)
    assert found.factoring == ("k-means" if signed else "nmf")
    np.testing.assert_allclose(np.linalg.norm(found.atoms, axis=1), 1, rtol=1e-5)
    if signed:  # clusters are told from the mean of all cells
        centre = maps.mean((0, 2, 3))
        atoms = np.stack([maps.transpose(0, 2, 3, 1)[which == k].mean(0) - centre for k in range(4)])
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    cosines = found.atoms @ atoms.T
    partner = cosines.argmax(1)
    assert sorted(partner) == [0, 1, 2, 3]
    assert cosines.max(1).min() > 0.98
    assert np.array_equal(partner[found.strengths.argmax(1)], which)
    expected = np.stack([(which == k).any((1, 2)) for k in partner], axis=1)
    assert np.array_equal(found.present, expected)
    assert found.stability.min() > 0.95


def test_the_error_is_that_of_the_reconstruction() -> None:
    maps, _, _ = planted_maps()
    whole, one = discover_concepts(maps, count=4), discover_concepts(maps, count=1)
    left = maps - np.einsum("nkhw,kd->ndhw", one.strengths, one.atoms)
    assert one.error == pytest.approx(np.linalg.norm(left) / np.linalg.norm(maps), rel=1e-4)
    assert whole.error < 0.05 < 0.5 < one.error < 1


def overlapping_maps() -> np.ndarray:
    """Maps (200, 20, 3, 3) of three directions that mix in every cell, with signs and noise."""
    rng = np.random.default_rng(3)
    cells = rng.normal(size=(1800, 3)) @ rng.normal(size=(3, 20)) + rng.normal(0, 0.1, (1800, 20))
    return cells.reshape(200, 3, 3, 20).transpose(0, 3, 1, 2).astype(np.float32)


def test_overlapping_clusters_are_not_counted_twice() -> None:
    maps = overlapping_maps()
    found = discover_concepts(maps, count=12)
    assert found.factoring == "k-means"
    centre = maps.mean((0, 2, 3))[None, :, None, None]
    left = maps - centre - np.einsum("nkhw,kd->ndhw", found.strengths, found.atoms)
    assert found.error == pytest.approx(np.linalg.norm(left) / np.linalg.norm(maps), rel=1e-4)
    assert found.error < 0.7  # twelve directions of a space of three
    assert ((found.strengths > 0).sum(1) <= 1).all()
    deviation = np.linalg.norm(maps - centre, axis=1)
    assert (np.linalg.norm(left, axis=1) <= deviation + 1e-4).all()
    for concept in range(len(found.atoms)):
        less = np.linalg.norm(found.without(maps, concept) - centre, axis=1)
        assert (less <= deviation + 1e-4).all()


@pytest.mark.parametrize("signed", [False, True])
def test_removing_a_concept_empties_its_cells_alone(signed: bool) -> None:
    maps, _, _ = planted_maps(signed=signed)
    found = discover_concepts(maps, count=4)
    less = found.without(maps, 2)
    mine = found.strengths.argmax(1) == 2
    cells = less.transpose(0, 2, 3, 1)
    kept = maps.mean((0, 2, 3)) if signed else 0
    assert np.abs((cells - kept)[mine]).max() < 0.3
    np.testing.assert_allclose(cells[~mine], maps.transpose(0, 2, 3, 1)[~mine], atol=1e-6 if signed else 0.15)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("cells", [270, 4000])
def test_stability_is_between_fits_to_cells_without_a_common_one(signed: bool, cells: int, monkeypatch) -> None:
    maps, _, _ = planted_maps(signed=signed)  # 540 cells
    seen: list[np.ndarray] = []
    fit = concept_discovery._fit

    def watched(part: np.ndarray, *arguments: object) -> object:
        seen.append(part)
        return fit(part, *arguments)

    monkeypatch.setattr(concept_discovery, "_fit", watched)
    assert discover_concepts(maps, count=4, cells=cells).stability.min() > 0.95
    compared = [{row.tobytes() for row in part} for part in (seen if cells == 270 else seen[1:])]
    assert [len(part) for part in compared] == [270, 270]
    assert not compared[0] & compared[1]


@pytest.mark.parametrize("signed", [False, True])
def test_directions_of_noise_are_not_stable(signed: bool) -> None:
    noise = np.random.default_rng(0).normal(size=(20, 30, 3, 3)).astype(np.float32)
    found = discover_concepts(noise if signed else np.abs(noise), count=6)
    assert found.stability.mean() < (0.6 if signed else 0.95)


def test_too_few_cells_for_two_fits_have_no_stability() -> None:
    maps, _, _ = planted_maps(n=1)
    assert np.isnan(discover_concepts(maps, count=5).stability).all()
    assert np.isfinite(discover_concepts(maps, count=2).stability).all()


def test_the_same_seed_finds_the_same() -> None:
    maps, _, _ = planted_maps()
    first, again = (discover_concepts(maps, count=3, seed=5, cells=100) for _ in range(2))
    assert np.array_equal(first.atoms, again.atoms)
    assert np.array_equal(first.strengths, again.strengths)
    state = np.random.get_state()[1].copy()
    discover_concepts(maps, count=3)
    assert np.array_equal(state, np.random.get_state()[1])


def test_concepts_that_are_nowhere_strongest_are_left_out() -> None:
    maps, _, _ = planted_maps(n=30)
    found = discover_concepts(maps, count=12)
    assert len(found.atoms) == found.present.shape[1] == found.strengths.shape[1] == len(found.stability)
    assert found.present.any(0).all()


@pytest.mark.parametrize("maps", [np.zeros((3, 4, 2, 2)), np.ones((1, 4, 1, 1)), -np.ones((2, 4, 1, 1))])
def test_degenerate_maps(maps: np.ndarray) -> None:
    found = discover_concepts(maps.astype(np.float32))
    assert np.isfinite(found.atoms).all()
    assert np.isfinite(found.error)
    assert len(found.atoms) == (1 if maps.max() > 0 else 0)  # nothing deviates from the mean of equal cells
    assert found.error == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("shape", "count"), [((3, 4, 2), 2), ((0, 4, 2, 2), 2), ((3, 4, 2, 2), 0)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="maps must be"):
        discover_concepts(np.zeros(shape), count=count)
