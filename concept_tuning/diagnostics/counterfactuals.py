"""Does the prediction follow the object or its background? The same objects before other backgrounds.

K. Xiao, L. Engstrom, A. Ilyas, A. Madry, "Noise or Signal: The Role of Image Backgrounds in Object Recognition",
ICLR 2021 (arXiv 2006.09994): mixed-same against mixed-rand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from concept_tuning.diagnostics.editing import (
    EDITS,
    OTHER_CLASS,
    SAME_CLASS,
    background,
    draw_donors,
    edit_pictures,
    has_background,
)
from concept_tuning.diagnostics.features import (
    BATCH,
    Features,
    class_probabilities,
    compute_features,
    network_input,
)
from concept_tuning.diagnostics.pictures import Pictures, Subject, check_comparable, choose_pictures
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import no_difference, no_surer_than_none, paired_bootstrap, share
from concept_tuning.methods.base import Method
from concept_tuning.proportion import number_of, of_part

#: Fewest pictures for an interval of a difference: of few that all agree a bootstrap would be sure.
_FEWEST = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class EditOutcome:
    """What a run says of pictures edited in one way.

    Attributes:
        kind: One of :data:`EDITS`.
        predicted: (n,) int64.
        flips: Share whose predicted class changes, with its Wilson interval.
        accuracy: Share predicted as the object's class.
        followed: Share predicted as the class the background was taken from, of the pictures that were not
            before; None where the background is not another class's, or no picture is left.
        probability_drop: Mean fall of the probability of the class predicted before, -1..1.
    """

    kind: str
    predicted: Array
    flips: Interval
    accuracy: Interval
    followed: Interval | None
    probability_drop: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class RunCounterfactuals:
    """What a run says of all edited pictures.

    Attributes:
        run: Name of the run.
        predicted: (n,) int64, for the pictures as they are.
        accuracy: Share of them predicted right.
        outcomes: One for each of :data:`EDITS`, in that order.
        flip_gap: Flip rate before other classes' backgrounds less that before the own class's; what is left of
            the flips once the paste itself is taken off. Bootstrap interval over pictures.
        background_gap: Accuracy before the own class's backgrounds less that before other classes', BG-Gap of
            the paper. Not blind to pictures whose own background is unusual for their class, as the flip
            gap is: there a model that reads backgrounds also flips before its own class's.
        differing: Pictures, or units where there are any, that flip before one of the two backgrounds alone, and those
            that are right before one alone: what ``flip_gap`` and ``background_gap`` rest on. None in older results.
        followed_gap: Of the pictures that ``followed`` is of, the share called the other background's class before it
            less the share called so before a background of their own class, with its bootstrap interval. None where
            ``followed`` is, of fewer than two pictures, and in older results.
    """

    run: str
    predicted: Array
    accuracy: Interval
    outcomes: tuple[EditOutcome, ...]
    flip_gap: Interval
    background_gap: Interval
    differing: tuple[int, int] | None = None
    followed_gap: Interval | None = None


@dataclass(frozen=True, kw_only=True, config=RESULT)
class EditedPicture:
    """An example for the gallery.

    Attributes:
        key: Name of the picture.
        label: Its class.
        place: Its place among the result's n pictures.
        donors: Names of the pictures that gave the backgrounds, for :data:`OTHER_CLASS` and :data:`SAME_CLASS`.
        original: (H, W, 3) uint8.
        edits: Edited pictures like it, one for each of :data:`EDITS`, in that order.
    """

    key: str
    label: int
    place: int
    donors: tuple[str, str]
    original: Array
    edits: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Counterfactuals:
    """Several runs on the same edited pictures.

    Caveats: pasting leaves seams and filled holes are smooth, which is why other classes' backgrounds are set
    against the own class's. Pictures that share a donor are not quite independent, so intervals are a little
    too narrow. Backgrounds come from the donors, by default training pictures, where a shortcut is.

    Attributes:
        keys: Unique names of the n pictures that could be edited.
        labels: (n,) int64.
        class_names: The C class names.
        donor_split: The split the donors are of.
        donor_keys: Names of the donors.
        donors: (n, 2) int64 places in ``donor_keys``, for :data:`OTHER_CLASS` and :data:`SAME_CLASS`.
        donor_classes: (n, 2) int64 their classes.
        left_out: Pictures without object or background, or without a donor.
        runs: One for each run.
        examples: Some pictures as the first run sees them.
        units: How many plants or patients the n pictures show, which intervals are over; None: each is by itself.
    """

    keys: tuple[str, ...]
    labels: Array
    class_names: tuple[str, ...]
    donor_split: str
    donor_keys: tuple[str, ...]
    donors: Array
    donor_classes: Array
    left_out: int
    runs: tuple[RunCounterfactuals, ...]
    examples: tuple[EditedPicture, ...]
    units: int | None = None


def background_counterfactuals(
    subjects: Sequence[Subject],
    pictures: Pictures,
    *,
    features: Mapping[str, Features] | None = None,
    donors: Pictures | None = None,
    donor_count: int = 200,
    examples: int = 12,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Counterfactuals | Unavailable:
    """Swap, blur and empty backgrounds and predict again, for all runs on the same edited pictures.

    Args:
        subjects: The runs.
        pictures: The pictures to edit; they need masks.
        features: What the runs' networks make of the pictures as they are, by name of the run; None: computed.
        donors: The pictures that give backgrounds; None: ``donor_count`` of the training split by the seed.
            In a split where every background goes with every class alike, swaps between classes show nothing.
        donor_count: See ``donors``.
        examples: Edited pictures kept, from the first on.
        seed: Of the donors drawn and of the bootstrap.
        progress: Given the number of pictures done and of all, over runs.

    Raises:
        RunError: The runs cannot be compared.
        ValueError: ``features`` are not of as many pictures.
    """
    check_comparable(subjects, split=pictures.split.name)
    if not pictures.has_masks:
        reason = f"{pictures.bundle.source} has no masks of the objects, so backgrounds cannot be exchanged."
        return Unavailable(analysis="background counterfactuals", reason=reason)
    pool = donors or choose_pictures(pictures.bundle, split="train", count=donor_count, seed=seed)
    sources: dict[int, tuple[Tensor, Tensor]] = {}  # backgrounds and which of them are usable, by size
    for size in dict.fromkeys(subject.image_size for subject in subjects):
        sources[size] = _donor_backgrounds(pool, size)
    usable = torch.stack([found for _, found in sources.values()]).all(0).numpy()
    objects = {size: _objects(pictures, range(len(pictures)), size) for size in sources}
    whole = torch.stack([has_background(masks) for masks in objects.values()]).all(0).numpy()
    drawn = draw_donors(pictures.labels, pool.labels, usable, own=_own_places(pictures, pool), seed=seed)
    kept = np.flatnonzero(whole & (drawn >= 0).all(1))
    if len(kept) < _FEWEST:
        reason = (
            f"{len(kept)} of {len(pictures)} pictures have an object, a background and donors; {_FEWEST} are needed."
        )
        return Unavailable(analysis="background counterfactuals", reason=reason)
    unedited = {
        subject.name: _unedited(subject, pictures, kept, None if features is None else features[subject.name])
        for subject in subjects
    }
    runs: dict[str, RunCounterfactuals] = {}
    gallery: tuple[EditedPicture, ...] = ()
    for size, (backgrounds, _) in sources.items():
        alike = [subject for subject in subjects if subject.image_size == size]

        def told(done: int, total: int, before: int = len(runs), count: int = len(alike)) -> None:
            progress(before * total + done * count, len(subjects) * total)

        found, edited = _predict_edits(
            alike,
            pictures,
            kept,
            drawn[kept],
            objects=objects[size],
            backgrounds=backgrounds,
            keep=0 if gallery else examples,
            progress=told,
        )
        for subject, changed in zip(alike, found, strict=True):
            donor_labels = pool.labels[drawn[kept, 0]]
            probabilities = np.concatenate([unedited[subject.name][None], changed])
            units = of_part(pictures.units, kept)
            runs[subject.name] = _summary(subject.name, probabilities, pictures.labels[kept], donor_labels, seed, units)
        gallery = gallery or _gallery(edited, pictures, pool, kept, drawn)
    return Counterfactuals(
        keys=tuple(np.array(pictures.keys)[kept].tolist()),
        labels=pictures.labels[kept],
        class_names=subjects[0].run.class_names,
        donor_split=pool.split.name,
        donor_keys=pool.keys,
        donors=drawn[kept],
        donor_classes=pool.labels[drawn[kept]],
        left_out=len(pictures) - len(kept),
        runs=tuple(runs[subject.name] for subject in subjects),
        examples=gallery,
        units=number_of(of_part(pictures.units, kept)),
    )


def _unedited(subject: Subject, pictures: Pictures, kept: np.ndarray, features: Features | None) -> np.ndarray:
    """Return a run's probabilities (m, C) of the kept pictures as they are."""
    if features is None:
        return compute_features(subject, pictures.at(kept.tolist())).probabilities
    if len(features) != len(pictures):
        raise ValueError(f"features must be of the {len(pictures)} pictures, got those of {len(features)}.")
    found: np.ndarray = features.probabilities[kept]
    return found


