"""How the answers of two runs to one picture differ, as numbers and in plain words."""

from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.given_picture import GivenAnswer

#: Shared mass of two maps above and below which they are said to look at the same or at different places.
SAME_PLACE, OTHER_PLACE = 0.75, 0.5
#: A map of which no ninth has so many times the mean has no place of its own, and what is then said.
FLAT, EVERYWHERE = 1.2, "whole picture"
_ROWS, _COLUMNS = ("upper", "", "lower"), ("left", "", "right")


def same_classes(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two runs know the same classes, in whatever order."""
    return set(a) == set(b)


def agreement(a: GivenAnswer, b: GivenAnswer) -> bool | None:
    """Whether two runs say the same class; None where they do not know the same classes."""
    return a.top == b.top if same_classes(a.class_names, b.class_names) else None


def shared_mass(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the share 0..1 of their mass that two maps (h, w) >= 0 have in common; None if one is blank.

    The intersection of two histograms (Swain and Ballard, 1991, equation 1) whose sums are 1.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"maps must have one shape, got {a.shape} and {b.shape}")
    if not (a.any() and b.any()):
        return None
    first, second = a.astype(np.float64), b.astype(np.float64)
    return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def place_in_words(values: np.ndarray) -> str:
    """Say in which ninth of the picture a map (h, w) is strongest; empty for a blank map.

    The ninth with the greatest mean, not the one with the peak, which may be a single cell; :data:`EVERYWHERE` where
    even that is hardly above the mean of all.
    """
    if not values.any():
        return ""
    thirds = [[part.mean() for part in np.array_split(row, 3, axis=1)] for row in np.array_split(values, 3, axis=0)]
    if np.max(thirds) < FLAT * values.mean():
        return EVERYWHERE
    row, column = np.unravel_index(int(np.argmax(thirds)), (3, 3))
    words = f"{_ROWS[row]} {_COLUMNS[column]}".strip()
    if not words:
        return "middle"
    return words if " " in words else {"upper": "top", "lower": "bottom"}.get(words, f"{words} side")


def what_differs(a: GivenAnswer, b: GivenAnswer, map_name: str) -> str:
    """Say in one or two sentences what two runs answer and where they look; names are as they are, not escaped.

    Args:
        a: The first run's view of a picture.
        b: The second's of the same picture.
        map_name: Which map tells where they look; both have it.
    """
    return f"{_answers(a, b)} {_places(a, b, map_name)}"


def _answers(a: GivenAnswer, b: GivenAnswer) -> str:
    first, second = (f"{100 * answer.ranking[0][1]:.0f} %" for answer in (a, b))
    agree = agreement(a, b)
    if agree:
        return f"Both say {a.top} ({first} and {second})."
    said = f"{a.run} says {a.top} ({first}), {b.run} says {b.top} ({second})"
    if agree is False:
        return f"They disagree: {said}."
    common = len(set(a.class_names) & set(b.class_names))
    known = f"{common} known to both" if common else "none known to both"
    return f"{said}. They were trained on different classes ({known}), so whether they agree cannot be said."


def _places(a: GivenAnswer, b: GivenAnswer, map_name: str) -> str:
    first, second = a.maps[map_name], b.maps[map_name]
    places = place_in_words(first), place_in_words(second)
    common = shared_mass(first, second)
    if common is None:
        blank = " and ".join(answer.run for answer, place in zip((a, b), places, strict=True) if not place)
        return f"The {map_name} map of {blank} is blank: it points at nothing."
    share = f"their {map_name} maps have {100 * common:.0f} % in common"
    where = f"{_looks(a.run, places[0])}, {_looks(b.run, places[1])}"
    if places[0] == places[1]:
        where = "Both look at the whole picture" if places[0] == EVERYWHERE else f"Both look most at the {places[0]}"
    if common >= SAME_PLACE:
        return (
            f"They look at the same place, the {places[0]}: {share}."
            if places[0] == places[1]
            else (f"They look at much the same ({share}); {where}.")
        )
    return f"They look at different places: {where}; {share}." if common < OTHER_PLACE else f"{where}; {share}."


def _looks(run: str, place: str) -> str:
    return f"{run} looks at the {place}" if place == EVERYWHERE else f"{run} looks most at the {place}"
