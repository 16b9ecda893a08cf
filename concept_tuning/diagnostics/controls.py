"""The controls that every attribution map carries: what does it show beyond a map that knows nothing?

Four maps that know nothing of what the network has learnt: the same map of the network with random weights, a
random smooth map, a bump in the middle of the picture, and the picture's edges. A map earns a badge where a
measure is better than the control's, by a paired bootstrap interval over the pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from concept_tuning.config import RunConfig
from concept_tuning.data.planted import species_pairs
from concept_tuning.diagnostics.attribution import CAMS, METHODS, untouched
from concept_tuning.diagnostics.control_maps import CONTROLS, maps_with_controls, source_of
from concept_tuning.diagnostics.features import (
    BATCH,
    Features,
    class_probabilities,
    compute_features,
    network_input,
)
from concept_tuning.diagnostics.map_measures import (
    concentration,
    insertion_deletion,
    is_blank,
    outside_mass,
    pointing_hits,
    road,
)
from concept_tuning.diagnostics.pictures import Pictures, Subject, folded_method
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.sanity import calibration_places, check_enough, randomised_copy
from concept_tuning.diagnostics.statistics import paired_bootstrap
from concept_tuning.methods.base import Method

OUTSIDE, CONCENTRATION, POINTING, POINTING_PART = "outside mass", "concentration", "pointing game", "pointing at part"
ROAD, INSERTION, DELETION = "ROAD", "insertion", "deletion"

#: Measures that need masks, and those that change the picture and ask the network again.
MASK_MEASURES = (OUTSIDE, CONCENTRATION, POINTING, POINTING_PART)
PERTURBATIONS = (ROAD, INSERTION, DELETION)
LOWER_IS_BETTER = (OUTSIDE, DELETION)

#: Fewest pictures from which an interval is computed.
FEWEST = 10

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, config=RESULT)
class MeasureValues:
    """One measure of one kind of map or control, picture by picture.

    Attributes:
        source: Name of the map, of the control, or ``<map>, randomised weights``.
        measure: Name of the measure.
        values: (n,) in the order of the pictures; NaN where it was not computed or cannot be.
        mean: Mean over the pictures for which every map and control has a value of this measure, so that means can be
            compared; where there are none, and in older results, over those that have this value. NaN without any.
        n: Their number.
        blank: Pictures that have no value since this very map was 0 everywhere.
    """

    source: str
    measure: str
    values: Array
    mean: float
    n: int
    blank: int


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Badge:
    """Whether a map beats a control on a measure.

    Attributes:
        map: Name of the map.
        control: Name of the control.
        measure: Name of the measure.
        difference: Mean over the pictures of how much better the map is (above 0: better, also for measures of
            which less is better), with its 95 % paired bootstrap interval.
        beats: The whole interval is above 0.
    """

    map: str
    control: str
    measure: str
    difference: Interval
    beats: bool


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ControlledMaps:
    """Measures of a run's maps beside those of their controls.

    Caveat: there are many badges, and of 20 intervals of 95 % one is wrong in the mean.

    Attributes:
        subject: Name of the run.
        keys: The n pictures.
        targets: (n,) the class that the maps of each explain.
        maps: Names of the maps.
        controls: Names of the controls.
        values: All measures of all of them.
        badges: Every map against every control.
        unavailable: What was not computed, and why.
        tolerance: Pixels allowed in the pointing game.
        seed: Of everything random.
    """

    subject: str
    keys: tuple[str, ...]
    targets: Array
    maps: tuple[str, ...]
    controls: tuple[str, ...]
    values: tuple[MeasureValues, ...]
    badges: tuple[Badge, ...]
    unavailable: tuple[Unavailable, ...]
    tolerance: float
    seed: int


def compare_with_controls(
    subject: Subject,
    pictures: Pictures,
    *,
    maps: Sequence[str] = CAMS,
    measures: Sequence[str] = (*MASK_MEASURES, ROAD),
    targets: np.ndarray | None = None,
    features: Features | None = None,
    tolerance: float = 0,
    perturbed: int = 24,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ControlledMaps:
    """Compute the maps of the pictures, those of the controls, their measures, and who beats whom.

    Cost: class activation maps take two passes for each picture, one of them through random weights; with
    ``features`` that one alone.
    A perturbation measure takes some 7 to 18 passes for each of ``perturbed`` pictures, map and control, and
    ROAD besides solves 6 systems of up to half as many unknowns as there are pixels.

    Args:
        subject: The run; its model is left as found.
        pictures: The pictures, with masks or without.
        maps: Some of :data:`concept_tuning.diagnostics.attribution.METHODS`.
        measures: Some of :data:`MASK_MEASURES` and :data:`PERTURBATIONS`. ``pointing at part`` needs planted
            birds: the part that tells the picture's species from its like.
        targets: (n,) classes to explain; None: those that the network predicts.
        features: What the run's network makes of these pictures, where it is known; None: computed.
        tolerance: See :func:`pointing_hits`.
        perturbed: On how many of the pictures, drawn by ``seed``, perturbation measures are computed.
        seed: Of random weights, random maps, noise and resampling.
        progress: Told of the pictures done, and of how many there are.

    Raises:
        RunError: if there are fewer than two pictures.
        ValueError: if ``features`` are not of as many pictures.
    """
    _check(maps, measures)
    if features is not None and len(features) != len(pictures):
        raise ValueError(f"features must be of the {len(pictures)} pictures, got those of {len(features)}.")
    check_enough(pictures)
    n, size = len(pictures), subject.image_size
    wanted, unavailable = _available(subject, pictures, measures)
    chosen = np.zeros(n, bool)
    chosen[np.random.default_rng(seed).permutation(n)[:perturbed]] = True
    kept: list[Mapping[str, np.ndarray]] = []
    with untouched(subject.method):
        some = pictures.images(calibration_places(n, seed=seed), size)
        twin = folded_method(randomised_copy(subject.method, some, seed=seed))
        classes, parts = [], []
        for start in range(0, n, BATCH):
            places = np.arange(start, min(start + BATCH, n))
            images = pictures.images(places.tolist(), size)
            if features is None:
                known = compute_features(subject, pictures.at(places.tolist()))
            else:
                known = features.at(places.tolist())
            classes.append((known.predicted if targets is None else targets[places]).astype(np.int64))
            sources = maps_with_controls(
                subject.inference_method,
                twin,
                images.numpy(),
                classes[-1],
                maps=maps,
                seed=seed + start,
                feature_maps=known.maps,
            )
            masked = _mask_measures(sources, subject, pictures, places, wanted, tolerance)
            parts.append({key: (*found, is_blank(sources[key[0]])) for key, found in masked.items()})
            kept.append({name: found[chosen[places]] for name, found in sources.items()})
            progress(int(places[-1]) + 1, n)
        explained = np.concatenate(classes)
        changed = _perturbations(
            {name: np.concatenate([part[name] for part in kept]) for name in kept[0]},
            subject.inference_method,
            pictures.images(np.flatnonzero(chosen).tolist(), size).numpy(),
            explained,
            chosen,
            wanted,
            seed,
        )
    values = tuple(_joined(key, [part[key] for part in parts]) for key in parts[0])
    values += tuple(_joined(key, [found]) for key, found in changed.items())
    values = _over_the_same(values)
    badges, missing = _badges(values, maps, wanted, seed)
    return ControlledMaps(
        subject=subject.name,
        keys=pictures.keys,
        targets=explained,
        maps=tuple(maps),
        controls=CONTROLS,
        values=values,
        badges=badges,
        unavailable=(*unavailable, *missing),
        tolerance=tolerance,
        seed=seed,
    )


def telling_parts(config: RunConfig) -> tuple[str, ...] | None:
    """Return for each class the mask of the part that tells it from its like (``part:feet``), for planted birds."""
    if config.data.source != "planted":
        return None
    return tuple(f"part:{pair.part}" for pair in species_pairs(config.planted) for _ in pair.species)


#: Values (b,) and which pictures were tried (b,), by source and measure.
_Found = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def _mask_measures(
    sources: Mapping[str, np.ndarray],
    subject: Subject,
    pictures: Pictures,
    places: np.ndarray,
    wanted: Sequence[str],
    tolerance: float,
) -> _Found:
    """Return values (b,) and who was tried (b,) by source and measure."""
    if not set(wanted) & set(MASK_MEASURES):
        return {}
    masks = [pictures.masks(int(place), subject.image_size) for place in places]
    objects = np.stack([found["object"].numpy() for found in masks])
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        OUTSIDE: lambda maps: outside_mass(maps, objects),
        CONCENTRATION: lambda maps: concentration(maps, objects),
        POINTING: lambda maps: pointing_hits(maps, objects, tolerance=tolerance),
    }
    tried: dict[str, np.ndarray] = {name: np.asarray(objects.any(axis=(1, 2))) for name in measures}
    telling = telling_parts(subject.run.config)
    if POINTING_PART in wanted and telling is not None:
        labels = pictures.labels[places]
        shown = np.stack([found[telling[label]].numpy() for found, label in zip(masks, labels, strict=True)])
        measures[POINTING_PART] = lambda maps: pointing_hits(maps, shown, tolerance=tolerance)
        tried[POINTING_PART] = np.asarray(shown.any(axis=(1, 2)))
    return {
        (source, name): (measure(maps), tried[name])
        for source, maps in sources.items()
        for name, measure in measures.items()
        if name in wanted
    }


def _perturbations(
    sources: Mapping[str, np.ndarray],
    method: Method,
    images: np.ndarray,
    targets: np.ndarray,
    chosen: np.ndarray,
    wanted: Sequence[str],
    seed: int,
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return values (n,), NaN where not chosen, who was tried (n,) and whose map is blank (n,) by source and measure.

    Args:
        sources: (m, S, S) maps of the chosen pictures by source.
        method: The run's model.
        images: (m, 3, S, S) uint8, the chosen pictures.
        targets: (n,) classes.
        chosen: (n,) bool, m of them True.
        wanted: Measures.
        seed: Of noise and ties.
    """
    if not chosen.any() or not set(wanted) & set(PERTURBATIONS):
        return {}
    found = {}
    for source, maps in sources.items():
        scores: dict[str, np.ndarray] = {}
        if ROAD in wanted:
            scores[ROAD] = road(lambda p: _predict(method, p), images, maps, targets[chosen], seed=seed).road
        if {INSERTION, DELETION} & set(wanted):
            curves = insertion_deletion(lambda p: _predict(method, p), images, maps, targets[chosen], seed=seed)
            scores |= {INSERTION: curves.insertion, DELETION: curves.deletion}
        blank = np.zeros(len(chosen), bool)
        blank[chosen] = is_blank(maps)
        for name in (name for name in PERTURBATIONS if name in wanted):
            values = np.full(len(chosen), np.nan)
            values[chosen] = scores[name]
            found[source, name] = (values, chosen, blank)
    return found


