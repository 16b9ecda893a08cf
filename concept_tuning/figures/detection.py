"""How well detectors notice a planted shortcut, by how strong it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from concept_tuning.figures.rows import LINE, symbol_of
from concept_tuning.figures.style import COLOURS, finish

#: Scores of the recorded sweep that are drawn, and what they are called.
DETECTORS: Mapping[str, str] = {
    "properties": "simple properties",
    "concepts.test": "suspicious concepts",
    "slices.test": "gathered mistakes",
    "home_gap": "habitats known",
}
_SPREAD = 0.008


def detection_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the AUC of each detector against rho, runs with a shortcut against clean ones.

    Args:
        rows: Of the recorded sweep: ``score``, ``rho``, ``auc``, ``low``, ``high`` and ``runs``, the two counts.
            Scores that are not in :data:`DETECTORS` are left out.
    """
    figure = go.Figure()
    for place, (score, name) in enumerate(DETECTORS.items()):
        found = sorted((row for row in rows if row["score"] == score), key=lambda row: row["rho"])
        if not found:
            continue
        figure.add_scatter(
            x=[row["rho"] + (place - 1.5) * _SPREAD for row in found],
            y=[row["auc"] for row in found],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [row["high"] - row["auc"] for row in found],
                "arrayminus": [row["auc"] - row["low"] for row in found],
                "thickness": 1.5,
                "width": 4,
            },
            mode="lines+markers",
            line={"color": COLOURS[place], "width": 1.5, "dash": "dot" if score == "home_gap" else "solid"},
            marker={"size": 10, "symbol": symbol_of(place)},
            text=[
                f"{name}, rho {row['rho']:g}<br>AUC {row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
                f"<br>{row['runs'][0]} runs against {row['runs'][1]} clean ones"
                for row in found
            ],
            hovertemplate="%{text}<extra></extra>",
            name=name,
        )
    finish(figure, size=400)
    figure.add_hline(y=0.5, line={"color": LINE, "width": 1, "dash": "dash"})
    figure.update_layout(margin={"l": 8, "r": 8})
    figure.update_xaxes(title_text="rho (0: no shortcut, 1: every bird at home)", range=[-0.06, 1.04], zeroline=False)
    figure.update_yaxes(title_text="AUC (0.5: chance, 1: always)", range=[-0.03, 1.06], automargin=True)
    return figure
