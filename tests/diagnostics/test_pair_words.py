"""How two answers differ: shared mass against closed forms, places of known maps, sentences for each case."""

from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.given_picture import GivenAnswer
from concept_tuning.diagnostics.pair import EVERYWHERE, agreement, place_in_words, shared_mass, what_differs


def _answer(run: str, shares: dict[str, float], values: np.ndarray) -> GivenAnswer:
    return GivenAnswer(
        run=run,
        class_names=tuple(shares),
        probabilities=np.array(list(shares.values()), np.float32),
        view=np.zeros((8, 8, 3), np.uint8),
        maps={"grad-cam": values},
        boxes=np.zeros((1, 4), np.float32),
        switched={},
        switch_maps={},
    )


def _spot(row: int, column: int) -> np.ndarray:
    values = np.zeros((9, 9), np.float32)
    values[row * 3 : row * 3 + 3, column * 3 : column * 3 + 3] = 1
    return values


def test_shared_mass_in_closed_forms() -> None:
    flat = np.ones((4, 4))
    half = np.repeat([[1.0], [1.0], [0.0], [0.0]], 4, axis=1)
    assert shared_mass(flat, 7 * flat) == pytest.approx(1)
    assert shared_mass(flat, half) == pytest.approx(0.5)
    assert shared_mass(half, half[::-1]) == 0
    assert shared_mass(flat, 0 * flat) is None
    with pytest.raises(ValueError, match="one shape"):
        shared_mass(flat, np.ones((2, 2)))


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "upper left"),
        (0, 1, "top"),
        (0, 2, "upper right"),
        (1, 0, "left side"),
        (1, 1, "middle"),
        (1, 2, "right side"),
        (2, 0, "lower left"),
        (2, 1, "bottom"),
        (2, 2, "lower right"),
    ],
)
def test_the_ninth_with_the_most_is_named(row: int, column: int, words: str) -> None:
    assert place_in_words(_spot(row, column)) == words


def test_a_blank_map_has_no_place_and_a_flat_one_is_everywhere() -> None:
    assert place_in_words(np.zeros((6, 6))) == ""
    assert place_in_words(np.ones((64, 64))) == EVERYWHERE
    rows, columns = np.mgrid[0:64, 0:64] - 31.5
    assert place_in_words(np.exp(-(rows**2 + columns**2) / (2 * 200**2))) == EVERYWHERE
    assert place_in_words(np.exp(-(rows**2 + columns**2) / (2 * 15**2))) == "middle"


def test_sentences() -> None:
    a = _answer("one", {"cat": 0.9, "dog": 0.1}, _spot(0, 0))
    same = _answer("two", {"dog": 0.3, "cat": 0.7}, _spot(0, 0))
    other = _answer("two", {"cat": 0.2, "dog": 0.8}, _spot(2, 2))
    blank = _answer("two", {"cat": 0.2, "dog": 0.8}, 0 * _spot(0, 0))
    birds = _answer("two", {"gull": 0.8, "dog": 0.2}, _spot(0, 0))
    assert what_differs(a, same, "grad-cam") == (
        "Both say cat (90 % and 70 %). They look at the same place, the upper left: their grad-cam maps have 100 % in "
        "common."
    )
    assert what_differs(a, other, "grad-cam") == (
        "They disagree: one says cat (90 %), two says dog (80 %). They look at different places: one looks most at the "
        "upper left, two looks most at the lower right; their grad-cam maps have 0 % in common."
    )
    assert "The grad-cam map of two is blank" in what_differs(a, blank, "grad-cam")
    assert "cannot be said" in what_differs(a, birds, "grad-cam")
    flat = _answer("two", {"cat": 0.2, "dog": 0.8}, np.ones((9, 9)))
    assert "two looks at the whole picture" in what_differs(a, flat, "grad-cam")
    assert [agreement(a, one) for one in (same, other, birds)] == [True, False, None]