def _own_places(pictures: Pictures, pool: Pictures) -> np.ndarray:
    """Return (n,) the place of every picture among the donors, or -1."""
    where = {key: place for place, key in enumerate(pool.keys)}
    return np.array([where.get(key, -1) for key in pictures.keys], dtype=np.int64)


def _objects(pictures: Pictures, places: Sequence[int], size: int) -> Tensor:
    return torch.stack([pictures.masks(place, size)["object"] for place in places])


def _donor_backgrounds(pool: Pictures, size: int) -> tuple[Tensor, Tensor]:
    """Return the donors without their objects (m, 3, size, size) uint8, and (m,) bool whether each is usable."""
    found = [torch.zeros(0, 3, size, size, dtype=torch.uint8)]
    usable = [torch.zeros(0, dtype=torch.bool)]
    for start in range(0, len(pool), BATCH):
        places = range(start, min(start + BATCH, len(pool)))
        objects = _objects(pool, places, size)
        found.append(background(pool.images(places, size), objects))
        usable.append(has_background(objects))
    return torch.cat(found), torch.cat(usable)


@torch.inference_mode()
def _predict_edits(
    subjects: Sequence[Subject],
    pictures: Pictures,
    kept: np.ndarray,
    drawn: np.ndarray,
    *,
    objects: Tensor,
    backgrounds: Tensor,
    keep: int,
    progress: Progress,
) -> tuple[list[np.ndarray], Tensor]:
    """Return for each of the runs, all of one picture size, the probabilities (len(EDITS), n, C) of edited pictures,
    and the first ``keep`` pictures (1 + len(EDITS), m, 3, H, W), the unedited ones first.
    """
    size = subjects[0].image_size
    found: list[list[Tensor]] = [[] for _ in subjects]
    edited = []
    for start in range(0, len(kept), BATCH):
        places = [int(place) for place in kept[start : start + BATCH]]
        images = pictures.images(places, size)
        donors = torch.from_numpy(drawn[start : start + BATCH])
        other, same = (backgrounds[donors[:, column]] for column in range(2))
        stack = torch.cat([images[None], edit_pictures(images, objects[places], other, same)])
        edited.append(stack[:, : max(0, keep - start)])
        for subject, parts in zip(subjects, found, strict=True):
            parts.append(torch.stack([_probabilities(subject.inference_method, part) for part in stack[1:]]))
        progress(start + len(places), len(kept))
    return [torch.cat(parts, dim=1).numpy() for parts in found], torch.cat(edited, dim=1)


