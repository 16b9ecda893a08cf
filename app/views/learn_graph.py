"""Lesson: what one sees and what is caused, and how the front door tells them apart."""

from __future__ import annotations

import streamlit as st

from app.blocks import show_figure
from app.views.learn_answer import acted
from concept_tuning.diagnostics.lessons import front_door_world

_CUT = "color=lightgrey, style=dashed"


def lesson() -> None:
    """Show the lesson."""
    st.markdown(
        "**Question.** Something unseen, such as the place where a photographer goes, decides both which pictures we "
        "get and which answer is given. How much of what we see is the picture's own effect on the answer, if nobody "
        "ever wrote the place down?"
    )
    left, right = st.columns([3, 2])
    strength = right.slider(
        "How strongly the place acts on picture and answer", 0.0, 1.0, 0.8, 0.05, key="learn_graph_strength"
    )
    cut = right.toggle("Choose pictures by dice", key="learn_graph_cut", help="Cuts the arrow from the place.")
    world = front_door_world(0.0 if cut else strength)
    with left:
        st.graphviz_chart(_graph(strength, cut=cut), width="stretch")
        st.caption(
            "An arrow means: acts on. The place acts on the picture and the answer; the picture acts on the answer "
            "only through what the network reads off it."
        )
    if not acted("graph", (strength, cut), "Guess: much, little or none? Then move the slider or throw dice."):
        return
    from concept_tuning.figures.lessons import effect_figure

    caption = (
        "Effect of the picture on the answer: the difference in the answer's probability between the two kinds of "
        "picture, computed exactly."
    )
    show_figure(effect_figure(world), key="learn_graph_chart", alt=caption)
    st.caption(caption)
    if cut:
        text = "With dice, what one sees is what is true; but training pictures were not chosen by dice."
    elif world.observed - world.true < 0.01:
        text = "Without the place there is nothing to adjust: all three agree. Move the slider up."
    else:
        text = (
            f"What one sees, {world.observed:.2f}, is too much by {world.observed - world.true:.2f}. The front-door "
            f"formula gets {world.adjusted:.2f}, the truth, from picture, reading and answer alone: first how the "
            "picture changes the reading, then how each reading changes the answer *averaged over all pictures*."
        )
    st.markdown(
        f"**Answer.** {text} Concept-Tuning's front-door head imitates the formula's average over all pictures with "
        "attention over patches and channels; whether it helps your run, the front-door switches on the page Concept "
        "attention show."
    )


def _graph(strength: float, *, cut: bool) -> str:
    width = 0.5 + 3 * strength
    to_picture = _CUT if cut else f'penwidth={width:.1f}, color="#D55E00"'
    return f"""digraph {{
        rankdir=LR; bgcolor="white"; node [shape=box, style=rounded, fontname="sans-serif"];
        place [label="place (unseen)", style="rounded,dashed"];
        picture; reading [label="what is read off"]; answer;
        place -> picture [{to_picture}];
        place -> answer [penwidth={width:.1f}, color="#D55E00"];
        picture -> reading [penwidth=2, color="#0072B2"];
        reading -> answer [penwidth=2, color="#0072B2"];
    }}"""
