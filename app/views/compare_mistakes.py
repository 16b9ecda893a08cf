"""Mistakes: a run's confusion matrix, whose cells open their pictures, and the accuracy of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_blocks, show_chapter, show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.errors import shown_errors
from app.markdown import plain
from app.picture_list import show_pictures

if TYPE_CHECKING:
    from concept_tuning.diagnostics.predictions import Predictions
    from concept_tuning.report.blocks import Source

_RUN, _LABEL, _SAID = "compare-run", "compare-label", "compare-said"


@st.fragment
def show(source: Source) -> None:
    """Show the matrix of the chosen run, and the pictures of the cell that is clicked or chosen."""
    with shown_errors():
        _show(source)


def _show(source: Source) -> None:
    from concept_tuning.figures.clickable import clickable_cells
    from concept_tuning.figures.confusion import confusion_figure

    results: dict[str, Predictions] = source.each("predictions")
    if not results:
        show_chapter(source.diagnosis, "predictions", key="compare")
        return
    run = choose_one("Run", list(results), key=_RUN, bind="query-params")
    found = results[run]
    chart = f"compare-confusion-{run}"
    caption = (
        "Number of pictures of each class (row) by what the run says (column); colours tell the share of the class. "
        "Everything off the diagonal is a mistake. Click a cell to see its pictures."
    )
    show_figure(
        clickable_cells(confusion_figure([found]), found.confusion > 0),
        key=chart,
        alt=caption,
        on_select=lambda: _take_click(chart, found),
        selection_mode="points",
    )
    st.caption(caption)
    _cell(source, found)
    if st.toggle("Accuracy of each class", key="compare-classes"):
        from concept_tuning.report.comparing import predictions

        show_blocks([block for block in predictions(source) if block.kind == "table"], key="compare-classes-table")


def _take_click(chart: str, found: Predictions) -> None:
    point = clicked(chart)
    if point is not None:
        label, said = (found.class_names[int(place)] for place in point["customdata"])
        st.session_state[_LABEL], st.session_state[_SAID] = label, said


def _cell(source: Source, found: Predictions) -> None:
    from concept_tuning.report.picture_lists import cell_pictures, commonest_mistake

    names = found.class_names
    label, said = commonest_mistake(found)
    with st.container(border=True):
        left, right = st.columns(2)
        wanted = left.selectbox("True class", names, label, key=_LABEL, bind="query-params")
        told = right.selectbox("Predicted as", names, said, key=_SAID, bind="query-params")
        pictures = cell_pictures(found, names.index(wanted), names.index(told))
        what = "is right" if wanted == told else f"says {told}"
        st.markdown(
            f"{len(pictures)} pictures of this cell: {plain(wanted)}, of which {plain(found.run)} {plain(what)}. "
            "The surest first."
        )
        show_pictures(pictures, source.thumbnails, key=f"compare-cell-{found.run}-{wanted}-{told}")
