"""Concepts that sway predictions by themselves: how much, in which classes they occur, and where they are."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.concept_effects import ConceptEffect, ConceptEffects, MaskShares
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.galleries import Entry, gallery
from concept_tuning.figures.labels import escape, interval_text, number, shorten
from concept_tuning.figures.rows import LINE, add_points, name_rows
from concept_tuning.figures.style import BAD, COLOURS, RATE_SCALE, finish
from concept_tuning.figures.tiles import Box


def suspicion_figure(result: ConceptEffects, *, most: int = 12) -> go.Figure:
    """Draw for each concept how suspicious it is, how it pulls, and what its removal does; most suspicious first.

    Rows are numbered by rank and name the class that the concept pulls to. Pull is the chance that a picture of
    another class looks more like that class with a patch of the concept than with another patch; 0.5 is none.
    Effect is what the class's score loses when the concept is removed from the pictures that have it.

    Args:
        result: The concepts of a run.
        most: Concepts shown.
    """
    shown = list(enumerate(result.concepts[:most]))
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.08)
    figure.add_bar(
        row=1,
        col=1,
        orientation="h",
        x=[one.suspicion for _, one in shown],
        y=[row for row, _ in shown],
        width=0.6,
        marker_color=BAD,
        text=[_told(result, one) for _, one in shown],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        customdata=[one.rank for _, one in shown],
        name="suspicion",
    )
    pulls = [(row, one, one.pull) for row, one in shown if one.pull is not None]
    add_points(
        figure,
        [pull for _, _, pull in pulls],
        [row for row, _, _ in pulls],
        name="pull",
        hover=[f"concept {one.rank}<br>pull {interval_text(pull)}" for _, one, pull in pulls],
        colour=COLOURS[0],
        customdata=[one.rank for _, one, _ in pulls],
        panel=(1, 2),
    )
    figure.add_bar(
        row=1,
        col=3,
        orientation="h",
        x=[float(one.effect[one.pulled_class]) for _, one in shown],
        y=[row for row, _ in shown],
        width=0.6,
        marker_color=COLOURS[0],
        text=[_effect_hover(result, one) for _, one in shown],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        customdata=[one.rank for _, one in shown],
        name="effect",
    )
    finish(figure, size=110 + 32 * max(1, len(shown)), legend=False)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 68})
    titles = ("suspicion<br>(0–1)", "pull (AUC,<br>0.5 is none)", "effect of<br>removal (logits)")
    for column, title in enumerate(titles, start=1):
        figure.update_xaxes(row=1, col=column, title_text=title, title_font_size=12, nticks=4, zeroline=column == 3)
        names = [f"<b>{one.rank}</b> → {shorten(result.class_names[one.pulled_class], 22)}" for _, one in shown]
        name_rows(figure, names, panel=(1, column), shown=column == 1)
    figure.update_xaxes(row=1, col=1, range=[0, 1.03])
    figure.update_xaxes(row=1, col=3, zerolinecolor=LINE)
    lowest = min([0.4, *(pull.low for _, _, pull in pulls)])
    figure.update_xaxes(row=1, col=2, range=[lowest - 0.02, 1.03], tickvals=[0, 0.5, 1])
    figure.add_vline(row=1, col=2, x=0.5, line={"color": LINE, "width": 1})
    return figure


def occurrence_figure(result: ConceptEffects) -> go.Figure:
    """Draw in which share of each class's pictures each concept occurs; a dot marks the class that it pulls to."""
    concepts, classes = result.concepts, result.class_names
    shares = np.array([one.by_class for one in concepts]).reshape(len(concepts), len(classes), 3)
    counts = np.bincount(result.labels, minlength=len(classes))
    hover = [
        [
            f"concept {one.rank}, class {escape(label)}<br>in {_range(shares[place, row])} of its pictures, "
            f"n = {int(counts[row])}" + ("<br>the class that it pulls to" if row == one.pulled_class else "")
            for place, one in enumerate(concepts)
        ]
        for row, label in enumerate(classes)
    ]
    figure = go.Figure(
        go.Heatmap(
            x=[one.rank for one in concepts],
            y=list(range(len(classes))),
            z=shares[:, :, 0].T,
            zmin=0,
            zmax=1,
            colorscale=RATE_SCALE,
            colorbar={
                "title": {"text": "share", "side": "top", "font": {"size": 12}},
                "thickness": 12,
                "tickfont": {"size": 11},
            },
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            name="share",
        )
    )
    figure.add_scatter(
        x=[one.rank for one in concepts],
        y=[one.pulled_class for one in concepts],
        mode="markers",
        marker={"color": BAD, "size": 9, "line": {"color": "#FFFFFF", "width": 1.5}},
        hoverinfo="skip",
        name="pulls to",
    )
    finish(figure, size=130 + 28 * max(1, len(classes)), legend=False)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 12})
    figure.update_xaxes(
        title_text="concept, by suspicion", title_font_size=12, dtick=1, tickangle=0, showgrid=False, zeroline=False
    )
    name_rows(
        figure,
        [f"{shorten(label, 24)}, n = {int(count)}" for label, count in zip(classes, counts, strict=True)],
    )
    return figure


