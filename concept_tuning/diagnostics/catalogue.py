"""The analyses of a diagnosis: what each is called, what it needs, and how it is made from a workbench."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass as result_dataclass

from concept_tuning.diagnostics.attention_maps import ChannelLinks, PositionMaps, channel_attention, position_attention
from concept_tuning.diagnostics.concept_effects import ConceptEffects, concept_effects
from concept_tuning.diagnostics.concept_maps import ConceptMaps, find_concept_maps
from concept_tuning.diagnostics.controls import ControlledMaps, compare_with_controls
from concept_tuning.diagnostics.counterfactuals import Counterfactuals, background_counterfactuals
from concept_tuning.diagnostics.embedding import Embedding, embed_concepts, embed_pictures
from concept_tuning.diagnostics.groups import GroupTable, group_table
from concept_tuning.diagnostics.ledger import Ledger, negative_transfer
from concept_tuning.diagnostics.picture_maps import PictureMaps, picture_maps
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.predictions import Predictions, collect_predictions
from concept_tuning.diagnostics.properties import PropertyTable, original_sizes, property_table, whole_pictures
from concept_tuning.diagnostics.rare_features import diagnose_rare_features
from concept_tuning.diagnostics.rare_results import RareFeaturesReport, rare_by_information
from concept_tuning.diagnostics.rare_selection import RareFeatureSettings
from concept_tuning.diagnostics.results import RESULT, Unavailable
from concept_tuning.diagnostics.run_groups import group_runs, repeated_seed
from concept_tuning.diagnostics.sanity import SanityCheck, check_sanity
from concept_tuning.diagnostics.slices import SliceTable, find_slices
from concept_tuning.diagnostics.switches import FrontDoorSwitches, front_door_switches
from concept_tuning.diagnostics.transport_links import TransportLinks, transport_links
from concept_tuning.diagnostics.verdict import Verdict, compare_methods
from concept_tuning.diagnostics.workbench import Workbench

#: Pictures on which ROAD is measured, which solves 6 linear systems for each map and control.
_PERTURBED = 16
#: Concept patches laid out, each of which goes through every network.
_PATCHES = 2500
#: Gallery pictures of one concept, slice or list that are kept as thumbnails.
_GALLERY = 8


@result_dataclass(frozen=True, kw_only=True, config=RESULT)
class TransportPairs:
    """Matches between pairs of pictures, one pair of the same class and one of different classes where there are.

    Attributes:
        pairs: One result for each pair.
    """

    pairs: tuple[TransportLinks, ...]


@result_dataclass(frozen=True, kw_only=True, config=RESULT)
class Verdicts:
    """Verdicts between every two methods, or every two configurations where a method has several.

    Attributes:
        verdicts: One for each two, or why there is none.
    """

    verdicts: tuple[Verdict | Unavailable, ...]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis.

    Attributes:
        name: What it is called in files and on the command line.
        title: What it is called in reports.
        needs: What it cannot do without, in words; empty if nothing.
        kind: Class of its result.
        joint: Made from all runs together, by ``compute``; else from each run, by ``compute_one``.
        compute: Makes the joint result.
        compute_one: Makes the result of one run.
        gallery: Names the pictures that a result shows.
    """

    name: str
    title: str
    kind: type
    needs: str = ""
    compute: Callable[[Workbench], Any] | None = None
    compute_one: Callable[[Workbench, Subject], Any] | None = None
    gallery: Callable[[Any], Iterable[str]] = lambda result: ()

    @property
    def joint(self) -> bool:
        """Whether one result is of all runs together."""
        return self.compute is not None


def _groups(bench: Workbench, subject: Subject) -> GroupTable | Unavailable:
    return group_table(
        labels=bench.pictures.labels,
        predictions=bench.features(subject).predicted,
        groups=bench.pictures.groups,
        class_names=bench.bundle.class_names,
        group_names=bench.bundle.group_names,
        units=bench.pictures.units,
        seed=bench.seed,
    )


def _mistakes(result: Predictions) -> Iterable[str]:
    wrong = np.flatnonzero(~result.right)
    surest = wrong[np.argsort(-result.probabilities[wrong].max(1), kind="stable")]
    return [result.keys[place] for place in surest[: 2 * _GALLERY]]


def _verdicts(bench: Workbench) -> Verdicts | Unavailable:
    groups = group_runs(bench.subjects)
    if len(groups) < 2:
        (name,) = groups
        return Unavailable(
            analysis="verdict",
            reason=f"All runs are of {name} with the same settings; add a run of another method to compare with.",
        )
    return Verdicts(verdicts=tuple(_verdict(bench, groups, pair) for pair in combinations(groups, 2)))


