"""How training goes: the loss terms of a run, and the accuracy on validation of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from concept_tuning.engine.curves import Metrics
from concept_tuning.figures.labels import escape, shorten
from concept_tuning.figures.style import COLOURS, finish, run_colours

#: Points of a line; more are thinned out evenly, the last one kept.
_POINTS = 600
_NO_TERM = ("step", "epoch", "loss")
#: Typical values of the terms that are further apart are drawn on a logarithmic axis, of at most so many decades.
_APART, _DECADES = 100, 6
_DASHES = ("solid", "dash", "dot", "dashdot")


def loss_figure(metrics: Metrics) -> go.Figure:
    """Draw the total loss and each of its terms over the optimiser steps; a single term is the total and drawn once.

    Where one term is so large that the others would lie on the ground, the axis is logarithmic, and values that are
    not above zero are left out.
    """
    columns = metrics.steps
    terms = [name for name in columns if name not in _NO_TERM]
    names = ["loss", *terms] if len(terms) > 1 and "loss" in columns else terms
    figure = go.Figure()
    for place, name in enumerate(names):
        steps, values = _thinned(columns["step"], columns[name])
        label = "all together" if name == "loss" else escape(name.replace("_", " "))
        style = {"color": COLOURS[place % len(COLOURS)], "width": 3 if name == "loss" else 1.5}
        figure.add_scatter(
            x=steps, y=values, name=label, line=style | {"dash": _DASHES[place % len(_DASHES)]}, mode="lines"
        )
    figure.update_xaxes(title="optimiser step")
    _scale_losses(figure, [_positive(columns[name]) for name in names])
    finish(figure, size=300, legend=True)
    return figure


def _scale_losses(figure: go.Figure, terms: Sequence[Sequence[float]]) -> None:
    terms = [values for values in terms if values]
    typical = [median(values) for values in terms]
    if not typical or max(typical) <= _APART * min(typical):
        figure.update_yaxes(title="loss", rangemode="tozero")
        return
    top = math.log10(max(max(values) for values in terms))
    bottom = math.log10(min(min(values) for values in terms))
    figure.update_yaxes(
        title="loss (logarithmic)",
        type="log",
        range=[max(bottom, top - _DECADES) - 0.1, top + 0.1],
        dtick=1,
        exponentformat="power",
    )
    for line in figure.data:
        if any(value is not None and value <= 0 for value in line.y):
            figure.update_yaxes(title="loss (logarithmic, without zeros)")
        line.y = [value if value is not None and value > 0 else None for value in line.y]


def _positive(values: Sequence[Any]) -> list[float]:
    return [value for value in values if value is not None and value > 0 and math.isfinite(value)]


def accuracy_figure(metrics: Mapping[str, Metrics]) -> go.Figure:
    """Draw the accuracy on validation after each evaluation, a line a run, in percent.

    Args:
        metrics: By the name of the run.
    """
    colours = run_colours(list(metrics))
    figure = go.Figure()
    for place, (run, found) in enumerate(metrics.items()):
        columns = found.evaluations
        if not columns.get("accuracy"):
            continue
        values = [None if value is None else 100 * value for value in columns["accuracy"]]
        steps, values = _thinned(columns["step"], values)
        figure.add_scatter(
            x=steps,
            y=values,
            name=shorten(run, 30),
            line={"color": colours[run], "dash": _DASHES[place % len(_DASHES)]},
            mode="lines+markers",
            hovertemplate="step %{x}<br>%{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title="optimiser step")
    figure.update_yaxes(title="validation accuracy (%)", range=[0, 103])
    finish(figure, size=300, legend=True)
    return figure


def _thinned(steps: Sequence[Any], values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    stride = -(-len(steps) // _POINTS) or 1
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1} - {-1})
    return [steps[place] for place in kept], [values[place] for place in kept]
