"""Pictures and concept patches in the plane, as several networks have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.embedding import Embedding, Layout
from concept_tuning.figures.labels import escape, shorten
from concept_tuning.figures.rows import symbol_of
from concept_tuning.figures.style import BAD, COLOURS, GOOD, NEUTRAL, finish, run_colours

Colour = Literal["class", "group", "right", "run"]

#: Most names in a legend, and points above which they are drawn by WebGL.
_NAMED, _MANY = 12, 2000
#: Panels side by side; pixels of a panel among others, of a panel alone, and below each.
_COLUMNS, _PANEL, _ALONE, _FRAME = 3, 250, 360, 36


class Key(NamedTuple):
    """What a colour and a symbol, by Plotly's name, stand for."""

    name: str
    colour: str
    symbol: str


class _Part(NamedTuple):
    """Points of one colour: (m,) bool."""

    name: str
    members: np.ndarray
    colour: str
    symbol: str


def embedding_figure(
    result: Embedding,
    *,
    colour: Colour = "class",
    runs: Sequence[str] | None = None,
    legend: bool = True,
) -> go.Figure:
    """Draw the points of each network in a panel of its own, or for ``run`` those of all networks in one.

    Axes have no unit, and distances between far points mean nothing, so neither is shown. The customdata of a
    point is the picture's key, or key and number of the concept (from 0) if points are concept patches. Names in
    the legend end where they would fill the page; they are always on hover.

    Args:
        result: The layouts.
        colour: By class, by group, by whether the run's prediction is right, or by run.
        runs: All runs of the page, for their colours.
        legend: Whether to name the colours, as far as there is room.

    Raises:
        ValueError: By group, and there are none.
    """
    if colour == "group" and result.groups is None:
        raise ValueError("these points have no groups to be coloured by")
    together = colour == "run"
    panels = 1 if together else max(1, len(result.layouts))
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    height = rows * ((_PANEL if panels > 1 else _ALONE) + _FRAME)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        horizontal_spacing=0.04,
        vertical_spacing=_FRAME / height,
    )
    named: set[str] = set()
    reach = 1.05 * max((float(np.abs(layout.points).max(initial=0)) for layout in result.layouts), default=0) or 1.0
    for place, layout in enumerate(result.layouts):
        row, column = (1, 1) if together else (place // columns + 1, place % columns + 1)
        for part in _parts(result, layout, colour, place, runs):
            if part.members.any():
                figure.add_trace(_points(result, layout, part, legend=part.name not in named), row=row, col=column)
                named.add(part.name)
        if not together:
            figure.update_xaxes(title_text=_title(layout), row=row, col=column)
    legend = legend and len(named) <= _NAMED
    top = 36 if legend else 8
    finish(figure, size=height + top + 24, legend=legend)
    figure.update_layout(
        margin={"l": 8, "r": 8, "t": top, "b": 40}, legend={"itemsizing": "constant", "tracegroupgap": 0}
    )
    figure.update_xaxes(**_plain(reach), title_standoff=4, title_font_size=12, constrain="domain")
    figure.update_yaxes(**_plain(reach), constrain="domain", constraintoward="top")
    for place in range(rows * columns):
        row, column = place // columns + 1, place % columns + 1
        if place >= panels:
            figure.update_xaxes(visible=False, row=row, col=column)
            figure.update_yaxes(visible=False, row=row, col=column)
        else:
            axis = "x" if place == 0 else f"x{place + 1}"
            figure.update_yaxes(scaleanchor=axis, row=row, col=column)
    return figure


def colour_keys(result: Embedding, *, colour: Colour = "class", runs: Sequence[str] | None = None) -> list[Key]:
    """Return what the colours and symbols of :func:`embedding_figure` stand for; none where it would name none."""
    found = dict.fromkeys(
        Key(part.name, part.colour, part.symbol)
        for place, layout in enumerate(result.layouts)
        for part in _parts(result, layout, colour, place, runs)
        if part.members.any()
    )
    return list(found) if len(found) <= _NAMED else []


def named_networks(result: Embedding) -> Embedding:
    """Return the layouts with the one of a pre-trained network, if there is no other, called so whatever its run."""
    if sum(not layout.tuned for layout in result.layouts) != 1:
        return result
    layouts = (layout if layout.tuned else replace(layout, name="before fine-tuning") for layout in result.layouts)
    return replace(result, layouts=tuple(layouts))


def _parts(result: Embedding, layout: Layout, colour: Colour, place: int, runs: Sequence[str] | None) -> list[_Part]:
    everything = np.ones(len(layout.points), bool)
    if colour == "run":
        shade = _run_colours(result, runs)[layout.run] if layout.tuned else NEUTRAL
        return [_Part(layout.name, everything, shade, symbol_of(place))]
    if colour == "right":
        if layout.predicted is None:
            return [_Part("not fine-tuned", everything, NEUTRAL, "circle")]
        right = layout.predicted == result.labels
        return [_Part("right", right, GOOD, "circle"), _Part("wrong", ~right, BAD, "x")]
    if colour == "group" and result.groups is not None:
        values, names = result.groups, result.group_names
    else:
        values, names = result.labels, result.class_names
    # Symbols tell neighbours apart too, and begin elsewhere in each round of colours, so that a pair comes late again.
    return [
        _Part(name, values == index, COLOURS[index % len(COLOURS)], symbol_of(index + 3 * (index // len(COLOURS))))
        for index, name in enumerate(names)
    ]


def _points(result: Embedding, layout: Layout, part: _Part, *, legend: bool) -> go.Scatter | go.Scattergl:
    places = np.flatnonzero(part.members)
    kind = go.Scattergl if len(layout.points) > _MANY else go.Scatter
    size = 6 if len(layout.points) <= 100 else 5 if len(layout.points) <= 500 else 4
    return kind(
        x=layout.points[places, 0],
        y=layout.points[places, 1],
        mode="markers",
        marker={"color": part.colour, "symbol": part.symbol, "size": size, "opacity": 0.5},
        customdata=[_custom(result, int(place)) for place in places],
        text=[_told(result, layout, int(place)) for place in places],
        hovertemplate="%{text}<extra></extra>",
        name=shorten(part.name, 24),
        legendgroup=part.name,
        showlegend=legend,
    )


def _custom(result: Embedding, place: int) -> str | tuple[str, int]:
    key = result.keys[int(result.picture[place])]
    return key if result.concept is None else (key, int(result.concept[place]))


def _told(result: Embedding, layout: Layout, place: int) -> str:
    lines = [
        escape(result.keys[int(result.picture[place])]),
        f"class {_name(result.class_names, result.labels[place])}",
    ]
    if result.groups is not None:
        lines.append(f"group {_name(result.group_names, result.groups[place])}")
    if result.concept is not None:
        lines.append(f"concept {int(result.concept[place]) + 1}")
    if layout.predicted is not None:
        lines.append(f"predicted {_name(result.class_names, layout.predicted[place])}")
    return "<br>".join([*lines, escape(layout.name)])


def _name(names: Sequence[str], index: int) -> str:
    return escape(names[int(index)])


def _run_colours(result: Embedding, runs: Sequence[str] | None) -> Mapping[str, str]:
    drawn = list(dict.fromkeys(layout.run for layout in result.layouts))
    return run_colours(drawn) | run_colours(list(runs or drawn))


def _title(layout: Layout) -> str:
    return f"{shorten(layout.name, 22)}{' (PCA)' if layout.technique == 'pca' else ''}"


def _plain(reach: float) -> dict[str, object]:
    """Return the look of an axis without unit."""
    return {
        "range": [-reach, reach],
        "showticklabels": False,
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "mirror": True,
        "linecolor": "#CCCCCC",
    }
