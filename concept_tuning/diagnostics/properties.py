"""Do simple properties of a picture, its brightness, colours, border or size, give the class away?

No group labels are needed. A property that alone predicts the class is a shortcut that a network can take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pydantic.dataclasses import dataclass
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from torchvision.transforms.v2 import functional

from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.registry import DATASETS
from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import share
from concept_tuning.proportion import number_of, of_part

#: A property whose score is below is flagged, as in cleanlab.
FLAGGED = 0.3
#: Share of the shorter side that is the border's width, and of each side that is the centre's.
BORDER, CENTRE = 0.1, 0.5
FOLDS = 5
#: One less the level at which properties are informative, over all that are tested.
_ALPHA = 0.05

_CHUNK = 32
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_RGB = ("red", "green", "blue")
#: Components of each property, in the order in which they are measured.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "colourfulness": ("colourfulness",),
    "sharpness": ("sharpness",),
    "hue": ("red against cyan", "yellow-green against blue-violet"),
    "mean colour": _RGB,
    "centre colour": _RGB,
    "border colour": _RGB,
    "size": ("size",),
    "aspect": ("aspect",),
    "odd aspect": ("odd aspect",),
}
_OF_SIZE = ("size", "aspect", "odd aspect")
_THREADS = 2


@dataclass(frozen=True, kw_only=True, config=RESULT)
class PropertyScore:
    """How well one property tells the classes.

    Attributes:
        name: The property.
        components: Names of its k numbers.
        accuracy: Cross-validated accuracy of Gaussian naive Bayes from the property alone, with its Wilson interval.
        baseline: Accuracy of always naming the largest class.
        score: min(1, (1 - accuracy) / (1 - baseline)): 0 gives the class away, 1 knows nothing of it.
        strength: 1 - score.
        flagged: Whether the score is below :data:`FLAGGED`. Where a shortcut does not name a class but a set of
            classes, or there are many classes, this is rarely reached: look at the accuracy too.
        informative: Whether the whole interval of the accuracy lies above the baseline, at a level of 1 - 0.05 / k of k
            properties tested (Bonferroni): of 11 useless ones on 100 pictures, some was in 4 % of 132 simulations; at
            95 % each, as in older results, in 41 %.
        class_means: (C, k) mean of each component over the pictures of each class; NaN for a class without any.
        values: (n, k) float32 components of every picture.
    """

    name: str
    components: tuple[str, ...]
    accuracy: Interval
    baseline: float
    score: float
    strength: float
    flagged: bool
    informative: bool
    class_means: Array
    values: Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class PropertyTable:
    """Properties of n pictures against their classes.

    A diagnosis measures the whole pictures, not the square that a network sees, brought to the short side that the
    first run takes; what lies outside that square is no shortcut for a network that always crops it off.

    Attributes:
        class_names: The C classes.
        keys: Names of the pictures.
        labels: (n,) int64 class indices.
        counts: (C,) int64 pictures of each class.
        properties: Scores, the strongest first.
        unavailable: Properties that could not be scored, and why.
        left_out: Classes with a single picture, or of a single unit, which cannot be cross-validated; accuracy and
            baseline are without them.
        caveat: How to read the scores, in words.
        units: How many plants or patients the pictures show, none of which was in two folds; None: each is by itself.
    """

    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    labels: Array
    counts: Array
    properties: tuple[PropertyScore, ...]
    unavailable: tuple[Unavailable, ...]
    left_out: tuple[str, ...]
    caveat: str = (
        "A property that tells the classes is a shortcut only if it is none of the object's own: a red bird is red. "
        "A border that tells more than the centre speaks for the background."
    )
    units: int | None = None


def property_table(
    images: np.ndarray | Iterable[np.ndarray],
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    keys: Sequence[str],
    sizes: np.ndarray | Unavailable | None = None,
    units: np.ndarray | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> PropertyTable | Unavailable:
    """Measure the pictures and score each property against the class, after cleanlab's check of spurious properties.

    The score is cleanlab's, with the share of the largest class as the baseline.

    Args:
        images: See :func:`measure_images`.
        labels: (n,) class indices.
        class_names: The C classes.
        keys: Names of the n pictures.
        sizes: (n, 2) heights and widths of the original files, in pixels, or why they cannot be had; None: size
            and aspect are not scored. See :func:`original_sizes`.
        units: (n,) what each picture shows (a plant, a patient), which no fold then parts; None: each is by itself.
        folds: Most folds of the stratified cross-validation; fewer if a class has fewer pictures, or units.
        seed: Of the folds.

    Returns:
        The table; :class:`Unavailable` with fewer than two classes of at least two pictures, or units.

    Raises:
        ValueError: Shapes do not fit.
    """
    labels = np.asarray(labels)
    counts, enough = np.bincount(labels, minlength=len(class_names)), _enough(labels, units, len(class_names))
    if np.count_nonzero(enough) < 2:
        what = "pictures" if units is None else "units (plants, patients)"
        return Unavailable(
            analysis="image properties", reason=f"It needs at least two classes with at least two {what} each."
        )
    measured = measure_images(images)
    unavailable: tuple[Unavailable, ...] = ()
    if sizes is None or isinstance(sizes, Unavailable):
        reason = "It needs the sizes of the original files; the pictures given were already resized."
        reason = reason if sizes is None else sizes.reason
        unavailable = tuple(Unavailable(analysis=name, reason=reason) for name in _OF_SIZE)
    else:
        measured |= measure_sizes(sizes)
    wrong = {len(found) for found in (*measured.values(), keys)} - {len(labels)}
    if wrong:
        raise ValueError(f"expected {len(labels)} pictures, keys and sizes, one for each label, got {wrong.pop()}")
    scores = [
        score_property(
            name,
            values,
            labels,
            classes=len(class_names),
            units=units,
            folds=folds,
            tested=len(measured),
            seed=seed,
        )
        for name, values in measured.items()
    ]
    return PropertyTable(
        class_names=tuple(class_names),
        keys=tuple(keys),
        labels=labels,
        counts=counts,
        properties=tuple(sorted(scores, key=lambda score: score.score)),
        unavailable=unavailable,
        left_out=tuple(
            name for name, count, kept in zip(class_names, counts, enough, strict=True) if count and not kept
        ),
        units=number_of(units),
    )


def original_sizes(pictures: Pictures) -> np.ndarray | Unavailable:
    """Return (n, 2) int64 heights and widths in pixels of the files of pictures, turned upright.

    The cache keeps small copies alone, so every file is decoded again, which is as slow as for the cache.

    Returns:
        The sizes; :class:`Unavailable` for drawn pictures, which have no files, and where a file is gone.
    """
    name, table = pictures.bundle.source, pictures.bundle.table
    if any(entry.name == name and entry.kind == "generated" for entry in DATASETS):
        return Unavailable(analysis="size", reason=f"The pictures of {name} are drawn, all of one size.")
    rows = [int(row) for row in pictures.split.rows[pictures.chosen]]
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sizes") as pool:
            return np.array(list(pool.map(lambda row: table.read(row).shape[:2], rows)), np.int64)
    except UnreadableImage as error:
        return Unavailable(
            analysis="size", reason=f"An original file is not as it was when it was read first: {error}."
        )


def whole_pictures(pictures: Pictures, *, side: int) -> Iterator[np.ndarray]:
    """Yield pictures (3, h, w) uint8 with their borders, which a network's square view of them cuts off.

    The short side is brought to ``side`` pixels with antialiasing, so that sharpness can be compared; smaller
    files are enlarged. At most four times as long as wide, as in the cache.
    """
    for place in pictures.chosen:
        image = pictures.split.image(int(place))
        yield functional.resize(image, [side], antialias=True).numpy()


def score_property(
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    units: np.ndarray | None = None,
    folds: int = FOLDS,
    tested: int = 1,
    seed: int = 0,
) -> PropertyScore:
    """Score one property of n pictures against their classes.

    Args:
        name: One of :data:`COMPONENTS`, or another, whose components are then numbered.
        values: (n, k).
        labels: (n,) class indices, with at least two pictures, or units, of at least two classes.
        classes: Number of classes.
        units: (n,) what each picture shows; None: each is by itself.
        folds: Most folds.
        tested: How many properties are scored together, >= 1, which ``informative`` allows for.
        seed: Of the folds.

    Raises:
        ValueError: Fewer than two classes have two pictures, or units: there is nothing to tell apart.
    """
    counts, enough = np.bincount(labels, minlength=classes), _enough(labels, units, classes)
    if np.count_nonzero(enough) < 2:
        raise ValueError(f"two classes with two pictures each are needed, got the counts {counts.tolist()}")
    kept = enough[labels]
    own = of_part(units, kept)
    right = _cross_validated(values[kept], labels[kept], own, folds, seed)
    accuracy = share(right, units=own)
    baseline = float(counts[enough].max() / kept.sum())
    score = min(1.0, (1 - accuracy.value) / (1 - baseline))
    sums = np.zeros((classes, values.shape[1]))
    np.add.at(sums, labels, values)
    return PropertyScore(
        name=name,
        components=COMPONENTS.get(name, tuple(f"{name} {i}" for i in range(values.shape[1]))),
        accuracy=accuracy,
        baseline=baseline,
        score=score,
        strength=1 - score,
        flagged=score < FLAGGED,
        informative=share(right, 1 - _ALPHA / tested, units=own).low > baseline,
        class_means=np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0),
        values=values.astype(np.float32),
    )


def _drawn(labels: np.ndarray, units: np.ndarray | None, classes: int) -> np.ndarray:
    """Return (C,) how many pictures each class has, or units where pictures have them."""
    if units is None:
        return np.bincount(labels, minlength=classes)
    return np.bincount(np.unique(np.stack([labels, units]), axis=1)[0], minlength=classes)


def _enough(labels: np.ndarray, units: np.ndarray | None, classes: int) -> np.ndarray:
    """Return (C,) bool, classes that can be cross-validated."""
    found: np.ndarray = _drawn(labels, units, classes) >= 2
    return found


def _cross_validated(
    values: np.ndarray, labels: np.ndarray, units: np.ndarray | None, folds: int, seed: int
) -> np.ndarray:
    """Return (n,) bool, pictures that naive Bayes fitted to the other folds has right."""
    predicted = np.empty_like(labels)
    drawn = _drawn(labels, units, int(labels.max()) + 1)
    folds = min(folds, int(drawn[drawn > 0].min()))
    cut = StratifiedKFold if units is None else StratifiedGroupKFold
    for train, test in cut(folds, shuffle=True, random_state=seed).split(values, labels, units):
        if not len(test):  # as many units as folds may leave a fold without any
            continue
        varied = np.ptp(values[train], axis=0) > 0
        if varied.any():
            spread = values[train].std(axis=0)[varied]
            model = GaussianNB().fit(values[train][:, varied] / spread, labels[train])
            predicted[test] = model.predict(values[test][:, varied] / spread)
        else:
            predicted[test] = np.bincount(labels[train]).argmax()
    return predicted == labels


def measure_images(images: np.ndarray | Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Measure pictures.

    Brightness and contrast are the mean and the standard deviation of the luma (Rec. 601), 0..1; colourfulness
    is that of Hasler and Süsstrunk (Proc. SPIE 5007, 2003) for channels of 0..255; sharpness is log10(1 + v),
    v the variance of the luma's Laplacian (of 0..255), so it depends on the resolution; hue is the mean colour
    in the chroma plane as cosine and sine of its angle, (0, 0) for grey; colours are mean RGB, 0..1, of the
    whole picture, of its central half, and of its border, a tenth of the shorter side wide.

    Args:
        images: (n, 3, s, s) uint8, or an iterable of (3, h, w) uint8 of any sizes from 3 pixels.

    Returns:
        (n, k) float64 for each property of :data:`COMPONENTS` but those of the file's size.

    Raises:
        ValueError: A picture is not (3, h, w) uint8 of at least 3 x 3, or there is none.
    """
    found = [_measure(batch) for batch in _batches(images)]
    if not found:
        raise ValueError("there are no pictures to measure")
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def measure_sizes(sizes: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return (n, 1) size (log2 of the pixels), aspect (log2 of width over height) and odd aspect.

    Odd aspect is the shorter over the longer side, 0..1. ``sizes`` is (n, 2) heights and widths above 0.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
        raise ValueError(f"expected (n, 2) positive heights and widths, got {sizes.shape}")
    height, width = sizes[:, :1], sizes[:, 1:]
    odd = sizes.min(axis=1, keepdims=True) / sizes.max(axis=1, keepdims=True)
    return {"size": np.log2(height * width), "aspect": np.log2(width / height), "odd aspect": odd}


def _batches(images: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield (b, 3, h, w) float32 pictures of 0..255."""
    if getattr(images, "ndim", 0) == 4:
        whole = np.asarray(images)
        parts: Iterable[np.ndarray] = (whole[start : start + _CHUNK] for start in range(0, len(whole), _CHUNK))
    else:
        parts = (np.asarray(image)[None] for image in images)
    for part in parts:
        if part.ndim != 4 or part.shape[1] != 3 or min(part.shape[2:]) < 3 or part.dtype != np.uint8:
            raise ValueError(f"expected (3, h, w) uint8 pictures of at least 3 x 3, got {part.shape[1:]} {part.dtype}")
        yield part.astype(np.float32)


def _measure(batch: np.ndarray) -> dict[str, np.ndarray]:
    luma = np.einsum("bchw,c->bhw", batch, _LUMA)
    mean = batch.mean(axis=(2, 3), dtype=np.float64) / 255
    return {
        "brightness": luma.mean(axis=(1, 2), dtype=np.float64)[:, None] / 255,
        "contrast": luma.std(axis=(1, 2), dtype=np.float64)[:, None] / 255,
        "colourfulness": _colourfulness(batch)[:, None],
        "sharpness": np.log10(1 + _laplacian(luma).var(axis=(1, 2), dtype=np.float64))[:, None],
        "hue": _hue(mean),
        "mean colour": mean,
        "centre colour": _inner(batch, CENTRE),
        "border colour": _border(batch),
    }


def _colourfulness(batch: np.ndarray) -> np.ndarray:
    red, green, blue = batch[:, 0], batch[:, 1], batch[:, 2]
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread = np.linalg.norm(opponents.std(axis=(2, 3), dtype=np.float64), axis=0)
    return spread + 0.3 * np.linalg.norm(opponents.mean(axis=(2, 3), dtype=np.float64), axis=0)


def _laplacian(luma: np.ndarray) -> np.ndarray:
    """Return the four-neighbour Laplacian (b, h - 2, w - 2)."""
    sides = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return sides - 4 * luma[:, 1:-1, 1:-1]


def _hue(mean: np.ndarray) -> np.ndarray:
    """Return (b, 2) cosine and sine of the hue of (b, 3) colours of 0..1."""
    red, green, blue = mean.T
    chroma = np.stack([red - (green + blue) / 2, np.sqrt(3) / 2 * (green - blue)], axis=1)
    length = np.linalg.norm(chroma, axis=1, keepdims=True)
    return np.divide(chroma, length, out=np.zeros_like(chroma), where=length > 1e-6)


def _inner(batch: np.ndarray, part: float) -> np.ndarray:
    """Return (b, 3) mean colour of the central part of each side, 0..1."""
    height, width = batch.shape[2:]
    tall, wide = max(1, round(part * height)), max(1, round(part * width))
    top, left = (height - tall) // 2, (width - wide) // 2
    return batch[:, :, top : top + tall, left : left + wide].mean(axis=(2, 3), dtype=np.float64) / 255


def _border(batch: np.ndarray) -> np.ndarray:
    """Return (b, 3) mean colour of the ring along the edge, 0..1."""
    height, width = batch.shape[2:]
    ring = max(1, round(BORDER * min(height, width)))
    inner = batch[:, :, ring:-ring, ring:-ring]
    outside = batch.sum(axis=(2, 3), dtype=np.float64) - inner.sum(axis=(2, 3), dtype=np.float64)
    return outside / (height * width - inner.shape[2] * inner.shape[3]) / 255
