"""Figures made of pictures: square tiles on a plane whose unit is the side of a tile, with boxes and titles.

All tiles lie on one pair of axes, so that they keep their aspect and shrink together on a narrow page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from concept_tuning.figures.style import finish

#: Between tiles, in sides of a tile.
GAP = 0.1
#: Colour of a box and of the line around it, which tell on any picture.
BOX, EDGE = "#FFE14D", "#000000"

_TITLE_SIZE = 11
#: Width in pixels of the page that the height of a figure is meant for, and the largest side of a tile there.
_PAGE, _LARGEST = 720, 280
#: Lines of a title that would fit one above the other into the width of the narrowest page.
_LINES = 25
_HEIGHTS = (180, 1600)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tile:
    """A square picture on the plane.

    Attributes:
        key: Name of the picture; the customdata of the tile.
        image: (s, s, 3) uint8 RGB, or None for an empty tile.
        left: Its left edge, in sides of a tile.
        top: Its upper edge, growing downwards.
        side: Its side.
        title: Above it; lines are parted by ``<br>``.
        hover: Shown on hover.
    """

    key: str
    image: np.ndarray | None
    left: float
    top: float
    side: float = 1.0
    title: str = ""
    hover: str = ""

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point given in shares 0..1 of the picture lies on the plane."""
        return self.left + self.side * x, self.top + self.side * y


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle on a tile.

    Attributes:
        corners: x1, y1, x2, y2 in shares 0..1 of the picture.
        label: Beside its upper left corner; may be empty.
        hover: Shown on hover over its middle; may be empty.
        colour: Of its line.
        dash: Kind of its line, by Plotly's name.
    """

    corners: tuple[float, float, float, float]
    label: str = ""
    hover: str = ""
    colour: str = BOX
    dash: str = "solid"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where ``count`` tiles of side 1 lie, three in a row or two if that leaves none alone."""

    count: int
    lines: int

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return min(self.count, 2 if self.count == 4 else 3)

    @property
    def width(self) -> float:
        """Of the plane."""
        return self.columns * (1 + GAP) - GAP

    @property
    def height(self) -> float:
        """Of the plane."""
        return -(-self.count // self.columns) * self._pitch

    @property
    def _pitch(self) -> float:
        return 1 + GAP + title_height(self.width, self.lines)

    def corner(self, place: int) -> tuple[float, float]:
        """Return the left and upper edges of a tile."""
        row, column = divmod(place, self.columns)
        return column * (1 + GAP), row * self._pitch + title_height(self.width, self.lines)


def title_height(width: float, lines: int) -> float:
    """Return what to leave above a tile for its title, so that it fits on a narrow page too.

    Args:
        width: Of the whole plane, in sides of a tile.
        lines: Of the title.
    """
    return lines * width / _LINES


def tile_figure(tiles: Sequence[Tile], *, width: float, height: float, page: int = _PAGE) -> go.Figure:
    """Lay tiles on a plane of ``width`` by ``height`` sides of a tile.

    The trace ``pictures`` has a point in the middle of each tile, with its key as customdata. ``layout.meta["fit"]``
    is how high the plane is for its width, since the figure's own height is for a page of width ``page`` and more.

    Args:
        tiles: The pictures.
        width: Of the plane.
        height: Of the plane.
        page: Width of the page in pixels from which on tiles grow no more.
    """
    figure = go.Figure([_picture(tile) for tile in tiles if tile.image is not None])
    figure.add_scatter(
        x=[tile.left + tile.side / 2 for tile in tiles],
        y=[tile.top + tile.side / 2 for tile in tiles],
        mode="markers",
        marker={"opacity": 0, "size": 48, "color": "#FFFFFF"},
        customdata=[tile.key for tile in tiles],
        text=[tile.hover for tile in tiles],
        hovertemplate="%{text}<extra></extra>",
        name="pictures",
        showlegend=False,
    )
    _annotate(
        figure,
        [
            {
                "x": tile.left + tile.side / 2,
                "y": tile.top,
                "text": tile.title,
                "showarrow": False,
                "yanchor": "bottom",
                "font": {"size": _TITLE_SIZE},
            }
            for tile in tiles
            if tile.title
        ],
    )
    empty = [tile for tile in tiles if tile.image is None]
    add_boxes(figure, [(tile, Box(corners=(0, 0, 1, 1), label="not kept", colour="#BBBBBB")) for tile in empty])
    pixels = int(np.clip(height * min(page / width, _LARGEST), *_HEIGHTS))
    finish(figure, size=pixels, legend=False)
    figure.update_layout(margin={"l": 4, "r": 4, "t": 8, "b": 8}, hoverdistance=24, plot_bgcolor="rgba(0,0,0,0)")
    figure.update_layout(meta={"fit": height / width})
    figure.update_xaxes(range=[0, width], visible=False, constrain="domain")
    figure.update_yaxes(
        range=[height, 0],
        visible=False,
        scaleanchor="x",
        constrain="domain",
        constraintoward="top",
    )
    return figure


def add_boxes(figure: go.Figure, boxes: Sequence[tuple[Tile, Box]], *, width: float = 2) -> None:
    """Draw boxes on tiles, one trace for each colour and kind of line, ``width`` pixels wide."""
    for colour, dash in dict.fromkeys((box.colour, box.dash) for _, box in boxes):
        x, y = _outlines([(tile, box) for tile, box in boxes if (box.colour, box.dash) == (colour, dash)])
        for line in ({"color": EDGE, "width": width + 2}, {"color": colour, "width": width, "dash": dash}):
            figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    _add_box_labels(figure, boxes)
    told = [(tile, box) for tile, box in boxes if box.hover]
    if told:
        middles = [
            tile.place((box.corners[0] + box.corners[2]) / 2, (box.corners[1] + box.corners[3]) / 2)
            for tile, box in told
        ]
        figure.add_scatter(
            x=[x for x, _ in middles],
            y=[y for _, y in middles],
            mode="markers",
            marker={"opacity": 0, "size": 24, "color": "#FFFFFF"},
            customdata=[tile.key for tile, _ in told],
            text=[box.hover for _, box in told],
            hovertemplate="%{text}<extra></extra>",
            name="boxes",
            showlegend=False,
        )


def merge_equal(boxes: np.ndarray) -> list[tuple[tuple[float, float, float, float], list[int]]]:
    """Return the different ones among (P, 4) boxes, each with the places of those equal to it.

    Concepts often have their peak in the same cell; their boxes then lie on each other.
    """
    found: dict[tuple[float, ...], list[int]] = {}
    for place, box in enumerate(np.asarray(boxes, dtype=float).round(3).tolist()):
        found.setdefault(tuple(box), []).append(place)
    return [((box[0], box[1], box[2], box[3]), places) for box, places in found.items()]


def numbers_label(places: Sequence[int]) -> str:
    """Return the numbers, from 1, of increasing places from 0; three and more in a row as a range: ``1–4 7``."""
    parts: list[list[int]] = []
    for place in places:
        if parts and place == parts[-1][-1] + 1:
            parts[-1].append(place)
        else:
            parts.append([place])
    return " ".join(
        f"{part[0] + 1}–{part[-1] + 1}" if len(part) > 2 else " ".join(str(place + 1) for place in part)
        for part in parts
    )


def _picture(tile: Tile) -> go.Image:
    image = np.asarray(tile.image)
    step = tile.side / image.shape[1], tile.side / image.shape[0]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="PNG")
    return go.Image(
        source="data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        # Places are those of the middles of pixels.
        x0=tile.left + step[0] / 2,
        y0=tile.top + step[1] / 2,
        dx=step[0],
        dy=step[1],
        zsmooth="fast",
        hoverinfo="skip",
        name=tile.key,
    )


