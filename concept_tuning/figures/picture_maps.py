"""Attribution maps of a picture side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from concept_tuning.figures.labels import escape, number, shorten
from concept_tuning.figures.style import overlay
from concept_tuning.figures.tiles import Grid, Tile, tile_figure


def maps_strip(key: str, image: np.ndarray, maps: Mapping[str, np.ndarray], *, title: str = "picture") -> go.Figure:
    """Draw a picture and each of its maps laid over it, coloured from its own least to its own greatest value.

    Args:
        key: Name of the picture.
        image: (s, s, 3) uint8, the picture, at any size.
        maps: (h, w) >= 0 by name of the method; a map that is 0 everywhere is called blank and not laid on.
        title: Of the picture itself, such as its class.
    """
    grid = Grid(count=1 + len(maps), lines=1)
    tiles = [_tile(grid, 0, key, image, shorten(title), escape(f"{key}: {title}"))]
    for name, values in maps.items():
        blank = not (np.isfinite(values).all() and (values > 0).any())
        shown = image if blank else overlay(image, values)
        label = shorten(name, 13 if blank else 20) + (" (blank)" if blank else "")
        told = (
            "the map is blank: it points at nothing"
            if blank
            else f"values {number(float(values.min()))} to {number(float(values.max()))}"
        )
        tiles.append(_tile(grid, len(tiles), key, shown, label, f"{escape(name)}<br>{told}<br>{escape(key)}"))
    return tile_figure(tiles, width=grid.width, height=grid.height)


def _tile(grid: Grid, place: int, key: str, image: np.ndarray, title: str, hover: str) -> Tile:
    left, top = grid.corner(place)
    return Tile(key=key, image=image, left=left, top=top, title=title, hover=hover)
