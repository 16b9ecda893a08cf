"""How well simple properties of the pictures tell the classes, and how one of them is spread in each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.properties import FLAGGED, PropertyScore, PropertyTable
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.labels import escape, interval_text, number, percent, shorten
from concept_tuning.figures.rows import error_bars, name_rows, rate_axis
from concept_tuning.figures.style import BAD, COLOURS, FONT, NEUTRAL, finish

#: What a property's numbers are.
_UNITS: Mapping[str, str] = {
    "brightness": "mean brightness, 0 black – 1 white",
    "contrast": "contrast, standard deviation of the brightness (0–½)",
    "colourfulness": "colourfulness, 0 grey – some 100 vivid",
    "sharpness": "sharpness, log10 of the variance of the edges",
    "size": "size of the file, log2 of its pixels",
    "aspect": "aspect, log2 of width over height",
    "odd aspect": "shorter over longer side (0–1)",
}
_COLOUR_UNIT = "mean {component} (0–1)"
_HUE_UNIT = "hue, {component} (−1 to 1)"
#: Pictures up to which every one is drawn as a point.
_POINTS = 2000
#: Pixels of a class, and between panels.
_ROW, _FRAME = 34, 70


def strength_figure(table: PropertyTable) -> go.Figure:
    """Draw how well each property alone tells the classes: 0 as the largest class does, 1 without an error.

    The intervals are those of the accuracy, on the scale of the strength. Flagged properties lie right of the
    dotted line and have another colour; so have those that tell no more than chance may. The accuracy itself stands
    beside the names.
    """
    figure = go.Figure()
    kinds = (
        ("flagged", BAD, [one for one in table.properties if one.flagged]),
        ("tells the classes", COLOURS[0], [one for one in table.properties if one.informative and not one.flagged]),
        ("no more than chance", NEUTRAL, [one for one in table.properties if not (one.informative or one.flagged)]),
    )
    places = {one.name: place for place, one in enumerate(table.properties)}
    for name, colour, found in kinds:
        if not found:
            continue
        figure.add_bar(
            orientation="h",
            x=[one.strength for one in found],
            y=[places[one.name] for one in found],
            error_x=error_bars([_on_strength(one) for one in found]),
            marker_color=colour,
            width=0.65,
            text=[_told(table, one) for one in found],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            customdata=[one.name for one in found],
            name=name,
        )
    finish(figure, size=130 + 30 * max(1, len(table.properties)))
    figure.add_vline(x=1 - FLAGGED, line={"color": BAD, "width": 1.5, "dash": "dot"})
    counts = f", n = {table.properties[0].accuracy.n}" if table.properties else ""
    rate_axis(figure, f"how well the property alone tells the class (0–1)<br>dotted: flagged from here on{counts}")
    name_rows(figure, [f"{escape(one.name)}, {percent(one.accuracy.value, 0)} right" for one in table.properties])
    figure.update_layout(margin={"l": 8})
    return figure


def property_figure(table: PropertyTable, name: str) -> go.Figure:
    """Draw how a property is spread over the pictures of each class, one panel for each of its numbers.

    A box spans the middle half of a class's pictures and its line is the median; a white diamond is the mean.
    The customdata of the points are the pictures' keys.

    Args:
        table: The properties.
        name: One of them.

    Raises:
        KeyError: There is no such property.
    """
    found = {one.name: one for one in table.properties}[name]
    panels, classes = len(found.components), len(table.class_names)
    height = panels * (max(classes, 1) * _ROW + _FRAME)
    figure = make_subplots(rows=panels, cols=1, vertical_spacing=_FRAME / height if panels > 1 else 0)
    for place, component in enumerate(found.components):
        figure.add_trace(_boxes(table, found, place), row=place + 1, col=1)
        figure.add_trace(_means(table, found, place), row=place + 1, col=1)
        figure.update_xaxes(row=place + 1, col=1, title_text=_unit(name, component), title_font_size=12, zeroline=False)
        labels = [
            f"{shorten(label, 24)}<br>n = {int(count)}"
            for label, count in zip(table.class_names, table.counts, strict=True)
        ]
        name_rows(figure, labels, panel=(place + 1, 1))
    finish(figure, size=height + 30, legend=False)
    figure.update_layout(margin={"l": 8, "t": 12})
    return figure


def _boxes(table: PropertyTable, found: PropertyScore, component: int) -> go.Box:
    return go.Box(
        orientation="h",
        x=found.values[:, component],
        y=table.labels,
        customdata=list(table.keys),
        text=[
            f"{escape(key)}<br>{escape(table.class_names[int(label)])}"
            for key, label in zip(table.keys, table.labels, strict=True)
        ],
        hovertemplate="%{text}<br>%{x:.3g}<extra></extra>",
        boxpoints="all" if len(table.keys) <= _POINTS else "outliers",
        jitter=0.6,
        pointpos=0,
        marker={"size": 4, "opacity": 0.35, "color": COLOURS[0]},
        line={"color": "#333333", "width": 1.5},
        fillcolor="rgba(0,0,0,0)",
        hoveron="points",
        name=found.name,
    )


def _means(table: PropertyTable, found: PropertyScore, component: int) -> go.Scatter:
    means = found.class_means[:, component]
    return go.Scatter(
        x=means,
        y=np.arange(len(means)),
        mode="markers",
        marker={"symbol": "diamond", "size": 10, "color": "#FFFFFF", "line": {"color": "#000000", "width": 1.5}},
        text=[
            f"{escape(label)}<br>mean {number(float(mean))}, n = {int(count)}"
            for label, mean, count in zip(table.class_names, means, table.counts, strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
        hoverlabel={"font": {"family": FONT}},
        name="mean of the class",
    )


def _on_strength(one: PropertyScore) -> Interval:
    """Return the interval of the accuracy on the scale of the strength, which grows with it in a straight line."""
    low, high = (max(0.0, (end - one.baseline) / (1 - one.baseline)) for end in (one.accuracy.low, one.accuracy.high))
    return Interval(value=one.strength, low=low, high=high, level=one.accuracy.level, n=one.accuracy.n)


def _told(table: PropertyTable, one: PropertyScore) -> str:
    return (
        f"{escape(one.name)}{': flagged' if one.flagged else ''}<br>accuracy from it alone "
        f"{interval_text(one.accuracy)}<br>largest class {number(one.baseline)}, of {len(table.class_names)} classes"
        f"<br>strength {number(one.strength)}, score {number(one.score)}"
    )


def _unit(name: str, component: str) -> str:
    if name == "hue":
        return _HUE_UNIT.format(component=escape(component))
    if name.endswith(" colour"):
        part = {"mean colour": "picture", "centre colour": "centre", "border colour": "border"}.get(name, name)
        return _COLOUR_UNIT.format(component=f"{component} of the {part}")
    return _UNITS.get(name, escape(component))
