from __future__ import annotations

import numpy as np
import pytest

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


def test_removing_a_concept_empties_its_cells_alone() -> None:
    maps, _, _ = planted_maps()
    found = discover_concepts(maps, count=4)
    less = found.without(maps, 2)
    mine = found.strengths.argmax(1) == 2
    cells = less.transpose(0, 2, 3, 1)
    assert np.abs(cells[mine]).max() < 0.3
    np.testing.assert_allclose(cells[~mine], maps.transpose(0, 2, 3, 1)[~mine], atol=0.15)


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
