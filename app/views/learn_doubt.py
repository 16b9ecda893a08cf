"""Lesson: a map that looks right may not depend on what the network has learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import show_figure
from app.markdown import plain
from concept_tuning.diagnostics.lessons import randomised_outcome
from concept_tuning.figures.labels import number

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.picture_maps import PictureMaps
    from concept_tuning.diagnostics.sanity import SanityCheck

_GUESSES = {"changed": "They change clearly", "same": "They stay much the same"}
#: Maps shown, their width in pixels, and how near to each other two likenesses are about the same.
_MAPS, _WIDTH, _NEAR = 3, 160, 0.1


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
            + (plain(reason) if reason else "Choose another in the sidebar, or diagnose runs on the Train page."),
            icon=":material/info:",
        )
        return
    run = st.selectbox("Run", list(checks), key="learn_doubt_run")
    check = checks[run]
    name = st.selectbox("Kind of map", check.maps, key="learn_doubt_map")
    st.markdown(
        f"**Question.** We replace all that this network has learnt by random numbers, layer by layer, and draw its "
        f"{plain(name)} maps of the same {len(check.keys)} pictures again. What happens to them?"
    )
    _show_maps(found, run, name)
    guess = st.radio(
        "Your guess",
        list(_GUESSES),
        format_func=_GUESSES.__getitem__,
        index=None,
        key=f"learn_doubt_guess_{run}_{name}",
    )
    if guess is None:
        st.caption("Choose, and the measurement appears.")
        return
    _answer(check, name, guess)


def _show_maps(found: Diagnosis, run: str, name: str) -> None:
    """Show the run's maps of some pictures, where the diagnosis has them."""
    maps: PictureMaps | None = found.results.get(("picture-maps", run))
    if maps is None or name not in maps.names:
        return
    keys = [key for key in maps.keys if key in found.thumbnails][:_MAPS]
    if not keys:
        return
    from concept_tuning.figures.style import laid_over

    with st.container(horizontal=True):
        for key in keys:
            place = maps.keys.index(key)
            said = maps.class_names[maps.predicted[place]]
            values = maps.values[maps.names.index(name), place]
            st.image(
                laid_over(found.thumbnails.image(key), values),
                caption=plain(f"Where it looks for “{said}”"),
                alt=f"{name} map of {key}, for {said}",
                width=_WIDTH,
            )
    st.caption(
        f"{plain(name)} maps of the trained network; bright places counted most. Those of the random network are not "
        "kept in the diagnosis, only how alike they are to the trained ones."
    )


def _answer(check: SanityCheck, name: str, guess: str) -> None:
    """Show what was measured, whether the guess agrees, and what follows."""
    from concept_tuning.figures.sanity import sanity_figure

    place = check.maps.index(name)
    left, chance = float(check.mean_correlation[place, -1]), float(check.chance[place])
    outcome = randomised_outcome(left, chance)
    if outcome not in _GUESSES:
        st.info("The measurement decides for neither: read on.", icon=":material/help:")
    elif guess == outcome:
        st.success("That is what was measured.", icon=":material/check:")
    else:
        st.warning("It was measured otherwise.", icon=":material/close:")
    one = slice(place, place + 1)
    alone = replace(
        check,
        maps=check.maps[one],
        correlation=check.correlation[one],
        similarity=check.similarity[one],
        chance=check.chance[one],
    )
    caption = (
        "The line tells how alike the maps still are to the trained network's (rank correlation; 1: the same) while "
        "more and more is randomised, from the head, which gives the answer, down to the first layers. Bars span the "
        "middle half of the pictures. The open mark and the dotted line tell how alike the trained maps of two "
        "different pictures are. Point at a mark for the names of the layers."
    )
    show_figure(sanity_figure(alone), key="learn_doubt_chart", alt=caption)
    st.caption(caption)
    st.markdown(
        f"**Answer.** {_sentence(plain(name), left, chance, outcome)} The page Concept attention sets every map beside "
        "controls that know nothing, such as the edges of the picture."
    )


def _sentence(name: str, left: float, chance: float, outcome: str) -> str:
    if outcome == "blank":
        return f"Too many of the {name} maps are blank to compare them."
    only = "only " if outcome == "changed" else ""
    start = f"With all weights random, the {name} maps and the trained ones are alike by {only}{number(left, 2)}"
    others = "the trained maps of two different pictures"
    if outcome == "same":
        return (
            f"{start}; {others} are less alike, by {number(chance, 2)}. So the map shows the picture more than what "
            "the network has learnt: do not believe it for looking plausible."
        )
    if outcome == "unclear":
        return (
            f"{start}. That is much, but {others} are about as alike, by {number(chance, 2)}: this network's maps of "
            "this kind look much the same whatever the picture. So the measurement cannot tell whether the map depends "
            "on what was learnt: do not believe it for looking plausible."
        )
    far = "about as little" if abs(left - chance) <= _NEAR else "even more" if chance > left else "even less"
    return (
        f"{start} (1: the same); {others} are alike {far}, by {number(chance, 2)}. So the map does depend on "
        "what was learnt. That is the least to ask for, and no proof that it is right."
    )
