"""Which concepts sway the prediction all by themselves: found without labels, removed, and pasted elsewhere.

Spurious features by what they do alone: Y. Neuhaus et al., "Spurious Features Everywhere", ICCV 2023
(arXiv 2212.04871), here with the area under the ROC curve proper, by ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.concepts import peak_boxes
from concept_tuning.diagnostics.concept_discovery import CONCEPTS, Discovery, Factoring, discover_concepts
from concept_tuning.diagnostics.editing import paste_patches
from concept_tuning.diagnostics.features import BATCH, Features, class_probabilities, network_input
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import auc, image_weights, paired_bootstrap, percentile_interval, share
from concept_tuning.methods.base import Method

#: Pictures that a patch is pasted on, and pictures that patches are taken from.
HOSTS, SOURCES = 32, 16
_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ConceptEffect:
    """One concept.

    Attributes:
        index: Its place in the arrays of the result.
        rank: 1 is the most suspicious.
        suspicion: Pull times (1 + unreliability) / 2, 0..1. Pull is 2 AUC - 1 of ``pull``, not below 0, and
            unreliability 1 - ``reliability``. So a concept that pulls is always suspect to some degree, and
            the more so the more it also occurs with other classes. It says where to look, no more: a part of
            the object may pull as well. None, and ranked last, without ``pull``.
        pulled_class: The class whose log probability patches of the concept alone, on a plain canvas, raise most
            above what patches of random places make of it.
        present: Share of the pictures in which it is the strongest concept of some cell.
        by_class: (C, 3) float64, P(concept | class) with its Wilson interval; NaN for a class without pictures.
        reliability: P(pulled class | concept), were all classes equally frequent.
        effect: (C,) float64, mean fall of each class's score less the mean over classes, in logits, when the
            concept is removed from the feature maps of the pictures that have it.
        flips: Share of these pictures whose predicted class changes by that.
        pull: AUC of the pulled class's probability, pictures of other classes with a patch of the concept
            pasted on against the same with a patch of one another: the chance that the former is higher. 0.5
            is no pull. Bootstrap interval over the pictures pasted on; None where none can be. The class was chosen
            by the same patches, so that concepts that do nothing have a little more than 0.5, and the more so the
            more classes there are.
        shift: Mean change of the pulled class's probability from the patch of another to that of the concept on the
            same pictures, -1..1, with its bootstrap interval over them; a pull of tiny probabilities is none in use.
            None without ``pull`` and in older results.
        newly_called: Share of these pictures that are called the pulled class with the patch of the concept and not
            with that of another, with its Wilson interval. None as ``shift``.
        alone: AUC of the pulled class's probability, its pictures against patches of the concept alone on a
            plain canvas (as in the paper): low where a patch convinces as much as the class itself, and a
            little too low, since the class was chosen by the same patches. None where the class has no pictures.
        energy: Share of all concepts' strength, 0..1.
        stability: Cosine with its partner in a fit to other cells; NaN without partner.
        examples: Places 0..n-1 of pictures with it, strongest first.
        boxes: (m, 4) float32 patches of these in pixels.
    """

    index: int
    rank: int
    suspicion: float | None
    pulled_class: int
    present: Interval
    by_class: Array
    reliability: float
    effect: Array
    flips: Interval
    pull: Interval | None
    alone: Interval | None
    energy: float
    stability: float
    examples: tuple[int, ...]
    boxes: Array
    shift: Interval | None = None
    newly_called: Interval | None = None


@dataclass(frozen=True, kw_only=True, config=RESULT)
class MaskShares:
    """Where the concepts are, from masks, which nothing else in the result has seen.

    Attributes:
        outside: (K,) float64 share of each concept's strength outside the object, over the pictures that have it.
        even: (K,) float64, the same for a strength that is even over those pictures: their background's area.
    """

    outside: Array
    even: Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ConceptEffects:
    """The concepts of a run over n pictures, the most suspicious first.

    Attributes:
        run: Name of the run.
        keys: Unique names of the pictures.
        labels: (n,) int64.
        class_names: The C class names.
        image_size: Side in pixels of the pictures that boxes refer to.
        factoring: How concepts were found.
        error: Reconstruction error, see :class:`~concept_tuning.diagnostics.concept_discovery.Discovery`.
        present: (n, K) bool.
        concepts: By rank; ``index`` says which column or row of the arrays is meant.
        masks: The check with masks.
    """

    run: str
    keys: tuple[str, ...]
    labels: Array
    class_names: tuple[str, ...]
    image_size: int
    factoring: Factoring
    error: float
    present: Array
    concepts: tuple[ConceptEffect, ...]
    masks: Unavailable | MaskShares


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SpuriousScore:
    """How well a run tells the classes' own pictures from a concept alone, over the classes.

    Attributes:
        value: Mean over the classes of the lowest AUC of their own pictures against patches of one concept alone on a
            plain canvas, 0..1; low where patches convince as much as the class itself.
        classes: Name and lowest AUC of each class that some concept pulls to, lowest first; the others have no part.
    """

    value: float
    classes: tuple[tuple[str, float], ...]


def spurious_score(result: ConceptEffects) -> SpuriousScore | None:
    """Return the spurious score of a run (arXiv 2212.04871), or None where no concept's AUC alone is known.

    The paper's concepts are chosen by eye; here every concept counts, parts of the object too, so it is an upper
    bound on how far the run goes by what is not the class.
    """
    lowest: dict[int, float] = {}
    for one in result.concepts:
        if one.alone is not None:
            lowest[one.pulled_class] = min(one.alone.value, lowest.get(one.pulled_class, 1.0))
    if not lowest:
        return None
    ordered = sorted(lowest.items(), key=lambda pair: pair[1])
    return SpuriousScore(
        value=sum(lowest.values()) / len(lowest),
        classes=tuple((result.class_names[label], value) for label, value in ordered),
    )


def concept_effects(
    subject: Subject,
    pictures: Pictures,
    features: Features,
    *,
    count: int = CONCEPTS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConceptEffects:
    """Find the concepts of a run's feature maps and measure what each does to the predictions.

    Args:
        subject: The run.
        pictures: The pictures, with labels.
        features: What its network makes of them.
        count: Most concepts.
        seed: Of the fit, the pictures drawn and the bootstraps.
        progress: Given the number of concepts done and of all.
    """
    found = discover_concepts(features.maps, count=count, seed=seed)
    usual = _usual_patches(subject, pictures, found, seed)
    total = found.present.shape[1]
    unranked = []
    for index in range(total):
        unranked.append(_one(subject, pictures, features, found, usual, index, seed))
        progress(index + 1, total)
    suspicions = [-1.0 if one["suspicion"] is None else one["suspicion"] for one in unranked]
    order = sorted(range(total), key=lambda index: -suspicions[index])
    return ConceptEffects(
        run=subject.name,
        keys=pictures.keys,
        labels=pictures.labels,
        class_names=subject.run.class_names,
        image_size=subject.image_size,
        factoring=found.factoring,
        error=found.error,
        present=found.present,
        concepts=tuple(ConceptEffect(rank=rank + 1, **unranked[index]) for rank, index in enumerate(order)),
        masks=_mask_shares(pictures, found, subject.image_size),
    )


@torch.inference_mode()
def removal_effect(
    method: Method, less: Tensor, *, scores: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean fall (C,) of the centred class scores and (n,) bool whether the prediction flips.

    Args:
        method: The run's model.
        less: (n, D, h, w) feature maps less a concept.
        scores: (n, C) class scores of the whole maps, see :func:`~concept_tuning.diagnostics.features.class_scores`.
        predicted: (n,) int64 classes predicted from them.
    """
    before, after, now = torch.from_numpy(scores), [], []
    for part in less.split(BATCH):
        logits = method.classify(part)
        after.append(method.combine(logits))
        now.append(method.combine({name: values.softmax(1) for name, values in logits.items()}).argmax(1))
    fall = before - torch.cat(after)
    fall = fall - fall.mean(1, keepdim=True)
    return fall.mean(0).double().numpy(), torch.cat(now).numpy() != predicted


