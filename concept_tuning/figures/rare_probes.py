"""How well single concepts tell classes apart, before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.rare_results import RareFeatures, Rarity
from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.figures.labels import escape, number, run_labels, shorten
from concept_tuning.figures.rare_use import network_colours
from concept_tuning.figures.rows import name_rows
from concept_tuning.figures.style import NEUTRAL, finish


def has_probes(result: RareFeatures) -> bool:
    """Return whether some concept is useful, and so has a row in :func:`probe_figure`."""
    rare = isinstance(result.rarity, Rarity) and bool(np.any(result.rarity.rare))
    return rare or bool(np.any(result.presence.useful))


def probe_figure(result: RareFeatures, *, runs: Sequence[str] | None = None, limit: int = 15) -> go.Figure:
    """Draw how well each concept tells its class from the rest before and after fine-tuning.

    The first rows are the medians of all rare concepts and of the useful ones that are not rare, with bars over
    the middle half of them; then follow the most informative rare concepts. Lines join the network before
    fine-tuning with each run. Chance is 0.5. There is nothing to draw unless :func:`has_probes`.

    Args:
        result: The concepts.
        runs: All runs of the page, for their colours.
        limit: Most rows of single concepts.
    """
    rare = result.rarity.rare if isinstance(result.rarity, Rarity) else np.zeros(len(result.concepts), bool)
    useful = np.asarray(result.presence.useful, bool)
    groups = [
        (f"{name} ({int(mask.sum())})", np.flatnonzero(mask))
        for name, mask in (("rare", rare), ("useful, not rare", useful & ~rare))
        if mask.any()
    ]
    single = sorted(np.flatnonzero(rare).tolist(), key=lambda place: -float(result.presence.excess[place]))[:limit]
    rows = [f"<b>{name}</b>" for name, _ in groups] + [shorten(result.concepts[place], 18) for place in single]
    names = [network.name for network in result.networks]
    colours, labels = network_colours(names, runs), run_labels([*(runs or ()), *names])
    figure = go.Figure()
    for position, network in enumerate(result.networks):
        middle = [_quartiles(network.auc[members]) for _, members in groups]
        own = [float(network.auc[place]) for place in single]
        x = [values[1] for values in middle] + own
        offset = 0.0 if network.name == PRETRAINED else _spread(position - 1, len(result.networks) - 1)
        figure.add_scatter(
            x=x,
            y=[row + offset for row in range(len(rows))],
            error_x={
                "array": [values[2] - values[1] for values in middle] + [0.0] * len(own),
                "arrayminus": [values[1] - values[0] for values in middle] + [0.0] * len(own),
                "thickness": 1,
                "width": 4,
            },
            mode="markers",
            marker={
                "color": colours.get(network.name, NEUTRAL),
                "size": 10,
                "symbol": "circle-open" if network.name == PRETRAINED else "circle",
                "line": {"width": 2, "color": colours.get(network.name, NEUTRAL)},
            },
            customdata=[None] * len(groups) + single,
            text=[
                *(_group_hover(network.name, name, values) for (name, _), values in zip(groups, middle, strict=True)),
                *(_auc_hover(result, network.name, place) for place in single),
            ],
            hovertemplate="%{text}<extra></extra>",
            name=shorten(labels[network.name], 24),
        )
    _add_dumbbells(figure, names, colours)
    finish(figure, size=140 + 30 * max(3, len(rows)))
    figure.add_vline(x=0.5, line={"color": "#444444", "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="AUC of telling the class it marks (0.5 = chance)", title_font_size=12)
    name_rows(figure, rows)
    return figure


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    finite = values[np.isfinite(values)]
    low, middle, high = np.percentile(finite, [25, 50, 75]) if len(finite) else (np.nan,) * 3
    return float(low), float(middle), float(high)


def _spread(position: int, count: int) -> float:
    """Return the height of a run's point beside those of the other runs."""
    return (position - (count - 1) / 2) * min(0.2, 0.6 / max(1, count))


def _add_dumbbells(figure: go.Figure, names: Sequence[str], colours: Mapping[str, str]) -> None:
    """Join the points of the network before fine-tuning with those of every run, below the points."""
    points = dict(zip(names, figure.data, strict=True))
    if PRETRAINED not in points:
        return
    before, lines = points[PRETRAINED], []
    for name in names:
        if name == PRETRAINED:
            continue
        x: list[float | None] = []
        y: list[float | None] = []
        for start, end, row in zip(before.x, points[name].x, points[name].y, strict=True):
            x += [start, end, None]
            y += [row, row, None]
        colour = colours.get(name, NEUTRAL)
        lines.append(
            go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip", showlegend=False)
        )
    figure.add_traces(lines)
    figure.data = (*figure.data[len(names) :], *figure.data[: len(names)])


def _group_hover(network: str, group: str, values: tuple[float, float, float]) -> str:
    low, middle, high = values
    return (
        f"{escape(network)}<br>{escape(group)}: median AUC {number(middle)}"
        f"<br>middle half {number(low)} to {number(high)}"
    )


def _auc_hover(result: RareFeatures, network: str, place: int) -> str:
    auc = {found.name: float(found.auc[place]) for found in result.networks}
    lines = [f"<b>{escape(result.concepts[place])}</b>, {escape(network)}", f"AUC {number(auc[network])}"]
    if network != PRETRAINED and PRETRAINED in auc:
        lines.append(f"change {number(auc[network] - auc[PRETRAINED])}")
    lines.append(f"marks {escape(result.class_names[int(result.marked_class[place])])}")
    return "<br>".join(lines)
