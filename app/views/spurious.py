"""Spurious correlations: who pays for a shortcut, what the shortcut is, and where mistakes gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import show_blocks, show_chapter
from app.choice import choose_one
from app.errors import shown_errors
from app.finding_list import show_findings
from app.views import spurious_backgrounds, spurious_concepts, spurious_groups, spurious_lab, spurious_looks

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis

_LAB = "lab"
_PART, _OF = "spurious-part", "spurious-part-of"
#: Analyses of the page, and the lab, with what they are called in the choice.
PARTS = {
    "groups": "Worst group",
    "counterfactuals": "Backgrounds",
    "concept-effects": "Concepts",
    "properties": "Properties",
    "slices": "Gathered mistakes",
    "switches": "Front door",
    _LAB: "Shortcut lab",
}
_SHOWS = {
    "groups": spurious_groups.show,
    "counterfactuals": spurious_backgrounds.show,
    "concept-effects": spurious_concepts.show,
    "properties": spurious_looks.show_properties,
    "slices": spurious_looks.show_slices,
}


def render() -> None:
    """Show the page."""
    st.title("Spurious correlations")
    st.markdown(
        "A shortcut is something that goes together with a class without being part of it, such as water behind gulls. "
        "It shows in the group where it misleads, in predictions that follow the background, and in patches that sway "
        "the answer wherever they are put."
    )
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        st.caption("Or plant a shortcut yourself:")
        spurious_lab.show()
        return
    part = _choose_part(diagnosis)
    if part == _LAB:
        spurious_lab.show()
    else:
        _show_part(diagnosis, part)


def _choose_part(diagnosis: Diagnosis) -> str:
    """Let the user choose a part, those with results first, and return it."""
    full = [part for part in PARTS if part != _LAB and any(name == part for name, _ in diagnosis.results)]
    order = [*full, _LAB, *(part for part in PARTS if part not in (*full, _LAB))]
    shown, before = state.chosen_folder(), st.session_state.get(_OF)
    st.session_state[_OF] = shown
    if before not in (None, shown) and st.session_state.get(_PART) not in (*full, _LAB):
        st.session_state[_PART] = order[0]
    wanted = st.query_params.get("part")
    part = choose_one(
        "What to look at",
        order,
        key=_PART,
        default=wanted if wanted in PARTS else None,
        words=PARTS.__getitem__,
    )
    st.query_params["part"] = part
    return part


@st.fragment
def _show_part(diagnosis: Diagnosis, part: str) -> None:
    """Show one analysis: in words, then in charts, then how to read it and what it lacks."""
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.chapters import CHAPTERS

    source = Source(diagnosis)
    with shown_errors():
        if part not in _SHOWS or not (source.each(part) or source.joint(part)):
            show_findings(diagnosis, [part])
            show_chapter(diagnosis, part, key="spurious")
            return
        st.markdown(CHAPTERS[part][0])
        show_findings(diagnosis, [part])
        _SHOWS[part](source)
        show_blocks(source.closing(part), key=f"spurious-{part}-closing")
