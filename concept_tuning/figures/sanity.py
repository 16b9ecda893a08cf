"""Sanity check of attribution maps: what is left of them while the network is randomised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.sanity import SanityCheck
from concept_tuning.figures.labels import escape, number, shorten, wrap
from concept_tuning.figures.style import COLOURS, finish

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
#: Distance of neighbouring lines' points, so that their bars do not hide each other.
_OFFSET = 0.05
#: What is randomised after each stage, by the number of stages between the head and the whole network.
_BETWEEN = ((), ("half of the layers",), ("last layers", "early layers"), ("last layers", "middle", "early layers"))


def sanity_figure(result: SanityCheck) -> go.Figure:
    """Draw the rank correlation with the trained network's maps after each stage, one line for each kind of map.

    Bars span the middle half of the pictures. The last points are chance, the correlation of the trained
    network's maps of different pictures: a map that stays above it does not depend on what was learnt. With one
    kind of map, a line at chance as well. Axes tell the stages in words, hovers the names of the layers.
    """
    figure = go.Figure()
    stages = len(result.stages)
    for place, name in enumerate(result.maps):
        colour = COLOURS[place % len(COLOURS)]
        offset = (place - (len(result.maps) - 1) / 2) * _OFFSET
        means, (low, high) = result.mean_correlation[place], _middle_half(result.correlation[place])
        figure.add_scatter(
            x=[stage + offset for stage in range(stages)],
            y=means,
            error_y={"array": high - means, "arrayminus": means - low, "thickness": 1, "width": 3},
            mode="lines+markers",
            line={"color": colour, "dash": _DASHES[place % len(_DASHES)]},
            marker={"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 8},
            text=[_hover(result, place, stage, low, high) for stage in range(stages)],
            hovertemplate="%{text}<extra></extra>",
            name=shorten(name, 22),
            legendgroup=name,
        )
        figure.add_scatter(
            x=[stages + offset],
            y=[result.chance[place]],
            mode="markers",
            marker={"color": colour, "symbol": f"{_SYMBOLS[place % len(_SYMBOLS)]}-open", "size": 10},
            text=[f"{escape(name)}<br>chance: {number(float(result.chance[place]))}"],
            hovertemplate="%{text}<extra></extra>",
            name=f"{name}, chance",
            legendgroup=name,
            showlegend=False,
        )
    if len(result.maps) == 1 and np.isfinite(result.chance[0]):
        figure.add_hline(y=float(result.chance[0]), line={"color": COLOURS[0], "width": 1, "dash": "dot"})
    finish(figure, size=460)
    figure.add_vline(x=stages - 0.5, line={"color": "#999999", "width": 1, "dash": "dot"})
    figure.update_xaxes(
        title_text=f"randomised up to (n = {len(result.keys)} pictures)",
        title_font_size=12,
        tickvals=list(range(stages + 1)),
        ticktext=[*_ticks(result.stages), "chance:<br>other<br>pictures"],
        tickangle=0,
        tickfont_size=11,
        range=[-0.4, stages + 0.4],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        title_text="rank correlation with the trained map, −1 to 1",
        title_font_size=12,
        autorangeoptions_include=[0, 1],
    )
    return figure


def _middle_half(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the quartiles over the last axis of the finite values; NaN where there are none."""
    ends = np.full((2, len(values)), np.nan)
    for row, found in enumerate(values):
        finite = found[np.isfinite(found)]
        if len(finite):
            ends[:, row] = np.percentile(finite, [25, 75])
    return ends[0], ends[1]


def _ticks(stages: Sequence[str]) -> list[str]:
    """Return the stages in narrow lines, in words unless there are many; what is randomised stays so in the next."""
    between = len(stages) - 2
    if 0 <= between < len(_BETWEEN):
        stages = ("head", *_BETWEEN[between], "all layers")
    return [wrap(stage.replace("_", " ").replace(".", " "), 8) for stage in stages]


def _hover(result: SanityCheck, place: int, stage: int, low: np.ndarray, high: np.ndarray) -> str:
    return (
        f"{escape(result.maps[place])}<br>randomised: {escape(', '.join(result.stages[: stage + 1]))}"
        f"<br>mean {number(float(result.mean_correlation[place, stage]))}, "
        f"middle half {number(float(low[stage]))} to {number(float(high[stage]))}, "
        f"n = {int(result.counts[place, stage])}"
    )
