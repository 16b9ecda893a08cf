"""Suspicious concepts: patches that sway the prediction by themselves; choose one to see its pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.markdown import plain

if TYPE_CHECKING:
    from concept_tuning.diagnostics.concept_effects import ConceptEffects
    from concept_tuning.report.blocks import Source

_RUN, _CONCEPT = "spurious-run", "spurious-concept"
_SHOWN, _PICTURES = 12, 8


def show(source: Source) -> None:
    """Show a run's concepts by suspicion, and the pictures of the chosen one."""
    from concept_tuning.figures.concept_effects import occurrence_figure, suspicion_figure
    from concept_tuning.figures.labels import percent

    results: dict[str, ConceptEffects] = source.each("concept-effects")
    run = choose_one("Run", list(results), key=_RUN, bind="query-params")
    found = results[run]
    if not found.concepts:
        st.caption("No concept was found.")
        return
    chart = f"spurious-concepts-{run}"
    caption = (
        "A concept is suspicious if a patch of it, pasted on pictures of other classes, pulls the prediction to one "
        "class, the more so the more it also occurs elsewhere. It says where to look: a part of the object may pull as "
        "well. Click a bar to see the concept."
    )
    show_figure(
        suspicion_figure(found, most=_SHOWN),
        key=chart,
        alt=caption,
        on_select=lambda: _take_click(chart),
        selection_mode="points",
    )
    st.caption(caption)
    _concept(source, found)
    if st.toggle("Where its concepts occur", key="spurious-occurrence"):
        caption = (
            "Share of each class's pictures that have the concept (0–1); a dot marks the class that it pulls to. The "
            f"concepts leave {percent(found.error, 0)} of the feature maps' size unexplained."
        )
        show_figure(occurrence_figure(found), key=f"spurious-occurrence-{run}", alt=caption)
        st.caption(caption)


def _take_click(chart: str) -> None:
    point = clicked(chart)
    if point is not None:
        rank = point["customdata"]
        st.session_state[_CONCEPT] = int(rank[0] if isinstance(rank, list) else rank)


def _concept(source: Source, found: ConceptEffects) -> None:
    from concept_tuning.figures.concept_effects import concept_gallery
    from concept_tuning.report.spurious import effect_caption, telling_concept

    pulls = {one.rank: found.class_names[one.pulled_class] for one in found.concepts}
    told = telling_concept(found)
    with st.container(border=True):
        rank = st.selectbox(
            "Concept",
            list(pulls),
            0 if told is None else list(pulls).index(told.rank),
            format_func=lambda rank: f"{rank}, pulls to {pulls[rank]}",
            key=_CONCEPT,
            bind="query-params",
        )
        one = next(one for one in found.concepts if one.rank == rank)
        caption = f"Its strongest patches. {effect_caption(found, one)}"
        figure = concept_gallery(found, rank, source.thumbnails, most=_PICTURES)
        show_figure(figure, key=f"spurious-concept-{found.run}-{rank}", alt=caption)
        st.caption(plain(caption))
