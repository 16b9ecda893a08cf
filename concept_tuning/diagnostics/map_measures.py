"""Measures of attribution maps: do they lie on the object, and does the network need what they point at?

Maps are (n, S, S) arrays >= 0. A map that is 0 everywhere points at nothing: its measures are NaN, never a
number, and whoever averages says how many there were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import distance_transform_edt, gaussian_filter

#: Probabilities (m, C) of pictures (m, 3, S, S) float32 with values in 0..255.
Predict = Callable[[np.ndarray], np.ndarray]

#: Pictures that are imputed at a time; scipy's solver lets other threads work.
_THREADS = min(4, os.cpu_count() or 1)

#: Values that differ by less than this share of the largest are equal but for rounding.
_EQUAL = 1e-4

#: Weights of the neighbours in noisy linear imputation (arXiv 2202.00449, section 4): 1/6 beside, 1/12 diagonal.
_NEIGHBOURS = tuple(
    (down, right, 1 / 12 if down and right else 1 / 6)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """What becomes of a class's probability while pixels are taken away, or put in, by their attribution.

    Attributes:
        fractions: (F,) share of the pixels that are changed.
        least_first: (n, F) probabilities; for ROAD least relevant pixels removed first, else the insertion curve.
        most_first: (n, F) probabilities; most relevant first, else the deletion curve.
        original: (n,) probabilities of the pictures as they are.
    """

    fractions: np.ndarray
    least_first: np.ndarray
    most_first: np.ndarray
    original: np.ndarray

    @property
    def road(self) -> np.ndarray:
        """(n,) in -1/2..1/2, higher is better: half of least-first less most-first, averaged over the fractions."""
        return (self.least_first.mean(1) - self.most_first.mean(1)) / 2

    @property
    def insertion(self) -> np.ndarray:
        """(n,) area below the insertion curve, 0..1, higher is better."""
        return np.trapezoid(self.least_first, self.fractions, axis=1)

    @property
    def deletion(self) -> np.ndarray:
        """(n,) area below the deletion curve, 0..1, lower is better."""
        return np.trapezoid(self.most_first, self.fractions, axis=1)

    @property
    def change(self) -> np.ndarray:
        """(n,) mean absolute change of the probability; where it is about 0, ROAD is 0 whatever the map."""
        both = np.concatenate([self.least_first, self.most_first], axis=1)
        return np.abs(both - self.original[:, None]).mean(1)


def is_blank(maps: np.ndarray) -> np.ndarray:
    """Return (n,) bool: the maps that point at nothing, being 0 everywhere or not finite somewhere."""
    flat = maps.reshape(len(maps), -1)
    return ~(np.isfinite(flat).all(1) & (flat > 0).any(1))


def outside_mass(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the share of each map's mass outside a mask, ``1 - sum_mask A / sum A``, 0..1.

    Arras et al. (arXiv 2003.07258) call the complement relevance mass accuracy. Caveat: maps of a few
    cells bleed over the mask's edge, so a good map of a small object does not reach 0.

    Args:
        maps: (n, S, S) >= 0.
        masks: (n, S, S) bool.

    Returns:
        (n,) float64; NaN for a blank map and for an empty mask.
    """
    _check(maps, masks)
    maps = maps.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        outside = 1 - (maps * masks).sum((1, 2)) / maps.sum((1, 2))
    return np.where(is_blank(maps) | ~masks.any((1, 2)), np.nan, outside)