def auc_interval(above: np.ndarray, below: np.ndarray, *, paired: bool, seed: int = 0) -> Interval:
    """Return the rank AUC of ``above`` over ``below`` with its percentile bootstrap interval.

    Args:
        above: (m,) values that should be higher.
        below: (k,) values that should be lower.
        paired: Whether the two are of the same pictures, which are then drawn together.
        seed: Of the draws.
    """
    value = auc(np.concatenate([above, below]), np.arange(len(above) + len(below)) < len(above))
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    rng = np.random.default_rng(seed)
    rows = image_weights(rng, _RESAMPLES, len(above))
    columns = rows if paired else image_weights(rng, _RESAMPLES, len(below))
    return percentile_interval(value, np.einsum("ri,ij,rj->r", rows, wins, columns, optimize=True), n=len(above))


def suspicion_score(pull: Interval | None, reliability: float) -> float | None:
    """Return the suspicion 0..1, see :class:`ConceptEffect`; None where no pull could be measured."""
    return None if pull is None else max(0.0, 2 * pull.value - 1) * (2 - reliability) / 2


def _one(
    subject: Subject, pictures: Pictures, features: Features, found: Discovery, usual: np.ndarray, index: int, seed: int
) -> dict[str, Any]:
    """Return the fields of a :class:`ConceptEffect`, but for its rank; ``usual`` is of :func:`_usual_patches`."""
    here = found.present[:, index]
    strengths = found.strengths[:, index]
    effect, flips = removal_effect(
        subject.method,
        torch.from_numpy(found.without(features.maps, index)[here]),
        scores=features.scores[here],
        predicted=features.predicted[here],
    )
    by_class = _class_shares(here, pictures.labels, len(subject.run.class_names))
    peaks = np.where(here, strengths.max((1, 2)), -np.inf)
    examples = np.argsort(-peaks, kind="stable")[: min(SOURCES, int(here.sum()))]
    boxes = peak_boxes(
        torch.from_numpy(strengths[examples][:, None]), image_size=subject.image_size, side=_patch_side(subject)
    )[:, 0]
    sources = pictures.images([int(place) for place in examples], subject.image_size)
    plain = _on_canvas(subject.inference_method, sources, boxes)
    pulled = int((_log(plain) - usual).argmax())
    reliability = float(by_class[pulled, 0] / np.nansum(by_class[:, 0])) if by_class[pulled, 0] > 0 else 0.0
    own = features.probabilities[pictures.labels == pulled, pulled]
    pasted = _pull(subject, pictures, here, pulled, sources, boxes, seed + index)
    return {
        "index": index,
        "suspicion": suspicion_score(pasted.pull, reliability),
        "pulled_class": pulled,
        "present": share(here),
        "by_class": by_class,
        "reliability": reliability,
        "effect": effect,
        "flips": share(flips),
        **pasted._asdict(),
        "alone": auc_interval(own, plain[:, pulled], paired=False, seed=seed) if len(own) else None,
        "energy": float(strengths.sum() / found.strengths.sum()),
        "stability": float(found.stability[index]),
        "examples": tuple(int(place) for place in examples),
        "boxes": boxes.numpy(),
    }


