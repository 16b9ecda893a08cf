"""Pictures that go wrong together: the accuracy of each slice against the average, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from concept_tuning.diagnostics.slices import Slice, SliceTable
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.figures.galleries import Entry, class_name, gallery
from concept_tuning.figures.labels import escape, interval_text, number, shorten
from concept_tuning.figures.rows import LINE, add_points, name_rows, rate_axis
from concept_tuning.figures.style import BAD, COLOURS, finish

#: Pictures of a slice that a click is told of.
_KEYS = 50


def slice_figure(table: SliceTable, *, most: int = 15) -> go.Figure:
    """Draw the accuracy of each slice with its interval; the dashed line and its band are all pictures.

    Slices are numbered from 1 and named by their commonest class. The customdata of a point are the keys of its
    most typical pictures.

    Args:
        table: The slices of a run.
        most: Slices shown, those with most excess errors.
    """
    figure = go.Figure()
    average = table.accuracy
    rows = list(enumerate(table.slices[:most]))
    below = [(row, one) for row, one in rows if one.accuracy.high < average.value]
    others = [(row, one) for row, one in rows if one.accuracy.high >= average.value]
    for name, colour, symbol, found in (
        ("interval all below the average", BAD, "diamond", below),
        ("others", COLOURS[0], "circle", others),
    ):
        if found:
            add_points(
                figure,
                [one.accuracy for _, one in found],
                [row for row, _ in found],
                name=name,
                hover=[_told(row, one) for row, one in found],
                colour=colour,
                symbol=symbol,
                customdata=[list(one.keys[:_KEYS]) for _, one in found],
            )
    finish(figure, size=130 + 38 * max(1, len(rows)))
    figure.add_vrect(x0=average.low, x1=average.high, fillcolor="#999999", opacity=0.2, line_width=0, layer="below")
    figure.add_vline(x=average.value, line={"color": LINE, "width": 1.5, "dash": "dash"})
    left_out = f"<br>{len(rows)} of {len(table.slices)} slices" if len(table.slices) > len(rows) else ""
    rate_axis(figure, f"accuracy (0–1); dashed: all {average.n} pictures{left_out}")
    name_rows(figure, [f"<b>{row + 1}</b> {_class(one)}<br>n = {one.accuracy.n}" for row, one in rows])
    figure.update_layout(margin={"l": 8}, legend={"tracegroupgap": 0})
    return figure


def slice_gallery(
    table: SliceTable, place: int, thumbnails: Thumbnails, *, class_names: Sequence[str] = (), most: int = 6
) -> go.Figure:
    """Draw pictures of a slice, the most typical first.

    Args:
        table: The slices of a run.
        place: Which slice, from 0.
        thumbnails: Those that there are; pictures without one are left out.
        class_names: The class names, to be written above the pictures.
        most: Pictures shown.
    """
    entries = [
        Entry(
            key=key,
            title=class_name(thumbnails, key, class_names, 22) or shorten(key, 16),
            hover=f"{escape(key)}<br>slice {place + 1}",
        )
        for key in table.slices[place].keys
    ]
    return gallery(entries, thumbnails, most=most)


def _class(one: Slice) -> str:
    return shorten(one.classes[0][0], 24) if one.classes else ""


def _told(row: int, one: Slice) -> str:
    return (
        f"slice {row + 1}<br>accuracy {interval_text(one.accuracy)}, {number(one.lift)} from the average"
        f"<br>{number(one.excess)} errors more than its classes have on average"
        f"<br>classes: {_shares(one.classes)}<br>predicted: {_shares(one.predicted)}"
    )


def _shares(shares: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{shorten(name, 24)} {100 * share:.0f} %" for name, share in shares)
