"""One of a few options, as a row of buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.markdown import plain

T = TypeVar("T")


def choose_one(
    label: str,
    options: Sequence[T],
    *,
    key: str,
    default: T | None = None,
    words: Callable[[T], str] = str,
    place: Any = st,
    **more: Any,
) -> T:
    """Let the user choose an option and return it; the default also where the address names none at all.

    Args:
        label: What is chosen.
        options: One of these.
        key: Of the widget.
        default: What is chosen at first; None: the first option.
        words: How an option is called; it cannot act as Markdown.
        place: Where the buttons are shown.
        more: Further arguments of ``st.segmented_control``, such as ``bind``.
    """
    first = options[0] if default is None else default
    if key in st.session_state and st.session_state[key] is None:
        st.session_state[key] = first
    chosen: T | None = place.segmented_control(
        label,
        options,
        default=first,
        format_func=lambda option: plain(words(option)),
        key=key,
        required=True,
        **more,
    )
    if chosen is None:  # as an address with an empty value has it, which can be mended in the next run only
        st.rerun()
    return chosen