def concentration(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return (n,) the share of the mass inside a mask over the mask's share of the area: 1 for an even map, >= 0.

    NaN as in :func:`outside_mass`.
    """
    area = masks.mean((1, 2))
    return (1 - outside_mass(maps, masks)) / np.where(area > 0, area, np.nan)


def pointing_hits(maps: np.ndarray, masks: np.ndarray, *, tolerance: float = 0) -> np.ndarray:
    """Return whether the peak of each map lies on a mask: the pointing game (Zhang et al., arXiv 1608.00507).

    The accuracy is the mean: hits over hits and misses. Where several pixels share the largest value up to rounding, as
    at the border of an enlarged map, the share of them that hit is returned: what a peak drawn among them would give.
    Caveat: objects tend to be in the middle, so compare with a map that always points there.

    Args:
        maps: (n, S, S) >= 0.
        masks: (n, S, S) bool.
        tolerance: Pixels that a peak may be away from the mask's nearest pixel (Zhang et al.: 15 on pictures of
            some 500 pixels).

    Returns:
        (n,) float64, 0..1; NaN for a blank map and for an empty mask.
    """
    _check(maps, masks)
    peaks = maps >= (1 - _EQUAL) * np.nanmax(maps, axis=(1, 2), keepdims=True, initial=0)
    near = masks if tolerance <= 0 else np.stack([distance_transform_edt(~mask) <= tolerance for mask in masks])
    hits = (peaks & near).sum((1, 2)) / np.maximum(peaks.sum((1, 2)), 1)
    return np.where(is_blank(maps) | ~masks.any((1, 2)), np.nan, hits)


def removal_order(maps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return (n, S * S) pixels of each map from the most to the least relevant, equal ones in random order."""
    flat = maps.reshape(len(maps), -1)
    shuffled = np.random.default_rng(seed).permutation(flat.shape[1])
    return shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]


def insertion_deletion(
    predict: Predict, images: np.ndarray, maps: np.ndarray, targets: np.ndarray, *, steps: int = 8, seed: int = 0
) -> Curves:
    """Compute insertion and deletion curves (RISE: Petsiuk et al., arXiv 1806.07421, section 4).

    Deletion sets the most relevant pixels to the picture's mean colour; insertion puts them into a
    blurred picture. Caveat: both kinds of picture are unlike anything the network has seen, and much of the
    change comes from that; prefer :func:`road`, and compare with a random map.

    Args:
        predict: The network.
        images: (n, 3, S, S) uint8.
        maps: (n, S, S) >= 0.
        targets: (n,) classes.
        steps: Steps from no pixel to all, >= 1. Costs ``2 * (steps + 1)`` passes for each picture.
        seed: Of the order of equal pixels.

    Returns:
        Curves over ``steps + 1`` fractions, NaN for a blank map.
    """
    _check(maps, images[:, 0])
    size = maps.shape[-1]
    pixels = images.astype(np.float32)
    blurred = gaussian_filter(pixels, sigma=(0, 0, size / 20, size / 20))
    mean = np.broadcast_to(pixels.mean((2, 3), keepdims=True), pixels.shape)
    rank = np.argsort(removal_order(maps, seed=seed), axis=1).reshape(maps.shape)[:, None]
    fractions = np.linspace(0, 1, steps + 1)
    inserted, deleted = [], []
    for fraction in fractions:
        first = rank < round(fraction * size * size)
        inserted.append(_probability(predict, np.where(first, pixels, blurred), targets))
        deleted.append(_probability(predict, np.where(first, mean, pixels), targets))
    return _curves(fractions, inserted, deleted, _probability(predict, pixels, targets), maps)


