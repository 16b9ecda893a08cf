"""Concepts defined once on the pre-trained network, and how strongly each fires in each picture.

A fine-tuned copy of the network keeps the place of every channel, so the same definition reads off every run and runs
can be laid side by side. That a channel keeps its meaning is not guaranteed: look at the galleries.

The method's own nine groups are not among the views: it ranks channels by a picture's label, so their presence
would carry the label by construction.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import channel_correlation

View = Literal["channels", "groups", "factors", "clusters"]

#: Most patches that factors and clusters are fitted to.
_FIT_PATCHES = 4000

#: Side of a patch as a share of the picture's, as in Concept-Tuning (arXiv 2311.06868): 64 of 224 px.
PATCH_SHARE = 64 / 224


class ConceptSet(Protocol):
    """A set of K concepts that can be read off any feature map with the channels it was defined on."""

    @property
    def view(self) -> View:
        """The kind of concepts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K concepts."""

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Channels of each concept; the eight with the largest weights for factors and clusters."""

    @property
    def weights(self) -> np.ndarray | None:
        """(K, D) weights of the channels where a concept is their weighted sum, else None."""

    @property
    def reconstruction_error(self) -> float | None:
        """Frobenius norm of what the concepts leave of the patches over that of the patches; None: no reconstruction.

        Measured on all patches of the pictures that the concepts were defined on.
        """

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """Return the concepts' activation maps (n, K, h, w) for feature maps (n, D, h, w)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Strongest:
    """The strongest patch of each concept in each picture.

    Attributes:
        activations: (n, K) float32.
        cells: (n, K) int64, row times columns plus column.
        grid: Rows and columns of the feature map.
    """

    activations: np.ndarray
    cells: np.ndarray
    grid: tuple[int, int]

    def boxes(self, pictures: np.ndarray, concepts: np.ndarray) -> np.ndarray:
        """Return the patches around strongest cells as (..., 4) x1, y1, x2, y2 in shares 0..1 of the picture's side.

        The receptive field of a cell is larger than its patch, as a rule.
        """
        rows, columns = self.grid
        row, column = np.divmod(self.cells[pictures, concepts], columns)
        x, y = (column + 0.5) / columns, (row + 0.5) / rows
        half = PATCH_SHARE / 2
        return np.clip(np.stack([x - half, y - half, x + half, y + half], axis=-1), 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Channels:
    """Every channel of the feature map is a concept."""

    count: int
    view: View = "channels"
    weights: None = None
    reconstruction_error: None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See :class:`ConceptSet`."""
        return tuple(f"channel {number}" for number in range(self.count))

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """See :class:`ConceptSet`."""
        return tuple((number,) for number in range(self.count))

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """See :class:`ConceptSet`."""
        return maps


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """Channels that fire together are a concept; its activation is their mean."""

    weights: np.ndarray
    view: View = "groups"
    reconstruction_error: None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See :class:`ConceptSet`."""
        return tuple(f"group {number} ({len(part)} channels)" for number, part in enumerate(self.members))

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """See :class:`ConceptSet`."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in self.weights)

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """See :class:`ConceptSet`."""
        n, channels, rows, columns = maps.shape
        return (self.weights.astype(np.float32) @ maps.reshape(n, channels, -1)).reshape(n, -1, rows, columns)


