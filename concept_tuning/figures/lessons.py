"""Figures of the lessons: what a shortcut pays, what an adjustment brings back, and a plan between points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.lessons import FrontDoorWorld, HabitatGuess
from concept_tuning.figures.style import BAD, COLOURS, GOOD, NEUTRAL, finish

#: Share of a point's mass below which a pair is not drawn, and width in pixels of the whole of it.
_LEAST, _WIDEST = 0.02, 9.0


def shortcut_figure(guesses: Sequence[HabitatGuess], rho: float) -> go.Figure:
    """Draw how often the habitat alone is enough, in training and in the test, with a line at the chosen ``rho``."""
    figure = go.Figure()
    rhos = [guess.rho for guess in guesses]
    for name, values, colour, dash in (
        ("training", [100 * guess.train for guess in guesses], COLOURS[1], "solid"),
        ("test, every habitat alike", [100 * guess.test for guess in guesses], COLOURS[0], "dash"),
    ):
        figure.add_scatter(x=rhos, y=values, name=name, line={"color": colour, "dash": dash, "width": 3})
    figure.add_vline(x=rho, line={"color": NEUTRAL, "dash": "dot"})
    figure.update_xaxes(title="rho: how often a bird is at home, 0–1", range=[-0.02, 1.02])
    figure.update_yaxes(title="guessed right (%)", range=[0, 103])
    return finish(figure, size=320)


def effect_figure(world: FrontDoorWorld) -> go.Figure:
    """Draw the effect that is seen, the adjusted one and the true one as bars."""
    names = ["what one sees", "front-door adjusted", "what is true"]
    values = [world.observed, world.adjusted, world.true]
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=names,
        orientation="h",
        marker={"color": [BAD, GOOD, NEUTRAL]},
        text=[f"{value:.2f}" for value in values],
        textposition="outside",
        cliponaxis=False,
    )
    figure.update_xaxes(title="effect on the answer, 0–1", range=[0, 1])
    figure.update_yaxes(autorange="reversed")
    finish(figure, size=230, legend=False)
    figure.update_layout(margin={"l": 140})
    return figure


def points_figure(first: np.ndarray, second: np.ndarray, plan: np.ndarray) -> go.Figure:
    """Draw two sets of points and a line for each pair of the plan, the wider the more goes along it.

    Args:
        first: (P, 2).
        second: (Q, 2).
        plan: (P, Q), sums to 1.
    """
    figure = go.Figure()
    shares = plan * len(first)
    for i, j in np.argwhere(shares >= _LEAST):
        figure.add_scatter(
            x=[first[i, 0], second[j, 0]],
            y=[first[i, 1], second[j, 1]],
            mode="lines",
            line={"color": NEUTRAL, "width": max(0.6, _WIDEST * float(shares[i, j]))},
            opacity=0.55,
            hoverinfo="skip",
            showlegend=False,
        )
    for name, points, colour, symbol in (
        ("patches of the first picture", first, COLOURS[0], "circle"),
        ("patches of the second picture", second, COLOURS[1], "square"),
    ):
        figure.add_scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers+text",
            text=[str(place + 1) for place in range(len(points))],
            textfont={"color": "white"},
            marker={"color": colour, "symbol": symbol, "size": 22},
            name=name,
            hovertemplate="point %{text}: %{x:.2f}, %{y:.2f}<extra></extra>",
        )
    figure.update_xaxes(title="first property of a patch", range=[-0.08, 1.08])
    figure.update_yaxes(title="second property of a patch", range=[-0.1, 1.1])
    return finish(figure, size=420)
