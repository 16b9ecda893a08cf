"""Names that Train proposes for runs and diagnoses: free ones, also where several people start at once."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from concept_tuning.errors import RunError

_TRIES = 5


def follow_name(key: str, suggested: str) -> None:
    """Keep a field of text at what is suggested until the user types something else; call it before the field."""
    given = f"{key}_given"
    if st.session_state.get(key, "") in ("", st.session_state.get(given, "")):
        st.session_state[key] = suggested
    else:
        st.session_state[key] = st.session_state[key]  # a field that is not shown for a while would lose it
    st.session_state[given] = suggested


def follow_again(key: str) -> None:
    """Let a field follow what is suggested again, whatever was typed into it; call it after the field."""
    st.session_state[f"{key}_given"] = st.session_state[key]


def begin(start: Callable[[str], object], name: str, free: Callable[[], str] | None) -> None:
    """Start something under a name; where somebody else just took it, under the next one that is free.

    Args:
        start: Starts it, and raises RunError with nothing begun if that cannot be.
        name: The name.
        free: Returns a name that is free now; None: the user chose the name, and no other will do.

    Raises:
        RunError: as ``start`` does.
    """
    for _ in range(_TRIES):
        try:
            start(name)
            return
        except RunError:
            following = free() if free is not None else name
            if following == name:
                raise
            name = following
    start(name)
