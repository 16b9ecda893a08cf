"""Lesson: a map that looks right may not depend on what the network has learnt."""

from __future__ import annotations

import streamlit as st

from app import state
from concept_tuning.figures.labels import number

_ANSWERS = ("They change beyond recognition", "They stay much the same")
#: How much more than chance counts as the same, in rank correlation.
_ALIKE = 0.2


def lesson() -> None:
    """Show the lesson."""
    found = state.choose_diagnosis()
    if found is None:
        return
    checks = {run: result for (analysis, run), result in found.results.items() if analysis == "sanity" and run}
    if not checks:
        reason = next((entry.reason for entry in found.overview.entries if entry.analysis == "sanity"), None)
        st.info(
            "This diagnosis has no sanity check of the maps, which this lesson is about. "
            + (reason or "Choose another in the sidebar, or diagnose runs on the Train page."),
            icon=":material/info:",
        )
        return
    run = st.selectbox("Run", list(checks), key="learn_doubt_run")
    check = checks[run]
    name = st.selectbox("Kind of map", check.maps, key="learn_doubt_map")
    st.markdown(
        f"**Question.** We replace all that this network has learnt by random numbers, layer by layer, and draw its "
        f"{name} maps of the same {len(check.keys)} pictures again. What happens to them?"
    )
    guess = st.radio("Your guess", _ANSWERS, index=None, key=f"learn_doubt_guess_{run}_{name}")
    if guess is None:
        st.caption("Choose, and the measurement appears.")
        return
    place = check.maps.index(name)
    left, chance = float(check.mean_correlation[place, -1]), float(check.chance[place])
    same = left > chance + _ALIKE
    if guess == _ANSWERS[same]:
        st.success("That is what was measured.", icon=":material/check:")
    else:
        st.warning("It was measured otherwise.", icon=":material/close:")
    from concept_tuning.figures.sanity import sanity_figure

    st.plotly_chart(sanity_figure(check), theme=None, width="stretch", key="learn_doubt_chart")
    st.caption(
        "Likeness to the trained network's maps (rank correlation, 1: the same) while more and more is randomised; the "
        "open marks at the right are chance, the maps of other pictures."
    )
    verdict = (
        "so the map shows the picture more than the network: do not believe it for looking plausible"
        if same
        else "so the map does depend on what was learnt. That is the least to ask for, and no proof that it is right"
    )
    st.markdown(
        f"**Answer.** With all weights random, the {name} maps still resemble the trained ones by {number(left, 2)}; "
        f"chance is {number(chance, 2)}, {verdict}. The page Concept attention sets every map beside controls that "
        "know nothing, such as the edges of the picture."
    )
