"""Training, validation and test rows of a table, drawn class by class.

Within a class the pictures are put in one random order in which every group (habitat, cell type) is
spread evenly, and a split is a stretch of that order. So each class gets its share by a closed form,
each group of a class gets its share to within about one picture however small the group is, and a
larger training share contains a smaller one. Where several pictures show one thing (a unit), whole units are cut
instead (:mod:`concept_tuning.data.units`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.printable import printable
from concept_tuning.data.table import SPLITS
from concept_tuning.data.units import Units, check_given, cut_by_unit
from concept_tuning.errors import DataError

_SPLIT_STREAM, _SAMPLE_STREAM = 0, 1
_NAMED = 5


def split_table(
    labels: np.ndarray,
    groups: np.ndarray | None,
    given_splits: np.ndarray | None,
    config: DataConfig,
    *,
    class_names: Sequence[str],
    usable: np.ndarray | None = None,
    units: Units | None = None,
) -> dict[str, np.ndarray]:
    """Split a table's rows into training, validation and test rows.

    Splits that the data gives are kept. A validation or test split that it lacks is cut from the
    training rows (all rows where it gives none) with ``validation_fraction`` and ``test_fraction`` of
    them: of a class of n rows, ``round(fraction * n)``, at least 1, and at least 1 is left to train on; with ``units``
    about that many, as whole units (:func:`~concept_tuning.data.units.cut_by_unit`).
    The training rows of each class are then thinned to ``sample_rate`` percent (rounded, at least 1)
    and to ``per_class`` at most; for one seed a smaller share is always part of a larger one.

    Args:
        labels: (N,) integers, 0..C-1.
        groups: (N,) integers, or None; every split keeps each class's mixture of groups.
        given_splits: (N,) codes into :data:`~concept_tuning.data.table.SPLITS`, or None.
        config: The fractions, the training share and the seed.
        class_names: The C names, for messages.
        usable: (N,) bool, False for rows that take no part; None: all do.
        units: Of the N rows; no split has rows of a unit that another has. None: each row is by itself.

    Returns:
        ``train``, ``val`` and ``test``, each with its rows as sorted int64.

    Raises:
        DataError: A class would have no picture in one of the splits, no training split is given, the given splits
            part a unit, or a class has too few units.
        ValueError: The columns differ in length, or a code or label is out of range.
    """
    _check_columns(labels, groups, given_splits, usable, len(class_names))
    everything = np.flatnonzero(usable) if usable is not None else np.arange(len(labels))
    if given_splits is None:
        given = {"train": everything}
    else:
        given = {name: everything[given_splits[everything] == code] for code, name in enumerate(SPLITS)}
        given = {name: rows for name, rows in given.items() if len(rows)}
        if len(everything) and "train" not in given:
            raise DataError(f"The data gives a {' and a '.join(given)} split but no training split; add one.")
    missing = [name for name in ("test", "val") if name not in given]
    _check_enough(labels, given, missing, class_names)
    if units is not None:
        check_given(units, given)
    cut = {name: np.arange(0) for name in missing}
    if missing and units is None:
        cut = _cut_pictures(labels, groups, given["train"], missing, config, len(class_names))
    elif missing and units is not None:
        cut = _cut_units(labels, groups, given["train"], units, missing, config, class_names)
    left = np.setdiff1d(given["train"], np.concatenate([np.arange(0), *cut.values()]))
    train = [_thinned(left[labels[left] == label], groups, label, config) for label in range(len(class_names))]
    parts = {**given, **cut, "train": np.concatenate(train)}
    return {name: np.sort(parts[name]).astype(np.int64) for name in SPLITS}


def check_coverage(splits: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Raise :class:`DataError` where a class has no picture in one of the splits, naming class and split."""
    for name, rows in splits.items():
        counts = np.bincount(labels[rows], minlength=len(class_names))
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            raise DataError(
                f"No picture in the {name} split for {_class_list(empty, class_names)}; every class needs at "
                "least one in each of train, val and test. Add pictures or leave the class out."
            )