def _verdict(
    bench: Workbench, groups: Mapping[str, Sequence[Subject]], names: tuple[str, str]
) -> Verdict | Unavailable:
    runs = [groups[name] for name in names]
    for name, side in zip(names, runs, strict=True):
        again = repeated_seed(name, side)
        if again:
            return Unavailable(analysis="verdict", reason=f"{names[0]} against {names[1]}: {again}")
    cells, cell_names = _cells(bench)
    seeds = [[subject.run.config.engine.seed for subject in side] for side in runs]
    first, second = (np.stack([bench.right(subject) for subject in side]) for side in runs)
    return compare_methods(
        first,
        second,
        names=names,
        cells=cells,
        cell_names=cell_names,
        paired=seeds[0] == seeds[1],
        units=bench.pictures.units,
        seed=bench.seed,
    )


def _cells(bench: Workbench) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Number the cells of class and group that have pictures."""
    groups = bench.pictures.groups
    if groups is None:
        return None, ()
    classes, names = bench.bundle.class_names, bench.bundle.group_names
    codes, cells = np.unique(bench.pictures.labels * len(names) + groups, return_inverse=True)
    return cells, tuple(f"{classes[code // len(names)]} | {names[code % len(names)]}" for code in codes)


def _ledger(bench: Workbench) -> Ledger | Unavailable:
    groups = group_runs(bench.subjects)
    scratch = [name for name, runs in groups.items() if runs[0].run.config.method == "scratch"]
    reason = "".join(repeated_seed(name, groups[name]) for name in scratch)
    if len(scratch) > 1:
        reason = f"The runs from scratch have different settings ({'; '.join(scratch)}); give those of one alone."
    if reason:
        return Unavailable(analysis="negative transfer", reason=reason)
    right = {name: {run.name: bench.right(run) for run in runs} for name, runs in groups.items()}
    base = right.pop(scratch[0]) if scratch else {}
    pictures = bench.pictures
    return negative_transfer(keys=pictures.keys, scratch=base, tuned=right, units=pictures.units, seed=bench.seed)


def _ledger_gallery(result: Ledger) -> Iterable[str]:
    for method in result.methods:
        for counts in (method.lost_counts, method.rescued_counts):
            most = np.argsort(-counts, kind="stable")[: 2 * _GALLERY]
            yield from (result.keys[place] for place in most if counts[place])


def _properties(bench: Workbench) -> PropertyTable | Unavailable:
    pictures = bench.training_pictures
    return property_table(
        whole_pictures(pictures, side=bench.subjects[0].image_size),
        pictures.labels,
        class_names=bench.bundle.class_names,
        keys=pictures.keys,
        sizes=original_sizes(pictures),
        units=pictures.units,
        seed=bench.seed,
    )


def _slices(bench: Workbench, subject: Subject) -> SliceTable | Unavailable:
    features = bench.features(subject)
    return find_slices(
        embeddings=features.pooled,
        labels=bench.pictures.labels,
        probabilities=features.probabilities,
        class_names=bench.bundle.class_names,
        keys=bench.pictures.keys,
        seed=bench.seed,
    )


def _transport(bench: Workbench, subject: Subject) -> TransportPairs:
    labels = bench.pictures.labels
    first = bench.shown[0]
    others = [place for place in range(len(labels)) if place != first]
    same = [place for place in others if labels[place] == labels[first]]
    different = [place for place in others if labels[place] != labels[first]]
    pairs = [(first, group[0]) for group in (same, different) if group]
    found = transport_links(subject, bench.pictures, bench.features(subject), bench.concepts(subject), pairs=pairs)
    return TransportPairs(pairs=found)


def _rare_features(bench: Workbench) -> RareFeaturesReport:
    settings = RareFeatureSettings(seed=bench.seed, source_folder=bench.source_folder)
    return diagnose_rare_features(bench.subjects, bench.pictures, bench.all_features, settings=settings)


def _rare_gallery(result: RareFeaturesReport) -> Iterable[str]:
    for analysis in result.analyses:
        if isinstance(analysis.rarity, Unavailable):
            continue
        gallery = analysis.gallery
        for concept in rare_by_information(analysis, analysis.rarity)[:_GALLERY]:
            yield from (gallery.keys[place] for place in gallery.pictures[concept][:_GALLERY])


def _effects_gallery(result: ConceptEffects) -> Iterable[str]:
    for concept in result.concepts:
        yield from (result.keys[place] for place in concept.examples[:_GALLERY])


ANALYSES: tuple[Analysis, ...] = (
    Analysis(
        name="predictions",
        title="Predictions and mistakes",
        kind=Predictions,
        compute_one=lambda bench, run: collect_predictions(run.name, bench.pictures, bench.features(run)),
        gallery=_mistakes,
    ),
    Analysis(name="groups", title="Accuracy by class and group", needs="groups", kind=GroupTable, compute_one=_groups),
    Analysis(
        name="verdict", title="Verdict between methods", needs="runs of two methods", kind=Verdicts, compute=_verdicts
    ),
    Analysis(
        name="ledger",
        title="Negative-transfer ledger",
        needs="a run of the method scratch",
        kind=Ledger,
        compute=_ledger,
        gallery=_ledger_gallery,
    ),
    Analysis(
        name="picture-maps",
        title="Where the networks look",
        kind=PictureMaps,
        compute_one=lambda bench, run: picture_maps(run, bench.pictures, bench.features(run), places=bench.shown),
        gallery=lambda result: result.keys,
    ),
    Analysis(
        name="controls",
        title="Maps against their controls",
        needs="masks for all measures but ROAD",
        kind=ControlledMaps,
        compute_one=lambda bench, run: compare_with_controls(
            run,
            bench.pictures.at(bench.some),
            features=bench.features(run).at(bench.some),
            perturbed=_PERTURBED,
            seed=bench.seed,
        ),
    ),
    Analysis(
        name="sanity",
        title="Sanity check of the maps",
        kind=SanityCheck,
        compute_one=lambda bench, run: check_sanity(run, bench.few_pictures, seed=bench.seed),
    ),
    Analysis(
        name="concept-maps",
        title="Concepts of a picture",
        kind=ConceptMaps,
        compute_one=lambda bench, run: find_concept_maps(run, bench.pictures, bench.features(run), places=bench.shown),
        gallery=lambda result: result.keys,
    ),
    Analysis(
        name="position-attention",
        title="Attention between patches",
        needs="a front-door head",
        kind=PositionMaps,
        compute_one=lambda bench, run: position_attention(run, bench.pictures, bench.features(run), places=bench.shown),
        gallery=lambda result: result.keys,
    ),
    Analysis(
        name="channel-attention",
        title="Attention between concepts",
        needs="a front-door head",
        kind=ChannelLinks,
        compute_one=lambda bench, run: channel_attention(
            run,
            bench.features(run),
            find_concept_maps(run, bench.pictures, bench.features(run), places=bench.shown),
            places=bench.shown,
        ),
    ),
    Analysis(
        name="transport",
        title="Matching patches of two pictures",
        kind=TransportPairs,
        compute_one=_transport,
        gallery=lambda result: [key for pair in result.pairs for key in pair.keys],
    ),
    Analysis(
        name="rare-features",
        title="Rare features",
        needs="batch norm, or source-like pictures",
        kind=RareFeaturesReport,
        compute=_rare_features,
        gallery=_rare_gallery,
    ),
    Analysis(
        name="counterfactuals",
        title="Other backgrounds",
        needs="masks",
        kind=Counterfactuals,
        compute=lambda bench: background_counterfactuals(
            bench.subjects, bench.pictures, features=bench.all_features, examples=_GALLERY, seed=bench.seed
        ),
    ),
    Analysis(
        name="switches",
        title="Front-door switches",
        needs="a front-door head",
        kind=FrontDoorSwitches,
        compute_one=lambda bench, run: front_door_switches(
            run, bench.pictures, bench.features(run), places=bench.shown
        ),
        gallery=lambda result: () if result.maps is None else result.maps.keys,
    ),
    Analysis(name="properties", title="Simple properties of the pictures", kind=PropertyTable, compute=_properties),
    Analysis(
        name="concept-effects",
        title="Suspicious concepts",
        kind=ConceptEffects,
        compute_one=lambda bench, run: concept_effects(run, bench.pictures, bench.features(run), seed=bench.seed),
        gallery=_effects_gallery,
    ),
    Analysis(
        name="slices",
        title="Pictures that go wrong together",
        kind=SliceTable,
        compute_one=_slices,
        gallery=lambda result: [key for found in result.slices for key in found.keys[:_GALLERY]],
    ),
    Analysis(
        name="embedding",
        title="Map of the pictures",
        kind=Embedding,
        compute=lambda bench: embed_pictures(bench.subjects, bench.pictures, bench.all_features, seed=bench.seed),
    ),
    Analysis(
        name="concept-embedding",
        title="Map of the concept patches",
        kind=Embedding,
        compute=lambda bench: embed_concepts(
            bench.subjects,
            bench.pictures,
            bench.all_features,
            bench.concepts(bench.subjects[0]),
            most=_PATCHES,
            seed=bench.seed,
        ),
    ),
)

BY_NAME: Mapping[str, Analysis] = {analysis.name: analysis for analysis in ANALYSES}
