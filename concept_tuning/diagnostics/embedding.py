"""Pictures and concept patches laid out in the plane by their features, before and after fine-tuning.

L. McInnes, J. Healy, J. Melville, "UMAP: Uniform Manifold Approximation and Projection", arXiv 1802.03426.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.diagnostics.features import BATCH, Features
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array, Unavailable
from concept_tuning.diagnostics.source_frequency import build_pretrained
from concept_tuning.methods.base import pool
from concept_tuning.methods.concept_tuning import patch_features, patch_size
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.folding import fold_batch_norms

#: Most points laid out, unless told otherwise.
MOST_POINTS = 5000
#: Neighbours that UMAP keeps together, and the fewest distinct points it is used for.
NEIGHBOURS, FEWEST_POINTS = 15, 20
#: Principal components that UMAP reads.
_COMPONENTS = 50
#: Points closer than this share of the cloud's size are copies of one another.
_COPY = 1e-5

Progress = Callable[[int, int], None]
#: A run, a network of it or the one it began with, and what that makes of the points.
_Row = tuple[Subject, Backbone, np.ndarray]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Layout:
    """The points as one network has them.

    Caveat: distances between far points, the size of clusters and the axes of UMAP mean nothing; another seed
    gives another picture.

    Attributes:
        name: The run, or ``before <run>`` for the pre-trained network it began with.
        run: The run it belongs to.
        tuned: Whether it is the run's own network.
        technique: ``umap``, or ``pca`` where there are too few distinct points.
        points: (m, 2) float32, centred, of mean square length 1, turned to lie on the first layout as well as a
            rotation or reflection can.
        predicted: (m,) int64 the run's prediction for the point's picture; None before fine-tuning.
        distinct: Points that differ; copies lie on one another.
        explained: Share of the features' variance in the principal components that were used, 0..1.
    """

    name: str
    run: str
    tuned: bool
    technique: Literal["umap", "pca"]
    points: Array
    predicted: Array | None
    distinct: int
    explained: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Embedding:
    """The same m points as several networks have them.

    Attributes:
        kind: ``pictures`` or ``concepts``.
        keys: Unique names of the pictures that points are of.
        picture: (m,) int64 place in ``keys``.
        concept: (m,) int64 number of the concept; None for pictures.
        boxes: (m, 4) float32 patches in pixels of a picture of ``image_size``; None for pictures.
        image_size: See ``boxes``; None for pictures.
        labels: (m,) int64 class of the picture.
        groups: (m,) int64 group of the picture; None without groups.
        class_names: The C class names.
        group_names: The group names.
        total: Points there are; ``m`` of them, drawn at random, are laid out.
        layouts: One for each network.
        missing: Networks that could not be had.
    """

    kind: Literal["pictures", "concepts"]
    keys: tuple[str, ...]
    picture: Array
    concept: Array | None
    boxes: Array | None
    image_size: int | None
    labels: Array
    groups: Array | None
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    total: int
    layouts: tuple[Layout, ...]
    missing: tuple[Unavailable, ...]


def embed_pictures(
    subjects: Sequence[Subject],
    pictures: Pictures,
    features: Mapping[str, Features],
    *,
    most: int = MOST_POINTS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Embedding:
    """Lay pictures out by the average-pooled features of every run and of the network it began with.

    Args:
        subjects: The runs.
        pictures: The pictures.
        features: By the name of the run.
        most: Most pictures laid out.
        seed: Of the pictures drawn and of UMAP.
        progress: Given the number of networks done and of all.
    """
    chosen = _drawn(len(pictures), most, seed)
    rows: list[_Row] = []
    missing: list[Unavailable] = []
    for subject, backbone in _networks(subjects, missing):
        if backbone is subject.inference_method.backbone:
            found = features[subject.name].pooled[chosen]
        else:
            found = _pooled(backbone, pictures, chosen, subject.image_size)
        rows.append((subject, backbone, found))
        progress(len(rows), 2 * len(subjects))
    predicted = {name: one.predicted[chosen] for name, one in features.items()}
    return _embedding("pictures", pictures, chosen, rows, missing, predicted=predicted, seed=seed)


def embed_concepts(
    subjects: Sequence[Subject],
    pictures: Pictures,
    features: Mapping[str, Features],
    concepts: ConceptMaps,
    *,
    most: int = MOST_POINTS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Embedding:
    """Lay concept patches out by their features in every run and in the network it began with.

    All networks are given the same patches, run through the encoder as in the method (not the class-wise
    embedding, which a pre-trained network has not).

    Args:
        subjects: The runs.
        pictures: The pictures.
        features: By the name of the run.
        concepts: The patches, of all the pictures in their order; those of one of the runs.
        most: Most patches laid out; pictures are drawn, each with all its patches.
        seed: Of the pictures drawn and of UMAP.
        progress: Given the number of networks done and of all.
    """
    if concepts.keys != pictures.keys:
        raise ValueError("concepts must be of all the pictures, in their order")
    per_picture = concepts.boxes.shape[1]
    chosen = _drawn(len(pictures), max(1, most // per_picture), seed)
    boxes = concepts.boxes[chosen]
    rows: list[_Row] = []
    missing: list[Unavailable] = []
    for subject, backbone in _networks(subjects, missing):
        scaled = boxes * (subject.image_size / concepts.image_size)
        rows.append((subject, backbone, _patches(subject, backbone, pictures, chosen, scaled)))
        progress(len(rows), 2 * len(subjects))
    predicted = {name: one.predicted[chosen].repeat(per_picture) for name, one in features.items()}
    return _embedding(
        "concepts",
        pictures,
        chosen,
        rows,
        missing,
        predicted=predicted,
        seed=seed,
        boxes=boxes.reshape(-1, 4),
        image_size=concepts.image_size,
    )


def lay_out(features: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, Literal["umap", "pca"], int, float]:
    """Lay points out in the plane by UMAP of their principal components, the same for the same seed.

    Copies are laid out once, since UMAP is unsteady with many of them. One thread, which a seed needs.

    Args:
        features: (m, D), m >= 1.
        seed: Of the principal components and of UMAP.

    Returns:
        (m, 2) float32 points, the technique, the number of distinct points, and the share of variance read.
    """
    values = np.asarray(features, dtype=np.float64)
    values = values - values.mean(0)
    scale = float(np.sqrt((values**2).sum(1).mean()))
    if scale == 0:
        return np.zeros((len(values), 2), np.float32), "pca", 1, 1.0
    wanted = min(_COMPONENTS, *values.shape)
    model = PCA(wanted, svd_solver="randomized", random_state=seed)
    reduced = model.fit_transform(values / scale)
    _, first, copies = np.unique(np.round(reduced / _COPY), axis=0, return_index=True, return_inverse=True)
    explained, plane = model.explained_variance_ratio_, np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    if len(first) < FEWEST_POINTS:
        return plane.astype(np.float32), "pca", len(first), float(explained[:2].sum())
    found = _umap(reduced[first], plane[first], seed)
    return found[copies.ravel()].astype(np.float32), "umap", len(first), float(explained.sum())


def _umap(values: np.ndarray, start: np.ndarray, seed: int) -> np.ndarray:
    """Return UMAP's layout (m, 2), begun at ``start`` (m, 2)."""
    from umap import UMAP  # slow to import

    flat = np.ptp(start, axis=0) == 0  # points on a line, by whose width UMAP would divide
    start = np.where(flat, np.random.default_rng(seed).normal(size=start.shape), start)
    model = UMAP(
        n_neighbors=NEIGHBOURS, init=start, random_state=seed, n_jobs=1, precomputed_knn=nearest_neighbours(values)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn")  # that no further points can be added later
        return np.asarray(model.fit_transform(values))


def nearest_neighbours(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the :data:`NEIGHBOURS` nearest of each point and their distances, itself first, as UMAP wants them.

    Exact at any number of points, and without the compiling that UMAP's own search begins with.

    Args:
        values: (m, D) distinct points, m >= :data:`NEIGHBOURS`.

    Returns:
        (m, NEIGHBOURS) int64 and float32.
    """
    distances, neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(values).kneighbors(values)
    # by rounding not quite zero, which UMAP would take for the nearest neighbour's
    distances[neighbours == np.arange(len(values))[:, None]] = 0
    order = np.argsort(distances, axis=1, kind="stable")
    ordered = np.take_along_axis(distances, order, 1).astype(np.float32)
    return np.take_along_axis(neighbours, order, 1), ordered


def align(points: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Centre points (m, 2), bring their mean square length to 1, and turn or mirror them onto a reference."""
    centred = points - points.mean(0)
    length = float(np.sqrt((centred**2).sum(1).mean()))
    centred = centred / length if length > 0 else centred
    return centred if reference is None else centred @ orthogonal_procrustes(centred, reference)[0]


def _networks(subjects: Sequence[Subject], missing: list[Unavailable]) -> list[tuple[Subject, Backbone]]:
    """Return the networks to lay out: those that runs began with, each once, then the runs' own."""
    before: dict[object, tuple[Subject, Backbone]] = {}
    for subject in subjects:
        same = (subject.run.config.backbone, subject.image_size)
        if same in before:
            continue
        found = build_pretrained(subject, analysis=f"before {subject.name}")
        if isinstance(found, Unavailable):
            missing.append(found)
        else:
            before[same] = (subject, fold_batch_norms(found))
    return [*before.values(), *((subject, subject.inference_method.backbone) for subject in subjects)]


def _embedding(
    kind: Literal["pictures", "concepts"],
    pictures: Pictures,
    chosen: np.ndarray,
    rows: Sequence[_Row],
    missing: Sequence[Unavailable],
    *,
    predicted: Mapping[str, np.ndarray],
    seed: int,
    boxes: np.ndarray | None = None,
    image_size: int | None = None,
) -> Embedding:
    layouts: list[Layout] = []
    for subject, backbone, features in rows:
        tuned = backbone is subject.inference_method.backbone
        points, technique, distinct, explained = lay_out(features, seed=seed)
        layouts.append(
            Layout(
                name=subject.name if tuned else f"before {subject.name}",
                run=subject.name,
                tuned=tuned,
                technique=technique,
                points=align(points, layouts[0].points if layouts else None).astype(np.float32),
                predicted=predicted[subject.name] if tuned else None,
                distinct=distinct,
                explained=explained,
            )
        )
    each = 1 if boxes is None else len(boxes) // len(chosen)
    picture = np.arange(len(chosen)).repeat(each)
    return Embedding(
        kind=kind,
        keys=tuple(np.array(pictures.keys)[chosen].tolist()),
        picture=picture,
        concept=None if boxes is None else np.tile(np.arange(each), len(chosen)),
        boxes=boxes,
        image_size=image_size,
        labels=pictures.labels[chosen][picture],
        groups=None if pictures.groups is None else pictures.groups[chosen][picture],
        class_names=pictures.bundle.class_names,
        group_names=pictures.bundle.group_names,
        total=len(pictures) * each,
        layouts=tuple(layouts),
        missing=tuple(missing),
    )


def _drawn(total: int, most: int, seed: int) -> np.ndarray:
    """Return at most ``most`` of ``total`` places, ascending."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


@torch.inference_mode()
def _pooled(backbone: Backbone, pictures: Pictures, chosen: np.ndarray, size: int) -> np.ndarray:
    parts = []
    for start in range(0, len(chosen), BATCH):
        images = pictures.images([int(place) for place in chosen[start : start + BATCH]], size)
        parts.append(pool(backbone(backbone.normalise(images).contiguous(memory_format=torch.channels_last))))
    return torch.cat(parts).numpy()


@torch.inference_mode()
def _patches(
    subject: Subject, backbone: Backbone, pictures: Pictures, chosen: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Return features (n * P, D) of patches (n, P, 4) of the chosen pictures, a picture's in a row."""
    size, parts = patch_size(backbone, subject.run.config), []
    for start in range(0, len(chosen), BATCH):
        images = pictures.images([int(place) for place in chosen[start : start + BATCH]], subject.image_size)
        inputs = backbone.normalise(images).contiguous(memory_format=torch.channels_last)
        some = torch.from_numpy(boxes[start : start + BATCH]).float()
        parts.append(patch_features(inputs, some, backbone, size=size).flatten(0, 1))
    return torch.cat(parts).numpy()
