"""Pictures that show the same plant, patient or place, and splits that do not part them.

Where several pictures show one thing, a split by single pictures asks the test about what training has seen, and its
accuracy is too good (Saeb et al., GigaScience 2017, "The need to approximate the use-case in clinical machine
learning": record-wise against subject-wise splits). What they show is a *unit* here.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from concept_tuning.config import UnitRule
from concept_tuning.data.printable import printable
from concept_tuning.errors import DataError

_UNIT_STREAM = 2
#: Random orders of the units that are tried, fewer of many pictures, whose orders differ less; the one that keeps
#: closest to the shares wins.
_TRIES, _FEWEST_TRIES, _TRIED = 30, 3, 6_000_000
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Units:
    """What each picture of a table shows.

    Attributes:
        codes: (N,) int64 indexing ``names``.
        names: The units, in words for the user.
    """

    codes: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str | None], keys: Sequence[str]) -> Units:
        """Return the units of N pictures.

        Args:
            names: Of the unit of each picture; None where it is by itself.
            keys: The pictures' own names.
        """
        of_name: dict[str, int] = {}
        found: list[str] = []
        codes = np.empty(len(names), dtype=np.int64)
        for row, name in enumerate(names):
            if name is None or name not in of_name:
                if name is not None:
                    of_name[name] = len(found)
                codes[row] = len(found)
                found.append(keys[row] if name is None else name)
            else:
                codes[row] = of_name[name]
        return cls(codes, tuple(found))

    def alone(self, rows: np.ndarray) -> bool:
        """Whether no two of some rows are of one unit."""
        return len(np.unique(self.codes[rows])) == len(rows)


def units_by_rule(rule: UnitRule, paths: Sequence[str]) -> Units | None:
    """Return the units that the pictures' paths tell; None where the rule leaves each picture by itself.

    Args:
        rule: ``folder``: pictures in one folder are of one unit. ``prefix``: pictures of one folder whose names begin
            alike, up to the last ``_``, ``-`` or blank, are, and go with one that is called just so, as ``leaf3 (1)``
            with ``leaf3``. A picture in no folder, or whose name is like no other, is by itself.
        paths: The N pictures' paths below their class folder, with ``/``; what is called alike in two classes is one.

    Raises:
        DataError: By the rule no two pictures are of one unit.
    """
    if rule not in _BY_RULE:
        return None
    names = _BY_RULE[rule](paths)
    found = Units.of(names, paths)
    if len(found.names) == len(paths):
        raise DataError(_NONE_TOGETHER[rule])
    return found


def partition(units: Units, rows: np.ndarray, keys: Sequence[str]) -> str | None:
    """Return a SHA-256 (hexadecimal) over which of some rows are of one unit, whatever the units are called.

    Args:
        units: Of the table.
        rows: The rows.
        keys: Of the table.

    Returns:
        The hash; None where no two of the rows are of one unit.
    """
    if units.alone(rows):
        return None
    digest, number = hashlib.sha256(), dict[int, int]()
    for row in sorted(rows.tolist(), key=keys.__getitem__):
        digest.update(json.dumps([keys[row], number.setdefault(int(units.codes[row]), len(number))]).encode() + b"\n")
    return digest.hexdigest()


def check_given(units: Units, given: Mapping[str, np.ndarray]) -> None:
    """Raise :class:`DataError` where splits that the data gives part a unit, naming it and the splits.

    Args:
        units: Of the table.
        given: By split, the rows that are in it.
    """
    side: dict[int, str] = {}
    for name, rows in given.items():
        for code in np.unique(units.codes[rows]).tolist():
            other = side.setdefault(code, name)
            if other != name:
                raise DataError(
                    f"Pictures of the unit {printable(units.names[code])!r} are in the {other} and the {name} split: "
                    "one asks about what the other has seen. Put them into one split, or give no units."
                )


def cut_by_unit(
    labels: np.ndarray,
    groups: np.ndarray | None,
    units: Units,
    shares: Mapping[str, float],
    *,
    class_names: Sequence[str],
    seed: int,
) -> dict[str, np.ndarray]:
    """Cut splits from pictures so that no unit is on two sides.

    The units are put in a random order. By it each side, training last, first gets a unit of each class that it lacks,
    the classes of the fewest units first. Then each class's other units (those with most of their pictures in it) make
    up the first split, as many as come closest to its share of their pictures, and so on; the rest is for training. Of
    several such orders that counts whose sides have every class and whose pictures of each class and group are closest
    to the shares.

    Args:
        labels: (N,) class indices.
        groups: (N,) group indices, or None.
        units: Of the N pictures.
        shares: Each split to cut, and its share of the pictures.
        class_names: The C names, for messages.
        seed: Of the orders.

    Returns:
        By split, the places of its pictures, 0..N-1.

    Raises:
        DataError: A class has too few units, or no order gives every side some pictures of every class.
    """
    classes = len(class_names)
    _, unit = np.unique(units.codes, return_inverse=True)
    pairs = _Pairs.of(unit, labels)
    _check_enough(pairs, unit, units, len(shares) + 1, class_names)
    cells = labels if groups is None else np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)[1].ravel()
    best: tuple[tuple[int, float], np.ndarray] | None = None
    for attempt in range(max(_FEWEST_TRIES, min(_TRIES, _TRIED // max(1, len(labels))))):
        rng = np.random.default_rng([seed, _UNIT_STREAM, attempt])
        code = _ordered_cut(pairs, list(shares.values()), rng, classes)[unit]
        fault = _fault(code, labels, cells, list(shares.values()), classes)
        if best is None or fault < best[0]:
            best = fault, code
    assert best is not None
    (lacking, _), code = best
    if lacking:
        raise DataError(
            "No split was found that gives training, validation and test pictures of every class without parting a "
            "unit; some have pictures of several classes. Add pictures of other units, or make the split yourself."
        )
    return {name: np.flatnonzero(code == place) for place, name in enumerate(shares, start=1)}


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The P pairs of a unit and a class that it has pictures of, by unit.

    Attributes:
        units: (P,) units, ascending.
        labels: (P,) classes.
        sizes: (U,) pictures of each unit.
        main: (U,) class of most pictures of each unit, the first of several.
        starts: (U + 1,) where in the pairs each unit begins.
    """

    units: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    main: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, unit: np.ndarray, labels: np.ndarray) -> _Pairs:
        classes = int(labels.max(initial=0)) + 1
        found, counts = np.unique(unit * classes + labels, return_counts=True)
        units, own = found // classes, found % classes
        starts = np.searchsorted(units, np.arange(int(unit.max(initial=-1)) + 2))
        most = np.lexsort((own, -counts, units))[starts[:-1]]
        return cls(units, own, np.bincount(unit), own[most], starts)