def concept_gallery(result: ConceptEffects, rank: int, thumbnails: Thumbnails, *, most: int = 6) -> go.Figure:
    """Draw pictures that have a concept, with its patch, those where it is strongest first.

    Args:
        result: The concepts of a run.
        rank: Of the concept, from 1.
        thumbnails: Those that there are; pictures without one are left out.
        most: Pictures shown.

    Raises:
        KeyError: There is no such concept.
    """
    concept = {one.rank: one for one in result.concepts}[rank]
    corners = np.asarray(concept.boxes, dtype=float).reshape(-1, 4) / result.image_size
    entries = []
    for place, box in zip(concept.examples, corners.tolist(), strict=True):
        key, label = result.keys[place], result.class_names[int(result.labels[place])]
        entries.append(
            Entry(
                key=key,
                title=shorten(label, 22),
                hover=f"{escape(key)}<br>class {escape(label)}<br>concept {rank}",
                boxes=(Box(corners=(box[0], box[1], box[2], box[3])),),
            )
        )
    return gallery(entries, thumbnails, most=most)


def _told(result: ConceptEffects, one: ConceptEffect) -> str:
    lines = [
        f"concept {one.rank} pulls to {escape(result.class_names[one.pulled_class])}",
        "suspicion not measured" if one.suspicion is None else f"suspicion {number(one.suspicion)}",
        f"in {interval_text(one.present)} of the pictures",
        f"where it is, the class is that one: {number(one.reliability)} (classes taken as equally frequent)",
        f"share of all concepts' strength {number(one.energy)}",
        f"found again in other cells: cosine {number(one.stability)}",
    ]
    if isinstance(one.alone, Interval):
        lines.append(f"the class's pictures against patches alone (AUC): {interval_text(one.alone)}")
    if isinstance(result.masks, MaskShares):
        outside, even = float(result.masks.outside[one.index]), float(result.masks.even[one.index])
        lines.append(f"outside the object {number(outside)} of its strength; if even, {number(even)}")
    return "<br>".join(lines)


def _effect_hover(result: ConceptEffects, one: ConceptEffect) -> str:
    order = np.argsort(-np.abs(one.effect), kind="stable")[:3]
    return (
        f"concept {one.rank} removed from the {one.flips.n} pictures that have it<br>"
        f"predictions that change {interval_text(one.flips)}<br>largest falls of class scores, in logits:<br>"
        + "<br>".join(f"{escape(result.class_names[place])} {number(float(one.effect[place]))}" for place in order)
    )


def _range(share: np.ndarray) -> str:
    value, low, high = (number(float(part)) for part in share)
    return f"{value} (95 % interval {low} to {high})"
