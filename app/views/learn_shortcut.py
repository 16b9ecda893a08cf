"""Lesson: a shortcut pays in training, and nobody notices until the test."""

from __future__ import annotations

import streamlit as st

from app import state
from app.blocks import show_figure
from app.views.learn_answer import acted


def lesson() -> None:
    """Show the lesson."""
    st.markdown(
        "**Question.** Four species of birds live in four habitats. A lazy pupil never looks at the birds: for each "
        "habitat it says the species most often seen there in training. How good are its marks?"
    )
    rho = st.slider(
        "rho: how often a bird is at home in the training pictures (otherwise it is anywhere)",
        0.0,
        1.0,
        0.9,
        0.05,
        key="learn_shortcut_rho",
    )
    if not acted("shortcut", rho, "Guess its marks at this rho; then move the slider, and you see them."):
        return
    guesses = state.habitat_guesses()
    here = min(guesses, key=lambda guess: abs(guess.rho - rho))
    first, second = st.columns(2)
    first.metric("Right in training", f"{100 * here.train:.0f} %", border=True)
    second.metric("Right in the test, every habitat alike", f"{100 * here.test:.0f} %", border=True)
    from concept_tuning.figures.lessons import shortcut_figure

    caption = "Share of pictures that the habitat alone gets right, in percent; the dotted line is your rho."
    show_figure(shortcut_figure(guesses, rho), key="learn_shortcut_chart", alt=caption)
    st.caption(caption)
    st.markdown(
        f"**Answer.** At rho {rho:.2f} the pupil has {100 * here.train:.0f} % in training and is back to chance, "
        f"{100 * here.test:.0f} %, where habitats say nothing. The training loss cannot tell it from one that looks at "
        "the birds; validation that is drawn like training cannot either. Look at the *worst group* and at pictures "
        "with another background: both are on the page Spurious correlations."
    )
