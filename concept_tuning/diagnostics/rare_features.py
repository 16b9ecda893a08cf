"""Rare features: concepts that pre-training hardly saw and that tell the target's classes apart.

Concept-Tuning (arXiv 2311.06868) blames negative transfer on them. Concepts are defined once on the pre-trained
network; a concept is rare if its source frequency, at the level where its presence says most of the label, is among
the lowest and that information is beyond what shuffled labels give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from concept_tuning.diagnostics.concept_activations import (
    ConceptSet,
    Strongest,
    View,
    define_concepts,
    strongest_patches,
)
from concept_tuning.diagnostics.features import Features, class_scores
from concept_tuning.diagnostics.information import infonce_bounds, knn_information
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.rare_results import Gallery, RareFeatures, RareFeaturesReport, RunConcepts
from concept_tuning.diagnostics.rare_selection import (
    SOURCE_UNITS,
    RareFeatureSettings,
    analysed_maps,
    find_rarity,
    in_source_units,
    presence_test,
    raise_to_floor,
    source_of_levels,
)
from concept_tuning.diagnostics.rare_use import (
    PRETRAINED,
    held_out_auc,
    marked_classes,
    split_halves,
    split_thirds,
)
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import (
    PretrainedMaps,
    SourceFrequency,
    build_pretrained,
    folder_images,
    picture_frequency,
    pretrained_maps,
)
from concept_tuning.errors import RunError

#: Pictures whose way through the heads is kept at once; the channel attention of each is (D, D).
_HEAD_BATCH = 8


def diagnose_rare_features(
    subjects: Sequence[Subject],
    pictures: Pictures,
    features: Mapping[str, Features],
    *,
    views: Sequence[View] = ("channels", "groups", "factors"),
    settings: RareFeatureSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RareFeaturesReport:
    """Analyse the rare features of runs on the same pictures.

    Runs of one backbone, weights and picture size share their concepts; others are analysed apart, and the report
    says so. Their pre-trained networks are built afresh.

    Args:
        subjects: The runs.
        pictures: The pictures.
        features: Features of each run by name, computed on those pictures.
        views: Which concepts to look at. Where ``factors`` cannot be had, as of the negative activations of
            transformers, the report says so and has ``clusters`` too.
        settings: None: the defaults.
        progress: Called with pictures done and all, while a pre-trained network looks at them.

    Raises:
        DataError: if ``settings.source_folder`` holds no picture.
        RunError: if a run is called like the pre-trained network.
    """
    settings = settings or RareFeatureSettings()
    if PRETRAINED in features:
        raise RunError(f"A run is called {PRETRAINED!r}, as the network before fine-tuning is here; rename its folder.")
    if len(pictures) < 4 or np.bincount(pictures.labels).max() < 2:
        reason = "At least four pictures are needed, two of them of one class; take more."
        return RareFeaturesReport(analyses=(), missing=(Unavailable(analysis="rare features", reason=reason),), note="")
    analyses: list[RareFeatures] = []
    missing: list[Unavailable] = []
    families: dict[tuple[object, ...], list[Subject]] = {}
    for subject in subjects:
        config = subject.run.config
        fresh = config.method == "scratch" or config.backbone.weights == "random"
        families.setdefault((config.backbone, subject.image_size, subject.name if fresh else ""), []).append(subject)
    for family in families.values():
        found = _diagnose_family(family, pictures, features, views=views, settings=settings, progress=progress)
        analyses.extend(result for result in found if isinstance(result, RareFeatures))
        missing.extend(result for result in found if isinstance(result, Unavailable))
    return RareFeaturesReport(analyses=tuple(analyses), missing=tuple(missing), note=_family_note(families.values()))


def measure_rare_features(
    concepts: ConceptSet,
    frozen: PretrainedMaps,
    tuned: Mapping[str, Features],
    labels: np.ndarray,
    *,
    keys: tuple[str, ...],
    class_names: tuple[str, ...],
    backbone: str = "",
    contributions: Mapping[str, np.ndarray] | None = None,
    source: PretrainedMaps | None = None,
    settings: RareFeatureSettings | None = None,
) -> RareFeatures:
    """Measure the concepts of one view on n pictures.

    Args:
        concepts: The K concepts, defined on the pre-trained network.
        frozen: The pre-trained network's view of the pictures.
        tuned: Each run's features of the same pictures.
        labels: (n,) int64 in 0..C-1.
        keys: Names of the pictures.
        class_names: Names of the C classes.
        backbone: Name of the pre-trained network.
        contributions: (n, D) by run, see :func:`channel_contributions`; None leaves coverage of the runs out.
        source: The pre-trained network's view of source-like pictures, or None.
        settings: None: the defaults.
    """
    settings = settings or RareFeatureSettings()
    maps = analysed_maps(concepts, frozen)
    strongest = raise_to_floor(strongest_patches(maps), concepts, frozen)
    presence = presence_test(strongest.activations, labels, settings)
    networks = {PRETRAINED: strongest_patches(concepts.apply(frozen.maps)).activations}
    networks |= {name: strongest_patches(concepts.apply(view.maps)).activations for name, view in tuned.items()}
    half = split_halves(labels, seed=settings.seed)
    auc = held_out_auc(networks, labels, classes=len(class_names), half=half)
    found = source_of_levels(concepts, frozen, source)
    present = strongest.activations > presence.levels
    return RareFeatures(
        view=concepts.view,
        backbone=backbone,
        concepts=concepts.names,
        members=concepts.members,
        class_names=class_names,
        units=SOURCE_UNITS if in_source_units(concepts, frozen) else "activation",
        reconstruction_error=concepts.reconstruction_error,
        presence=presence,
        knn=knn_information(strongest.activations, labels, seed=settings.seed),
        source=found
        if isinstance(found, Unavailable)
        else SourceFrequency(frequency=found.frequency(presence.levels), basis=found.basis, note=found.note),
        target_frequency=picture_frequency(maps, presence.levels),
        class_frequency=_class_frequency(present, labels, len(class_names)),
        marked_class=marked_classes(strongest.activations, labels, classes=len(class_names)),
        networks=tuple(
            RunConcepts(
                name=name,
                auc=auc[name],
                presence=presence_test(values, labels, replace(settings, permutations=settings.network_permutations)),
                contrast=infonce_bounds(tuned[name].scores, labels, seed=settings.seed) if name in tuned else (),
            )
            for name, values in networks.items()
        ),
        rarity=found
        if isinstance(found, Unavailable)
        else find_rarity(
            strongest.activations,
            presence,
            found,
            networks=networks,
            orders=_orders(concepts, frozen, strongest, contributions or {}),
            right={name: view.predicted == labels for name, view in tuned.items()},
            labels=labels,
            classes=len(class_names),
            parts=split_thirds(labels, seed=settings.seed),
            settings=settings,
        ),
        gallery=_gallery(strongest, keys, settings.gallery),
    )


def channel_contributions(subject: Subject, features: Features) -> np.ndarray:
    """Return what each channel adds to the score of each picture's predicted class, (n, D) float32.

    Gradient times activation, summed over cells; exact, but for the bias, where the heads are linear.
    """
    parts = []
    for start in range(0, len(features.maps), _HEAD_BATCH):
        feature_map = torch.from_numpy(features.maps[start : start + _HEAD_BATCH].copy()).requires_grad_()
        with torch.enable_grad():
            scores = class_scores(subject.method, feature_map)
            predicted = torch.from_numpy(features.predicted[start : start + _HEAD_BATCH])
            (gradient,) = torch.autograd.grad(scores.gather(1, predicted[:, None]).sum(), feature_map)
        parts.append((gradient * feature_map.detach()).sum((2, 3)).numpy())
    return np.concatenate(parts)


def _diagnose_family(
    family: Sequence[Subject],
    pictures: Pictures,
    features: Mapping[str, Features],
    *,
    views: Sequence[View],
    settings: RareFeatureSettings,
    progress: Callable[[int, int], None],
) -> list[RareFeatures | Unavailable]:
    first = family[0]
    network = build_pretrained(first, analysis="rare features")
    if isinstance(network, Unavailable):
        return [network]
    size = first.image_size
    frozen = pretrained_maps(network, lambda places: pictures.images(places, size), len(pictures), progress=progress)
    source = None
    if settings.source_folder is not None:
        images = folder_images(settings.source_folder, size=size)
        source = pretrained_maps(network, lambda places: images[places.start : places.stop], len(images))
    contributions = {subject.name: channel_contributions(subject, features[subject.name]) for subject in family}
    results: list[RareFeatures | Unavailable] = []
    for concepts in _concept_sets(views, frozen, settings):
        results.append(
            concepts
            if isinstance(concepts, Unavailable)
            else measure_rare_features(
                concepts,
                frozen,
                {subject.name: features[subject.name] for subject in family},
                pictures.labels,
                keys=pictures.keys,
                class_names=first.run.class_names,
                backbone=f"{first.run.config.backbone.architecture} ({first.run.config.backbone.weights})",
                contributions=contributions,
                source=source,
                settings=settings,
            )
        )
    return results


def _concept_sets(
    views: Sequence[View], frozen: PretrainedMaps, settings: RareFeatureSettings
) -> list[ConceptSet | Unavailable]:
    """Define the concepts of every view, and clusters behind factors that cannot be had."""

    def define(view: View) -> ConceptSet | Unavailable:
        count = settings.groups if view == "groups" else settings.factors
        return define_concepts(view, frozen.maps, standardised=frozen.standardised, count=count, seed=settings.seed)

    found: list[ConceptSet | Unavailable] = []
    for view in views:
        found.append(define(view))
        if view == "factors" and isinstance(found[-1], Unavailable) and "clusters" not in views:
            found.append(define("clusters"))
    return found


def _family_note(families: Iterable[Sequence[Subject]]) -> str:
    named = [", ".join(subject.name for subject in family) for family in families]
    if len(named) < 2:
        return ""
    return (
        f"These runs differ in backbone, pre-trained weights or picture size, so their concepts are not the same "
        f"and each set is analysed alone: {'; '.join(named)}."
    )


def _orders(
    concepts: ConceptSet, frozen: PretrainedMaps, strongest: Strongest, contributions: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return what a picture's concepts are ordered by on each network, (n, K), as far as there is such a thing."""
    if concepts.view not in ("channels", "groups"):
        return {}
    member = None if concepts.weights is None else (concepts.weights > 0).astype(np.float32).T
    found = {name: values if member is None else values @ member for name, values in contributions.items()}
    return found | ({PRETRAINED: strongest.activations} if in_source_units(concepts, frozen) else {})


def _class_frequency(present: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    member = np.eye(classes)[labels].T
    count = member.sum(1, keepdims=True)
    return np.divide(member @ present, count, out=np.full((classes, present.shape[1]), np.nan), where=count > 0)


def _gallery(strongest: Strongest, keys: tuple[str, ...], count: int) -> Gallery:
    pictures = np.argsort(-strongest.activations, axis=0, kind="stable")[:count].T
    concepts = np.arange(len(pictures))[:, None]
    return Gallery(
        keys=keys,
        pictures=pictures,
        boxes=strongest.boxes(pictures, concepts),
        activations=strongest.activations[pictures, concepts],
    )