def _outlines(boxes: Sequence[tuple[Tile, Box]]) -> tuple[list[float | None], list[float | None]]:
    x: list[float | None] = []
    y: list[float | None] = []
    for tile, box in boxes:
        left, top = tile.place(*box.corners[:2])
        right, bottom = tile.place(*box.corners[2:])
        x += [left, right, right, left, left, None]
        y += [top, top, bottom, bottom, top, None]
    return x, y


def _add_box_labels(figure: go.Figure, boxes: Sequence[tuple[Tile, Box]]) -> None:
    labels = []
    for tile, box in boxes:
        if box.label:
            x, y = tile.place(*box.corners[:2])
            labels.append(
                {
                    "x": x,
                    "y": y,
                    "text": box.label,
                    "showarrow": False,
                    "xanchor": "left",
                    "yanchor": "top",
                    "font": {"size": 10, "color": "#000000"},
                    "bgcolor": "#FFFFFF",
                    "bordercolor": box.colour,
                    "borderpad": 1,
                }
            )
    _annotate(figure, labels)


def _annotate(figure: go.Figure, annotations: Sequence[Mapping[str, Any]]) -> None:
    """Add annotations at once: Plotly copies all those before for each that is added alone."""
    if annotations:
        figure.layout.annotations = [*figure.layout.annotations, *annotations]
