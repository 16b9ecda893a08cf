"""Differences between methods with their intervals against zero, and what they say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from concept_tuning.diagnostics.verdict import Comparison, Outcome, Verdict, sentence_of
from concept_tuning.diagnostics.words import signed
from concept_tuning.figures.labels import escape, number, wrap
from concept_tuning.figures.rows import LINE
from concept_tuning.figures.style import BAD, GOOD, NEUTRAL, finish

_LOOKS: Mapping[Outcome, tuple[str, str]] = {
    "better": (GOOD, "diamond"),
    "worse": (BAD, "square"),
    "no difference shown": (NEUTRAL, "circle"),
}
#: Characters of a line that fit on a narrow page, and pixels of a line and of a row without its text.
_LENGTH, _LINE, _ROW = 54, 15, 62


def verdict_figure(verdicts: Sequence[Verdict]) -> go.Figure:
    """Draw the differences in accuracy and in worst-group accuracy with their intervals, and the sentence above each.

    Right of zero the first of the two methods is better. A worst-group comparison that is not there is left out.

    Args:
        verdicts: Between every two methods.
    """
    found = [(verdict, one) for verdict in verdicts for one in _comparisons(verdict)]
    texts = [_text(verdict, one) for verdict, one in found]
    heights = [_ROW + _LINE * (1 + text.count("<br>")) for text in texts]
    total = sum(heights) or _ROW
    figure = go.Figure()
    top = 0.0
    for (verdict, one), text, height in zip(found, texts, heights, strict=True):
        figure.add_annotation(
            text=text,
            x=0,
            xref="paper",
            xanchor="left",
            y=top + 10,
            yanchor="top",
            align="left",
            showarrow=False,
            font={"size": 12},
            bgcolor="#FFFFFF",
        )
        _add_difference(figure, verdict, one, top + height - 24)
        top += height
    finish(figure, size=total + 80, legend=False)
    figure.add_vline(x=0, line={"color": LINE, "width": 1.5})
    figure.update_layout(margin={"l": 16, "r": 16, "t": 12, "b": 68})
    reach = 1.1 * max((abs(end) for _, one in found for end in _ends(one)), default=1.0)
    figure.update_xaxes(
        title_text="difference, percentage points<br>← second method better · first better →",
        title_font_size=12,
        range=[-max(reach, 1.0), max(reach, 1.0)],
        zeroline=False,
    )
    figure.update_yaxes(range=[total, 0], showticklabels=False, showgrid=False, zeroline=False)
    return figure


def _comparisons(verdict: Verdict) -> list[Comparison]:
    return [one for one in (verdict.accuracy, verdict.worst_group) if isinstance(one, Comparison)]


def _text(verdict: Verdict, one: Comparison) -> str:
    heading = wrap(f"{one.measure}: {verdict.names[0]} − {verdict.names[1]}", 46)
    return f"<b>{heading}</b><br>{wrap(sentence_of(verdict, one), _LENGTH)}"


def _ends(one: Comparison) -> tuple[float, float, float]:
    difference = one.difference
    return 100 * difference.value, 100 * difference.low, 100 * difference.high


def _add_difference(figure: go.Figure, verdict: Verdict, one: Comparison, y: float) -> None:
    """Draw the interval as a line of its own: that of a minimum need not hold the estimate."""
    # one seed says something of the runs, nothing of the methods
    colour, symbol = _LOOKS[one.outcome if min(verdict.seeds) > 1 else "no difference shown"]
    value, low, high = _ends(one)
    figure.add_scatter(
        x=[low, low, low, high, high, high],
        y=[y - 6, y + 6, y, y, y - 6, y + 6],
        mode="lines",
        line={"color": colour, "width": 3},
        hoverinfo="skip",
        name=f"interval of {one.measure}",
    )
    first, second = (escape(name) for name in verdict.names)
    figure.add_scatter(
        x=[value],
        y=[y],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 14, "line": {"color": "#FFFFFF", "width": 1}},
        text=[
            f"{one.measure}, {first} − {second}<br>{signed(value, 2)} points, {100 * one.difference.level:g} % "
            f"interval {signed(low, 2)} to {signed(high, 2)}"
            f"<br>{first}: {number(one.first)}, {second}: {number(one.second)}"
            f"<br>{one.differing} of {_drawn(one)} differ"
            f"<br>{verdict.seeds[0]} and {verdict.seeds[1]} runs{', paired' if verdict.seeds_paired else ''}"
        ],
        hovertemplate="%{text}<extra></extra>",
        name=one.measure,
    )


def _drawn(one: Comparison) -> str:
    """Return what was drawn again, in words."""
    return f"{one.difference.n} pictures" if one.units is None else f"{one.units} units"
