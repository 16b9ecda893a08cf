"""Methods by setting: each seed as a dot, and accuracy against the share of training pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.bench.blocks import Block, Measure, Runs, Table
from concept_tuning.bench.spec import BenchSpec
from concept_tuning.figures.labels import escape, shorten
from concept_tuning.figures.rows import LINE, name_rows, spread, symbol_of
from concept_tuning.figures.style import COLOURS, finish, run_colours

AXES = {"accuracy": "test accuracy (%)", "worst_group": "accuracy of the worst group (%)"}
#: Pixels of a method's row, between panels, above the highest and below the lowest.
_ROW, _FRAME, _TOP, _BELOW = 22, 108, 88, 56
#: Least number of rows that a panel is high, and the share of the width between panels, in which names stand.
_LEAST, _BESIDE = 3, 0.19
_DASHES = ("solid", "dash", "dot", "dashdot")
#: Share of the least distance between two rates over which the points of methods are moved aside.
_ASIDE = 0.12


def dot_figure(spec: BenchSpec, table: Table, measure: Measure) -> go.Figure | None:
    """Draw a panel for each block: a row for each method, each seed a small dot, their mean a diamond.

    A dotted line is the mean of the bench's first method. Methods without a finished run are left out, and a panel's
    title says how many. Panels with more methods come first. None while no run has the measure.
    """
    shown = {
        block: own
        for block, found in table.items()
        if (own := {method: runs for method, runs in found.items() if runs.values(measure)})
    }
    if not shown:
        return None
    blocks = sorted(shown, key=lambda block: -len(shown[block]))
    columns = min(2, len(blocks))
    lines = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    most = [max(_LEAST, *(len(shown[block]) for block in line)) for line in lines]
    heights = [_ROW * count for count in most]
    drawn = sum(heights) + _FRAME * (len(lines) - 1)
    figure = make_subplots(
        rows=len(lines),
        cols=columns,
        row_heights=heights,
        subplot_titles=[
            panel_title(block, shown[block], left=len(table[block]) - len(shown[block])) for block in blocks
        ],
        horizontal_spacing=_BESIDE,
        vertical_spacing=_FRAME / drawn if len(lines) > 1 else 0,
    )
    for place, block in enumerate(blocks):
        panel = place // columns + 1, place % columns + 1
        _add_dots(figure, shown[block], measure, spec.methods[0], panel=panel, legend=place == 0)
        reached = [100 * value for runs in shown[block].values() for _, value in runs.values(measure)]
        figure.update_xaxes(
            row=panel[0],
            col=panel[1],
            title_text=AXES[measure],
            title_font_size=12,
            zeroline=False,
            range=percent_range(reached),
        )
        figure.update_yaxes(row=panel[0], col=panel[1], range=[most[panel[0] - 1] - 0.5, -0.5])
    finish(figure, size=drawn + _TOP + _BELOW, legend=True)
    figure.update_annotations(font_size=13, yshift=4)
    figure.update_layout(
        margin={"l": 8, "t": _TOP, "b": _BELOW}, legend={"y": 1, "yref": "container", "yanchor": "top"}
    )
    return figure


def curve_figure(spec: BenchSpec, table: Table) -> go.Figure | None:
    """Draw test accuracy against the sample rate, a panel for each data and backbone that has two rates or more.

    Bars are a standard deviation over seeds to either side. None where no method has two rates with finished runs.
    """
    panels = _rated(table)
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = 400 * rows
    methods = [method for method in spec.methods if any(method in table[block] for found in panels for block in found)]
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{escape(found[0].data)}</b><br>{escape(found[0].backbone)}" for found in panels],
        horizontal_spacing=0.1,
        vertical_spacing=0.3 / rows if rows > 1 else 0,
    )
    named: set[str] = set()
    for place, blocks in enumerate(panels):
        _add_curves(figure, table, blocks, methods, panel=(place // columns + 1, place % columns + 1), named=named)
    finish(figure, size=max(height, 150 + 20 * len(methods)), legend=True)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        margin={"t": 56},
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top", "tracegroupgap": 0},
    )
    return figure


def percent_range(values: Sequence[float]) -> list[float]:
    """Return the ends of an axis for one value in percent or more: not too narrow.

    Beyond 0 and 100 it goes only as far as the values do, such as ends of deviation bars.
    """
    low, high = min(values), max(values)
    beside = max(0.06 * (high - low), 2.5 - (high - low) / 2)
    return [max(low - beside, min(low - 1, -2.0)), min(high + beside, max(high + 1, 102.0))]


def panel_title(block: Block, found: Mapping[str, Runs], *, left: int = 0) -> str:
    """Return a block's data, and below it backbone, sample rate, test pictures and how many methods are left out."""
    pictures = next((runs.pictures for runs in found.values() if runs.pictures is not None), None)
    count = "" if pictures is None else f", {pictures:,} test pictures"
    count += f"; {left} {'method' if left == 1 else 'methods'} to come" if left else ""
    return (
        f"<b>{escape(block.data)}</b><br>"
        f"<span style='font-size:11px'>{shorten(block.backbone, 26)}, {block.sample_rate:g} %{count}</span>"
    )


