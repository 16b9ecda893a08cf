"""Runs side by side on one picture: what each says, where it looks, and its nine concepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_picture import ChosenPicture

#: Runs side by side, width of their pictures in pixels, and how many classes are named.
_ACROSS, WIDTH, _NAMED = 3, 320, 3


@st.fragment
def show_maps(one: ChosenPicture) -> None:
    """Show each run's answer and its map of the chosen kind."""
    from concept_tuning.diagnostics.attribution import METHODS

    with shown_errors():
        kind = st.segmented_control("Map", METHODS, default=METHODS[0], key="attention-map", required=True)
        opacity = st.slider("Opacity of the map", 0.0, 1.0, 0.5, 0.05, key="attention-opacity", width=WIDTH)
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
        "Channels are ranked by how much they speak for the predicted class; each concept is 30 or so neighbours by "
        "rank. The maps tell where its channels fire, the boxes the patch around the peak."
    )
    for run, result in found.items():
        figure = concept_figure([result], one.key, one.image)
        show_figure(figure, key=f"attention-concepts-{run}", alt=f"{run}: {caption}")
    st.caption(caption)


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

    st.markdown(f"##### {plain(run)}")
    names = one.pictures.diagnosis.overview.class_names
    answer, values = one.answer(run), one.map(run, kind)
    reasons = [found.reason for found in (answer, values) if isinstance(found, Unavailable)]
    shown = None if isinstance(values, Unavailable) else values
    if one.image is not None:
        what = "the picture without a map" if shown is None else f"{kind}; bright places counted most"
        if shown is not None and not shown.any():
            what = f"{kind} is blank here: it points at nothing"
        if shown is not None and not isinstance(answer, Unavailable):
            what = what.replace(kind, f"{kind} for {names[answer[1]]}", 1)
        st.image(laid_over(one.image, shown, opacity), caption=plain(what), alt=f"{run}: {what}", width=WIDTH)
    if not isinstance(answer, Unavailable):
        _answer(one, *answer)
    say(list(dict.fromkeys(reasons)))
    _badges(one, run, kind)


def _answer(one: ChosenPicture, probabilities: np.ndarray, said: int) -> None:
    from concept_tuning.report.blocks import percent

    names = one.pictures.diagnosis.overview.class_names
    mark = ":green-badge[:material/check: right]" if said == one.label else ":orange-badge[:material/close: wrong]"
    st.markdown(f"says **{plain(names[said])}** {mark}")
    for label in np.argsort(-probabilities, kind="stable")[:_NAMED]:
        share = float(probabilities[label])
        st.progress(min(max(share, 0.0), 1.0), text=f"{plain(names[label])} {percent(share, 0)}", width=WIDTH)


def _badges(one: ChosenPicture, run: str, kind: str) -> None:
    """Show how many of the controls that know nothing the kind of map beats, over all pictures."""
    from concept_tuning.report.looking import badge_counts

    controls = one.pictures.each("controls").get(run)
    if controls is None:
        return
    won = badge_counts(controls).get(kind, {})
    if not won:
        st.markdown(":gray-badge[not compared with controls]")
        return
    st.markdown(
        " ".join(
            f":{'green' if a == b else 'orange'}-badge[{':material/check:' if a == b else ':material/remove:'} "
            f"{plain(measure)} {a} of {b}]"
            for measure, (a, b) in won.items()
        )
    )


def _controls(one: ChosenPicture) -> None:
    from concept_tuning.figures.controls import badge_figure

    controls = one.pictures.each("controls")
    if not controls:
        return
    st.caption(
        "Badges: how many of four controls that know nothing (the same map of randomised weights, a random map, the "
        "centre, the edges) this kind of map beats over all pictures, by measure. Green: all of them."
    )
    if st.toggle("Which controls each map beats", key="attention-controls"):
        for run, result in controls.items():
            caption = f"{run}: a tick where the 95 % paired interval of the map's advantage is above zero."
            st.markdown(f"##### {plain(run)}")
            show_figure(badge_figure(result), key=f"attention-badges-{run}", alt=caption)
            st.caption(plain(caption))
