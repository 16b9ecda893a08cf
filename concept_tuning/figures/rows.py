"""Rows with an estimate each: points with intervals about them, and the names beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from concept_tuning.diagnostics.results import Interval

#: Of a line that an estimate is to be read against.
LINE = "#444444"
#: Share of a row's height that its points are spread over.
_SPREAD = 0.5
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "pentagon", "triangle-down")

#: Row and column of a panel, from 1; None: the figure has one panel.
Panel = tuple[int, int] | None


def add_points(
    figure: go.Figure,
    intervals: Sequence[Interval],
    rows: Sequence[float],
    *,
    name: str,
    hover: Sequence[str],
    colour: str | Sequence[str],
    symbol: str | Sequence[str] = "circle",
    customdata: Sequence[Any] | None = None,
    panel: Panel = None,
    legend: bool = True,
) -> None:
    """Add estimates with their intervals as one trace.

    Args:
        figure: To add to.
        intervals: The estimates.
        rows: Where each lies on the vertical axis.
        name: Of the trace; traces of the same name in other panels go with it.
        hover: Text for each.
        colour: Of all, or of each point (bars are then grey).
        symbol: Of all, or of each.
        customdata: What a page is told of a click on each.
        panel: Where.
        legend: Whether the trace is named in the legend.
    """
    row, column = panel or (None, None)
    figure.add_scatter(
        row=row,
        col=column,
        x=[interval.value for interval in intervals],
        y=list(rows),
        error_x=error_bars(intervals) | {"color": colour if isinstance(colour, str) else "#888888"},
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 10},
        text=list(hover),
        hovertemplate="%{text}<extra></extra>",
        customdata=None if customdata is None else list(customdata),
        name=name,
        legendgroup=name,
        showlegend=legend,
    )


def error_bars(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Return the bars of intervals; that of an estimate which lies outside its interval goes to one side."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(interval.high - interval.value, 0.0) for interval in intervals],
        "arrayminus": [max(interval.value - interval.low, 0.0) for interval in intervals],
        "thickness": 1.5,
        "width": 4,
    }


def spread(count: int) -> list[float]:
    """Return the offsets at which ``count`` points of a row lie, so that they do not hide each other."""
    return [(place - (count - 1) / 2) * _SPREAD / max(count, 2) for place in range(count)]


def symbol_of(place: int) -> str:
    """Return the symbol of a series by its place, which tells it apart beside its colour."""
    return _SYMBOLS[place % len(_SYMBOLS)]


def name_rows(figure: go.Figure, names: Sequence[str], *, panel: Panel = None, shown: bool = True) -> None:
    """Lay rows 0, 1, ... downwards and write their names, ready-made texts, beside them."""
    row, column = panel or (None, None)
    figure.update_yaxes(
        row=row,
        col=column,
        tickvals=list(range(len(names))),
        ticktext=list(names),
        showticklabels=shown,
        range=[max(1, len(names)) - 0.5, -0.5],
        automargin=True,
        showgrid=False,
        zeroline=False,
        tickfont_size=12,
        ticklabelstandoff=4,
    )


def rate_axis(figure: go.Figure, title: str, *, panel: Panel = None) -> None:
    """Make the horizontal axis one of shares 0..1."""
    row, column = panel or (None, None)
    figure.update_xaxes(
        row=row, col=column, title_text=title, title_font_size=12, range=[-0.03, 1.03], zeroline=False, nticks=6
    )