@dataclass(frozen=True, eq=False)
class PatchFactors:
    """Non-negative factors of the patches are concepts: patches (m, D) ~ activations (m, K) components (K, D)."""

    model: NMF
    reconstruction_error: float
    view: View = "factors"
    weights: None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See :class:`ConceptSet`."""
        return tuple(f"factor {number}" for number in range(len(self.model.components_)))

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """See :class:`ConceptSet`."""
        return _heaviest(self.model.components_)

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """See :class:`ConceptSet`; negative activations count as 0."""
        return _maps_of(self.model.transform(np.maximum(patches_of(maps), 0)), maps)


@dataclass(frozen=True, eq=False)
class PatchClusters:
    """Clusters of patches are concepts; the activation is minus the distance of a patch to the cluster's centre."""

    model: KMeans
    reconstruction_error: float
    view: View = "clusters"
    weights: None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See :class:`ConceptSet`."""
        return tuple(f"cluster {number}" for number in range(len(self.model.cluster_centers_)))

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """See :class:`ConceptSet`."""
        return _heaviest(self.model.cluster_centers_ - self.model.cluster_centers_.mean(0))

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """See :class:`ConceptSet`."""
        return _maps_of(-self.model.transform(patches_of(maps)), maps)


def define_concepts(
    view: View, maps: np.ndarray, *, standardised: np.ndarray | None = None, count: int = 64, seed: int = 0
) -> ConceptSet | Unavailable:
    """Define the concepts of a view on the feature maps of the pre-trained network.

    Args:
        view: ``channels``; ``groups`` of channels that correlate; non-negative ``factors`` of patches; ``clusters``
            of patches.
        maps: (n, D, h, w) feature maps of the pre-trained network.
        standardised: (n, D, h, w) the same before the last non-linearity, by which channels are grouped if there.
        count: Number of groups, factors or clusters; fewer where there are not as many channels or patches.
        seed: Seed of factors and clusters.

    Returns:
        The concepts, or why the view cannot be had.
    """
    if view == "channels":
        return Channels(maps.shape[1])
    if view == "groups":
        return group_channels(maps if standardised is None else standardised, count=count)
    if view == "factors":
        return factorise_patches(maps, count=count, seed=seed)
    return cluster_patches(maps, count=count, seed=seed)


def strongest_patches(concept_maps: np.ndarray) -> Strongest:
    """Return the largest activation of each concept over the patches, and its cell, for maps (n, K, h, w)."""
    n, concepts, rows, columns = concept_maps.shape
    flat = concept_maps.reshape(n, concepts, -1)
    cells = flat.argmax(2)
    activations = np.take_along_axis(flat, cells[:, :, None], axis=2)[:, :, 0]
    return Strongest(activations=activations.astype(np.float32), cells=cells, grid=(rows, columns))


def group_channels(maps: np.ndarray, *, count: int) -> ChannelGroups:
    """Group channels by Ward's clustering of their correlation over patches.

    Ward's criterion on the distances sqrt(2 - 2 r) is that of the channels' standardised patterns.

    Args:
        maps: (n, D, h, w).
        count: Number of groups, cut to D.
    """
    correlation = channel_correlation(maps).astype(np.float64)
    distances = np.sqrt(np.maximum(2 - correlation - correlation.T, 0))
    np.fill_diagonal(distances, 0)
    if len(distances) == 1:
        return ChannelGroups(np.ones((1, 1)))
    labels = fcluster(ward(squareform(distances, checks=False)), t=min(count, len(distances)), criterion="maxclust")
    member = labels == np.arange(1, labels.max() + 1)[:, None]
    return ChannelGroups(member / member.sum(1, keepdims=True))


def factorise_patches(
    maps: np.ndarray, *, count: int, seed: int = 0, iterations: int = 200
) -> ConceptSet | Unavailable:
    """Factorise the patches of (n, D, h, w) feature maps into non-negative concepts, as CRAFT does (arXiv 2211.10154).

    Fitted to at most 4000 patches drawn by ``seed``; the reconstruction error is that of all.
    """
    patches = patches_of(maps)
    if patches.min() < 0 or not patches.any():
        return Unavailable(
            analysis="factors",
            reason="Non-negative factorisation needs activations of at least 0, as after a ReLU; this network's "
            "feature map has negative ones or none at all. See the clusters instead.",
        )
    chosen = _draw(patches, seed)
    model = NMF(
        min(count, *chosen.shape), init="nndsvda", max_iter=iterations, random_state=np.random.RandomState(seed)
    )
    with warnings.catch_warnings():
        # The error of the reconstruction says how good the factors are, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(chosen)
        rebuilt = model.transform(patches) @ model.components_
    return PatchFactors(model, _relative_error(patches, rebuilt))


def cluster_patches(maps: np.ndarray, *, count: int, seed: int = 0) -> ConceptSet:
    """Cluster the patches of (n, D, h, w) feature maps by k-means, fitted to at most 4000 drawn by ``seed``."""
    patches = patches_of(maps)
    chosen = _draw(patches, seed)
    distinct = len(np.unique(chosen, axis=0))
    model = KMeans(min(count, distinct), n_init=1, random_state=np.random.RandomState(seed)).fit(chosen)
    return PatchClusters(model, _relative_error(patches, model.cluster_centers_[model.predict(patches)]))


def patches_of(maps: np.ndarray) -> np.ndarray:
    """Return (n * h * w, D) float32 patches of (n, D, h, w) feature maps."""
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1]), dtype=np.float32)


def _maps_of(activations: np.ndarray, maps: np.ndarray) -> np.ndarray:
    n, _, rows, columns = maps.shape
    return activations.reshape(n, rows, columns, -1).transpose(0, 3, 1, 2).astype(np.float32)


def _draw(patches: np.ndarray, seed: int) -> np.ndarray:
    if len(patches) <= _FIT_PATCHES:
        return patches
    return patches[np.sort(np.random.default_rng(seed).choice(len(patches), _FIT_PATCHES, replace=False))]


def _relative_error(patches: np.ndarray, rebuilt: np.ndarray) -> float:
    size = float(np.linalg.norm(patches))
    return float(np.linalg.norm(patches - rebuilt)) / size if size else 0.0


def _heaviest(weights: np.ndarray, count: int = 8) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row.tolist()) for row in np.argsort(-weights, axis=1)[:, :count])