class _Pasted(NamedTuple):
    """What a patch does on other classes' pictures, see :class:`ConceptEffect`."""

    pull: Interval | None
    shift: Interval | None
    newly_called: Interval | None


def _pull(
    subject: Subject,
    pictures: Pictures,
    here: np.ndarray,
    pulled: int,
    sources: Tensor,
    boxes: Tensor,
    seed: int,
) -> _Pasted:
    """Return what a patch of a concept does on pictures of other classes, without the concept where there are such."""
    others = pictures.labels != pulled
    free = np.flatnonzero(others & ~here)
    hosts = np.random.default_rng(seed).permutation(free if len(free) > 1 else np.flatnonzero(others))[:HOSTS]
    if len(hosts) < 2:
        return _Pasted(None, None, None)
    images = pictures.images([int(place) for place in hosts], subject.image_size)
    turn = torch.arange(len(hosts)) % len(sources)
    pasted = _probabilities(subject.inference_method, paste_patches(images, sources[turn], boxes[turn]))
    # the next host's own pixels, at the same place: what pasting alone does
    control = _probabilities(subject.inference_method, paste_patches(images, images.roll(1, 0), boxes[turn]))
    return _Pasted(
        pull=auc_interval(pasted[:, pulled], control[:, pulled], paired=True, seed=seed),
        shift=paired_bootstrap(pasted[:, pulled].astype(np.float64) - control[:, pulled], seed, resamples=_RESAMPLES),
        newly_called=share((pasted.argmax(1) == pulled) & (control.argmax(1) != pulled)),
    )


