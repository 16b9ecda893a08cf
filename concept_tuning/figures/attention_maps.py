"""What the two attentions of the front-door head read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.attention_maps import ChannelLinks, PositionMaps
from concept_tuning.figures.labels import escape, number, shorten
from concept_tuning.figures.style import SIGNED_SCALE, finish, overlay
from concept_tuning.figures.tiles import Box, Grid, Tile, add_boxes, tile_figure

#: Panels side by side.
_COLUMNS = 2


def position_figure(
    result: PositionMaps, key: str, image: np.ndarray, *, cells: Sequence[tuple[int, int]]
) -> go.Figure:
    """Draw a picture with query cells marked, the map of where each attends, and the mean of all cells' maps.

    Every map is coloured from its own least to its own greatest weight, which stand above it as multiples of
    even attention.

    Args:
        result: The position attention of pictures, this one among them.
        key: Name of the picture.
        image: (s, s, 3) uint8, the picture, at any size.
        cells: (row, column) of the query cells; up to five keep the figure small.

    Raises:
        IndexError: if there is no such cell.
    """
    place = result.keys.index(key)
    cell_grid = result.mean.shape[1:]
    marks = [_cell_box(cell, cell_grid, label=str(count)) for count, cell in enumerate(cells, start=1)]
    maps = [
        (
            f"<b>{count}</b> reads",
            f"where the cell in row {row}, column {column} attends",
            result.weights[place, row, column],
        )
        for count, (row, column) in enumerate(cells, start=1)
    ]
    maps.append(("mean", f"mean over all {cell_grid[0] * cell_grid[1]} query cells", result.mean[place]))
    grid = Grid(count=len(maps) + 1, lines=2)
    hover = f"{escape(key)}<br>{escape(result.run)}<br>scale of the attended features {number(result.gamma)}"
    title = f"<b>{shorten(result.run, 16)}</b><br>query {'cell' if len(cells) == 1 else 'cells'}"
    tiles = [_tile(grid, 0, key, image, title, hover)]
    for count, (heading, told, values) in enumerate(maps, start=1):
        low, high, even = float(values.min()), float(values.max()), 1 / values.size
        title = f"{heading}<br>{low / even:.2f}–{high / even:.2f} × even"
        hover = f"{told}<br>weights {number(low)} to {number(high)}, even {number(even)}"
        tiles.append(_tile(grid, count, key, overlay(image, values), title, hover))
    figure = tile_figure(tiles, width=grid.width, height=grid.height)
    add_boxes(figure, [(tiles[0], mark) for mark in marks] + list(zip(tiles[1:], marks, strict=False)))
    return figure


def channel_figure(results: Sequence[ChannelLinks], *, key: str | None = None) -> go.Figure:
    """Draw how much the channels of each concept read from those of each other one; one panel for each run.

    Colours tell multiples of even attention, and white is even; concepts are numbered from 1.

    Args:
        results: The channel attention of one or more runs.
        key: Name of a picture that each of them has; None: the mean over the pictures.
    """
    columns = min(len(results), _COLUMNS)
    rows = -(-len(results) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        horizontal_spacing=0.08,
        vertical_spacing=0.24 / rows,
        subplot_titles=[shorten(result.run, 16) for result in results],
    )
    for panel, result in enumerate(results):
        row, column = divmod(panel, columns)
        weights = result.mean if key is None else result.weights[result.keys.index(key)]
        names = [str(concept + 1) for concept in range(len(weights))]
        figure.add_heatmap(
            row=row + 1,
            col=column + 1,
            x=names,
            y=names,
            z=weights / result.even,
            customdata=weights,
            coloraxis="coloraxis",
            hovertemplate="concept %{y} reads from concept %{x}<br>%{z:.3f} times even attention<br>"
            f"weight %{{customdata:.3g}}, even {number(result.even)}<br>{escape(result.run)}, "
            f"{_pictures(result, key)}<extra></extra>",
            name=result.run,
        )
    finish(figure, size=80 + 300 * rows, legend=False)
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_text="read from", title_standoff=4, dtick=1)
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_yaxes(title_text=f"concept that reads ({_pictures(results[0], key)})", col=1)
    figure.update_layout(
        coloraxis={
            "colorscale": SIGNED_SCALE,
            "cmid": 1,
            "colorbar": {"title": {"text": "× even", "side": "top"}, "thickness": 12},
        }
    )
    return figure


def _tile(grid: Grid, place: int, key: str, image: np.ndarray, title: str, hover: str) -> Tile:
    left, top = grid.corner(place)
    return Tile(key=key, image=image, left=left, top=top, title=title, hover=hover)


def _cell_box(cell: tuple[int, int], grid: tuple[int, ...], *, label: str) -> Box:
    row, column = cell
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise IndexError(f"there is no cell {cell} in a map of {grid[0]} by {grid[1]}")
    corners = (column / grid[1], row / grid[0], (column + 1) / grid[1], (row + 1) / grid[0])
    return Box(corners=corners, label=label, hover=f"query cell {label}: row {row}, column {column}")


def _pictures(result: ChannelLinks, key: str | None) -> str:
    return f"mean of n = {len(result.keys)}" if key is None else shorten(key)
