"""Lesson: which patch of one picture goes with which of another, by optimal transport."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.views.learn_answer import acted
from concept_tuning.diagnostics.lessons import Partner, explain_partner, points_plan

_FIRST = np.array([[0.15, 0.8], [0.3, 0.35], [0.55, 0.7], [0.75, 0.2]])
_SECOND = np.array([[0.25, 0.6], [0.45, 0.15], [0.6, 0.9], [0.9, 0.45]])


def lesson() -> None:
    """Show the lesson."""
    st.markdown(
        "**Question.** Two pictures have four patches each, and each patch is a point: alike patches lie close. Which "
        "patch goes with which, if every patch has to give and to take its share?"
    )
    left, right = st.columns([2, 3])
    with left:
        which = st.segmented_control(
            "Move a patch of the second picture", [1, 2, 3, 4], default=1, required=True, key="learn_transport_which"
        )
        place = (which or 1) - 1
        moved = st.session_state.setdefault("learn_transport_points", _SECOND.tolist())
        x = st.slider("to the right", 0.0, 1.0, moved[place][0], 0.05, key=f"learn_transport_x_{place}")
        y = st.slider("up", 0.0, 1.0, moved[place][1], 0.05, key=f"learn_transport_y_{place}")
        moved[place] = [x, y]
        epsilon = st.select_slider(
            "Softness (epsilon)",
            [0.002, 0.01, 0.05, 0.2, 1.0],
            0.01,
            key="learn_transport_epsilon",
            help="The entropic regularisation: small, and each patch has one partner; large, and all share alike.",
        )
        settings = (*map(tuple, moved), epsilon)
        shown = acted("transport", settings, "Guess who goes with whom; then move a patch, and the lines appear.")
    second = np.array(moved)
    plan = points_plan(_FIRST, second, epsilon=epsilon) if shown else np.zeros((len(_FIRST), len(second)))
    from concept_tuning.figures.lessons import points_figure

    caption = "The patches by two of their properties."
    if shown:
        caption = "The wider a line, the more of a patch goes along it. Computed by the code that training uses."
    with right:
        show_figure(points_figure(_FIRST, second, plan), key="learn_transport_chart", alt=caption)
        st.caption(caption)
    if not shown:
        return
    found = explain_partner(_FIRST, second, place, epsilon=epsilon)
    st.markdown(
        f"**Answer.** {_sentence(place, found)} Concept-Tuning takes the heaviest pairs of such a plan between two "
        "pictures of one class as what the two should agree on."
    )


def _sentence(place: int, found: Partner) -> str:
    """Say whom the patch takes from, and why."""
    text = f"Patch {place + 1} takes {100 * found.share:.0f} % of its share"
    text += f" from patch {found.place + 1} of the first picture"
    if found.reason == "nearest":
        return f"{text}, which is also the nearest. Move it next to a partner that is taken, and see who gives way."
    if found.reason == "needed":
        return f"{text}, although patch {found.nearest + 1} is nearer: that one is needed elsewhere."
    return (
        f"{text}, and the rest from the others: that is the softness, which spreads what a patch takes. At the least "
        f"softness it goes with patch {found.sharp + 1}."
    )
