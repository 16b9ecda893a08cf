"""Blocks of the report as parts of a page: charts, tables, notes, and folded parts that are made only when opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.look import fit_key
from app.markdown import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.report.blocks import Block


def show_chapter(diagnosis: Diagnosis, analysis: str, *, key: str) -> None:
    """Show the chapter of an analysis: its question, its blocks, and what it lacks."""
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.chapters import CHAPTERS

    source = Source(diagnosis)
    lead, make = CHAPTERS[analysis]
    st.markdown(lead)
    blocks = [*make(source), *source.closing(analysis)]
    if not blocks:
        st.info(f"This diagnosis was made without {analysis}; diagnose the runs again to see it.")
    show_blocks(blocks, key=f"{key}-{analysis}")


def show_blocks(blocks: Sequence[Block], *, key: str) -> None:
    """Show blocks of the report; ``key`` makes the widgets of a page unique."""
    for place, block in enumerate(blocks):
        name = f"{key}-{place}"
        if block.kind == "chart":
            if block.heading:
                st.markdown(f"##### {plain(block.heading)}")
            show_figure(block.figure, key=name, alt=block.caption)
            st.caption(plain(block.caption))
        elif block.kind == "table":
            st.dataframe(
                [dict(zip(block.columns, row, strict=True)) for row in block.rows],
                hide_index=True,
                width="stretch",
                alt=block.caption,
            )
            st.caption(plain(block.caption))
        elif block.kind == "fold":
            if st.toggle(plain(block.title), key=name):
                show_blocks(block.blocks, key=name)
        else:
            st.caption(f":material/info: {plain(block.text)}")


def show_figure(figure: go.Figure, *, key: str, **options: Any) -> Any:
    """Show a figure as it was drawn, in both themes, and return its selection if ``on_select`` asks for one.

    One that says in ``layout.meta`` how high it is for its width is no higher than that.
    """
    fit = (figure.layout.meta or {}).get("fit")
    with st.container(key=fit_key(fit, key) if fit else None):
        return st.plotly_chart(
            figure, width="stretch", theme=None, key=key, config={"displayModeBar": False}, **options
        )
