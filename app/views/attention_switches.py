"""Front-door switches: what the prediction and its map become when the head's attentions are switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_looks import say
from app.views.attention_picture import ChosenPicture

if TYPE_CHECKING:
    from concept_tuning.diagnostics.switches import FrontDoorSwitches

_ON, _ASK = "everything on", "attention-switch-ask"
_SETTINGS = {(True, True): _ON, (False, True): "position off", (True, False): "channel off", (False, False): "both off"}


@st.fragment
def show(one: ChosenPicture) -> None:
    """Show the switches, and each run that has a front-door head before and after."""
    with shown_errors():
        found, reasons = one.each("switches")
        say(reasons)
        if not found or one.image is None:
            return
        with st.container(horizontal=True, gap="medium"):
            position = st.toggle("Attention over patches", True, key="attention-position-on")
            channel = st.toggle("Attention over channels", True, key="attention-channel-on")
        setting = _SETTINGS[position, channel]
        asked = one.key not in one.pictures.with_maps or st.session_state.get(_ASK, False)
        for run, result in found.items():
            _run(one, run, result, setting, asked)
        if one.key in one.pictures.with_maps:
            st.toggle("Probabilities too (asks the models, which takes a moment the first time)", key=_ASK)
        st.caption(
            "Maps: Grad-CAM of the front-door head alone, of the class that it says with everything on. The head was "
            "trained with its attentions on: an answer that stays does not say that an attention does nothing here, "
            "and one that changes does not say that it removes a shortcut."
        )


def _run(one: ChosenPicture, run: str, result: FrontDoorSwitches, setting: str, asked: bool) -> None:
    from concept_tuning.figures.style import laid_over

    maps = result.maps
    if maps is None or setting not in maps.names:
        st.caption(f":material/info: {plain(run)} has no such switch; its head has one attention alone.")
        return
    place, names = maps.keys.index(one.key), one.pictures.diagnosis.overview.class_names
    said = {name: int(maps.predicted[row, place]) for row, name in enumerate(maps.names)}
    rows = [_ON] if setting == _ON else [_ON, setting]
    changed = setting != _ON and said[setting] != said[_ON]
    words = (
        "Switch an attention off to see what it does."
        if setting == _ON
        else f"With {_words(setting)} the head "
        + (f"says **{plain(names[said[setting]])}** instead of " if changed else "still says ")
        + f"**{plain(names[said[_ON]])}**."
    )
    if len(one.pictures.runs) > 1:
        words = f"**{plain(run)}.** {words}"
    st.markdown(words + _rule(one, run, setting, asked))
    assert one.image is not None
    with st.container(horizontal=True, gap="small"):
        for name in rows:
            values = maps.values[maps.names.index(name), place]
            blank = not (values > 0).any()
            caption = f"{_words(name)}: {names[said[name]]}" + (
                ", a blank map" if blank else f", at most {float(values.max()):.2g} logits"
            )
            st.image(
                laid_over(one.image, None if blank else values),
                caption=plain(caption),
                alt=f"{run}, {caption}",
                width=260,
            )


def _rule(one: ChosenPicture, run: str, setting: str, asked: bool) -> str:
    """Say how the run's own prediction moves, if the model is asked."""
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.labels import percent

    if not asked or setting == _ON:
        return ""
    live = one.live(run)
    if isinstance(live, Unavailable):
        return f" {plain(live.reason)}"
    before, after = live.switched[_ON], live.switched[setting]
    names, label = one.pictures.diagnosis.overview.class_names, int(np.argmax(before))
    shift = float(np.abs(after - before).sum() / 2)
    now = int(np.argmax(after))
    turned = "" if now == label else f", so that it says {plain(names[now])}"
    return (
        f" The run's whole prediction, in which other heads may have a say, gives {plain(names[label])} "
        f"{percent(float(before[label]), 1)} with everything on and {percent(float(after[label]), 1)} so{turned}; "
        f"{percent(shift, 1)} of the probability moves."
    )


def _words(setting: str) -> str:
    return {
        "position off": "patch attention off",
        "channel off": "channel attention off",
        "both off": "both attentions off",
    }.get(setting, setting)
