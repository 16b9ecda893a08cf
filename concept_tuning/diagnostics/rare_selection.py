"""Which concepts are rare: source frequency at the level that tells classes apart, and use beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from concept_tuning.diagnostics.concept_activations import ConceptSet, Strongest
from concept_tuning.diagnostics.information import PresenceInformation, best_levels, information_test
from concept_tuning.diagnostics.rare_results import Rarity, SweepPoint
from concept_tuning.diagnostics.rare_use import InformationChange, information_changes, run_uses
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import (
    PretrainedMaps,
    batch_norm_frequency,
    group_deviations,
    picture_frequency,
)

#: Shares of the concepts that the sweep counts as seldom seen.
SWEEP = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

#: Fewest pictures of which thirds are taken.
_FEWEST = 6

#: Most counts held at once while levels are refined.
_CELLS = 1_000_000

SOURCE_UNITS = "deviations of the pre-training data"
_BATCH_NORM_NOTE = (
    "From the running mean and variance of the pre-trained last batch norm, with Gaussian tails; for one patch, not a "
    "picture, and for pre-training's own picture size and crops."
)
_GROUP_NOTE = (
    " A group's deviation uses the channels' correlations in these pictures, since the batch norm kept none of its own."
)
_BRANCH_NOTE = (
    " The last batch norm does not lead straight to the feature map (a shortcut is added, or another non-linearity "
    "follows), so levels and frequencies are those of its own output."
)


@dataclass(frozen=True, kw_only=True)
class RareFeatureSettings:
    """Settings of the analysis.

    Attributes:
        permutations: Shufflings of the labels.
        network_permutations: The same for each network's own feature map, where no concept is chosen by them.
        band_level: Probability 0..1 below the band of the null.
        rare_share: Share of the concepts, those with the lowest source frequency, that count as seldom seen; more where
            several are as seldom as the last of them.
        level_count: Levels tried for each concept under every shuffling, see :func:`presence_test`.
        groups: Number of channel groups.
        factors: Number of non-negative factors, and of clusters of patches.
        top: First concepts of a picture that coverage looks at.
        gallery: Pictures of each concept's gallery.
        resamples: Bootstrap draws.
        source_folder: Folder of pictures like those of pre-training, for concepts without batch norm statistics.
        seed: Seed of everything random.
    """

    permutations: int = 300
    network_permutations: int = 60
    band_level: float = 0.95
    rare_share: float = 0.1
    level_count: int = 24
    groups: int = 64
    factors: int = 16
    top: int = 10
    gallery: int = 8
    resamples: int = 2000
    source_folder: Path | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class LevelFrequency:
    """How a level becomes a source frequency.

    Attributes:
        frequency: Maps (K,) levels to (K,) frequencies 0..1.
        basis: See :class:`~concept_tuning.diagnostics.source_frequency.SourceFrequency`.
        note: Likewise.
    """

    frequency: Callable[[np.ndarray], np.ndarray]
    basis: str
    note: str


def in_source_units(concepts: ConceptSet, frozen: PretrainedMaps) -> bool:
    """Return whether the concepts' activations can be had in deviations of the pre-training data."""
    return frozen.standardised is not None and concepts.view in ("channels", "groups")


def analysed_maps(concepts: ConceptSet, frozen: PretrainedMaps) -> np.ndarray:
    """Return the concepts' maps (n, K, h, w) that levels refer to: in pre-training units where these are known."""
    if frozen.standardised is not None and in_source_units(concepts, frozen):
        return concepts.apply(frozen.standardised)
    return concepts.apply(frozen.maps)


def raise_to_floor(strongest: Strongest, concepts: ConceptSet, frozen: PretrainedMaps) -> Strongest:
    """Raise single channels to the level below which the network's ReLU is silent: nothing below it is passed on."""
    if concepts.view != "channels" or not in_source_units(concepts, frozen):
        return strongest
    return replace(strongest, activations=np.maximum(strongest.activations, frozen.floor))


def source_of_levels(
    concepts: ConceptSet, frozen: PretrainedMaps, source: PretrainedMaps | None
) -> LevelFrequency | Unavailable:
    """Return how levels of the concepts become source frequencies, or why they cannot.

    Args:
        concepts: The K concepts.
        frozen: The pre-trained network's view of the target pictures.
        source: Its view of source-like pictures, or None.
    """
    if frozen.standardised is not None and in_source_units(concepts, frozen):
        single = concepts.weights is None
        deviations = 1.0 if concepts.weights is None else group_deviations(frozen.standardised, concepts.weights)
        return LevelFrequency(
            frequency=lambda levels: batch_norm_frequency(levels, deviations=deviations),
            basis="last batch norm",
            note=_BATCH_NORM_NOTE + ("" if single else _GROUP_NOTE) + (_BRANCH_NOTE if frozen.link == "other" else ""),
        )
    if source is not None:
        maps = concepts.apply(source.maps)
        return LevelFrequency(
            frequency=lambda levels: picture_frequency(maps, levels),
            basis="source-like pictures",
            note=f"Counted over the patches of {len(maps)} pictures taken to be like those of pre-training.",
        )
    if frozen.missing is not None:
        return frozen.missing
    return Unavailable(
        analysis="source frequency",
        reason="The batch norm kept statistics of single channels, not of factors or clusters of patches. Name a "
        "folder of pictures like those of pre-training (source_folder) to count these instead.",
    )