@torch.inference_mode()
def _predict(method: Method, pixels: np.ndarray) -> np.ndarray:
    """Return probabilities (m, C) of pictures (m, 3, S, S) with values in 0..255."""
    parts = [
        class_probabilities(method, method.backbone(network_input(method, some)))
        for some in torch.from_numpy(pixels).split(BATCH)
    ]
    return torch.cat(parts).numpy()


def _joined(key: tuple[str, str], parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> MeasureValues:
    values, tried, blank = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    finite = np.isfinite(values)
    return MeasureValues(
        source=key[0],
        measure=key[1],
        values=values,
        mean=float(values[finite].mean()) if finite.any() else float("nan"),
        n=int(finite.sum()),
        blank=int((blank & tried).sum()),
    )


def _over_the_same(values: Sequence[MeasureValues]) -> tuple[MeasureValues, ...]:
    """Return the measures with their means over the pictures where every source of a measure has a value, if any."""
    shared: dict[str, np.ndarray] = {}
    for one in values:
        finite = np.isfinite(one.values)
        shared[one.measure] = shared.get(one.measure, finite) & finite
    return tuple(
        replace(one, mean=float(one.values[common].mean()), n=int(common.sum()))
        if (common := shared[one.measure]).any()
        else one
        for one in values
    )


def _badges(
    values: Sequence[MeasureValues], maps: Sequence[str], measures: Sequence[str], seed: int
) -> tuple[tuple[Badge, ...], tuple[Unavailable, ...]]:
    """Compare every map with every control on the pictures where both have a value."""
    by_key = {(found.source, found.measure): found.values for found in values}
    badges, missing = [], []
    for name, control, measure in itertools.product(maps, CONTROLS, measures):
        ours, theirs = by_key[name, measure], by_key[source_of(control, name), measure]
        better = theirs - ours if measure in LOWER_IS_BETTER else ours - theirs
        better = better[np.isfinite(better)]
        if len(better) < FEWEST:
            reason = f"At least {FEWEST} pictures with both maps are needed; {_pictures(len(better))}."
            missing.append(Unavailable(analysis=f"{name} against {control}: {measure}", reason=reason))
            continue
        interval = paired_bootstrap(better, seed, resamples=_RESAMPLES)
        badges.append(Badge(map=name, control=control, measure=measure, difference=interval, beats=interval.low > 0))
    return tuple(badges), tuple(missing)


def _pictures(count: int) -> str:
    return "there is 1" if count == 1 else f"there are {count}"


def _available(
    subject: Subject, pictures: Pictures, measures: Sequence[str]
) -> tuple[tuple[str, ...], tuple[Unavailable, ...]]:
    """Return the measures that can be computed, and why the others cannot."""
    missing = {}
    for measure in measures:
        if measure in MASK_MEASURES and not pictures.has_masks:
            missing[measure] = "The data has no masks that say where the object is; planted birds have them."
        elif measure == POINTING_PART and telling_parts(subject.run.config) is None:
            missing[measure] = "Which part tells a class is known for planted birds alone."
    return (
        tuple(measure for measure in measures if measure not in missing),
        tuple(Unavailable(analysis=measure, reason=reason) for measure, reason in missing.items()),
    )


def _check(maps: Sequence[str], measures: Sequence[str]) -> None:
    for given, known in ((maps, METHODS), (measures, (*MASK_MEASURES, *PERTURBATIONS))):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"There are {', '.join(known)}; got {', '.join(unknown)}.")
