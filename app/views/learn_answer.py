"""Lessons keep their answer back until the learner has done something."""

from __future__ import annotations

import streamlit as st


def acted(lesson: str, settings: object, hint: str) -> bool:
    """Return whether the answer may be seen, and offer a button for it where not; once seen, it stays.

    Args:
        lesson: Name of the lesson.
        settings: What its controls say now; anything else than at first is an act.
        hint: The thing to do, as a sentence.
    """
    shown = f"learn_{lesson}_shown"
    if st.session_state.setdefault(f"learn_{lesson}_first", settings) != settings:
        st.session_state[shown] = True
    if st.session_state.get(shown, False):
        return True
    st.caption(hint)
    st.button(
        "Show the answer",
        icon=":material/visibility:",
        key=f"learn_{lesson}_show",
        on_click=st.session_state.update,
        args=({shown: True},),
    )
    return False