def presence_test(activations: np.ndarray, labels: np.ndarray, settings: RareFeatureSettings) -> PresenceInformation:
    """Run :func:`information_test` on (n, K) activations with the analysis' settings, and refine the levels.

    Information, null and band are those of the ``level_count`` levels that every shuffling goes through. These lie
    some 4 % of the pictures apart, so that the best one cuts into the pictures without the concept as often as not;
    in the tail of those its source frequency is several times too high. The levels returned are therefore the best
    of all; what is useful is not touched by it.
    """
    found = information_test(
        activations,
        labels,
        permutations=settings.permutations,
        band_level=settings.band_level,
        level_count=settings.level_count,
        seed=settings.seed,
    )
    width = max(1, _CELLS // (len(labels) * (int(labels.max()) + 1)))
    parts = [
        best_levels(activations[:, start : start + width], labels, level_count=len(labels))
        for start in range(0, activations.shape[1], width)
    ]
    return replace(found, levels=np.concatenate(parts))


def lowest_frequencies(frequency: np.ndarray, varies: np.ndarray, share: float) -> np.ndarray:
    """Return (K,) bool: the ``share`` of all concepts with the lowest frequency, at least one, that vary at all.

    Concepts of the same frequency are all in or all out: those as seldom seen as the last of the share are in.
    """
    known = np.where(varies, frequency, np.inf)
    last = np.sort(known)[max(1, round(share * len(frequency))) - 1]
    return (known <= last) & varies


def find_rarity(
    activations: np.ndarray,
    presence: PresenceInformation,
    source: LevelFrequency,
    *,
    networks: Mapping[str, np.ndarray],
    orders: Mapping[str, np.ndarray],
    right: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: int,
    parts: np.ndarray,
    settings: RareFeatureSettings,
) -> Rarity:
    """Find the rare concepts and what networks do with them.

    Args:
        activations: (n, K) strongest activations on the pre-trained network, in the units of the levels.
        presence: Their information.
        source: How levels become source frequencies.
        networks: (n, K) strongest activations of each network's own feature map, the pre-trained one first.
        orders: (n, K) by network, see :func:`run_uses`.
        right: (n,) bool by run, whether the prediction is right.
        labels: (n,) int64.
        classes: Number C of classes.
        parts: (n,) int64 in 0..2, the thirds in turn of which concepts are chosen, learnt and measured for the changes.
        settings: Of the analysis.
    """
    frequency = source.frequency(presence.levels)
    low = lowest_frequencies(frequency, np.ptp(activations, axis=0) > 0, settings.rare_share)
    rare = low & presence.useful
    return Rarity(
        low=low,
        rare=rare,
        threshold=_sweep_point(frequency, activations, presence, settings.rare_share),
        sweep=tuple(_sweep_point(frequency, activations, presence, share) for share in SWEEP),
        uses=run_uses(
            tuple(networks),
            orders,
            right,
            present=activations > presence.levels,
            frequency=frequency,
            rare=rare,
            useful=presence.useful,
            top=settings.top,
        ),
        changes=_changes(
            activations, source, networks=networks, labels=labels, classes=classes, parts=parts, settings=settings
        ),
    )


def _sweep_point(
    frequency: np.ndarray, activations: np.ndarray, presence: PresenceInformation, share: float
) -> SweepPoint:
    low = lowest_frequencies(frequency, np.ptp(activations, axis=0) > 0, share)
    return SweepPoint(
        share=share,
        frequency=float(frequency[low].max(initial=0.0)),
        low=int(low.sum()),
        rare=int((low & presence.useful).sum()),
        expected_by_chance=float((1 - presence.band_level) * low.sum()),
    )


def _changes(
    activations: np.ndarray,
    source: LevelFrequency,
    *,
    networks: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: int,
    parts: np.ndarray,
    settings: RareFeatureSettings,
) -> tuple[InformationChange, ...] | Unavailable:
    """Choose the rare concepts in each third of the pictures and compare their information in the others."""
    rare, others = [], []
    for part in range(3 if len(labels) >= _FEWEST else 0):
        chosen = parts == part
        found = presence_test(activations[chosen], labels[chosen], settings)
        varies = np.ptp(activations[chosen], axis=0) > 0
        low = lowest_frequencies(source.frequency(found.levels), varies, settings.rare_share)
        rare.append(low & found.useful)
        others.append(~low & found.useful)
    if not rare or not all(found.any() for found in rare):
        return Unavailable(
            analysis="change of information in rare concepts",
            reason="A third of the pictures shows no rare concept that is useful beyond the band, so there is nothing "
            "to measure on the others. Take more pictures, or count more of the concepts as seldom seen.",
        )
    return information_changes(
        networks,
        labels,
        classes=classes,
        parts=parts,
        rare=rare,
        others=others,
        resamples=settings.resamples,
        level_count=settings.level_count,
        seed=settings.seed,
    )
