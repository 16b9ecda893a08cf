"""Transport links: which concept patch of the picture a run matches with which of a second one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_figure
from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_gallery import show_tiles
from app.views.attention_looks import say
from app.views.attention_picture import ChosenPicture

if TYPE_CHECKING:
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.diagnostics.transport_links import TransportLinks

_SECOND = "attention-second"
#: Pictures offered as thumbnails.
_OFFERED = 6


@st.fragment
def show(one: ChosenPicture) -> None:
    """Let the user choose a second picture, and show what each run matches."""
    with shown_errors():
        pictures = one.pictures
        stored = _stored(one)
        others = [key for key in dict.fromkeys([*stored, *pictures.with_maps, *pictures.diagnosed]) if key != one.key]
        if not others:
            st.caption("There is no other picture to match it with.")
            return
        if st.session_state.get(_SECOND) not in [None, *others]:
            st.session_state[_SECOND] = None
        offered = _offered(one, others, stored)
        second = st.selectbox(
            "Second picture (those matched in the diagnosis first)",
            others,
            index=0 if stored else None,
            format_func=lambda key: f"{pictures.classes.get(key, '')}: {key}",
            key=_SECOND,
            placeholder="Choose one, or click a picture below",
        )
        small = pictures.thumbnails(offered)
        show_tiles(pictures, offered, second or "", small, name="second", on_click=_choose)
        if second is None:
            st.caption("Of one class, the method pulls the matched patches together in training.")
            return
        for run in pictures.runs:
            _run(one, run, second)


def _choose(key: str) -> None:
    st.session_state[_SECOND] = key


def _stored(one: ChosenPicture) -> list[str]:
    """Return the pictures with which the diagnosis matches this one."""
    pairs = [pair.keys for found in one.pictures.each("transport").values() for pair in found.pairs]
    return list(dict.fromkeys(second for first, second in pairs if first == one.key))


def _offered(one: ChosenPicture, others: list[str], stored: list[str]) -> list[str]:
    """Return some of the other pictures, half of them of the same class."""
    classes = one.pictures.classes
    same = [key for key in others if classes.get(key) == classes.get(one.key) and key not in stored]
    apart = [key for key in others if classes.get(key) != classes.get(one.key) and key not in stored]
    half = _OFFERED // 2
    return [*stored, *same[:half], *apart[:half]][:_OFFERED]


def _run(one: ChosenPicture, run: str, second: str) -> None:
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.labels import number
    from concept_tuning.figures.transport_links import links_figure, plan_figure

    found = _match(one, run, second)
    if isinstance(found, Unavailable):
        say([found.reason])
        return
    small = one.pictures.thumbnails([one.key, second])
    if one.key not in small or second not in small:
        say(["One of the two pictures was not kept, so that the match cannot be drawn."])
        return
    st.markdown(f"##### {plain(run)}")
    caption = (
        f"{run}: lines join the patches that the method would pull together, wider is heavier; numbers are concepts. "
        f"Transport distance {number(found.distance)} (0: the same patches, 2: opposite ones)."
    )
    images = small.image(one.key), small.image(second)
    names = one.pictures.diagnosis.overview.class_names
    show_figure(links_figure(found, images, class_names=names), key=f"attention-links-{run}", alt=caption)
    st.caption(plain(caption))
    if st.toggle("The whole plan", key=f"attention-plan-{run}"):
        told = "Share of each concept of the first picture (row) that goes to each of the second (column), in percent."
        show_figure(plan_figure(found), key=f"attention-plan-chart-{run}", alt=told)
        st.caption(told)


def _match(one: ChosenPicture, run: str, second: str) -> TransportLinks | Unavailable:
    """Return the match of the diagnosis, or ask the model."""
    from concept_tuning.diagnostics.one_picture import match_two

    stored = one.pictures.each("transport").get(run)
    for pair in stored.pairs if stored is not None else ():
        if pair.keys == (one.key, second):
            return pair
    return one.ask(run, match_two, others=(second,))
