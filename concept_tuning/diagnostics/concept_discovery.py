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
        strengths: (n, K, h, w) float32, >= 0: how much of each is in each cell.
        present: (n, K) bool: whether the concept is the strongest one in any cell of the picture.
        error: Frobenius norm of what the concepts leave of the cells (of their deviation from the mean for
            clusters), over that of the cells; 0 is perfect.
        stability: (K,) cosine with the direction that a fit to other cells puts in its place, -1..1.
    """

    factoring: Factoring
    atoms: np.ndarray
    strengths: np.ndarray
    present: np.ndarray
    error: float
    stability: np.ndarray

    def without(self, maps: np.ndarray, concept: int) -> np.ndarray:
        """Return feature maps (n, D, h, w) less the component of a concept; those it was found in, in their order."""
        return maps - self.strengths[:, concept, None] * self.atoms[concept, :, None, None]


def discover_concepts(maps: np.ndarray, *, count: int = CONCEPTS, seed: int = 0, cells: int = CELLS) -> Discovery:
    """Find directions that recur in the cells of feature maps; those that are nowhere strongest are left out.

    None are found in maps that are zero. Caveats: the number of concepts is a choice; clusters and factors are
    not human concepts.

    Args:
        maps: (n, D, h, w).
        count: Most concepts, cut to the number of cells and of channels.
        seed: Of the cells drawn and of the fit.
        cells: Cells that are fitted, drawn at random; ``stability`` takes as many others as there are.

    Raises:
        ValueError: ``maps`` is not (n, D, h, w) or holds no cell, or ``count`` is below 1.
    """
    if maps.ndim != 4 or maps.size == 0 or count < 1:
        raise ValueError(f"maps must be (n, D, h, w) and count at least 1, got {maps.shape} and {count}")
    n, width, rows, columns = maps.shape
    flat = np.ascontiguousarray(maps.transpose(0, 2, 3, 1), dtype=np.float32).reshape(-1, width)
    factoring: Factoring = "nmf" if flat.min() >= 0 else "k-means"
    order = np.random.default_rng(seed).permutation(len(flat))
    half = min(cells, max(1, len(flat) // 2))
    count = min(count, len(flat), width)
    fitted = order[:cells]
    atoms, centre, strengths = _factor(flat, fitted, factoring, count, seed)
    other, _, _ = _factor(flat, order[-half:], factoring, min(count, half), seed + 1)
    strongest = strengths.argmax(1).reshape(n, -1, 1)
    here = (strongest == np.arange(len(atoms))) & (strengths.max(1) > 0).reshape(n, -1, 1)
    kept = here.any((0, 1))
    base = np.linalg.norm(flat - centre)
    left = np.linalg.norm(flat - centre - strengths @ atoms)
    return Discovery(
        factoring=factoring,
        atoms=atoms[kept],
        strengths=np.ascontiguousarray(strengths[:, kept].reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)),
        present=here.any(1)[:, kept],
        error=float(left / base) if base > 0 else 0.0,
        stability=_matched_cosine(atoms, other)[kept],
    )


def _factor(
    flat: np.ndarray, fitted: np.ndarray, factoring: Factoring, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return atoms (K, D), the centre (D,) they are taken from, and the strengths (cells, K) of all cells."""
    if not flat[fitted].any():  # nothing to factor; scikit-learn refuses it
        zeros = np.zeros((count, flat.shape[1]), np.float32)
        return zeros, zeros[0], np.zeros((len(flat), count), np.float32)
    if factoring == "nmf":
        model = NMF(count, init="nndsvda", solver="cd", random_state=seed, max_iter=_ITERATIONS, tol=_TOLERANCE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(flat[fitted])
            strengths = model.transform(flat)
        lengths = np.linalg.norm(model.components_, axis=1)
        atoms = model.components_ / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
        return atoms.astype(np.float32), np.zeros(flat.shape[1], np.float32), (strengths * lengths).astype(np.float32)
    centre = flat.mean(0)
    with warnings.catch_warnings():  # fewer distinct cells than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(count, n_init=3, random_state=seed).fit(flat[fitted] - centre).cluster_centers_
    lengths = np.linalg.norm(found, axis=1)
    atoms = (found / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]).astype(np.float32)
    return atoms, centre, np.maximum((flat - centre) @ atoms.T, 0)


def _matched_cosine(atoms: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return (K,) the cosine of each atom with its partner in the best one-to-one matching; NaN without partner."""
    cosines = atoms @ other.T
    rows, columns = linear_sum_assignment(-cosines)
    found = np.full(len(atoms), np.nan)
    found[rows] = cosines[rows, columns]
    return found
