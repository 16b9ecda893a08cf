"""Spurious correlations: who pays for a shortcut, what the shortcut is, and where mistakes gather."""

from __future__ import annotations

import streamlit as st

from app import state
from app.blocks import show_chapter

#: Analyses of the page with what they are called in the choice.
PARTS = {
    "groups": "Classes and groups",
    "counterfactuals": "Other backgrounds",
    "concept-effects": "Suspicious concepts",
    "properties": "Simple properties",
    "slices": "Gathered mistakes",
    "switches": "Front-door switches",
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
        return
    wanted = st.query_params.get("part", "groups")
    part = st.segmented_control(
        "What to look at",
        list(PARTS),
        default=wanted if wanted in PARTS else "groups",
        format_func=PARTS.__getitem__,
        key="spurious-part",
        required=True,
    )
    st.query_params["part"] = part
    show_chapter(diagnosis, part, key="spurious")
