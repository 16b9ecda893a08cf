"""The worst group: accuracy of each class within each group, and the mistakes of a chosen cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_blocks, show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.markdown import plain
from app.picture_list import show_pictures

if TYPE_CHECKING:
    from concept_tuning.diagnostics.groups import GroupTable
    from concept_tuning.report.blocks import Source

_CHART, _RUN, _CLASS, _GROUP = "spurious-groups-chart", "spurious-run", "spurious-class", "spurious-group"


def show(source: Source) -> None:
    """Show the matrices, and below them the mistakes of the cell that is clicked or chosen."""
    from concept_tuning.figures.clickable import clickable_cells
    from concept_tuning.figures.groups import group_figure
    from concept_tuning.report.comparing import groups

    tables: dict[str, GroupTable] = source.each("groups")
    caption = (
        "Accuracy of each class within each group (percent of its pictures that are right); the worst cell of a run "
        "has a frame. Click a cell to see its mistakes."
    )
    show_figure(
        clickable_cells(group_figure(tables)),
        key=_CHART,
        alt=caption,
        on_select=lambda: _take_click(list(tables)),
        selection_mode="points",
    )
    st.caption(caption)
    _mistakes(source, tables)
    if st.toggle("Every cell with its interval, and what chance alone would do", key="spurious-groups-all"):
        rest = [block for block in groups(source) if block.kind != "chart" or "matri" not in block.caption]
        show_blocks(rest, key="spurious-groups")


def _take_click(runs: list[str]) -> None:
    point = clicked(_CHART)
    if point is not None:
        # The cells' points come after the matrices, a trace of each for every run.
        st.session_state[_RUN] = runs[int(point["curve_number"]) % len(runs)]
        st.session_state[_CLASS], st.session_state[_GROUP] = point["customdata"]


def _mistakes(source: Source, tables: dict[str, GroupTable]) -> None:
    from concept_tuning.report.blocks import of_all
    from concept_tuning.report.picture_lists import group_mistakes

    with st.container(border=True):
        run = choose_one("Run", list(tables), key=_RUN, bind="query-params")
        table = tables[run]
        first, second = st.columns(2)
        name = first.selectbox(
            "Class",
            table.class_names,
            table.class_names.index(table.worst.class_name),
            key=_CLASS,
            bind="query-params",
        )
        group = second.selectbox(
            "Group", table.group_names, table.group_names.index(table.worst.group), key=_GROUP, bind="query-params"
        )
        cell = next((cell for cell in table.cells if (cell.class_name, cell.group) == (name, group)), None)
        if cell is None:
            st.caption("There are no pictures of this class in this group.")
            return
        worst = "the worst cell of this run: " if cell == table.worst else ""
        st.markdown(plain(f"{name} | {group}: {worst}{of_all(cell.accuracy, 'pictures')} right."))
        found = source.each("predictions").get(run)
        if found is None:
            st.caption("Diagnose with the analysis “predictions” as well to see its mistakes.")
            return
        mistakes = group_mistakes(found, name, group)
        st.caption(f"Its {len(mistakes)} mistakes, those of which the run is surest first.")
        show_pictures(mistakes, source.thumbnails, key=f"spurious-groups-{run}-{name}-{group}")
