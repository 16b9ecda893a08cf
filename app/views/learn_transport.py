"""Lesson: which patch of one picture goes with which of another, by optimal transport."""

from __future__ import annotations

import numpy as np
import streamlit as st

from concept_tuning.diagnostics.lessons import points_plan

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
    second = np.array(moved)
    plan = points_plan(_FIRST, second, epsilon=epsilon)
    from concept_tuning.figures.lessons import points_figure

    with right:
        st.plotly_chart(points_figure(_FIRST, second, plan), theme=None, width="stretch", key="learn_transport_chart")
        st.caption("The wider a line, the more of a patch goes along it. Computed by the code that training uses.")
    partner = int(plan[:, place].argmax())
    share = float(plan[partner, place] / plan[:, place].sum())
    nearest = int(((_FIRST - second[place]) ** 2).sum(1).argmin())
    text = f"Patch {place + 1} takes {100 * share:.0f} % of its share from patch {partner + 1} of the first picture"
    if nearest == partner:
        text += ", which is also the nearest. Move it next to a partner that is taken already, and see who gives way."
    else:
        text += f", although patch {nearest + 1} is nearer: that one is needed elsewhere."
    st.markdown(
        f"**Answer.** {text} Concept-Tuning takes the heaviest pairs of such a plan between two pictures of one class "
        "as what the two should agree on."
    )