def _probabilities(method: Method, images: Tensor) -> Tensor:
    return class_probabilities(method, method.backbone(network_input(method, images))).float()


def _summary(
    run: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    donor_labels: np.ndarray,
    seed: int,
    units: np.ndarray | None = None,
) -> RunCounterfactuals:
    """Compute the rates of a run from probabilities (1 + len(EDITS), n, C), those of the pictures themselves first."""
    predicted = probabilities.argmax(2)
    before, after = predicted[0], dict(zip(EDITS, predicted[1:], strict=True))
    confidence = np.take_along_axis(probabilities, before[None, :, None], 2)[..., 0]
    candidates = before != donor_labels
    followed = None
    if candidates.any():
        followed = share((after[OTHER_CLASS] == donor_labels)[candidates], units=of_part(units, candidates))
    outcomes = tuple(
        EditOutcome(
            kind=kind,
            predicted=now,
            flips=share(now != before, units=units),
            accuracy=share(now == labels, units=units),
            followed=followed if kind == OTHER_CLASS else None,
            probability_drop=float((confidence[0] - confidence[number + 1]).mean()),
        )
        for number, (kind, now) in enumerate(after.items())
    )
    other, same = after[OTHER_CLASS], after[SAME_CLASS]
    flips, lost = _gap_differences(before, other, same, labels)
    named = ((other == donor_labels) * 1.0 - (same == donor_labels))[candidates]
    return RunCounterfactuals(
        run=run,
        predicted=before,
        accuracy=share(before == labels, units=units),
        outcomes=outcomes,
        flip_gap=_mean(flips, units, seed),
        background_gap=_mean(lost, units, seed),
        differing=(_count(flips, units), _count(lost, units)),
        followed_gap=_mean(named, of_part(units, candidates), seed) if len(named) > 1 else None,
    )


