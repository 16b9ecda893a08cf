from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.guess import cell_masses, score_guess

CORNER = np.zeros((6, 6))
CORNER[:2, :2] = 1
CORNER[4, 4] = 4


def test_a_cell_holds_the_pixels_whose_middles_lie_in_it() -> None:
    assert cell_masses(CORNER, (3, 3)).tolist() == [[4, 0, 0], [0, 0, 0], [0, 0, 4]]
    # Seven pixels on two cells: the middle one belongs to the second.
    assert cell_masses(np.ones((7, 1)), (2, 1)).tolist() == [[3], [4]]
    # A map coarser than the grid leaves cells empty, and loses nothing.
    assert cell_masses(np.ones((2, 2)), (4, 4)).sum() == 4


def test_the_share_of_the_marked_cells_stands_beside_chance_and_the_best() -> None:
    score = score_guess(CORNER, [(0, 0), (1, 1)], (3, 3))
    assert score is not None
    assert (score.marked, score.share, score.best) == (2, 0.5, 1.0)
    assert score.chance == pytest.approx(2 / 9)
    assert score.points == pytest.approx(100 * (0.5 - 2 / 9) / (1 - 2 / 9))
    assert score.on_object is None


def test_chance_is_what_random_cells_hold_in_the_mean() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((64, 64))
    shares, points = [], []
    for _ in range(2000):
        picked = generator.choice(36, size=3, replace=False)
        score = score_guess(values, [divmod(int(cell), 6) for cell in picked], (6, 6))
        assert score is not None
        shares.append(score.share)
        points.append(score.points)
    assert np.mean(shares) == pytest.approx(score.chance, rel=0.01)
    assert abs(np.mean(points)) < 3


def test_the_brightest_cells_get_a_hundred_and_darker_than_chance_is_below_nothing() -> None:
    assert score_guess(CORNER, [(0, 0), (2, 2)], (3, 3)).points == pytest.approx(100)
    assert score_guess(CORNER, [(0, 1)], (3, 3)).points < 0


def test_an_even_map_is_no_one_s_merit() -> None:
    assert score_guess(np.ones((6, 6)), [(0, 0)], (3, 3)).points == 0


def test_marks_on_the_object_are_counted_at_any_size_of_the_mask() -> None:
    mask = np.zeros((12, 12), bool)
    mask[3, 3] = True  # in the first cell of three
    assert score_guess(CORNER, [(0, 0), (0, 1), (2, 2)], (3, 3), mask=mask).on_object == 1


@pytest.mark.parametrize("values", [np.zeros((6, 6)), np.full((6, 6), np.nan)])
def test_a_blank_map_has_no_score(values) -> None:
    assert score_guess(values, [(0, 0)], (3, 3)) is None


@pytest.mark.parametrize("cells", [[], [(0, 0), (0, 0)], [(3, 0)], [(0, -1)]])
def test_wrong_cells_are_refused(cells) -> None:
    with pytest.raises(ValueError, match="cells must"):
        score_guess(CORNER, cells, (3, 3))
