"""The pictures behind the points of a layout: on the map itself, and of the points that were chosen."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from concept_tuning.diagnostics.embedding import Embedding
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.galleries import Entry, class_name, gallery
from concept_tuning.figures.labels import escape
from concept_tuning.figures.tiles import Box

#: Side of a picture on the map, as a share of its panel.
_SIDE = 0.12


def chosen_places(result: Embedding, names: Iterable[object]) -> list[int]:
    """Return the places of the points with these customdata, in the points' order; unknown ones are left out.

    Args:
        result: The layouts.
        names: Keys of pictures, or keys and numbers of concepts, see
            :func:`~concept_tuning.figures.embedding.embedding_figure`.
    """
    wanted = {_identity(name) for name in names}
    return [place for place in range(len(result.labels)) if _name(result, place) in wanted]


def mark_chosen(figure: go.Figure, result: Embedding, places: Collection[int]) -> go.Figure:
    """Make all points pale but the chosen ones, in every panel; without any the figure stays as it is.

    Args:
        figure: Of :func:`~concept_tuning.figures.embedding.embedding_figure`; changed in place, and returned.
        result: The layouts it was drawn from.
        places: Of the chosen points.
    """
    names = {_name(result, place) for place in places}
    if not names:
        return figure
    for trace in figure.data:
        trace.selectedpoints = [at for at, name in enumerate(trace.customdata) if _identity(name) in names]
        trace.selected = {"marker": {"opacity": 1, "size": trace.marker.size + 3}}
        trace.unselected = {"marker": {"opacity": 0.15}}
    return figure


def add_pictures(figure: go.Figure, result: Embedding, thumbnails: Thumbnails, *, most: int = 24) -> go.Figure:
    """Lay pictures, or patches, beside points that are spread over each panel, each where it covers least.

    Args:
        figure: Of :func:`~concept_tuning.figures.embedding.embedding_figure`; changed in place, and returned.
        result: The layouts it was drawn from.
        thumbnails: The pictures; points without one are passed over.
        most: Pictures of a panel.
    """
    points = {_name(result, place): place for place in range(len(result.labels))}
    kept = set(thumbnails.keys)
    panels: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
    covered: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trace in figure.data:
        axes = trace.xaxis or "x", trace.yaxis or "y"
        spots = panels.setdefault(axes, {})
        for name, x, y in zip(trace.customdata, trace.x, trace.y, strict=True):
            covered.setdefault(axes, []).append((float(x), float(y)))
            if _identity(name)[0] in kept:
                spots[points[_identity(name)]] = (float(x), float(y))
    images = []
    for axes, spots in panels.items():
        low, high = figure.layout[axes[0].replace("x", "xaxis")].range
        side = _SIDE * (high - low)
        at, corners = np.array(covered[axes]), np.empty((0, 2))
        for place in _spread(spots, side, most):
            corner = _free_corner(np.array(spots[place]), side, (low, high), at, corners)
            corners = np.vstack([corners, corner])
            image = {"source": _source(result, place, thumbnails), "xref": axes[0], "yref": axes[1]}
            images.append(image | _square(corner, side))
    return figure.update_layout(images=images)


def patch_gallery(result: Embedding, places: Sequence[int], thumbnails: Thumbnails, *, most: int = 24) -> go.Figure:
    """Draw the pictures of points that are patches, each with its patch; customdata are the keys.

    Args:
        result: Layouts of patches.
        places: Of the points.
        thumbnails: The pictures; points without one are left out.
        most: Pictures shown.

    Raises:
        ValueError: If the points are whole pictures.
    """
    if result.boxes is None or result.image_size is None or result.concept is None:
        raise ValueError("these points are whole pictures, which have no patches")
    entries = []
    for place in places:
        key = result.keys[int(result.picture[place])]
        left, top, right, bottom = (float(part) / result.image_size for part in result.boxes[place])
        concept = f"concept {int(result.concept[place]) + 1}"
        title = class_name(thumbnails, key, result.class_names)
        entries.append(
            Entry(
                key=key,
                title=f"{title}<br>{concept}",
                hover=f"{escape(key)}<br>{title}<br>{concept}",
                boxes=(Box(corners=(left, top, right, bottom)),),
            )
        )
    return gallery(entries, thumbnails, most=most)


def _name(result: Embedding, place: int) -> tuple[str, int]:
    """Return the picture's key and the number of the concept, -1 for a whole picture."""
    concept = -1 if result.concept is None else int(result.concept[place])
    return result.keys[int(result.picture[place])], concept


def _identity(name: object) -> tuple[str, int]:
    """Return what :func:`_name` does from a point's customdata."""
    if isinstance(name, str):
        return name, -1
    parts: list[Any] = list(name) if isinstance(name, Iterable) else [name]
    return str(parts[0]), int(parts[1]) if len(parts) > 1 else -1


def _spread(spots: dict[int, tuple[float, float]], side: float, most: int) -> list[int]:
    """Return places of points, the next always furthest from those taken, until squares of ``side`` would meet."""
    places = list(spots)
    if not places:
        return []
    at = np.array([spots[place] for place in places])
    taken = [int(np.abs(at).sum(1).argmin())]
    distance = np.abs(at - at[taken[0]]).max(1)
    while len(taken) < most and distance.max() >= side:
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(at - at[taken[-1]]).max(1))
    return [places[one] for one in taken]


def _free_corner(
    spot: np.ndarray, side: float, reach: tuple[float, float], points: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Return the lower left corner of the square beside a point, within reach, that covers the fewest points.

    Args:
        spot: (2,) the point.
        side: Of a square.
        reach: Least and greatest value of both axes.
        points: (n, 2) all points.
        taken: (k, 2) the lower left corners of squares that are to be left free.
    """
    away = side / 8
    shifts = [(a, b) for b in (away, -side - away) for a in (away, -side - away)]
    corners = np.clip(spot + np.array(shifts), reach[0], reach[1] - side)
    covered = ((points[None] > corners[:, None]) & (points[None] < corners[:, None] + side)).all(2).sum(1)
    overlapping = (np.abs(taken[None] - corners[:, None]) < side).all(2).sum(1)
    return np.asarray(corners[int((covered + len(points) * overlapping).argmin())])


def _square(corner: np.ndarray, side: float) -> dict[str, object]:
    return {
        "x": float(corner[0]),
        "y": float(corner[1]),
        "xanchor": "left",
        "yanchor": "bottom",
        "sizex": side,
        "sizey": side,
        "sizing": "contain",
        "layer": "below",
    }


def _source(result: Embedding, place: int, thumbnails: Thumbnails) -> str:
    """Return the picture of a point, or its patch, as a data address; of a box beyond the picture, what is within."""
    key = result.keys[int(result.picture[place])]
    if result.boxes is None or result.image_size is None:
        return thumbnails.address(key)
    image = thumbnails.image(key)
    height, width = image.shape[:2]
    share = np.nan_to_num(np.asarray(result.boxes[place], dtype=float) / max(result.image_size, 1))
    left, top, right, bottom = (share.clip(0, 1) * np.array([width, height] * 2)).round().astype(int).tolist()
    left, top = min(left, width - 1), min(top, height - 1)
    file = io.BytesIO()
    patch = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    Image.fromarray(np.ascontiguousarray(patch)).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
