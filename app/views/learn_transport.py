"""Lesson: which patch of one picture goes with which of another, by optimal transport."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.views.learn_answer import acted
from concept_tuning.diagnostics.lessons import Partner, explain_partner, points_plan

_FIRST = np.array([[0.15, 0.8], [0.3, 0.35], [0.55, 0.7], [0.75, 0.2]])
_SIDES = ("first picture", "second picture")
_SECOND = np.array([[0.25, 0.6], [0.45, 0.15], [0.6, 0.9], [0.9, 0.45]])


def lesson() -> None:
    """Show the lesson."""
    st.markdown(
        "**Question.** Two pictures have four patches each, and each patch is a point: alike patches lie close. Which "
        "patch goes with which, if every patch has to give and to take its share?"
    )
    left, right = st.columns([2, 3])
    with left:
        side = st.segmented_control(
            "Move a patch of the", _SIDES, default=_SIDES[1], required=True, key="learn_transport_side"
        )
        picture = _SIDES.index(side or _SIDES[1])
        which = st.segmented_control("Which", [1, 2, 3, 4], default=1, required=True, key="learn_transport_which")
        place = (which or 1) - 1
        moved = st.session_state.setdefault("learn_transport_points", [_FIRST.tolist(), _SECOND.tolist()])
        x, y = moved[picture][place]
        x = st.slider("to the right", 0.0, 1.0, x, 0.05, key=f"learn_transport_x_{picture}_{place}")
        y = st.slider("up", 0.0, 1.0, y, 0.05, key=f"learn_transport_y_{picture}_{place}")
        moved[picture][place] = [x, y]
        epsilon = st.select_slider(
            "Softness (epsilon)",
            [0.002, 0.01, 0.05, 0.2, 1.0],
            0.01,
            key="learn_transport_epsilon",
            help="The entropic regularisation: small, and each patch has one partner; large, and all share alike.",
        )
        settings = (*(tuple(point) for points in moved for point in points), epsilon)
        shown = acted("transport", settings, "Guess who goes with whom; then move a patch, and the lines appear.")
    first, second = (np.array(points) for points in moved)
    plan = points_plan(first, second, epsilon=epsilon) if shown else np.zeros((len(first), len(second)))
    from concept_tuning.figures.lessons import points_figure

    caption = "The patches by two of their properties."
    if shown:
        caption = "The wider a line, the more of a patch goes along it. Computed by the code that training uses."
    with right:
        show_figure(points_figure(first, second, plan), key="learn_transport_chart", alt=caption)
        st.caption(caption)
    if not shown:
        return
    others, own = (first, second) if picture else (second, first)
    found = explain_partner(others, own, place, epsilon=epsilon, plan=plan if picture else plan.T)
    st.markdown(
        f"**Answer.** {_sentence(picture, place, found)} Concept-Tuning takes the heaviest pairs of such a plan "
        "between two pictures of one class as what the two should agree on."
    )


def _sentence(picture: int, place: int, found: Partner) -> str:
    """Say whom the patch takes from, or gives to, and why."""
    does, other = (("takes", "from"), _SIDES[0]) if picture else (("gives", "to"), _SIDES[1])
    text = f"Patch {place + 1} of the {_SIDES[picture]} {does[0]} {100 * found.share:.0f} % of its share"
    text += f" {does[1]} patch {found.place + 1} of the {other}"
    if found.reason == "nearest":
        return f"{text}, which is also the nearest. Move it next to a partner that is taken, and see who gives way."
    if found.reason == "needed":
        return f"{text}, although patch {found.nearest + 1} is nearer: that one is needed elsewhere."
    return (
        f"{text}, and the rest from the others: that is the softness, which spreads the shares. At the least "
        f"softness it goes with patch {found.sharp + 1}."
    )
