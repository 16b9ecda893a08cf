"""What the analysis of rare features finds, for :mod:`concept_tuning.diagnostics.rare_features`."""

from __future__ import annotations

import numpy as np
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.concept_activations import View
from concept_tuning.diagnostics.information import ContrastBound, PresenceInformation
from concept_tuning.diagnostics.rare_use import PRETRAINED, InformationChange, RunUse
from concept_tuning.diagnostics.results import RESULT, Array, Unavailable
from concept_tuning.diagnostics.source_frequency import SourceFrequency


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SweepPoint:
    """How many concepts are rare at one threshold.

    Attributes:
        share: Share of the concepts that count as seldom seen.
        frequency: The highest source frequency among them.
        low: How many these are; more than the share where several have the highest frequency among them.
        rare: How many of them are useful beyond the band.
        expected_by_chance: ``low`` times the rate at which useless concepts pass the band. Were none useful, no more
            would be rare on average, and fewer where a low frequency comes from a level far out in the pictures'
            activations, since at such levels useless concepts pass less often.
    """

    share: float
    frequency: float
    low: int
    rare: int
    expected_by_chance: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Rarity:
    """The rare concepts and what becomes of them.

    Attributes:
        low: (K,) bool, among the lowest source frequencies; concepts that never vary are left out.
        rare: (K,) bool, ``low`` and useful beyond the band.
        threshold: The share, frequency and counts of that choice.
        sweep: The same at other shares.
        uses: Coverage and accuracy of the pre-trained network and every run.
        changes: Information in rare concepts before and after, and run against run.
    """

    low: Array
    rare: Array
    threshold: SweepPoint
    sweep: tuple[SweepPoint, ...]
    uses: tuple[RunUse, ...]
    changes: tuple[InformationChange, ...] | Unavailable


@dataclass(frozen=True, kw_only=True, config=RESULT)
class RunConcepts:
    """The concepts as a network has them.

    Attributes:
        name: The run, or ``pre-trained``.
        auc: (K,) how well a probe on the concept alone tells the class it marks from the rest, 0..1; NaN where both
            halves of the pictures lack the class.
        presence: Information of its presence, at levels of this network's own feature map.
        contrast: InfoNCE of pictures and labels with the run's class scores; empty for the pre-trained network.
    """

    name: str
    auc: Array
    presence: PresenceInformation
    contrast: tuple[ContrastBound, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Gallery:
    """The strongest patches of each of K concepts on the pre-trained network, strongest first.

    Attributes:
        keys: Names of the n pictures.
        pictures: (K, g) int64 places in ``keys``.
        boxes: (K, g, 4) x1, y1, x2, y2 in shares 0..1 of the square picture that the network sees.
        activations: (K, g) in the analysis' units.
    """

    keys: tuple[str, ...]
    pictures: Array
    boxes: Array
    activations: Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class RareFeatures:
    """Statistics of K concepts of one backbone; arrays follow the order of ``concepts``.

    Attributes:
        view: How concepts are made: ``channels``, ``groups``, ``factors`` or ``clusters``.
        backbone: Architecture and weights.
        concepts: Names of the K concepts.
        members: Channels of each.
        class_names: Names of the C classes.
        units: Of levels and activations.
        reconstruction_error: Relative error of the patches rebuilt from factors or clusters; None for channels.
        presence: Information on the pre-trained network, against shuffled labels; its levels are the best of all.
        knn: (K,) nearest-neighbour estimate of the information in the activation itself, nats.
        source: How often pre-training saw each concept, or why that cannot be said.
        target_frequency: (K,) share of the pictures' patches above the level, comparable with the source's.
        class_frequency: (C, K) share of each class' pictures with the concept present; NaN for an absent class.
        marked_class: (K,) int64, the class that the concept ranks first on the pre-trained network.
        networks: The pre-trained network, then every run.
        rarity: The rare concepts, or why there can be none.
        gallery: Strongest patches.
    """

    view: View
    backbone: str
    concepts: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    class_names: tuple[str, ...]
    units: str
    reconstruction_error: float | None
    presence: PresenceInformation
    knn: Array
    source: SourceFrequency | Unavailable
    target_frequency: Array
    class_frequency: Array
    marked_class: Array
    networks: tuple[RunConcepts, ...]
    rarity: Rarity | Unavailable
    gallery: Gallery

    def auc_change(self, name: str) -> np.ndarray:
        """Return the (K,) change of the probe's AUC from the pre-trained network to a run."""
        of = {network.name: network.auc for network in self.networks}
        return of[name] - of[PRETRAINED]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class RareFeaturesReport:
    """Rare features of several runs.

    Attributes:
        analyses: One for each view and backbone.
        missing: What could not be had, and why.
        note: For the user: which runs could not be laid side by side; empty if all could.
    """

    analyses: tuple[RareFeatures, ...]
    missing: tuple[Unavailable, ...]
    note: str


def rare_by_information(result: RareFeatures, rarity: Rarity) -> np.ndarray:
    """Return the places of the rare concepts, those furthest beyond their band first."""
    rare = np.flatnonzero(rarity.rare)
    return rare[np.argsort(-(result.presence.information - result.presence.band)[rare], kind="stable")]
