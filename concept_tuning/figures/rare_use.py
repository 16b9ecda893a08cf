"""What runs do with rare concepts: coverage, accuracy on the rarest pictures, change of information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from concept_tuning.diagnostics.rare_use import PRETRAINED, InformationChange, RunUse
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.labels import escape, interval_text, listed, number, run_labels, shorten
from concept_tuning.figures.rows import LINE, error_bars, name_rows, rate_axis
from concept_tuning.figures.style import COLOURS, NEUTRAL, finish, run_colours


def network_colours(names: Sequence[str], runs: Sequence[str] | None) -> Mapping[str, str]:
    """Return the colours of the runs, and of the network before fine-tuning.

    Args:
        names: The networks that are drawn.
        runs: All runs of the page; None: those that are drawn.
    """
    own = [name for name in names if name != PRETRAINED] if runs is None else runs
    return run_colours(own) | {PRETRAINED: NEUTRAL}


def coverage_figure(uses: Sequence[RunUse], *, runs: Sequence[str] | None = None) -> go.Figure:
    """Draw in which share of the pictures each network has a rare concept among its first ones, and chance.

    Networks without coverage (factors and clusters have none) are left out.

    Args:
        uses: What each network does.
        runs: All runs of the page, for their colours.
    """
    shown = [(use, use.coverage) for use in uses if use.coverage is not None]
    figure = go.Figure()
    colours = network_colours([use.name for use in uses], runs)
    for row, (use, coverage) in enumerate(shown):
        _add_interval(
            figure,
            coverage,
            use.name,
            y=row,
            colour=colours.get(use.name, NEUTRAL),
            hover=f"{escape(use.name)}<br>rare concept among the first {use.top}: {interval_text(coverage)}"
            f"<br>chance {number(use.chance)}",
        )
    figure.add_scatter(
        x=[use.chance for use, _ in shown],
        y=list(range(len(shown))),
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 22, "color": "#444444", "line": {"width": 2}},
        hovertemplate="chance %{x:.3f}<extra></extra>",
        name="if drawn at random",
    )
    finish(figure, size=130 + 40 * max(1, len(shown)))
    top = shown[0][0].top if shown else 0
    rate_axis(figure, f"pictures with a rare concept<br>among their first {top} (0–1)")
    labels = run_labels([*(runs or ()), *(use.name for use, _ in shown)])
    name_rows(figure, [shorten(labels[use.name], 24) for use, _ in shown])
    return figure


def rarest_figure(uses: Sequence[RunUse], *, runs: Sequence[str] | None = None) -> go.Figure:
    """Draw each run's accuracy on the tenth of the pictures with the rarest concepts, and on the others.

    Args:
        uses: What each network does; those without a classifier are left out.
        runs: All runs of the page, for their colours.
    """
    shown = [(use, use.rarest_tenth) for use in uses if use.rarest_tenth is not None]
    figure = go.Figure()
    colours = network_colours([use.name for use in uses], runs)
    for row, (use, tenth) in enumerate(shown):
        kinds = ((tenth, "rarest tenth", "circle", -0.14), (use.others, "other pictures", "circle-open", 0.14))
        for interval, kind, symbol, offset in kinds:
            if interval is not None:
                _add_interval(
                    figure,
                    interval,
                    f"{use.name}, {kind}",
                    colour=colours.get(use.name, NEUTRAL),
                    symbol=symbol,
                    y=row + offset,
                    hover=f"{escape(use.name)}<br>accuracy, {kind}: {interval_text(interval)}",
                )
    for kind, symbol in (("rarest tenth of the pictures", "circle"), ("other pictures", "circle-open")):
        figure.add_scatter(
            x=[None], y=[None], mode="markers", marker={"color": "#444444", "symbol": symbol, "size": 10}, name=kind
        )
    finish(figure, size=130 + 56 * max(1, len(shown)))
    rate_axis(figure, "accuracy (0–1)")
    labels = run_labels([*(runs or ()), *(use.name for use, _ in shown)])
    name_rows(figure, [shorten(labels[use.name], 24) for use, _ in shown])
    return figure


def change_figure(changes: Sequence[InformationChange]) -> go.Figure:
    """Draw how much more one network's concepts say of the label than another's, per concept, with intervals.

    Right of 0 the second network's concepts say more. Beside the rare concepts stand the useful ones that are not
    rare; the change summed over the rare ones is in the hover text, since it is on another scale.
    """
    figure = go.Figure()
    kinds = (("rare concepts", COLOURS[1], "circle", -0.14), ("useful, not rare", COLOURS[0], "square-open", 0.14))
    for number_, (kind, colour, symbol, offset) in enumerate(kinds):
        found = [
            (row, change, interval)
            for row, change in enumerate(changes)
            if (interval := change.others if number_ else change.per_concept) is not None
        ]
        figure.add_scatter(
            x=[interval.value for _, _, interval in found],
            y=[row + offset for row, _, _ in found],
            error_x=error_bars([interval for _, _, interval in found]),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            text=[_change_hover(change, kind, interval) for _, change, interval in found],
            hovertemplate="%{text}<extra></extra>",
            name=kind,
        )
    finish(figure, size=140 + 60 * max(1, len(changes)))
    figure.add_vline(x=0, line={"color": LINE, "width": 1})
    figure.update_xaxes(title_text="change of information on the label,<br>nats per concept", title_font_size=12)
    labels = run_labels(name for change in changes for name in (change.before, change.after))
    name_rows(
        figure,
        [f"{shorten(labels[change.before], 24)} →<br>{shorten(labels[change.after], 24)}" for change in changes],
    )
    return figure


def _add_interval(
    figure: go.Figure,
    interval: Interval,
    name: str,
    *,
    colour: str,
    hover: str,
    y: float,
    symbol: str = "circle",
) -> None:
    figure.add_scatter(
        x=[interval.value],
        y=[y],
        error_x=error_bars([interval]),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 10},
        text=[hover],
        hovertemplate="%{text}<extra></extra>",
        name=name,
        showlegend=False,
    )


def _change_hover(change: InformationChange, kind: str, interval: Interval) -> str:
    lines = [f"{escape(change.before)} → {escape(change.after)}", f"{kind}: {interval_text(interval)} nats per concept"]
    if interval is change.per_concept:
        lines += [
            f"from {number(change.before_value)} to {number(change.after_value)}",
            f"summed over them: {interval_text(change.total)} nats",
            f"{listed([str(count) for count in change.concepts])} rare concepts in the "
            f"{'halves' if change.in_halves else 'thirds'} of the pictures: {change.verdict}",
        ]
    return "<br>".join(lines)
