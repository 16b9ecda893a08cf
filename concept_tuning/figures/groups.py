"""Accuracy by class and group: a matrix for each run, and the cells from worst to best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import unescape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.groups import GroupCell, GroupTable
from concept_tuning.figures.labels import escape, interval_text, number, percent, run_labels, shorten, wrap
from concept_tuning.figures.rows import add_points, name_rows, rate_axis, spread, symbol_of
from concept_tuning.figures.style import BAD, RATE_SCALE, finish, run_colours

#: Pixels of a row that holds two lines, one line, or none, and the most classes for these.
_ROWS = ((12, 40), (40, 22), (10**9, 8))
#: Names written beside rows without text.
_NAMED = 30
#: Groups of which two panels fit beside each other on a narrow page.
_NARROW = 3
#: Pixels below, above and between panels.
_FRAME = 90


def group_figure(tables: Mapping[str, GroupTable]) -> go.Figure:
    """Draw a matrix of classes and groups for each run: accuracy in percent and n in each cell, intervals on hover.

    The worst cell has a frame. The customdata of a cell are its class and group. With very many classes the
    numbers stand on hover alone.

    Args:
        tables: By the name of the run.
    """
    columns = 2 if len(tables) > 1 and max(len(table.group_names) for table in tables.values()) <= _NARROW else 1
    rows = max(1, -(-len(tables) // columns))
    classes = max((len(table.class_names) for table in tables.values()), default=1)
    pixels = next(found for most, found in _ROWS if classes <= most)
    height = rows * (max(classes * pixels, 60) + _FRAME)
    labels = run_labels(tables)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[shorten(labels[run], 40 if columns == 1 else 22) for run in tables],
        horizontal_spacing=0.04,
        vertical_spacing=_FRAME / height if rows > 1 else 0,
    )
    for place, (run, table) in enumerate(tables.items()):
        row, column = place // columns + 1, place % columns + 1
        figure.add_trace(_matrix(run, table, pixels), row=row, col=column)
        _frame_worst(figure, table, row, column)
        _name_axes(figure, table, row, column, every=1 if pixels > 8 else -(-classes // _NAMED))
    finish(figure, size=height, legend=False)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        margin={"l": 8, "r": 8},
        coloraxis={
            "colorscale": RATE_SCALE,
            "cmin": 0,
            "cmax": 1,
            "showscale": pixels == 8,
            "colorbar": {"title": {"text": "accuracy", "side": "top"}, "thickness": 12, "tickformat": ".0%"},
        },
    )
    return figure


def cell_figure(tables: Mapping[str, GroupTable], *, runs: Sequence[str] | None = None, most: int = 24) -> go.Figure:
    """Draw the accuracy of each class within each group with its Wilson interval, the lowest first.

    Cells are ordered by the lowest accuracy that any run has there. The worst cell of each run has a ring where it
    is shown, and a dotted line is the run's average. The customdata of a point are its class and group.

    Args:
        tables: By the name of the run.
        runs: All runs of the page, for their colours.
        most: Cells shown.
    """
    cells: dict[tuple[str, str], dict[str, GroupCell]] = {}
    for run, table in tables.items():
        for cell in table.cells:
            cells.setdefault((cell.class_name, cell.group), {})[run] = cell
    order = sorted(cells, key=lambda place: min(cell.accuracy.value for cell in cells[place].values()))[:most]
    colours = run_colours(list(tables)) | run_colours(list(runs or tables))
    labels = run_labels([*(runs or ()), *tables])
    figure = go.Figure()
    offsets = spread(len(tables))
    rings: list[tuple[float, float]] = []
    for place, (run, table) in enumerate(tables.items()):
        found = [(row, cells[where][run]) for row, where in enumerate(order) if run in cells[where]]
        add_points(
            figure,
            [cell.accuracy for _, cell in found],
            [row + offsets[place] for row, _ in found],
            name=shorten(labels[run], 24),
            hover=[_told(run, table, cell) for _, cell in found],
            colour=colours[run],
            symbol=symbol_of(place),
            customdata=[(cell.class_name, cell.group) for _, cell in found],
        )
        figure.add_vline(x=table.average.value, line={"color": colours[run], "width": 1.5, "dash": "dot"})
        rings += [(cell.accuracy.value, row + offsets[place]) for row, cell in found if cell == table.worst]
    for ring, (x, y) in enumerate(rings):
        _mark_worst(figure, x, y, legend=ring == 0)
    finish(figure, size=120 + max(1, len(order)) * (26 + 9 * len(tables)))
    left_out = f"<br>the {len(order)} lowest of {len(cells)} cells" if len(cells) > len(order) else ""
    rate_axis(figure, f"accuracy (0–1); dotted: average of the run{left_out}")
    name_rows(figure, [_cell_name(where, cells[where]) for where in order])
    figure.update_layout(margin={"l": 8}, legend={"tracegroupgap": 0})
    return figure


def _matrix(run: str, table: GroupTable, pixels: int) -> go.Heatmap:
    shape = table.counts.shape
    values = np.full(shape, np.nan)
    text, hover = np.full(shape, "", object), np.full(shape, "", object)
    for cell in table.cells:
        where = table.class_names.index(cell.class_name), table.group_names.index(cell.group)
        values[where] = cell.accuracy.value
        text[where] = f"{percent(cell.accuracy.value)}{'<br>' if pixels == 40 else ', '}n = {cell.accuracy.n}"
        hover[where] = _told(run, table, cell)
    names = [[(name, group) for group in table.group_names] for name in table.class_names]
    return go.Heatmap(
        z=values,
        coloraxis="coloraxis",
        text=text,
        texttemplate="" if pixels == 8 else "%{text}",
        textfont_size=11,
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        customdata=np.array(names, dtype=object).reshape(*shape, 2),
        xgap=1,
        ygap=1 if pixels > 8 else 0,
        name=run,
    )


def _frame_worst(figure: go.Figure, table: GroupTable, row: int, column: int) -> None:
    y, x = table.class_names.index(table.worst.class_name), table.group_names.index(table.worst.group)
    figure.add_shape(
        row=row,
        col=column,
        type="rect",
        x0=x - 0.48,
        x1=x + 0.48,
        y0=y - 0.47,
        y1=y + 0.47,
        line={"color": BAD, "width": 3},
    )


def _name_axes(figure: go.Figure, table: GroupTable, row: int, column: int, *, every: int) -> None:
    figure.update_xaxes(
        row=row,
        col=column,
        tickvals=list(range(len(table.group_names))),
        ticktext=[wrap(unescape(shorten(name, 20)), 9) for name in table.group_names],
        tickangle=0,
        tickfont_size=11,
        showgrid=False,
        zeroline=False,
    )
    named = range(0, len(table.class_names), every)
    figure.update_yaxes(
        row=row,
        col=column,
        tickvals=list(named),
        ticktext=[shorten(table.class_names[place], 24) for place in named],
        showticklabels=column == 1,
        ticklabelstandoff=4,
        range=[len(table.class_names) - 0.5, -0.5],
        automargin=True,
        showgrid=False,
        zeroline=False,
    )


def _mark_worst(figure: go.Figure, x: float, y: float, *, legend: bool) -> None:
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"symbol": "circle-open", "size": 19, "color": "#000000", "line": {"width": 2}},
        hoverinfo="skip",
        name="worst cell of the run",
        legendgroup="worst",
        legendrank=2000,
        showlegend=legend,
    )


def _told(run: str, table: GroupTable, cell: GroupCell) -> str:
    where = table.class_names.index(cell.class_name), table.group_names.index(cell.group)
    lines = [
        escape(run),
        f"class {escape(cell.class_name)}, group {escape(cell.group)}",
        f"accuracy {interval_text(cell.accuracy)}",
        f"{int(table.right[where])} of {int(table.counts[where])} right; average {number(table.average.value)}",
    ]
    if cell == table.worst:
        lines.append(f"the worst cell, {number(table.gap)} below the average")
    return "<br>".join(lines)


def _cell_name(where: tuple[str, str], found: Mapping[str, GroupCell]) -> str:
    counts = sorted({cell.accuracy.n for cell in found.values()})
    return f"{shorten(where[0], 24)}<br>{shorten(where[1], 16)}, n = {' / '.join(str(count) for count in counts)}"
