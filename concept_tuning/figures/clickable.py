"""Cells that can be clicked: Plotly selects points, not cells of a heat map, so points are laid over them."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

#: Of the points in pixels, at most, and of the chosen one.
_LARGEST, _CHOSEN = 34, "#E69F00"
#: Pixels of a figure that its panels do not use, and the width that a narrow page has.
_FRAME, _WIDTH = 120, 320


def clickable_cells(figure: go.Figure, cells: np.ndarray | None = None) -> go.Figure:
    """Lay an invisible point over filled cells of the heat maps, with the cell's customdata and hover text.

    A click anywhere chooses the nearest point, which shows as an orange square. The heat maps do without hover and data
    then; those without customdata are left alone.

    Args:
        figure: Changed in place, and returned.
        cells: (rows, columns) bool, which cells of every heat map have something to see; None: all that are filled.
    """
    for trace in [trace for trace in figure.data if trace.type == "heatmap" and trace.customdata is not None]:
        values = np.asarray(trace.z, dtype=float)
        rows, columns = np.nonzero(np.isfinite(values) if cells is None else np.isfinite(values) & cells)
        across = np.arange(values.shape[1]) if trace.x is None else np.asarray(trace.x)
        down = np.arange(values.shape[0]) if trace.y is None else np.asarray(trace.y)
        told = np.asarray(trace.hovertext, dtype=object)
        data = np.asarray(trace.customdata, dtype=object)
        height = float(figure.layout.height or 400) - _FRAME
        side = min(_LARGEST, 0.8 * height / values.shape[0], 0.8 * _WIDTH / values.shape[1])
        figure.add_scatter(
            x=across[columns],
            y=down[rows],
            xaxis=trace.xaxis,
            yaxis=trace.yaxis,
            mode="markers",
            marker={"symbol": "square", "size": max(side, 6.0), "color": _CHOSEN, "opacity": 0},
            selected={"marker": {"opacity": 0.55, "color": _CHOSEN}},
            unselected={"marker": {"opacity": 0}},
            customdata=data[rows, columns].tolist(),
            text=told[rows, columns].tolist() if told.shape == values.shape else None,
            hovertemplate="%{text}<br>click to see its pictures<extra></extra>",
            hoverlabel={"bgcolor": "#FFFFFF", "bordercolor": "#444444", "font": {"color": "#222222"}},
            showlegend=False,
            name=f"cells of {trace.name}" if trace.name else "cells",
        )
        trace.update(hoverinfo="skip", hovertemplate=None, hovertext=None, customdata=None)
        figure.update_layout(hovermode="closest", hoverdistance=-1)
    return figure
