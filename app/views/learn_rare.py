"""Lesson: the feature that tells two classes apart may be tiny and rare."""

from __future__ import annotations

import streamlit as st

from concept_tuning.diagnostics.lessons import LookAlikes, look_alikes

_PARTS = ("feet", "crest", "beak", "tail tip")
_PAIRS, _SIDE = 8, 320


def lesson() -> None:
    """Show the lesson."""
    turn = st.session_state.setdefault("learn_rare_turn", 0)
    found = look_alikes(turn % _PAIRS, turn, side=_SIDE)
    st.markdown("**Question.** These are two species of birds in the same scene. What tells them apart?")
    _pictures(found, marked=False)
    picked = st.pills("They differ only in the", _PARTS, key=f"learn_rare_part_{turn}")
    if picked is None:
        st.caption("Look first, then choose.")
        return
    if picked == found.part:
        st.success(f"Yes, the {found.part}: {' and '.join(found.names)}.", icon=":material/check:")
    else:
        st.warning(f"Not the {picked} but the {found.part}: {' and '.join(found.names)}.", icon=":material/close:")
    _pictures(found, marked=True)
    st.markdown(
        f"**Answer.** That part is {100 * found.share:.1f} % of the pixels, and all there is to tell the two "
        "apart. Pre-training, which rarely saw it, gave it few or no features; a network that is only fine-tuned finds "
        "something commoner to go by. Such a feature is *rare and useful*: the page Rare features lists those of your "
        "runs, and Concept-Tuning compares small patches so that they count."
    )
    if st.button("Another pair", icon=":material/arrow_forward:", key="learn_rare_next"):
        st.session_state["learn_rare_turn"] = turn + 1
        st.rerun()


def _pictures(found: LookAlikes, *, marked: bool) -> None:
    images = found.marked if marked else found.images
    with st.container(horizontal=True):
        for place, (name, image) in enumerate(zip(found.names, images, strict=True), start=1):
            caption = f"{name}: its {found.part}" if marked else f"Species {place}"
            st.image(image, caption=caption, alt=caption, width=_SIDE)
