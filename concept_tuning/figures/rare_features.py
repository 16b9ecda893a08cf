"""Rare features: which concepts are seldom seen and useful, how many, how they look, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.rare_choice import RareChoice
from concept_tuning.diagnostics.rare_results import RareFeatures, Rarity
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.labels import escape, listed, number, shorten
from concept_tuning.figures.style import COLOURS, NEUTRAL, finish
from concept_tuning.figures.tiles import GAP, Box, Tile, add_boxes, tile_figure, title_height

_RARE, _LOW, _OTHER = COLOURS[1], COLOURS[5], "#B0B0B0"


def classes_with(result: RareFeatures, place: int) -> tuple[str, ...]:
    """Return the classes that have a concept in most of their pictures, the one that it marks first.

    That one is there in any case: it is where the concept is most telling, but others may have it as often.
    """
    marked = int(result.marked_class[place])
    shares = np.asarray(result.class_frequency[:, place], float)
    others = [int(label) for label in np.argsort(-shares, kind="stable") if shares[label] > 0.5 and label != marked]
    return tuple(result.class_names[label] for label in (marked, *others))


def rarity_figure(result: RareFeatures, *, choice: RareChoice | None = None, chosen: int | None = None) -> go.Figure:
    """Draw how often pre-training saw each concept against how much it tells of the class beyond chance.

    The height is the information less the upper end of each concept's own null band, so that 0 is the band's
    edge for all. The rare quadrant is the upper left one. A frequency of 0 is drawn at the left edge. Without a
    source frequency the one in the analysed pictures takes its place, and there is no quadrant. A point's
    customdata begins with the place of its concept.

    Args:
        result: The concepts.
        choice: Which are rare; None: those of the diagnosis.
        chosen: Place of a concept to ring.
    """
    rarity = choice or result.rarity
    known = not isinstance(result.source, Unavailable)
    frequency = result.target_frequency if isinstance(result.source, Unavailable) else result.source.frequency
    beyond = result.presence.information - result.presence.band
    numbers = _concept_numbers(result, np.asarray(frequency, dtype=float))
    x, edge = _drawn(np.asarray(frequency, dtype=float))
    widest = float(np.nanmax(x, initial=edge))
    figure = go.Figure()
    for name, members, colour, symbol in _kinds(result, rarity):
        figure.add_scatter(
            x=x[members],
            y=beyond[members],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9, "opacity": 0.8},
            selected={"marker": {"color": "#000000", "size": 16, "opacity": 1}},
            unselected={"marker": {"opacity": 0.8}},
            # As lists: a browser gives rows of an array back as objects when they are clicked.
            customdata=numbers[members].tolist(),
            text=[
                f"<b>{escape(result.concepts[place])}</b>, marks {escape(listed(classes_with(result, place)))}"
                for place in members
            ],
            hovertemplate=_hover_template(result),
            name=f"{name} ({len(members)})",
        )
    if chosen is not None:
        _add_ring(figure, float(x[chosen]), float(beyond[chosen]))
    finish(figure, size=500)
    top, bottom = _ends(beyond)
    figure.add_hrect(y0=bottom, y1=0, fillcolor=NEUTRAL, opacity=0.12, line_width=0, layer="below")
    figure.add_hline(y=0, line={"color": "#444444", "width": 1, "dash": "dash"})
    if not isinstance(rarity, Unavailable) and known:
        figure.add_shape(
            type="rect",
            x0=edge / 2,
            x1=max(rarity.threshold.frequency, edge),
            y0=0,
            y1=top,
            fillcolor=_RARE,
            opacity=0.1,
            line_width=0,
            layer="below",
        )
    what = "seen in pre-training,<br>" if known else "in these pictures<br>(pre-training unknown), "
    figure.update_xaxes(
        title_text=f"how often {what}share of patches, 0–1",
        type="log",
        range=[np.log10(edge / 2), np.log10(max(2 * widest, edge * 4))],
        exponentformat="power",
        dtick=1 if widest / edge > 20 else "D2",
    )
    figure.update_yaxes(
        title_text=f"tells of the class beyond chance, nats (n = {result.presence.n})",
        title_font_size=12,
        range=[bottom, top],
        zeroline=False,
    )
    return figure


def sweep_figure(rarity: Rarity) -> go.Figure:
    """Draw how many concepts are rare at other thresholds, and how many useless ones would give on average at most."""
    points = rarity.sweep
    shares = [f"{100 * point.share:g} %" for point in points]
    chosen = [point.share == rarity.threshold.share for point in points]
    hover = [
        f"of the {point.low} concepts seen least (at most {number(point.frequency)} of patches)"
        f"<br>{point.rare} useful, {number(point.expected_by_chance)} if useless, at most on average"
        for point in points
    ]
    figure = go.Figure(
        [
            go.Bar(
                x=shares,
                y=[point.rare for point in points],
                marker={"color": [_RARE if mark else _LOW for mark in chosen]},
                text=[point.rare for point in points],
                textposition="outside",
                cliponaxis=False,
                hovertext=hover,
                hoverinfo="text",
                name="rare",
                showlegend=False,
            ),
            go.Scatter(
                x=shares,
                y=[point.expected_by_chance for point in points],
                mode="lines+markers",
                line={"color": "#444444", "dash": "dash"},
                hovertext=hover,
                hoverinfo="text",
                name="if useless (mean, at most)",
            ),
        ]
    )
    finish(figure, size="medium")
    figure.update_xaxes(title_text="share of concepts taken as seldom seen", type="category")
    figure.update_yaxes(title_text="rare concepts: seldom seen and useful", rangemode="tozero", title_font_size=12)
    return figure


def gallery_figure(result: RareFeatures, thumbnails: Thumbnails, *, concepts: Sequence[int]) -> go.Figure:
    """Draw the strongest patches of some concepts on the pre-trained network, four pictures in a row.

    Args:
        result: The concepts.
        thumbnails: The pictures; one that is not among them leaves an empty tile.
        concepts: Places of the concepts; some six keep the figure small.
    """
    gallery = result.gallery
    count = gallery.pictures.shape[1]
    columns = max(1, min(4, count))
    width = columns * (1 + GAP) - GAP
    title, top = title_height(width, 1 if result.view == "channels" else 2), 0.0
    tiles: list[Tile] = []
    boxes: list[tuple[Tile, Box]] = []
    headings: list[tuple[float, str]] = []
    for concept in concepts:
        headings.append((top + title, _heading(result, concept)))
        top += title + GAP / 2
        for place in range(count):
            row, column = divmod(place, columns)
            key = gallery.keys[int(gallery.pictures[concept, place])]
            strength = number(float(gallery.activations[concept, place]))
            tile = Tile(
                key=key,
                image=thumbnails.image(key) if key in thumbnails else None,
                left=column * (1 + GAP),
                top=top + row * (1 + GAP),
                hover=f"{escape(key)}<br>{escape(result.concepts[concept])}: {strength} {escape(result.units)}"
                f"{_class_of(result, thumbnails, key)}",
            )
            tiles.append(tile)
            left, upper, right, lower = (float(part) for part in gallery.boxes[concept, place])
            if tile.image is not None:
                boxes.append((tile, Box(corners=(left, upper, right, lower))))
        top += -(-count // columns) * (1 + GAP)
    figure = tile_figure(tiles, width=width, height=max(top, 1), page=520)
    add_boxes(figure, boxes)
    for y, text in headings:
        figure.add_annotation(
            x=0, y=y, text=text, showarrow=False, xanchor="left", yanchor="bottom", align="left", font={"size": 11}
        )
    return figure


def _drawn(frequency: np.ndarray) -> tuple[np.ndarray, float]:
    """Return frequencies fit for a logarithmic axis, and the place of those that are 0."""
    positive = frequency[np.isfinite(frequency) & (frequency > 0)]
    edge = max(float(positive.min(initial=1.0)), 1e-12)
    edge = edge / 3 if (frequency < edge).any() else edge
    return np.maximum(frequency, edge), edge


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the upper and the lower end of an axis that holds the values and 0."""
    finite = values[np.isfinite(values)]
    high, low = float(finite.max(initial=0.0)), float(finite.min(initial=0.0))
    margin = 0.06 * max(high - low, 1e-6)
    return high + margin, low - margin