def splits_to_json(splits: Mapping[str, np.ndarray], keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the splits as lists of picture keys, which a later run can reuse with :func:`splits_from_keys`."""
    return {name: [keys[row] for row in splits[name]] for name in SPLITS}


def splits_from_keys(saved: Mapping[str, Sequence[str]], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Find the rows of saved splits again, in the saved order.

    Args:
        saved: ``train``, ``val`` and ``test``, each a list of keys.
        keys: The table's keys as they are now.

    Raises:
        DataError: A key is no longer there, is listed twice, or a split is missing from ``saved``.
    """
    if set(saved) != set(SPLITS):
        raise DataError(
            f"The saved split must name exactly {', '.join(SPLITS)}; it names {printable(', '.join(saved)) or 'none'}."
        )
    row_of = {key: row for row, key in enumerate(keys)}
    listed = [key for name in SPLITS for key in saved[name]]
    gone = [key for key in listed if key not in row_of]
    if gone:
        raise DataError(
            f"The data changed since the split was saved: {printable(_some(gone))} cannot be found. "
            "Restore the pictures, or start a new run, which makes a new split."
        )
    twice = [key for key, count in Counter(listed).items() if count > 1]
    if twice:
        raise DataError(f"The saved split is damaged: {printable(_some(twice))} listed more than once.")
    return {name: np.array([row_of[key] for key in saved[name]], dtype=np.int64) for name in SPLITS}


def _cut_pictures(
    labels: np.ndarray,
    groups: np.ndarray | None,
    rows: np.ndarray,
    missing: Sequence[str],
    config: DataConfig,
    classes: int,
) -> dict[str, np.ndarray]:
    """Return the rows of each missing split, picture by picture."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in missing}
    for label in range(classes):
        rng = np.random.default_rng([config.data_seed, _SPLIT_STREAM, label])
        order = _stratified_order(rows[labels[rows] == label], groups, rng)
        for name, count in zip(missing, _cut_counts(len(order), missing, config), strict=True):
            parts[name].append(order[:count])
            order = order[count:]
    return {name: np.concatenate(part) for name, part in parts.items()}


def _cut_units(
    labels: np.ndarray,
    groups: np.ndarray | None,
    rows: np.ndarray,
    units: Units,
    missing: Sequence[str],
    config: DataConfig,
    class_names: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the rows of each missing split, whole units."""
    found = cut_by_unit(
        labels[rows],
        None if groups is None else groups[rows],
        Units(units.codes[rows], units.names),
        {name: _fractions(config)[name] for name in missing},
        class_names=class_names,
        seed=config.data_seed,
    )
    return {name: rows[places] for name, places in found.items()}


def _thinned(rows: np.ndarray, groups: np.ndarray | None, label: int, config: DataConfig) -> np.ndarray:
    """Return the share of a class's training rows that is used."""
    order = _stratified_order(rows, groups, np.random.default_rng([config.data_seed, _SAMPLE_STREAM, label]))
    return order[: _share_count(len(rows), config)]


def _fractions(config: DataConfig) -> dict[str, float]:
    return {"val": config.validation_fraction, "test": config.test_fraction}


def _stratified_order(rows: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Random order of one class's rows, every prefix of which holds each group in proportion.

    The picture of random rank r in a group of n is put at (r + u) / n, with one uniform u for each
    group: a prefix up to position t holds floor or ceil of t n of them, and a lone picture is as likely
    as any other to fall into it.
    """
    rows = rng.permutation(rows)
    if groups is None or not len(rows):
        return rows
    _, cell, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    by_cell = np.argsort(cell, kind="stable")
    rank = np.empty(len(rows), dtype=np.int64)
    rank[by_cell] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rows[np.argsort((rank + rng.random(len(sizes))[cell]) / sizes[cell], kind="stable")]


def _cut_counts(available: int, missing: Sequence[str], config: DataConfig) -> list[int]:
    """How many rows of a class go to each missing split; one row at least stays for each later one and training."""
    fractions = _fractions(config)
    counts: list[int] = []
    for place, name in enumerate(missing):
        room = available - sum(counts) - (len(missing) - place)
        counts.append(min(max(1, _rounded(available * fractions[name])), room))
    return counts


def _share_count(available: int, config: DataConfig) -> int:
    count = max(1, _rounded(available * config.sample_rate / 100))
    return count if config.per_class is None else min(count, config.per_class)


def _rounded(value: float) -> int:
    """Nearest integer, halves up, so that a larger share never gives fewer pictures."""
    return int(np.floor(value + 0.5))


def _check_columns(
    labels: np.ndarray,
    groups: np.ndarray | None,
    given_splits: np.ndarray | None,
    usable: np.ndarray | None,
    classes: int,
) -> None:
    for name, column in (("groups", groups), ("given_splits", given_splits), ("usable", usable)):
        if column is not None and column.shape != labels.shape:
            raise ValueError(f"{name} has shape {column.shape}, labels {labels.shape}; they must be the same")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}, but there are {classes} class names")
    if given_splits is not None and len(given_splits):
        low, high = given_splits.min(), given_splits.max()
        if low < 0 or high >= len(SPLITS):
            raise ValueError(f"split codes lie in {low}..{high}, but must be 0..{len(SPLITS) - 1}")


def _check_enough(
    labels: np.ndarray, given: Mapping[str, np.ndarray], missing: Sequence[str], class_names: Sequence[str]
) -> None:
    check_coverage({name: rows for name, rows in given.items() if name != "train"}, labels, class_names)
    needed = 1 + len(missing)
    counts = np.bincount(labels[given.get("train", np.arange(0))], minlength=len(class_names))
    short = np.flatnonzero(counts < needed)
    if len(short):
        uses = ["training", *({"val": "validation", "test": "testing"}[name] for name in missing)]
        purpose = " and ".join([", ".join(uses[:-1]), uses[-1]] if missing else uses)
        raise DataError(
            f"Too few pictures for {_class_list(short, class_names, counts)}: at least {needed} "
            f"{'is' if needed == 1 else 'are'} needed for {purpose}. Add pictures or leave the class out."
        )


def _class_list(indices: np.ndarray, class_names: Sequence[str], counts: np.ndarray | None = None) -> str:
    named = [
        f"class {class_names[index]!r}" + ("" if counts is None else f" ({counts[index]} usable)") for index in indices
    ]
    return _some(named)


def _some(items: Sequence[str]) -> str:
    rest = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
