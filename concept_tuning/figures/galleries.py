"""Thumbnails in a grid: the pictures that a result speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.labels import shorten
from concept_tuning.figures.style import finish
from concept_tuning.figures.tiles import Box, Grid, Tile, add_boxes, tile_figure

#: Width of the page in pixels from which on thumbnails grow no more.
_PAGE = 460


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of a gallery.

    Attributes:
        key: Its name.
        title: Above it, ready-made; lines are parted by ``<br>``.
        hover: Shown on hover, ready-made.
        boxes: On it.
    """

    key: str
    title: str
    hover: str
    boxes: tuple[Box, ...] = ()


def gallery(entries: Sequence[Entry], thumbnails: Thumbnails, *, most: int) -> go.Figure:
    """Draw the first ``most`` pictures that have a thumbnail; the customdata are their keys."""
    shown = [entry for entry in entries if entry.key in thumbnails][:most]
    if not shown:
        return _empty()
    grid = Grid(count=len(shown), lines=1 + max(entry.title.count("<br>") for entry in shown))
    tiles = []
    for place, entry in enumerate(shown):
        left, top = grid.corner(place)
        image = thumbnails.image(entry.key)
        tiles.append(Tile(key=entry.key, image=image, left=left, top=top, title=entry.title, hover=entry.hover))
    figure = tile_figure(tiles, width=grid.width, height=grid.height, page=_PAGE)
    add_boxes(figure, [(tile, box) for tile, entry in zip(tiles, shown, strict=True) for box in entry.boxes])
    return figure


def class_name(thumbnails: Thumbnails, key: str, class_names: Sequence[str], length: int = 16) -> str:
    """Return the class of a thumbnail, cut to fit; empty without class names or without the thumbnail."""
    if not class_names or key not in thumbnails:
        return ""
    return shorten(class_names[int(thumbnails.labels[thumbnails.keys.index(key)])], length)


def _empty() -> go.Figure:
    figure = finish(go.Figure(), size=120, legend=False)
    figure.add_annotation(text="no pictures to show", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
