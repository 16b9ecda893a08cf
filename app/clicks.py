"""Charts whose points can be clicked: what was clicked last."""

from __future__ import annotations

from typing import Any

import streamlit as st


def clicked(key: str) -> dict[str, Any] | None:
    """Return the point of a chart that was clicked, for a callback; None if the click took the choice back."""
    chart = st.session_state.get(key)
    points = chart["selection"]["points"] if chart else []
    return points[-1] if points else None