def _gap_differences(before: np.ndarray, other: np.ndarray, same: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (2, n) what ``flip_gap`` and ``background_gap`` are means of, -1, 0 or 1 by picture, from (n,) classes."""
    return np.stack([(other != before) * 1.0 - (same != before), (same == labels) * 1.0 - (other == labels)])


def _count(differences: np.ndarray, units: np.ndarray | None) -> int:
    """Return how many of (n,) differences are not 0; with (n,) units, how many units have such pictures."""
    marks = differences != 0
    return int(np.count_nonzero(marks) if units is None else len(np.unique(units[marks])))


def differing(result: Counterfactuals, run: RunCounterfactuals) -> tuple[int, int]:
    """Return ``differing`` of a run; of an older result, which does not say it, counted by pictures."""
    if run.differing is not None:
        return run.differing
    after = {outcome.kind: outcome.predicted for outcome in run.outcomes}
    flips, lost = _gap_differences(run.predicted, after[OTHER_CLASS], after[SAME_CLASS], result.labels)
    return _count(flips, None), _count(lost, None)


def _mean(differences: np.ndarray, units: np.ndarray | None, seed: int) -> Interval:
    if not differences.any():
        return no_difference(len(differences), units=units)
    return no_surer_than_none(paired_bootstrap(differences, seed, units=units), units=units)


def _gallery(
    edited: Tensor, pictures: Pictures, pool: Pictures, kept: np.ndarray, drawn: np.ndarray
) -> tuple[EditedPicture, ...]:
    """Return examples from pictures (1 + len(EDITS), m, 3, H, W), the unedited ones first."""
    last = edited.permute(1, 0, 3, 4, 2).contiguous().numpy()
    keys, donor_keys = pictures.keys, pool.keys
    return tuple(
        EditedPicture(
            key=keys[place],
            label=int(pictures.labels[place]),
            place=number,
            donors=(donor_keys[drawn[place, 0]], donor_keys[drawn[place, 1]]),
            original=views[0],
            edits=tuple(views[1:]),
        )
        for number, (place, views) in enumerate(zip(kept, last, strict=False))
    )