def _usual_patches(subject: Subject, pictures: Pictures, found: Discovery, seed: int) -> np.ndarray:
    """Return (C,) mean log probabilities of patches of random places on a plain canvas."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(pictures))[:HOSTS]
    noise = torch.from_numpy(rng.random((len(places), 1, *found.strengths.shape[2:])))
    boxes = peak_boxes(noise, image_size=subject.image_size, side=_patch_side(subject))[:, 0]
    images = pictures.images([int(place) for place in places], subject.image_size)
    return _log(_on_canvas(subject.inference_method, images, boxes))


def _on_canvas(method: Method, sources: Tensor, boxes: Tensor) -> np.ndarray:
    """Return (n, C) probabilities of patches on a canvas of the pre-training's mean colour."""
    canvas = (method.backbone.mean * 255).round().to(torch.uint8)[:, None, None].expand_as(sources)
    return _probabilities(method, paste_patches(canvas, sources, boxes))


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Return (C,) the mean over pictures of log probabilities (n, C)."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).mean(0)


@torch.inference_mode()
def _probabilities(method: Method, images: Tensor) -> np.ndarray:
    """Return (n, C) probabilities of the fixed rule for uint8 pictures (n, 3, H, W)."""
    parts = [class_probabilities(method, method.backbone(network_input(method, part))) for part in images.split(BATCH)]
    return torch.cat(parts).numpy()


def _patch_side(subject: Subject) -> float:
    return subject.run.config.concept_tuning.patch_fraction * subject.image_size


def _class_shares(here: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return (C, 3) the share of each class's pictures marked in ``here`` with its interval; NaN without pictures."""
    found = [share(here[labels == label]) if (labels == label).any() else None for label in range(classes)]
    return np.array([(np.nan,) * 3 if one is None else (one.value, one.low, one.high) for one in found])


def _mask_shares(pictures: Pictures, found: Discovery, size: int) -> MaskShares | Unavailable:
    if not pictures.has_masks:
        reason = f"{pictures.bundle.source} has no masks of the objects, so where a concept is cannot be checked."
        return Unavailable(analysis="concepts against masks", reason=reason)
    masks = torch.stack([pictures.masks(place, size)["object"] for place in range(len(pictures))])
    around = 1 - F.adaptive_avg_pool2d(masks[:, None].float(), found.strengths.shape[2:])[:, 0].numpy()
    strengths = found.strengths * found.present[:, :, None, None]
    outside = np.einsum("nkhw,nhw->k", strengths, around) / strengths.sum((0, 2, 3))
    even = np.einsum("nk,n->k", found.present, around.mean((1, 2))) / found.present.sum(0)
    return MaskShares(outside=outside.astype(np.float64), even=even.astype(np.float64))
