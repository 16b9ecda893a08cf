"""Which concepts of two pictures the concept contrast matches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.transport_links import Link, TransportLinks
from concept_tuning.figures.labels import escape, number, shorten
from concept_tuning.figures.style import COLOURS, RATE_SCALE, finish
from concept_tuning.figures.tiles import (
    EDGE,
    Box,
    Tile,
    add_boxes,
    merge_equal,
    numbers_label,
    tile_figure,
    title_height,
)

#: Between the two pictures, in sides of one.
_GAP = 0.3
#: Width in pixels of a line that carries all a concept has.
_WIDTH = 6.0
#: How far a line bows upwards, as a share of its length, so that lines along one row do not hide each other.
_BOW = 0.06


def links_figure(
    result: TransportLinks, images: tuple[np.ndarray, np.ndarray], *, class_names: Sequence[str] = ()
) -> go.Figure:
    """Draw two pictures side by side with their patches, and the heaviest links of the plan between them.

    A line is the wider the more weight it has. Patches of several concepts that lie on each other are drawn as
    one, their numbers from 1 beside it, and their links as one line with the sum of the weights. A line has the
    colour of its patch in the first picture.

    Args:
        result: The matching of the two pictures.
        images: The two pictures, (s, s, 3) uint8, at any size.
        class_names: The classes' names; none: pictures are called by their keys alone.
    """
    tiles = [
        _tile(result, place, image, class_names[result.labels[place]] if class_names else "")
        for place, image in enumerate(images)
    ]
    merged = [merge_equal(boxes / result.image_size) for boxes in result.boxes]
    figure = tile_figure(tiles, width=2 + _GAP, height=1 + title_height(2 + _GAP, 2))
    starts = {place: number_ for number_, (_, places) in enumerate(merged[0]) for place in places}
    ends = {place: number_ for number_, (_, places) in enumerate(merged[1]) for place in places}
    linked: dict[tuple[int, int], list[Link]] = {}
    for link in result.links:
        linked.setdefault((starts[link.first], ends[link.second]), []).append(link)
    for (start, end), links in linked.items():
        points = _middle(tiles[0], merged[0][start][0]), _middle(tiles[1], merged[1][end][0])
        _add_line(figure, result, points, links, COLOURS[start % len(COLOURS)])
    boxes = [
        (
            tile,
            Box(corners=box, label=numbers_label(places), colour=COLOURS[spot % len(COLOURS)] if first else "#FFFFFF"),
        )
        for tile, found, first in zip(tiles, merged, (True, False), strict=True)
        for spot, (box, places) in enumerate(found)
    ]
    add_boxes(figure, boxes)
    return figure


def plan_figure(result: TransportLinks) -> go.Figure:
    """Draw the whole transport plan: what share of each concept of the first picture goes to each of the second."""
    first, second = result.plan.shape
    shares = 100 * result.plan * first
    figure = go.Figure(
        go.Heatmap(
            x=[str(place + 1) for place in range(second)],
            y=[str(place + 1) for place in range(first)],
            z=shares,
            zmin=0,
            zmax=100,
            colorscale=RATE_SCALE,
            showscale=False,
            text=[[f"{value:.0f}" if value >= 1 else "" for value in row] for row in shares],
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=np.stack([result.plan, result.costs], axis=-1),
            hovertemplate="concept %{y} of the first with %{x} of the second<br>%{z:.1f} % of what it has"
            "<br>weight %{customdata[0]:.4f}, cost %{customdata[1]:.4f}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    finish(figure, size="medium", legend=False)
    figure.update_xaxes(
        title_text=f"concept of {shorten(result.keys[1], 24)}", dtick=1, constrain="domain", showgrid=False
    )
    figure.update_yaxes(
        title_text=f"% of concept of {shorten(result.keys[0], 20)}",
        dtick=1,
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        showgrid=False,
    )
    return figure


def _tile(result: TransportLinks, place: int, image: np.ndarray, label: str) -> Tile:
    key = result.keys[place]
    name = f"<b>{shorten(label, 20)}</b><br>" if label else ""
    return Tile(
        key=key,
        image=image,
        left=place * (1 + _GAP),
        top=title_height(2 + _GAP, 2),
        title=name + shorten(key, 24),
        hover=f"{escape(key)}<br>{escape(label)}<br>transport distance {number(result.distance)}"
        f" (entropy {number(result.epsilon)})<br>{escape(result.run)}",
    )


def _add_line(
    figure: go.Figure,
    result: TransportLinks,
    points: tuple[tuple[float, float], tuple[float, float]],
    links: Sequence[Link],
    colour: str,
) -> None:
    weight = sum(link.weight for link in links)
    width = max(1.0, _WIDTH * weight * len(result.plan))
    (left, start), (right, end) = points
    middle = ((left + right) / 2, (start + end) / 2 - _BOW * (right - left))
    x, y = zip(points[0], middle, points[1], strict=True)
    for line, wide in ((EDGE, width + 2), (colour, width)):
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": line, "width": wide, "shape": "spline"},
            hoverinfo="skip",
            showlegend=False,
        )
    lines = [
        f"{link.first + 1} with {link.second + 1}: weight {number(link.weight)}, cost {number(link.cost)}"
        for link in links
    ]
    figure.add_scatter(
        x=[middle[0]],
        y=[middle[1]],
        mode="markers",
        marker={"color": colour, "size": 8, "line": {"color": EDGE, "width": 1}},
        text=["<br>".join(lines)],
        customdata=[list(result.keys)],
        hovertemplate="%{text}<extra></extra>",
        name="link",
        showlegend=False,
    )


def _middle(tile: Tile, box: tuple[float, float, float, float]) -> tuple[float, float]:
    return tile.place((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
