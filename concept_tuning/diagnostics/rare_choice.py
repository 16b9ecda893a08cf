"""Which concepts are rare at another threshold than that of the diagnosis, from what it saved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from concept_tuning.diagnostics.rare_results import RareFeatures, Rarity, SweepPoint
from concept_tuning.diagnostics.rare_selection import lowest_frequencies
from concept_tuning.diagnostics.results import Unavailable


@dataclass(frozen=True, eq=False, kw_only=True)
class RareChoice:
    """The rare concepts at one threshold; fields as in :class:`~concept_tuning.diagnostics.rare_results.Rarity`.

    Attributes:
        low: (K,) bool, among the lowest source frequencies.
        rare: (K,) bool, ``low`` and useful beyond the band.
        threshold: The share, frequency and counts of the choice.
    """

    low: np.ndarray
    rare: np.ndarray
    threshold: SweepPoint


def choose_rare(result: RareFeatures, share: float) -> RareChoice:
    """Count the ``share`` of the concepts that pre-training saw least as seldom seen, and say which are rare.

    At the share of the diagnosis the answer is its own. Its coverage and changes of information belong to that share
    and are not made anew here, since they need the pictures.

    Args:
        result: Concepts with a source frequency.
        share: Above 0, up to 1.

    Raises:
        ValueError: If the share is out of range, or pre-training's frequencies are not known.
    """
    if not 0 < share <= 1:
        raise ValueError(f"The share is above 0 and up to 1, got {share}.")
    if isinstance(result.source, Unavailable) or not isinstance(result.rarity, Rarity):
        raise ValueError("Without source frequencies no concept can be called rare.")
    saved = result.rarity
    if share == saved.threshold.share:
        return RareChoice(low=saved.low, rare=saved.rare, threshold=saved.threshold)
    frequency, presence = result.source.frequency, result.presence
    low = lowest_frequencies(frequency, _varies(result, saved), share)
    rare = low & presence.useful
    point = SweepPoint(
        share=share,
        frequency=float(frequency[low].max(initial=0.0)),
        low=int(low.sum()),
        rare=int(rare.sum()),
        expected_by_chance=float((1 - presence.band_level) * low.sum()),
    )
    return RareChoice(low=low, rare=rare, threshold=point)


def _varies(result: RareFeatures, saved: Rarity) -> np.ndarray:
    """Return (K,) bool, concepts that differ between pictures, as far as it shows in what was saved.

    They do where some pictures have the concept and others lack it, or where the strongest pictures differ. What shows
    in neither says nothing of the class and is never rare.
    """
    shares = result.class_frequency[~np.isnan(result.class_frequency).any(1)]
    some = (shares > 0).any(0) & (shares < 1).any(0)
    return np.asarray(some | (np.ptp(result.gallery.activations, axis=1) > 0) | saved.low)