def _add_ring(figure: go.Figure, x: float, y: float) -> None:
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"symbol": "circle-open", "size": 19, "color": "#000000", "line": {"width": 3}},
        # A point that is clicked takes its place.
        unselected={"marker": {"opacity": 0}},
        hoverinfo="skip",
        name="ring",
        showlegend=False,
    )


def _kinds(result: RareFeatures, rarity: Rarity | RareChoice | Unavailable) -> list[tuple[str, np.ndarray, str, str]]:
    """Return name, concepts, colour and symbol of the kinds of points, the rare ones last and so on top."""
    if not isinstance(rarity, Unavailable):
        low, rare = np.asarray(rarity.low, bool), np.asarray(rarity.rare, bool)
        kinds = [("others", ~low, _OTHER, "circle"), ("seldom seen, not useful", low & ~rare, _LOW, "square")]
        kinds.append(("rare", rare, _RARE, "diamond"))
    else:
        useful = np.asarray(result.presence.useful, bool)
        kinds = [("not useful", ~useful, _OTHER, "circle"), ("useful", useful, _LOW, "square")]
    return [(name, np.flatnonzero(mask), colour, symbol) for name, mask, colour, symbol in kinds if mask.any()]


def _concept_numbers(result: RareFeatures, frequency: np.ndarray) -> np.ndarray:
    """Return (K, 8): place of the concept and what :func:`_hover_template` tells."""
    presence = result.presence
    columns = (
        np.arange(len(result.concepts)),
        frequency,
        result.target_frequency,
        presence.information,
        presence.band,
        presence.p_value,
        presence.familywise,
        presence.levels,
    )
    return np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)


def _hover_template(result: RareFeatures) -> str:
    known = not isinstance(result.source, Unavailable)
    seen = "pre-training saw it in %{customdata[1]:.3~g} of patches<br>" if known else ""
    return (
        f"%{{text}}<br>{seen}here in %{{customdata[2]:.3~g}} of patches"
        "<br>information %{customdata[3]:.3~g} nats, band up to %{customdata[4]:.3~g} "
        f"({100 * result.presence.band_level:g} %)"
        "<br>p %{customdata[5]:.3~g}, over all concepts %{customdata[6]:.3~g}"
        f"<br>level %{{customdata[7]:.3~g}} {escape(result.units)}<extra></extra>"
    )


def _heading(result: RareFeatures, concept: int) -> str:
    channels = result.members[concept]
    some = ", ".join(str(channel) for channel in channels[:6]) + (", …" if len(channels) > 6 else "")
    name = f"<b>{shorten(result.concepts[concept], 24)}</b> marks {shorten(listed(classes_with(result, concept)), 44)}"
    return name if result.view == "channels" else f"{name}<br>channels {some}"


def _class_of(result: RareFeatures, thumbnails: Thumbnails, key: str) -> str:
    if key not in thumbnails:
        return "<br>picture not kept"
    return f"<br>class {escape(result.class_names[int(thumbnails.labels[thumbnails.keys.index(key)])])}"
