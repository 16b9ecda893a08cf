"""Runs side by side on one picture: what each says, where it looks, and its nine concepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.choice import choose_one
from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_picture import ChosenPicture

if TYPE_CHECKING:
    from concept_tuning.diagnostics.concept_maps import ConceptMaps
    from concept_tuning.diagnostics.results import Unavailable

#: Runs side by side, width of their pictures and of a slider in pixels, and how many classes are named.
_ACROSS, _WIDTH, _SLIDER, _NAMED = 3, 320, 200, 3


@st.fragment
def show_maps(one: ChosenPicture) -> None:
    """Show each run's answer and its map of the chosen kind."""
    from concept_tuning.diagnostics.attribution import METHODS

    with shown_errors():
        with st.container(horizontal=True, gap="medium", vertical_alignment="top"):
            kind = choose_one("Map", METHODS, key="attention-map")
            opacity = st.slider("Opacity of the map", 0.0, 1.0, 0.5, 0.05, key="attention-opacity", width=_SLIDER)
        for run, column in zip(one.pictures.runs, _columns(len(one.pictures.runs)), strict=False):
            with column:
                _run(one, run, kind, opacity)
        odd = one.other_models()
        if odd:
            st.warning(
                f"The model found for {plain(', '.join(odd))} says something else of this picture than the diagnosis "
                "does, so it may be another run of the same name. Diagnose the runs again to be sure.",
                icon=":material/warning:",
            )
        _controls(one)


def show_concepts(one: ChosenPicture) -> None:
    """Show the concepts of each run, with their patches on the picture."""
    from concept_tuning.figures.concept_maps import concept_figure

    found, reasons = one.each("concept-maps")
    say(reasons)
    if not found or one.image is None:
        return
    caption = (
        "Channels are ranked by how much they speak for the predicted class, and each concept is a run of neighbours "
        "by rank. Above a map: the number of the concept (1 tells the class best), the mean score of its channels "
        "(above 0 they speak for the class, below 0 against it), and below that their ranks. A map tells where they "
        "fire, a box on the picture the patch around the peak, with the numbers of the concepts that have it."
    )
    for run, result in found.items():
        figure = concept_figure([result], one.key, one.image)
        show_figure(figure, key=f"attention-concepts-{run}", alt=f"{run}: {caption}")
        if (one_patch := _one_patch(result, one.key)) is not None:
            st.markdown(f"{plain(run)}: {one_patch}")
    st.caption(caption)


def _one_patch(result: ConceptMaps, key: str) -> str | None:
    """Say that all concepts have one patch, where they have."""
    boxes = result.boxes[result.keys.index(key)]
    if len(boxes) < 2 or (boxes != boxes[0]).any():
        return None
    return f"all {len(boxes)} concepts have their peak in the same place, so that their boxes are one patch."


def say(reasons: list[str]) -> None:
    """Say why something is not there."""
    for reason in reasons:
        st.caption(f":material/info: {plain(reason)}")


def _columns(count: int) -> Iterator[Any]:
    """Return a place for each run, so many in a row that pictures stay large enough."""
    while count > 0:
        yield from st.columns(min(count, _ACROSS) if count != _ACROSS + 1 else 2, gap="medium")
        count -= _ACROSS if count != _ACROSS + 1 else 2


def _run(one: ChosenPicture, run: str, kind: str, opacity: float) -> None:
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.style import laid_over

    names = one.pictures.diagnosis.overview.class_names
    answer, values = one.answer(run), one.map(run, kind)
    st.markdown(f"**{plain(run)}**{_says(one, answer)}")
    reasons = [found.reason for found in (answer, values) if isinstance(found, Unavailable)]
    shown = None if isinstance(values, Unavailable) else values
    if one.image is not None:
        what = "the picture without a map" if shown is None else f"{kind}; bright places counted most"
        if shown is not None and not shown.any():
            what = f"{kind} is blank here: it points at nothing"
        if shown is not None and not isinstance(answer, Unavailable):
            what = what.replace(kind, f"{kind} for {names[answer[1]]}", 1)
        st.image(laid_over(one.image, shown, opacity), caption=plain(what), alt=f"{run}: {what}", width=_WIDTH)
    if not isinstance(answer, Unavailable):
        _probabilities(one, answer[0])
    say(list(dict.fromkeys(reasons)))
    _badges(one, run, kind)


def _says(one: ChosenPicture, answer: tuple[np.ndarray, int] | Unavailable) -> str:
    """Return the class that a run says, and whether it is right, to go after its name."""
    if not isinstance(answer, tuple):
        return ""
    said = answer[1]
    mark = ":green-badge[:material/check: right]" if said == one.label else ":orange-badge[:material/close: wrong]"
    return f" says **{plain(one.pictures.diagnosis.overview.class_names[said])}** {mark}"


def _probabilities(one: ChosenPicture, probabilities: np.ndarray) -> None:
    from concept_tuning.figures.labels import percent

    names = one.pictures.diagnosis.overview.class_names
    for label in np.argsort(-probabilities, kind="stable")[:_NAMED]:
        share = float(probabilities[label])
        st.progress(min(max(share, 0.0), 1.0), text=f"{plain(names[label])} {percent(share, 0)}", width=_WIDTH)


def _badges(one: ChosenPicture, run: str, kind: str) -> None:
    """Show how many of the controls that know nothing the kind of map beats, over all pictures."""
    from concept_tuning.figures.controls import measure_words
    from concept_tuning.report.looking import badge_counts

    controls = one.pictures.each("controls").get(run)
    if controls is None:
        return
    won = badge_counts(controls).get(kind, {})
    if not won:
        st.markdown(":gray-badge[not compared with controls]")
        return
    told = "\n".join(f"- **{plain(measure)}**: {measure_words(measure)}" for measure in won)
    st.markdown(
        " ".join(_badge(measure, *counts) for measure, counts in won.items()),
        help=f"How many controls, maps that know nothing, this kind of map beats over all pictures, by\n\n{told}",
    )


def _badge(measure: str, beaten: int, count: int) -> str:
    """Return a badge that is green for all controls, orange for none, and else grey."""
    colour, icon = ("green", ":material/check: ") if beaten == count else ("gray", "")
    if not beaten:
        colour, icon = "orange", ":material/remove: "
    return f":{colour}-badge[{icon}{plain(measure)}: beats {beaten} of {count}]"


def _controls(one: ChosenPicture) -> None:
    from concept_tuning.figures.controls import badge_figure

    controls = one.pictures.each("controls")
    if not controls:
        return
    st.caption(
        "Badges: how many of four controls that know nothing (the same map of randomised weights, a random map, the "
        "centre, the edges) this kind of map beats over all pictures, by measure. Green: all of them; orange: none."
    )
    if st.toggle("Which controls each map beats", key="attention-controls"):
        for run, result in controls.items():
            caption = f"{run}: a tick where the 95 % paired interval of the map's advantage is above zero."
            st.markdown(f"##### {plain(run)}")
            show_figure(badge_figure(result), key=f"attention-badges-{run}", alt=caption)
            st.caption(plain(caption))
