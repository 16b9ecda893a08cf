"""A picture whose cells can be clicked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.figures.labels import escape
from concept_tuning.figures.style import COLOURS
from concept_tuning.figures.tiles import BOX, EDGE, Box, Tile, add_boxes, tile_figure

#: Colour of a marked cell, darker than that of a patch to any eye.
MARKED = COLOURS[1]
#: Points that take the click, in pixels.
_POINT = 20


def cell_figure(
    key: str,
    image: np.ndarray,
    grid: tuple[int, int],
    *,
    marked: Sequence[tuple[int, int]] = (),
    patches: Sequence[tuple[tuple[float, float, float, float], str]] = (),
    page: int = 360,
) -> go.Figure:
    """Draw a picture with a grid over it; a click anywhere chooses the nearest cell's point.

    The customdata of a point are its row and its column, counted from 0.

    Args:
        key: Name of the picture.
        image: (s, s, 3) uint8, at any size.
        grid: Rows and columns.
        marked: (row, column) of cells that are framed and numbered.
        patches: Dashed rectangles (x1, y1, x2, y2) in shares of the picture, each with what stands beside it.
        page: Largest side of the picture in pixels.
    """
    rows, columns = grid
    tile = Tile(key=key, image=image, left=0, top=0)
    figure = tile_figure([tile], width=1, height=1, page=page)
    figure.data = [trace for trace in figure.data if trace.name != "pictures"]
    _add_lines(figure, grid)
    add_boxes(figure, [(tile, Box(corners=at, label=label, colour=BOX, dash="dash")) for at, label in patches])
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    shown = [
        Box(
            corners=(column / columns, row / rows, (column + 1) / columns, (row + 1) / rows),
            label=str(count) if len(marked) > 1 else "",
            colour=MARKED,
        )
        for count, (row, column) in enumerate(marked, start=1)
    ]
    add_boxes(figure, [(tile, box) for box in shown], width=4)
    figure.add_scatter(
        x=[(column + 0.5) / columns for _, column in cells],
        y=[(row + 0.5) / rows for row, _ in cells],
        mode="markers",
        marker={"opacity": 0, "size": _POINT, "color": MARKED},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=[list(cell) for cell in cells],
        text=[f"row {row + 1}, column {column + 1}<br>{escape(key)}" for row, column in cells],
        hovertemplate="%{text}<extra></extra>",
        name="cells",
        showlegend=False,
    )
    figure.update_layout(hovermode="closest", hoverdistance=-1, dragmode=False, clickmode="event+select")
    figure.update_layout(height=page + 16)
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure


def _add_lines(figure: go.Figure, grid: tuple[int, int]) -> None:
    """Draw the lines between cells, dark below light, so that they tell on any picture."""
    rows, columns = grid
    x: list[float | None] = []
    y: list[float | None] = []
    for column in range(1, columns):
        x += [column / columns, column / columns, None]
        y += [0, 1, None]
    for row in range(1, rows):
        x += [0, 1, None]
        y += [row / rows, row / rows, None]
    for colour, width in ((EDGE, 2.0), ("#FFFFFF", 1.0)):
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": colour, "width": width},
            opacity=0.55,
            hoverinfo="skip",
            showlegend=False,
            name="lines",
        )
