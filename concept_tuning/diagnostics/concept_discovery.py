"""Concepts without labels: directions of feature space that recur in the cells of feature maps.

Non-negative matrix factorisation of the cells, as in CRAFT (T. Fel et al., CVPR 2023, arXiv 2211.10154), which
needs activations that are never negative; clusters of the cells elsewhere.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

Factoring = Literal["nmf", "k-means"]

#: Cells that the directions are fitted to.
CELLS = 4000
#: Concepts looked for, unless told otherwise.
CONCEPTS = 12
_ITERATIONS, _TOLERANCE = 100, 1e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class Discovery:
    """K directions found in feature maps (n, D, h, w).

    Attributes:
        factoring: How they were found.
        atoms: (K, D) float32 unit vectors.
        strengths: (n, K, h, w) float32, >= 0: how much of each is in each cell. Factors share a cell among them;
            of clusters a cell has only the nearest one, as far as it goes that way from the mean of all cells.
        present: (n, K) bool: whether the concept is the strongest one in any cell of the picture.
        error: Frobenius norm of what is left of the cells over that of the cells, 0 (perfect) to 1. Factors rebuild
            the cells from nothing; clusters start from the mean of all cells, which counts as explained.
        stability: (K,) cosine, -1..1, of the two directions that fits to two sets of cells without a common one
            put in its place; one of them is its own where there are twice as many cells as are fitted. NaN
            where a set would have fewer cells than concepts, and without partner.
    """

    factoring: Factoring
    atoms: np.ndarray
    strengths: np.ndarray
    present: np.ndarray
    error: float
    stability: np.ndarray

    def without(self, maps: np.ndarray, concept: int) -> np.ndarray:
        """Return feature maps (n, D, h, w) less the strength of a concept; those it was found in, in their order.

        A cell of a cluster keeps the mean of all cells, and what points elsewhere.
        """
        return maps - self.strengths[:, concept, None] * self.atoms[concept, :, None, None]


def discover_concepts(maps: np.ndarray, *, count: int = CONCEPTS, seed: int = 0, cells: int = CELLS) -> Discovery:
    """Find directions that recur in the cells of feature maps; those that are nowhere strongest are left out.

    None are found in maps that are zero. Caveats: the number of concepts is a choice; clusters and factors are
    not human concepts.

    Args:
        maps: (n, D, h, w).
        count: Most concepts, cut to the number of cells and of channels.
        seed: Of the cells drawn and of the fit.
        cells: Cells that are fitted, drawn at random; ``stability`` takes as many others, or halves of fewer.

    Raises:
        ValueError: ``maps`` is not (n, D, h, w) or holds no cell, or ``count`` is below 1.
    """
    if maps.ndim != 4 or maps.size == 0 or count < 1:
        raise ValueError(f"maps must be (n, D, h, w) and count at least 1, got {maps.shape} and {count}")
    n, width, rows, columns = maps.shape
    flat = np.ascontiguousarray(maps.transpose(0, 2, 3, 1), dtype=np.float32).reshape(-1, width)
    factoring: Factoring = "nmf" if flat.min() >= 0 else "k-means"
    order = np.random.default_rng(seed).permutation(len(flat))
    count = min(count, len(flat), width)
    base = np.linalg.norm(flat)
    if factoring == "k-means":
        flat = flat - flat.mean(0)
    atoms, strengths = _factor(flat, order[:cells], factoring, count, seed)
    strongest = strengths.argmax(1).reshape(n, -1, 1)
    here = (strongest == np.arange(len(atoms))) & (strengths.max(1) > 0).reshape(n, -1, 1)
    kept = here.any((0, 1))
    left = np.linalg.norm(flat - strengths @ atoms)
    return Discovery(
        factoring=factoring,
        atoms=atoms[kept],
        strengths=np.ascontiguousarray(strengths[:, kept].reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)),
        present=here.any(1)[:, kept],
        error=float(left / base) if base > 0 else 0.0,
        stability=_stability(flat, order, atoms, factoring, cells, seed)[kept],
    )


def _factor(
    flat: np.ndarray, fitted: np.ndarray, factoring: Factoring, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms (K, D) of the ``fitted`` cells and the strengths (cells, K) of all, ``flat`` (cells, D)."""
    if not flat[fitted].any():  # nothing to factor; scikit-learn refuses it
        return np.zeros((count, flat.shape[1]), np.float32), np.zeros((len(flat), count), np.float32)
    model = _fit(flat[fitted], factoring, count, seed)
    if isinstance(model, NMF):
        atoms, lengths = _unit(model.components_)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return atoms, (model.transform(flat) * lengths).astype(np.float32)
    atoms, _ = _unit(model.cluster_centers_)
    nearest = np.arange(count) == model.predict(flat)[:, None]
    return atoms, np.where(nearest, np.maximum(flat @ atoms.T, 0), 0).astype(np.float32)


def _fit(cells: np.ndarray, factoring: Factoring, count: int, seed: int) -> NMF | KMeans:
    with warnings.catch_warnings():  # not converged, or fewer distinct cells than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        if factoring == "k-means":
            return KMeans(count, n_init=3, random_state=seed).fit(cells)
        return NMF(count, init="nndsvda", solver="cd", random_state=seed, max_iter=_ITERATIONS, tol=_TOLERANCE).fit(
            cells
        )


def _unit(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return directions (K, D) as float32 unit vectors, a zero one as zero, and their lengths (K,)."""
    lengths = np.linalg.norm(directions, axis=1)
    return (directions / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]).astype(np.float32), lengths


def _stability(
    flat: np.ndarray, order: np.ndarray, atoms: np.ndarray, factoring: Factoring, cells: int, seed: int
) -> np.ndarray:
    """Return ``stability`` (K,), see :class:`Discovery`; ``atoms`` are fitted to the first ``cells`` of ``order``."""
    half = min(cells, len(order) // 2)
    parts = flat[order[:half]], flat[order[half : 2 * half]]
    if half < len(atoms) or not (parts[0].any() and parts[1].any()):
        return np.full(len(atoms), np.nan)

    def fitted(part: np.ndarray, seed: int) -> np.ndarray:
        model = _fit(part, factoring, len(atoms), seed)
        return _unit(model.components_ if isinstance(model, NMF) else model.cluster_centers_)[0]

    second = _partners(atoms, fitted(parts[1], seed + 1))
    first = atoms if half == cells else _partners(atoms, fitted(parts[0], seed))
    return np.asarray(np.einsum("kd,kd->k", first, second, dtype=np.float64))


def _partners(atoms: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return (K, D), of (K, D) ``other`` directions the partner of each atom in the best one-to-one matching."""
    _, columns = linear_sum_assignment(-(atoms @ other.T))
    return np.asarray(other[columns])
