"""Which classes are mistaken for which: a matrix of classes and predictions for each run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.figures.labels import escape, run_labels, shorten, wrap
from concept_tuning.figures.style import RATE_SCALE, finish

#: Most classes whose cells hold a count, and whose names all stand beside the matrix.
_COUNTED, _NAMED = 15, 30
#: Most classes of which two matrices fit beside each other on a narrow page.
_NARROW = 5
#: Pixels below, above and between panels.
_FRAME = 120


def confusion_figure(results: Sequence[Predictions]) -> go.Figure:
    """Draw a matrix for each run: rows are classes, columns predictions, colours the share of the row.

    The customdata of a cell are the places of class and prediction.

    Args:
        results: The predictions of one or more runs, of the same classes.
    """
    classes = len(results[0].class_names)
    columns = 2 if len(results) > 1 and classes <= _NARROW else 1
    rows = -(-len(results) // columns)
    side = max(180, classes * (44 if classes <= _COUNTED else 14))
    height = rows * (side + _FRAME)
    labels = run_labels(result.run for result in results)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[shorten(labels[result.run], 40 if columns == 1 else 22) for result in results],
        horizontal_spacing=0.05,
        vertical_spacing=_FRAME / height if rows > 1 else 0,
    )
    for place, result in enumerate(results):
        row, column = place // columns + 1, place % columns + 1
        figure.add_trace(_matrix(result), row=row, col=column)
        _name_axes(figure, result, row, column)
    finish(figure, size=height, legend=False)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        margin={"l": 8, "r": 8},
        coloraxis={
            "colorscale": RATE_SCALE,
            "cmin": 0,
            "cmax": 1,
            "showscale": classes > _COUNTED,
            "colorbar": {"title": {"text": "share of the class", "side": "top"}, "thickness": 12, "tickformat": ".0%"},
        },
    )
    return figure


def _matrix(result: Predictions) -> go.Heatmap:
    counts = result.confusion
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    names, run = [escape(name) for name in result.class_names], escape(result.run)
    hover = [
        [f"{run}<br>{names[i]} predicted as {names[j]}<br>{counts[i, j]} of {totals[i, 0]}" for j in range(len(names))]
        for i in range(len(names))
    ]
    return go.Heatmap(
        z=shares,
        coloraxis="coloraxis",
        text=counts,
        texttemplate="%{text}" if len(names) <= _COUNTED else "",
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        customdata=np.moveaxis(np.indices(counts.shape), 0, -1),
        xgap=1,
        ygap=1,
        name=result.run,
    )


def _name_axes(figure: go.Figure, result: Predictions, row: int, column: int) -> None:
    classes = len(result.class_names)
    named = list(range(0, classes, max(1, -(-classes // _NAMED))))
    few = classes <= _NARROW
    ticks = [wrap(result.class_names[place]) if few else shorten(result.class_names[place], 24) for place in named]
    figure.update_xaxes(
        row=row,
        col=column,
        title_text="predicted",
        title_standoff=4,
        tickvals=named,
        ticktext=ticks,
        tickangle=0 if few else -45,
        tickfont_size=11,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        row=row,
        col=column,
        title_text="class" if column == 1 else "",
        tickvals=named,
        ticktext=ticks,
        showticklabels=column == 1,
        ticklabelstandoff=4,
        range=[classes - 0.5, -0.5],
        automargin=True,
        showgrid=False,
        zeroline=False,
    )
