"""The concepts of a picture: their patches, and where their channels fire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.figures.labels import escape, number, shorten
from concept_tuning.figures.style import overlay
from concept_tuning.figures.tiles import (
    GAP,
    Box,
    Tile,
    add_boxes,
    merge_equal,
    numbers_label,
    tile_figure,
    title_height,
)

_COLUMNS = 3
#: Side of the picture itself, in sides of a map.
_SIDE = 2.0


def concept_figure(results: Sequence[ConceptMaps], key: str, image: np.ndarray) -> go.Figure:
    """Draw a picture's patches and, beside them, the map of each concept; one run below the other.

    Concepts are numbered from 1, the most class-discriminative; so are the channels' ranks. Above a map stand the
    concept's number and mean score, and its ranks.

    Args:
        results: The concepts of one or more runs.
        key: Name of the picture, which each of them has.
        image: (s, s, 3) uint8, the picture, at any size.
    """
    tiles: list[Tile] = []
    boxes: list[tuple[Tile, Box]] = []
    width = _SIDE + _COLUMNS * (1 + GAP)
    title, top = title_height(width, 2), 0.0
    for result in results:
        picture = _picture_tile(result, key, image, top=top + title)
        tiles.append(picture)
        boxes += [(picture, box) for box in _boxes(result, key)]
        count = result.boxes.shape[1]
        for concept in range(count):
            row, column = divmod(concept, _COLUMNS)
            left, above = _SIDE + GAP + column * (1 + GAP), top + row * (1 + title + GAP) + title
            tiles.append(_map_tile(result, key, image, concept, left=left, top=above))
        top += max(-(-count // _COLUMNS) * (1 + title + GAP), _SIDE + title + GAP)
    figure = tile_figure(tiles, width=width, height=top, page=720 if len(results) == 1 else 560)
    add_boxes(figure, boxes)
    return figure


def _picture_tile(result: ConceptMaps, key: str, image: np.ndarray, *, top: float) -> Tile:
    place = result.keys.index(key)
    label = result.class_names[int(result.labels[place])]
    confusing = ", ".join(escape(result.class_names[int(other)]) for other in result.confusing[place])
    return Tile(
        key=key,
        image=image,
        left=0,
        top=top,
        side=_SIDE,
        title=f"<b>{shorten(result.run, 22)}</b><br>{result.label_kind}: {shorten(label, 16)}",
        hover=f"{escape(key)}<br>run {escape(result.run)}<br>concepts of the {result.label_kind} class {escape(label)}"
        f"<br>set against {confusing}<br>"
        f"predicted {escape(result.class_names[int(result.predicted[place])])}",
    )


def _map_tile(result: ConceptMaps, key: str, image: np.ndarray, concept: int, *, left: float, top: float) -> Tile:
    place = result.keys.index(key)
    values, scores = result.maps[place, concept], result.scores[place, concept]
    first, last = int(result.ranks[concept].min()) + 1, int(result.ranks[concept].max()) + 1
    channels = ", ".join(str(int(channel)) for channel in result.channels[place, concept][:8])
    more = ", …" if result.channels.shape[2] > 8 else ""
    return Tile(
        key=key,
        image=overlay(image, values),
        left=left,
        top=top,
        title=f"<b>{concept + 1}</b> {float(scores.mean()):+.2f}<br>{first}–{last}".replace("-", "−"),
        hover=f"concept {concept + 1}, {escape(result.run)}<br>channels of rank {first} to {last}: {channels}{more}"
        f"<br>mean score {number(float(scores.mean()))} ({number(float(scores.min()))} to "
        f"{number(float(scores.max()))})<br>activation {number(float(values.min()))} to {number(float(values.max()))}",
    )


def _boxes(result: ConceptMaps, key: str) -> list[Box]:
    corners = result.boxes[result.keys.index(key)] / result.image_size
    return [
        Box(
            corners=box,
            label=numbers_label(places),
            hover=f"patch of concept {', '.join(str(place + 1) for place in places)}<br>{escape(key)}",
        )
        for box, places in merge_equal(corners)
    ]
