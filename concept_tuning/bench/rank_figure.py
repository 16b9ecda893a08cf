"""The critical-difference diagram: average ranks on a line, and bars that join methods which do not differ."""

from __future__ import annotations

import textwrap

import plotly.graph_objects as go

from concept_tuning.bench.ranks import Ranking, counted, weakness
from concept_tuning.figures.labels import escape, shorten
from concept_tuning.figures.style import BAD, COLOURS, finish

_INK = "#1c2530"
#: Pixels of a name, a bar and a line of text, between the line of ranks and what is above it, and beside it.
_NAME, _BAR, _TEXT, _ABOVE, _SIDE = 24, 11, 18, 52, 210
#: Characters of a line of text.
_WIDE = 120


def rank_figure(ranking: Ranking) -> go.Figure:
    """Draw average ranks from the best, on the left, to the worst, with what was counted and tested above them."""
    count = len(ranking.methods)
    said = [*textwrap.wrap(counted(ranking), _WIDE), *textwrap.wrap(weakness(ranking), _WIDE)]
    figure = go.Figure()
    top = _BAR * (len(ranking.joined) + 2)
    bottom = top + _NAME * -(-count // 2)
    _add_line(figure, count)
    _add_names(figure, ranking, top)
    for place, (first, last) in enumerate(ranking.joined):
        ends = [ranking.averages[first] - 0.004 * count, ranking.averages[last] + 0.004 * count]
        figure.add_scatter(
            x=ends,
            y=[_BAR * (place + 1)] * 2,
            mode="lines",
            line={"color": COLOURS[1], "width": 5},
            hovertext=f"not told apart: {escape(ranking.methods[first])} to {escape(ranking.methods[last])}",
            hoverinfo="text",
            name="joined",
        )
    if ranking.critical_difference < count - 1:
        _add_difference(figure, ranking.critical_difference)
    height = _ABOVE + bottom
    _write(figure, said, len(textwrap.wrap(counted(ranking), _WIDE)), height)
    above = _TEXT * len(said) + 8
    finish(figure, size=height + above + 10, legend=False)
    figure.update_layout(margin={"l": _SIDE, "r": _SIDE, "t": above, "b": 10}, hovermode="closest")
    figure.update_xaxes(visible=False, range=[1 - 0.02 * count, count + 0.02 * count], fixedrange=True)
    figure.update_yaxes(visible=False, range=[bottom, -_ABOVE], fixedrange=True)
    return figure


def _add_line(figure: go.Figure, count: int) -> None:
    """Add the line of ranks, with a tick and a number at each whole rank."""
    x: list[float | None] = [1, count, None]
    y: list[float | None] = [0, 0, None]
    for rank in range(1, count + 1):
        x += [rank, rank, None]
        y += [0, -6, None]
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": _INK, "width": 1.5}, hoverinfo="skip", name="line")
    figure.add_scatter(
        x=list(range(1, count + 1)),
        y=[-8] * count,
        mode="text",
        text=[str(rank) for rank in range(1, count + 1)],
        textposition="top center",
        textfont={"size": 12},
        hoverinfo="skip",
        name="ranks",
    )
    for text, side in (("best", "right"), ("worst", "left")):
        figure.add_annotation(
            x=1 if side == "right" else count,
            y=0,
            text=text,
            showarrow=False,
            xanchor=side,
            xshift=-14 if side == "right" else 14,
            font={"size": 12, "color": "#5a6675"},
        )


def _add_names(figure: go.Figure, ranking: Ranking, top: float) -> None:
    """Add a bent line from each method's average rank to its name, the better half to the left."""
    count = len(ranking.methods)
    left = -(-count // 2)
    for place, (method, average) in enumerate(zip(ranking.methods, ranking.averages, strict=True)):
        is_left = place < left
        y = top + _NAME * ((place if is_left else count - 1 - place) + 0.3)
        edge = 1 - 0.015 * count if is_left else count + 0.015 * count
        ranks = ", ".join(f"{rank:g}" for rank in ranking.ranks[:, place])
        figure.add_scatter(
            x=[average, average, edge],
            y=[0, y, y],
            mode="lines",
            line={"color": _INK, "width": 1},
            hovertext=f"{escape(method)}<br>average rank {average:.2f}<br>ranks in the blocks: {ranks}",
            hoverinfo="text",
            name=method,
        )
        name = shorten(method, 22)
        figure.add_annotation(
            x=edge,
            y=y,
            text=f"{name} <b>{average:.2f}</b>" if is_left else f"<b>{average:.2f}</b> {name}",
            showarrow=False,
            xanchor="right" if is_left else "left",
            xshift=-2 if is_left else 2,
            font={"size": 13},
        )


def _add_difference(figure: go.Figure, difference: float) -> None:
    """Add the critical difference as a length above the line."""
    figure.add_scatter(
        x=[1, 1, 1, 1 + difference, 1 + difference, 1 + difference],
        y=[-36, -44, -40, -40, -44, -36],
        mode="lines",
        line={"color": COLOURS[1], "width": 1.5},
        hoverinfo="skip",
        name="critical difference",
    )
    figure.add_annotation(
        x=1 + difference,
        y=-40,
        text="critical difference",
        showarrow=False,
        xanchor="left",
        xshift=4,
        font={"size": 12, "color": COLOURS[1]},
    )


def _write(figure: go.Figure, said: list[str], plain: int, height: int) -> None:
    """Write lines of text above the drawing, those after the first ``plain`` ones as a warning."""
    for place, line in enumerate(said):
        figure.add_annotation(
            text=escape(line),
            xref="paper",
            yref="paper",
            x=0,
            y=1,
            xanchor="left",
            yanchor="bottom",
            xshift=-_SIDE + 8,
            yshift=_TEXT * (len(said) - 1 - place),
            showarrow=False,
            align="left",
            font={"size": 13, "color": _INK if place < plain else BAD},
        )
