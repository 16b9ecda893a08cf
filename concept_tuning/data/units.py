"""Pictures that show the same plant, patient or place, and splits that do not part them.

Where several pictures show one thing, a split by single pictures asks the test about what training has seen, and its
accuracy is too good (Saeb et al., GigaScience 2017, "The need to approximate the use-case in clinical machine
learning": record-wise against subject-wise splits). What they show is a *unit* here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from concept_tuning.config import UnitRule
from concept_tuning.data.printable import printable
from concept_tuning.errors import DataError

_UNIT_STREAM = 2
#: Random orders of the units that are tried; the one that keeps closest to the shares wins.
_TRIES = 30
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


def units_by_rule(rule: UnitRule, paths: Sequence[str]) -> Units | None:
    """Return the units that the pictures' paths tell; None where the rule leaves each picture by itself.

    Args:
        rule: ``folder``: pictures in one folder are of one unit. ``prefix``: pictures of one folder whose names begin
            alike, up to the last ``_``, ``-`` or blank, are. A picture in no folder, or without such a mark in its
            name, is a unit of its own.
        paths: The N pictures' paths below their class folder, with ``/``.

    Raises:
        DataError: By the rule no two pictures are of one unit.
    """
    if rule == "listed":
        return None
    found = Units.of([_BY_RULE[rule](path) for path in paths], paths)
    if len(found.names) == len(paths):
        raise DataError(_NONE_TOGETHER[rule])
    return found


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

    The units of a class (that of most of their pictures) are put in a random order. The first of them make up the first
    split, as many as come closest to its share of their pictures, and so on; each split and training get one at least.
    Of several such orders that counts whose splits have every class and whose pictures of each class and group are
    closest to the shares.

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
        DataError: A class has too few units, or no order leaves every split some pictures of every class.
    """
    classes = len(class_names)
    _, unit = np.unique(units.codes, return_inverse=True)
    of_class = np.zeros((int(unit.max(initial=-1)) + 1, classes), dtype=np.int64)
    np.add.at(of_class, (unit, labels), 1)
    _check_enough(of_class, units, len(shares) + 1, class_names)
    cells = labels if groups is None else np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)[1].ravel()
    best: tuple[tuple[int, float], np.ndarray] | None = None
    for attempt in range(_TRIES):
        code = _ordered_cut(of_class, list(shares.values()), (seed, _UNIT_STREAM, attempt))[unit]
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


def _ordered_cut(of_class: np.ndarray, shares: Sequence[float], seed: Sequence[int]) -> np.ndarray:
    """Return the split of each unit, (U,) int64: 0 for training, else the place of its share from 1 on."""
    main, sizes = of_class.argmax(1), of_class.sum(1)
    code = np.zeros(len(of_class), dtype=np.int64)
    for label in np.unique(main):
        order = np.random.default_rng([*seed, int(label)]).permutation(np.flatnonzero(main == label))
        upto = np.concatenate([[0], np.cumsum(sizes[order])])
        begin = 0
        for place, share in enumerate(shares, start=1):
            # one at least, and one is left for training and each later split; fewer where there are too few
            last = max(begin, len(order) - (len(shares) - place) - 1)
            ends = np.arange(min(begin + 1, last), last + 1)
            end = int(ends[np.abs(upto[ends] - upto[begin] - share * upto[-1]).argmin()])
            code[order[begin:end]] = place
            begin = end
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


def _check_enough(of_class: np.ndarray, units: Units, needed: int, class_names: Sequence[str]) -> None:
    """Raise DataError for classes of too few units."""
    counts = (of_class > 0).sum(0)
    short = np.flatnonzero(counts < needed)
    if len(short):
        named = ", ".join(f"class {class_names[label]!r} ({counts[label]})" for label in short[:_NAMED])
        rest = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        largest = units.names[int(np.bincount(units.codes).argmax())]
        raise DataError(
            f"Too few units for {named}{rest}: at least {needed} are needed, since the pictures of one stay in one "
            f"split. The largest is {printable(largest)!r}; check that it is a single plant, patient or place."
        )


def _folder(path: str) -> str | None:
    return posixpath.dirname(path) or None


def _prefix(path: str) -> str | None:
    folder, name = posixpath.split(path)
    found = re.match(r"(.+)[ _-]", posixpath.splitext(name)[0])
    return posixpath.join(folder, found[1].rstrip(" _-")) if found and found[1].strip(" _-") else None


_BY_RULE = {"folder": _folder, "prefix": _prefix}
_NONE_TOGETHER = {
    "folder": "no class folder has folders with several pictures inside, by which units=folder tells what shows one "
    "plant or patient. Make such folders, or choose another rule.",
    "prefix": "no two names are alike up to their last _, - or blank, by which units=prefix tells what shows one plant "
    "or patient. Rename the pictures, or choose another rule.",
}