def road(
    predict: Predict,
    images: np.ndarray,
    maps: np.ndarray,
    targets: np.ndarray,
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5),
    noise: float = 2.55,
    seed: int = 0,
) -> Curves:
    """Remove pixels by attribution and debias: ROAD (Rong et al., arXiv 2202.00449); see :attr:`Curves.road`.

    A removed pixel becomes the weighted mean of its neighbours, all of them solved for together, plus noise
    (section 4), so that the picture hardly shows what was removed. The score is the target's probability,
    not the accuracy: one picture has a score then. Caveats: a class whose probability does not move at all gives
    0 for every map (:attr:`Curves.change`); a smooth map removes a closed region, whose outline still tells the
    network its shape, so maps of unlike smoothness compare badly: read it beside the random smooth map.

    Args:
        predict: The network.
        images: (n, 3, S, S) uint8.
        maps: (n, S, S) >= 0.
        targets: (n,) classes.
        fractions: Shares of the pixels that are removed, each in 0..1 (exclusive).
        noise: Standard deviation of the noise, in grey levels of 255 (0.01 of the range).
        seed: Of the noise and of the order of equal pixels.

    Returns:
        Curves over ``fractions``, NaN for a blank map.
    """
    _check(maps, images[:, 0])
    if not fractions or min(fractions) <= 0 or max(fractions) >= 1:
        raise ValueError(f"fractions must lie between 0 and 1, got {tuple(fractions)}.")
    generator = np.random.default_rng(seed)
    pixels = images.astype(np.float32)
    rank = np.argsort(removal_order(maps, seed=seed), axis=1).reshape(maps.shape)
    least: list[np.ndarray] = []
    most: list[np.ndarray] = []
    usable = np.flatnonzero(~is_blank(maps))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="impute") as pool:
        for fraction in fractions:
            count = max(1, round(fraction * rank[0].size))
            for curve, removed in ((least, rank >= rank[0].size - count), (most, rank < count)):
                changed = pixels.copy()
                for place, filled in zip(usable, pool.map(impute, pixels[usable], removed[usable]), strict=True):
                    changed[place] = filled
                grain = generator.normal(0, noise, changed.shape) * removed[:, None]
                curve.append(_probability(predict, np.clip(changed + grain, 0, 255).astype(np.float32), targets))
    return _curves(np.asarray(fractions, float), least, most, _probability(predict, pixels, targets), maps)


def impute(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Replace removed pixels by the weighted mean of their neighbours, solved for all of them together.

    Args:
        image: (3, S, S).
        removed: (S, S) bool; at least one pixel must stay.

    Returns:
        (3, S, S) float32, without noise.

    Raises:
        ValueError: if every pixel is removed.
    """
    if removed.all():
        raise ValueError("At least one pixel must stay, from which the others are imputed.")
    filled = image.astype(np.float32)
    count = int(removed.sum())
    if not count:
        return filled
    inside = np.pad(np.ones(removed.shape, bool), 1)
    number = np.full(inside.shape, -1)
    number[1:-1, 1:-1][removed] = np.arange(count)
    values = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    row, column = (place + 1 for place in np.nonzero(removed))
    own, diagonal, known = np.arange(count), np.zeros(count), np.zeros((count, len(image)))
    below: list[tuple[np.ndarray, np.ndarray, float]] = []
    for down, right, weight in _NEIGHBOURS:
        beside = (row + down, column + right)
        diagonal += weight * inside[beside]
        other = number[beside]
        known += weight * (values[:, *beside] * (other < 0)).T
        later = other > own
        below.append((other[later] - own[later], own[later], -weight))
    # Symmetric and positive definite; pixels in reading order lie within a row of their neighbours, so it is banded.
    bands = np.zeros((1 + max(int(step.max(initial=0)) for step, _, _ in below), count))
    bands[0] = diagonal
    for step, place, weight in below:
        bands[step, place] = weight
    filled[:, removed] = solveh_banded(bands, known, lower=True, overwrite_ab=True, overwrite_b=True).T
    return filled


def _probability(predict: Predict, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return predict(pixels)[np.arange(len(targets)), targets]


def _curves(
    fractions: np.ndarray, first: list[np.ndarray], second: list[np.ndarray], original: np.ndarray, maps: np.ndarray
) -> Curves:
    blank = is_blank(maps)[:, None]
    least, most = (np.where(blank, np.nan, np.stack(curve, axis=1)) for curve in (first, second))
    return Curves(fractions=fractions, least_first=least, most_first=most, original=original)


def _check(maps: np.ndarray, others: np.ndarray) -> None:
    if maps.ndim != 3 or maps.shape != others.shape:
        raise ValueError(f"maps must be (n, S, S) and fit the pictures or masks, got {maps.shape} and {others.shape}.")