def _add_dots(
    figure: go.Figure,
    found: Mapping[str, Runs],
    measure: Measure,
    first: str,
    *,
    panel: tuple[int, int],
    legend: bool,
) -> None:
    row, column = panel
    dots = [
        (100 * value, place, f"{escape(method)}<br>seed {seed}: {100 * value:.1f} %")
        for place, (method, runs) in enumerate(found.items())
        for seed, value in runs.values(measure)
    ]
    means = [
        (100 * mean, place, f"{escape(method)}<br>{told(runs, measure)}")
        for place, (method, runs) in enumerate(found.items())
        if (mean := runs.mean(measure)) is not None
    ]
    for name, points, marker in (
        ("mean over seeds", means, {"color": COLOURS[0], "size": 12, "symbol": "diamond"}),
        ("one seed", dots, {"color": COLOURS[5], "size": 7}),
    ):
        figure.add_scatter(
            row=row,
            col=column,
            x=[x for x, _, _ in points],
            y=[y for _, y, _ in points],
            mode="markers",
            marker=marker | {"line": {"color": "#ffffff", "width": 1}},
            hovertext=[text for *_, text in points],
            hoverinfo="text",
            name=name,
            legendgroup=name,
            showlegend=legend,
        )
    base = found[first].mean(measure) if first in found else None
    if base is not None:
        figure.add_vline(x=100 * base, row=row, col=column, line={"color": LINE, "width": 1.2, "dash": "dot"})
    name_rows(figure, [_row_name(method, runs, measure) for method, runs in found.items()], panel=panel)


def told(runs: Runs, measure: Measure) -> str:
    """Return mean, deviation and number of seeds in percent for a hover."""
    mean, deviation, count = runs.mean(measure), runs.deviation(measure), len(runs.values(measure))
    spread_text = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * (mean or 0):.1f}{spread_text} % over {count} {'seed' if count == 1 else 'seeds'}"


def _row_name(method: str, runs: Runs, measure: Measure) -> str:
    """Return a method's name, with how many of its seeds are there unless it is all of them."""
    count = len(runs.values(measure))
    name = shorten(method, 22)
    return name if count == runs.asked else f"{name} ({count} of {runs.asked})"


def _rated(table: Table) -> list[list[Block]]:
    """Return the blocks of each data and backbone, by rate, of which a method has finished runs at two or more."""
    groups: dict[tuple[str, str], list[Block]] = {}
    for block in table:
        groups.setdefault((block.data, block.backbone), []).append(block)
    return [
        sorted(blocks, key=lambda block: block.sample_rate)
        for blocks in groups.values()
        if any(sum(bool(table[block][method].rows) for block in blocks) > 1 for method in table[blocks[0]])
    ]


def _add_curves(
    figure: go.Figure,
    table: Table,
    blocks: Sequence[Block],
    methods: Sequence[str],
    *,
    panel: tuple[int, int],
    named: set[str],
) -> None:
    row, column = panel
    colours, rates = run_colours(methods), [block.sample_rate for block in blocks]
    gap = min(high - low for low, high in pairwise(rates))
    aside = spread(len(methods))
    for place, method in enumerate(methods):
        known = [(block, runs) for block in blocks if (runs := table[block].get(method)) is not None and runs.rows]
        if not known:
            continue
        figure.add_scatter(
            row=row,
            col=column,
            x=[block.sample_rate + 2 * _ASIDE * gap * aside[place] for block, _ in known],
            y=[100 * (runs.mean("accuracy") or 0) for _, runs in known],
            error_y={
                "array": [None if (one := runs.deviation("accuracy")) is None else 100 * one for _, runs in known],
                "thickness": 1,
                "width": 2,
            },
            mode="lines+markers",
            line={"color": colours[method], "width": 1.8, "dash": _DASHES[place // len(COLOURS) % len(_DASHES)]},
            marker={"size": 7, "symbol": symbol_of(place // len(COLOURS))},
            hovertext=[
                f"{escape(method)}, {block.sample_rate:g} %<br>{told(runs, 'accuracy')}" for block, runs in known
            ],
            hoverinfo="text",
            name=shorten(method, 22),
            legendgroup=method,
            showlegend=method not in named,
        )
        named.add(method)
    figure.update_xaxes(
        row=row,
        col=column,
        title_text="sample rate (% of the training pictures)",
        tickvals=rates,
        ticktext=[f"{rate:g}" for rate in rates],
        title_font_size=12,
        zeroline=False,
    )
    drawn = [runs for method in methods for block in blocks if (runs := table[block].get(method)) and runs.rows]
    spans = [(100 * (runs.mean("accuracy") or 0), 100 * (runs.deviation("accuracy") or 0)) for runs in drawn]
    figure.update_yaxes(
        row=row,
        col=column,
        title_text=AXES["accuracy"] if column == 1 else "",
        title_font_size=12,
        zeroline=False,
        range=percent_range([mean + side * deviation for mean, deviation in spans for side in (-1, 1)]),
    )
