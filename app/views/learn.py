"""Learn: short lessons, each one question, one thing to do, and one answer."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.views import learn_doubt, learn_graph, learn_rare, learn_shortcut, learn_transport

#: Name in the address, title and lesson.
LESSONS: tuple[tuple[str, str, Callable[[], None]], ...] = (
    ("rare", "Rare features", learn_rare.lesson),
    ("shortcut", "Shortcuts", learn_shortcut.lesson),
    ("graph", "Cause and front door", learn_graph.lesson),
    ("transport", "Matching patches", learn_transport.lesson),
    ("doubt", "Doubting a map", learn_doubt.lesson),
)


def render() -> None:
    """Show the page."""
    st.title("Learn")
    st.caption("Short lessons for a class: one question, one thing to do, one answer. No lesson needs another.")
    lessons = {name: (title, lesson) for name, title, lesson in LESSONS}
    wanted = st.query_params.get("lesson", "")
    name = st.segmented_control(
        "Lesson",
        list(lessons),
        default=wanted if wanted in lessons else LESSONS[0][0],
        required=True,
        format_func=lambda key: lessons[key][0],
        key="learn_lesson",
    )
    name = name or LESSONS[0][0]
    st.query_params["lesson"] = name
    title, lesson = lessons[name]
    st.header(title)
    lesson()
