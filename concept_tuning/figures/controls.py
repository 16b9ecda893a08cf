"""Attribution maps beside the maps that know nothing: measures, and which map beats which control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.control_maps import source_of
from concept_tuning.diagnostics.controls import LOWER_IS_BETTER, Badge, ControlledMaps, MeasureValues
from concept_tuning.figures.labels import escape, interval_text, number, shorten, wrap
from concept_tuning.figures.rows import LINE, error_bars, name_rows
from concept_tuning.figures.style import BAD, COLOURS, GOOD, finish

#: What a measure tells, and between which values it lies.
_AXES: Mapping[str, str] = {
    "outside mass": "share of the map outside the object, 0–1",
    "concentration": "map on the object against even, 1 = even",
    "pointing game": "peak on the object, share of pictures, 0–1",
    "pointing at part": "peak on the telling part, share of pictures, 0–1",
    "ROAD": "least less most relevant removed first, −½ to ½",
    "insertion": "area below the insertion curve, 0–1",
    "deletion": "area below the deletion curve, 0–1",
}
#: Measures drawn on the whole of their scale, so that small differences look small.
_SHARES = frozenset(name for name, title in _AXES.items() if title.endswith("0–1"))
_SYMBOLS = ("diamond-open", "square-open", "triangle-up-open", "x-thin-open", "star-open", "hexagon-open")
_ROW, _FRAME = 30, 86


def measure_figure(result: ControlledMaps, *, measures: Sequence[str] | None = None) -> go.Figure:
    """Draw the mean of each map on each measure beside those of its controls, one panel for each measure.

    At the right of a row stands how many of the controls the map beats.

    Args:
        result: The measures of one run's maps.
        measures: Some of its measures; None: all of them.
    """
    shown = measures_of(result) if measures is None else tuple(measures)
    values = {(found.source, found.measure): found for found in result.values}
    figure = make_subplots(
        rows=max(1, len(shown)),
        cols=1,
        subplot_titles=[f"<b>{escape(measure)}</b>: {_direction(measure)}" for measure in shown],
        vertical_spacing=_FRAME / (len(shown) * (_FRAME + _ROW * len(result.maps))) if len(shown) > 1 else 0,
    )
    series: list[tuple[str | None, str, str]] = [(None, COLOURS[0], "circle")]
    for place, baseline in enumerate(result.controls):
        series.append((baseline, COLOURS[1 + place % (len(COLOURS) - 1)], _SYMBOLS[place % len(_SYMBOLS)]))
    for row, measure in enumerate(shown, start=1):
        for control, colour, symbol in series:
            sources = [name if control is None else source_of(control, name) for name in result.maps]
            found = [values.get((source, measure)) for source in sources]
            figure.add_scatter(
                row=row,
                col=1,
                x=[None if one is None else one.mean for one in found],
                y=list(result.maps),
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
                text=[
                    _hover(name, control, one, badge_of(result, name, control, measure))
                    for name, one in zip(result.maps, found, strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
                name=control or "the map itself",
                legendgroup=control or "",
                showlegend=row == 1,
            )
        _add_counts(figure, result, measure, row)
        whole = [-0.06, 1.06] if measure in _SHARES else None
        figure.update_xaxes(title_text=_AXES.get(measure, escape(measure)), range=whole, row=row, col=1)
    finish(figure, size=96 + max(1, len(shown)) * (_FRAME + _ROW * len(result.maps)))
    figure.update_annotations(font_size=13)
    figure.update_layout(
        margin={"t": 116, "r": 56},
        legend={"y": 1, "yref": "container", "yanchor": "top", "tracegroupgap": 0, "font_size": 12},
    )
    figure.update_xaxes(title_standoff=4, title_font_size=12, automargin=True, exponentformat="none", nticks=7)
    figure.update_yaxes(
        autorange="reversed",
        automargin=True,
        type="category",
        tickvals=list(result.maps),
        ticktext=[shorten(name, 20) for name in result.maps],
    )
    return figure


def badge_figure(result: ControlledMaps) -> go.Figure:
    """Draw which map beats which control on which measure; hover tells by how much.

    A row is a map against a control, a column a measure. An empty cell was not compared.
    """
    measures = measures_of(result)
    rows = [(name, control) for name in result.maps for control in result.controls]
    cells = [[badge_of(result, name, control, measure) for measure in measures] for name, control in rows]
    figure = go.Figure(
        go.Heatmap(
            x=[measure.replace(" ", "<br>") for measure in map(escape, measures)],
            y=[[wrap(name, 12) for name, _ in rows], [escape(control) for _, control in rows]],
            z=[[None if badge is None else int(badge.beats) for badge in row] for row in cells],
            zmin=0,
            zmax=1,
            colorscale=[(0, BAD), (1, GOOD)],
            opacity=0.75,
            showscale=False,
            text=[["" if badge is None else ("✓" if badge.beats else "–") for badge in row] for row in cells],
            texttemplate="%{text}",
            customdata=[["" if badge is None else _told(badge) for badge in row] for row in cells],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
        )
    )
    finish(figure, size=140 + 24 * max(1, len(rows)), legend=False)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 64, "b": 16})
    figure.update_xaxes(
        side="top", showgrid=False, autotickangles=[0, -90], tickfont_size=12, type="category", automargin=True
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, tickfont_size=12)
    return figure


def advantage_figure(result: ControlledMaps, measure: str) -> go.Figure:
    """Draw by how much each map is better than each control on one measure, with the paired intervals.

    Right of 0 the map is better, also where less of the measure is better.
    """
    figure = go.Figure()
    for place, control in enumerate(result.controls):
        found = [badge for badge in result.badges if (badge.control, badge.measure) == (control, measure)]
        colour = COLOURS[1 + place % (len(COLOURS) - 1)]
        offset = (place - (len(result.controls) - 1) / 2) * 0.18
        intervals = [badge.difference for badge in found]
        figure.add_scatter(
            x=[interval.value for interval in intervals],
            y=[result.maps.index(badge.map) + offset for badge in found],
            error_x=error_bars(intervals),
            mode="markers",
            marker={
                "color": colour,
                "size": 9,
                "symbol": ["circle" if badge.beats else "circle-open" for badge in found],
            },
            text=[_told(badge) for badge in found],
            hovertemplate="%{text}<extra></extra>",
            name=f"against {control}",
        )
    finish(figure, size=130 + 70 * len(result.maps))
    figure.add_vline(x=0, line={"color": LINE, "width": 1})
    figure.update_xaxes(title_text=f"{escape(measure)}: better than the control by", title_font_size=12)
    name_rows(figure, [shorten(name, 20) for name in result.maps])
    return figure


def measure_words(measure: str) -> str:
    """Return what a measure tells, and which way is better."""
    return f"{_AXES.get(measure, measure)}; {_direction(measure)}"


def measures_of(result: ControlledMaps) -> tuple[str, ...]:
    """Return the measures of a result in their order."""
    return tuple(dict.fromkeys(found.measure for found in result.values))


def badge_of(result: ControlledMaps, name: str, control: str | None, measure: str) -> Badge | None:
    """Return the comparison of a map with a control on a measure, or None where there is none."""
    for badge in result.badges:
        if (badge.map, badge.control, badge.measure) == (name, control, measure):
            return badge
    return None


def _add_counts(figure: go.Figure, result: ControlledMaps, measure: str, row: int) -> None:
    """Write at the right of each row how many controls its map beats."""
    for name in result.maps:
        badges = [badge for badge in result.badges if (badge.map, badge.measure) == (name, measure)]
        if badges:
            beaten = sum(badge.beats for badge in badges)
            figure.add_annotation(
                xref="x domain" if row == 1 else f"x{row} domain",
                yref="y" if row == 1 else f"y{row}",
                x=1.01,
                y=name,
                text=f"{'✓' if beaten else '–'} {beaten}/{len(result.controls)}",
                xanchor="left",
                showarrow=False,
                font={"color": GOOD if beaten == len(result.controls) else BAD},
            )


def _direction(measure: str) -> str:
    return "lower is better" if measure in LOWER_IS_BETTER else "higher is better"


def _hover(name: str, control: str | None, found: MeasureValues | None, badge: Badge | None) -> str:
    title = escape(name) if control is None else f"{escape(control)}, beside {escape(name)}"
    if found is None:
        return f"{title}<br>not computed"
    lines = [title, f"mean {number(found.mean)}, n = {found.n}"]
    if found.blank:
        lines.append(f"{found.blank} blank maps left out")
    if badge is not None:
        lines.append(f"the map {'beats' if badge.beats else 'does not beat'} it")
    return "<br>".join(lines)


def _told(badge: Badge) -> str:
    return (
        f"{escape(badge.map)} {'beats' if badge.beats else 'does not beat'} {escape(badge.control)}"
        f"<br>on {escape(badge.measure)}<br>better by {interval_text(badge.difference)}"
    )
