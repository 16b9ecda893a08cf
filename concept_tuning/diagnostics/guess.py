"""How well someone marks, before seeing it, where an attribution map is bright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class GuessScore:
    """Marked cells of a picture against a map of it.

    Attributes:
        marked: Number k of marked cells.
        share: Share of the map's mass in them, 0..1.
        chance: What k cells drawn at random hold in the mean, k over the number of cells.
        best: What the k brightest cells hold.
        on_object: How many marked cells touch the object; None without a mask of it.
    """

    marked: int
    share: float
    chance: float
    best: float
    on_object: int | None

    @property
    def points(self) -> float:
        """0 for what random cells hold, 100 for the brightest ones; below 0 for cells darker than chance."""
        room = self.best - self.chance
        return 100 * (self.share - self.chance) / room if room > 1e-9 else 0.0


def cell_masses(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the sum of a map (h, w) in each cell of a grid, (rows, columns) float64; pixels go by their middles."""
    rows, columns = grid
    row = ((np.arange(values.shape[0]) + 0.5) * rows / values.shape[0]).astype(int)
    column = ((np.arange(values.shape[1]) + 0.5) * columns / values.shape[1]).astype(int)
    found = np.zeros(grid)
    np.add.at(found, (row[:, None], column[None, :]), values)
    return found


def score_guess(
    values: np.ndarray, cells: Sequence[tuple[int, int]], grid: tuple[int, int], *, mask: np.ndarray | None = None
) -> GuessScore | None:
    """Score marked cells against a map.

    Args:
        values: (h, w) >= 0.
        cells: (row, column) of the marked cells, at least one, each once.
        grid: Rows and columns of the grid.
        mask: (S, S) bool, where the object is.

    Returns:
        The score; None for a map that is 0 everywhere or not finite, which points at nothing.

    Raises:
        ValueError: if no cell is marked, one twice, or one that is not there.
    """
    rows, columns = grid
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"cells must be at least one, each once, got {list(cells)}")
    if any(not (0 <= row < rows and 0 <= column < columns) for row, column in cells):
        raise ValueError(f"cells must lie in a grid of {rows} by {columns}, got {list(cells)}")
    masses = cell_masses(values, grid)
    total = float(masses.sum())
    if not np.isfinite(total) or total <= 0:
        return None
    shares = masses / total
    marked = tuple(np.array(cells).T)
    return GuessScore(
        marked=len(cells),
        share=float(shares[marked].sum()),
        chance=len(cells) / shares.size,
        best=float(np.sort(shares, axis=None)[-len(cells) :].sum()),
        on_object=None if mask is None else int((cell_masses(mask, grid)[marked] > 0).sum()),
    )
