"""Maps that know nothing of what a network has learnt: what an attribution map has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import convolve1d, gaussian_filter

from concept_tuning.diagnostics.attribution import attribute_all
from concept_tuning.methods.base import Method

RANDOM_WEIGHTS, RANDOM_SMOOTH, CENTRE, EDGES = "randomised weights", "random smooth map", "centre prior", "edges"

#: The controls; the first belongs to a kind of map, the others to the picture alone.
CONTROLS = (RANDOM_WEIGHTS, RANDOM_SMOOTH, CENTRE, EDGES)


def source_of(control: str, name: str) -> str:
    """Return under which name :func:`maps_with_controls` has the control of the map ``name``."""
    return f"{name}, {control}" if control == RANDOM_WEIGHTS else control


def maps_with_controls(
    method: Method,
    twin: Method,
    images: np.ndarray,
    targets: np.ndarray,
    *,
    maps: Sequence[str],
    seed: int,
    feature_maps: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute maps and their controls.

    Args:
        method: The model.
        twin: Its copy with random weights.
        images: (b, 3, S, S) uint8.
        targets: (b,) int64 classes to explain.
        maps: Names of the maps.
        seed: Of the random smooth maps.
        feature_maps: (b, D, h, w) that the model makes of the pictures, where they are known; saves a pass.

    Returns:
        (b, S, S) float32 maps >= 0 by source, see :func:`source_of`.
    """
    count, size = len(images), images.shape[-1]
    tensors = torch.from_numpy(images), torch.from_numpy(targets)
    known = None if feature_maps is None else torch.from_numpy(feature_maps)
    own = attribute_all(method, *tensors, names=maps, feature_map=known)
    random = attribute_all(twin, *tensors, names=maps)
    return {
        **{name: found.numpy() for name, found in own.items()},
        **{source_of(RANDOM_WEIGHTS, name): found.numpy() for name, found in random.items()},
        RANDOM_SMOOTH: random_smooth_maps(count, size, seed=seed),
        CENTRE: centre_prior(count, size),
        EDGES: edge_maps(images),
    }


def random_smooth_maps(count: int, size: int, *, seed: int) -> np.ndarray:
    """Return (count, size, size) float32 maps in 0..1: noise blurred over an eighth of the side."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = gaussian_filter(noise, sigma=(0, size / 8, size / 8), mode="wrap")
    smooth -= smooth.min((1, 2), keepdims=True)
    return (smooth / smooth.max((1, 2), keepdims=True)).astype(np.float32)


def centre_prior(count: int, size: int) -> np.ndarray:
    """Return (count, size, size) float32 copies of a Gaussian in the middle, of a quarter of the side as deviation."""
    offset = (np.arange(size) + 0.5) / size - 0.5
    bump = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 0.25**2))
    return np.broadcast_to(bump, (count, size, size)).astype(np.float32)


def edge_maps(images: np.ndarray) -> np.ndarray:
    """Return the Sobel gradient's magnitude (n, S, S) float32 of pictures (n, 3, S, S) uint8, in grey levels."""
    grey = images.astype(np.float32).mean(1)

    def gradient(axis: int) -> np.ndarray:
        across = convolve1d(grey, [1, 2, 1], axis=3 - axis, mode="nearest")
        return convolve1d(across, [1, 0, -1], axis=axis, mode="nearest")

    return np.hypot(gradient(1), gradient(2))
