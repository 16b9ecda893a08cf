"""What fine-tuning loses and rescues against training from scratch, and the pictures it does so with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from concept_tuning.diagnostics.ledger import Ledger, MethodLedger
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.galleries import Entry, class_name, gallery
from concept_tuning.figures.labels import escape, interval_text, number, shorten
from concept_tuning.figures.rows import LINE, error_bars, name_rows, rate_axis
from concept_tuning.figures.style import BAD, GOOD, NEUTRAL, finish

Kind = Literal["lost", "rescued"]

#: Colour of pictures that both have right.
_BOTH = "#BFD9EA"


def transfer_figure(ledger: Ledger) -> go.Figure:
    """Draw for each method the share of pictures lost, to the left, and rescued, to the right, with intervals.

    Dotted lines are the churn: what two runs from scratch with different seeds lose and rescue of each other. The
    diamond is rescued less lost, the difference in accuracy.
    """
    names = [found.method for found in ledger.methods]
    rows = list(range(len(names)))
    figure = go.Figure()
    kinds: tuple[tuple[Kind, str, int], ...] = (("lost", BAD, -1), ("rescued", GOOD, 1))
    for kind, colour, side in kinds:
        shares = [_share(found, kind) for found in ledger.methods]
        figure.add_bar(
            orientation="h",
            x=[side * share.value for share in shares],
            y=rows,
            error_x=error_bars([_mirrored(share) if side < 0 else share for share in shares]),
            marker_color=colour,
            width=0.55,
            text=[_told(ledger, found, kind) for found in ledger.methods],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            name=kind,
        )
    figure.add_scatter(
        x=[found.net.value for found in ledger.methods],
        y=rows,
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": "#FFFFFF", "line": {"color": "#000000", "width": 2}},
        text=[f"{escape(found.method)}<br>rescued less lost: {interval_text(found.net)}" for found in ledger.methods],
        hovertemplate="%{text}<extra></extra>",
        name="rescued less lost",
    )
    _add_churn(figure, ledger)
    finish(figure, size=150 + 56 * max(1, len(names)))
    figure.update_layout(barmode="overlay", margin={"l": 8})
    figure.add_vline(x=0, line={"color": LINE, "width": 1})
    ends = [max(_share(found, kind).high for found in ledger.methods) for kind, _, _ in kinds] if names else [1.0]
    ticks = _ticks(max(ends))
    figure.update_xaxes(
        title_text=f"share of the pictures (0–1), n = {len(ledger.keys)}<br>← lost · rescued →",
        title_font_size=12,
        tickvals=ticks,
        ticktext=[number(abs(tick)) for tick in ticks],
        range=[-1.08 * max(ends), 1.08 * max(ends)],
    )
    name_rows(figure, [shorten(name, 24) for name in names])
    return figure


def shares_figure(ledger: Ledger) -> go.Figure:
    """Draw for each method how the pictures divide into both right, rescued, lost and neither, as means over pairs."""
    names, total = [found.method for found in ledger.methods], len(ledger.keys)
    figure = go.Figure()
    parts: dict[str, tuple[str, list[float]]] = {
        "both right": (_BOTH, [_mean([pair.both_right for pair in one.pairs], total) for one in ledger.methods]),
        "rescued": (GOOD, [one.rescued.value for one in ledger.methods]),
        "lost": (BAD, [one.lost.value for one in ledger.methods]),
        "both wrong": (NEUTRAL, [_mean([pair.neither for pair in one.pairs], total) for one in ledger.methods]),
    }
    for name, (colour, values) in parts.items():
        figure.add_bar(
            orientation="h",
            x=values,
            y=list(range(len(names))),
            marker={"color": colour, "line": {"color": "#FFFFFF", "width": 1}},
            width=0.6,
            text=[f"{value:.2f}" if value >= 0.08 else "" for value in values],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertext=[
                f"{escape(method.method)}<br>{name}: {number(value)} of {total} pictures<br>mean over {_pairs(method)}"
                for method, value in zip(ledger.methods, values, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            name=name,
        )
    finish(figure, size=140 + 46 * max(1, len(names)))
    figure.update_layout(
        barmode="stack", margin={"l": 8}, legend={"traceorder": "normal"}, uniformtext={"minsize": 10, "mode": "hide"}
    )
    rate_axis(figure, f"share of the pictures (0–1), n = {total}")
    name_rows(figure, [shorten(name, 24) for name in names])
    return figure


def ledger_gallery(
    ledger: Ledger,
    thumbnails: Thumbnails,
    method: str,
    *,
    kind: Kind = "lost",
    class_names: Sequence[str] = (),
    most: int = 12,
) -> go.Figure:
    """Draw pictures that a method lost or rescued, those of most pairs of runs first.

    Args:
        ledger: The ledger.
        thumbnails: Those that there are; pictures without one are left out.
        method: One of the ledger's methods.
        kind: Which pictures.
        class_names: The class names, to be written above the pictures.
        most: Pictures shown.

    Raises:
        KeyError: There is no such method.
    """
    found = {one.method: one for one in ledger.methods}[method]
    counts = found.lost_counts if kind == "lost" else found.rescued_counts
    places = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    entries = []
    for place in places:
        key, count = ledger.keys[place], int(counts[place])
        often = f"{kind} in {count} of {len(found.pairs)}" if len(found.pairs) > 1 else ""
        label = class_name(thumbnails, key, class_names)
        told = f"{escape(key)}<br>{kind} by {escape(method)} in {count} of {_pairs(found)}"
        title = "<br>".join(part for part in (label, often) if part) or shorten(key, 16)
        entries.append(Entry(key=key, title=title, hover=told + (f"<br>class {label}" if label else "")))
    return gallery(entries, thumbnails, most=most)


def _share(found: MethodLedger, kind: Kind) -> Interval:
    return found.lost if kind == "lost" else found.rescued


def _mean(counts: Sequence[int], total: int) -> float:
    return float(np.mean(counts)) / total


def _mirrored(interval: Interval) -> Interval:
    return Interval(value=-interval.value, low=-interval.high, high=-interval.low, level=interval.level, n=interval.n)


def _add_churn(figure: go.Figure, ledger: Ledger) -> None:
    if not isinstance(ledger.churn, Interval):
        return
    churn, last = ledger.churn, max(1, len(ledger.methods)) - 0.5
    ends = (-churn.value, churn.value)
    figure.add_scatter(
        x=[x for end in ends for x in (end, end, None)],
        y=[y for _ in ends for y in (-0.5, last, None)],
        mode="lines",
        line={"color": "#000000", "width": 2, "dash": "dot"},
        text=[f"churn between {len(ledger.scratch)} runs from scratch<br>{interval_text(churn)}"] * 6,
        hovertemplate="%{text}<extra></extra>",
        name="churn between seeds",
    )


def _told(ledger: Ledger, found: MethodLedger, kind: Kind) -> str:
    lines = [escape(found.method), f"{kind}: {interval_text(_share(found, kind))}", f"mean over {_pairs(found)}"]
    if isinstance(ledger.churn, Interval):
        lines.append(f"churn between seeds: {number(ledger.churn.value)}")
    if kind == "lost" and isinstance(found.beyond_churn, Interval):
        lines.append(f"lost beyond the churn: {interval_text(found.beyond_churn)}")
    if len(found.pairs) == 1:
        test = "McNemar" if ledger.units is None else "units flipped"
        lines.append(f"lost against rescued: p = {number(found.pairs[0].p_value, 2)} ({test})")
    return "<br>".join(lines)


def _pairs(found: MethodLedger) -> str:
    return f"{len(found.pairs)} {'pair' if len(found.pairs) == 1 else 'pairs'} of runs"


def _ticks(end: float) -> list[float]:
    """Return even ticks from about -end to end, at most seven."""
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if end / step <= 3.5), 0.5)
    count = int(end / step + 1e-9)
    return [round(place * step, 6) for place in range(-count, count + 1)]
