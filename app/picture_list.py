"""Pictures in rows that fit any width, each with a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.markdown import plain

if TYPE_CHECKING:
    from concept_tuning.diagnostics.thumbnails import Thumbnails
    from concept_tuning.report.picture_lists import ListedPicture

_FIRST, _MOST = 12, 60


def show_pictures(pictures: Sequence[ListedPicture], thumbnails: Thumbnails, *, key: str) -> None:
    """Show the pictures that have a thumbnail, the first dozen unless asked for more, and say how many there are."""
    kept = [one for one in pictures if one.key in thumbnails]
    if not kept:
        st.caption(
            "No pictures here." if not pictures else f"{len(pictures)} pictures, none of which was kept as a thumbnail."
        )
        return
    more = len(kept) > _FIRST and st.toggle(f"Show {min(len(kept), _MOST)} pictures", key=f"{key}-more")
    shown = kept[: _MOST if more else _FIRST]
    with st.container(key=f"pictures-{key}"):
        for one in shown:
            st.image(
                thumbnails.address(one.key), caption=plain(one.text), alt=f"{one.key}: {one.text}", width="stretch"
            )
    if len(shown) < len(pictures):
        st.caption(f"{len(shown)} of {len(pictures)} pictures.")
