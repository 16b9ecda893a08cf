"""Start: one picture that two networks see differently, what negative transfer is, and where to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app import state
from app.markdown import plain
from app.method_words import method_label
from app.pages import page

if TYPE_CHECKING:
    from concept_tuning.diagnostics.showcase import Showcase, ShowcaseRun

_NAMED = 3
_DOORS = (
    (
        "attention",
        "Look at the demo",
        "Two trained networks, picture by picture: where they look, and what they look past.",
    ),
    ("train", "Train on my pictures", "A folder or zip of your own, or drawn birds whose secrets are known."),
    ("compare", "Compare runs", "Which network is better, how sure that is, and on which pictures."),
)


def render() -> None:
    """Show the page."""
    st.title("What does your network look at?")
    showcase = state.read_showcase()
    if showcase is None:
        st.info(
            "The demo is not there yet. Make it with `python assets/demo.py` (it trains two small networks, which "
            "takes some minutes), or train and diagnose runs of your own on the Train page.",
            icon=":material/info:",
        )
    else:
        _show(showcase)
    _explain()
    _doors()


def _show(showcase: Showcase) -> None:
    picture, *places = st.columns(3, gap="medium")
    name = showcase.class_names[showcase.label]
    with picture:
        st.markdown("#### The picture")
        where = f" before {showcase.group}" if showcase.group else ""
        caption = f"A test picture, new to both networks: {name}{where}"
        st.image(showcase.image, caption=caption, alt=caption, width="stretch")
    for place, run in zip(places, showcase.runs, strict=True):
        with place:
            _show_run(showcase, run)
    st.success(f"**What to notice.** {showcase.sentence}", icon=":material/lightbulb:")
    first, second = showcase.runs
    verdict = state.demo_verdict({first.method, second.method})
    st.caption(
        f"Bright places of a map counted most for the answer below it ({showcase.map_name}), dark ones least. Of all "
        f"{showcase.pictures} test pictures looked at, {first.name} has {_percent(first.accuracy)} right and "
        f"{second.name} {_percent(second.accuracy)}. {plain(verdict or '')}"
    )


def _show_run(showcase: Showcase, run: ShowcaseRun) -> None:
    from concept_tuning.figures.style import overlay

    names = showcase.class_names
    said, right = names[run.predicted], run.predicted == showcase.label
    st.markdown(f"#### {method_label(run.method)}")
    caption = f"Where it looks for “{said}”"
    if run.outside is not None:
        caption += f": {_percent(run.outside)} of the map lies outside the object"
    st.image(
        overlay(showcase.image, run.values),
        caption=caption,
        alt=f"Attention map of {run.name} laid over the picture",
        width="stretch",
    )
    mark = ":green-badge[:material/check: right]" if right else ":orange-badge[:material/close: wrong]"
    st.markdown(f"says **{said}** {mark}")
    for label in np.argsort(-run.probabilities, kind="stable")[:_NAMED]:
        probability = float(run.probabilities[label])
        st.progress(min(max(probability, 0.0), 1.0), text=f"{names[label]} {_percent(probability)}")


def _explain() -> None:
    st.subheader("What negative transfer is")
    st.markdown(
        "A network that was trained on millions of other pictures usually learns a new task faster. But it brings "
        "habits along: what was *rare* there, such as the shape of a foot, it hardly sees, and what merely *goes "
        "together* with a class, such as the water behind a bird, it takes for the thing itself. Where that makes it "
        "worse than a network that starts from nothing, the transfer is negative."
    )


def _doors() -> None:
    st.subheader("Where to go")
    for column, (name, title, text) in zip(st.columns(len(_DOORS)), _DOORS, strict=True):
        target = page(name)
        with column.container(border=True, height="stretch"):
            st.page_link(target, label=f"**{title}**", icon=target.icon, width="stretch")
            st.caption(text)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