def _ordered_cut(pairs: _Pairs, shares: Sequence[float], rng: np.random.Generator, classes: int) -> np.ndarray:
    """Return the split of each unit, (U,) int64: 0 for training, else the place of its share from 1 on."""
    order = rng.permutation(len(pairs.sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    code = _first_units(pairs, rank, len(shares) + 1, classes)
    by_class = np.lexsort((rank, pairs.main))
    ends = np.cumsum(np.bincount(pairs.main, minlength=classes))
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        own = by_class[begin:end]
        free = own[code[own] < 0]
        upto = np.concatenate([[0], np.cumsum(pairs.sizes[free])])
        total, at = int(pairs.sizes[own].sum()), 0
        for place, share in enumerate(shares, start=1):
            lacking = share * total - int(pairs.sizes[own[code[own] == place]].sum())
            to = at + int(np.abs(upto[at:] - upto[at] - lacking).argmin())
            code[free[at:to]] = place
            at = to
    return np.maximum(code, 0)


def _first_units(pairs: _Pairs, rank: np.ndarray, sides: int, classes: int) -> np.ndarray:
    """Return (U,) int64: the side of the units by which every side has every class, as far as they go; else -1."""
    by_label = np.lexsort((rank[pairs.units], pairs.labels))
    counts = np.bincount(pairs.labels, minlength=classes)
    ends = np.cumsum(counts)
    code = np.full(len(pairs.sizes), -1, dtype=np.int64)
    has = np.zeros((sides, classes), dtype=bool)
    for label in np.argsort(counts, kind="stable").tolist():
        waiting = iter(pairs.units[by_label[ends[label] - counts[label] : ends[label]]].tolist())
        for side in (*range(1, sides), 0):
            while not has[side, label]:
                unit = next((one for one in waiting if code[one] < 0), None)
                if unit is None:
                    break
                code[unit] = side
                has[side, pairs.labels[pairs.starts[unit] : pairs.starts[unit + 1]]] = True
    return code


def _fault(
    code: np.ndarray, labels: np.ndarray, cells: np.ndarray, shares: Sequence[float], classes: int
) -> tuple[int, float]:
    """Return how many splits lack a class, and how far the counts of class and group are from the shares."""
    sides = len(shares) + 1
    found = np.bincount(code * classes + labels, minlength=sides * classes).reshape(sides, classes)
    several = int(cells.max()) + 1
    counts = np.bincount(code * several + cells, minlength=sides * several).reshape(sides, several)
    wanted = np.asarray([1 - sum(shares), *shares])[:, None] * counts.sum(0)
    return int(np.sum(found == 0)), float(np.sum((counts - wanted) ** 2 / np.maximum(counts.sum(0), 1)))


def _check_enough(pairs: _Pairs, unit: np.ndarray, units: Units, needed: int, class_names: Sequence[str]) -> None:
    """Raise DataError for classes of too few units."""
    counts = np.bincount(pairs.labels, minlength=len(class_names))
    short = np.flatnonzero(counts < needed)
    if len(short):
        named = ", ".join(f"class {class_names[label]!r} ({counts[label]})" for label in short[:_NAMED])
        rest = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        theirs = pairs.units[np.isin(pairs.labels, short)]
        largest = theirs[pairs.sizes[theirs].argmax()]
        name = units.names[int(units.codes[unit == largest][0])]
        raise DataError(
            f"Too few units for {named}{rest}: at least {needed} are needed, since the pictures of one stay in one "
            f"split. The largest is {printable(name)!r}; check that it is a single plant, patient or place."
        )


def _folders(paths: Sequence[str]) -> list[str | None]:
    return [posixpath.dirname(path) or None for path in paths]


def _prefixes(paths: Sequence[str]) -> list[str | None]:
    stems = [posixpath.splitext(path)[0] for path in paths]
    found = {stem: _before_mark(stem) for stem in stems}

    def unit(stem: str) -> str:
        prefix = found[stem]
        if prefix is None:
            return stem
        while (before := found.get(prefix)) is not None:  # "a_1_crop" goes with "a_1", which goes with "a"
            prefix = before
        return prefix

    return [unit(stem) for stem in stems]


def _before_mark(stem: str) -> str | None:
    """Return what of a path stands before the last mark of its name; None where there is no mark, or nothing."""
    folder, name = posixpath.split(stem)
    found = re.match(r"(.+)[ _-]", name, re.DOTALL)
    before = found[1].rstrip(" _-") if found else ""
    return posixpath.join(folder, before) if before else None


_BY_RULE: Mapping[str, Callable[[Sequence[str]], list[str | None]]] = {"folder": _folders, "prefix": _prefixes}
_NONE_TOGETHER = {
    "folder": "no class folder has folders with several pictures inside, by which units=folder tells what shows one "
    "plant or patient. Make such folders, or choose another rule.",
    "prefix": "no two names are alike up to their last _, - or blank, by which units=prefix tells what shows one plant "
    "or patient. Rename the pictures, or choose another rule.",
}
