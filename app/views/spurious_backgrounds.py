"""Other backgrounds: the same objects before other backgrounds, and which predictions change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.markdown import plain
from app.picture_list import show_pictures

if TYPE_CHECKING:
    from concept_tuning.diagnostics.counterfactuals import Counterfactuals
    from concept_tuning.report.blocks import Source

_PICTURE, _CHART = "spurious-picture", "spurious-flips"
_RUN, _EDIT = "spurious-flips-run", "spurious-flips-edit"


def show(source: Source) -> None:
    """Show an edited picture, the rates of change, and the pictures behind a rate."""
    from concept_tuning.figures.counterfactuals import flip_figure, gap_figure

    found: Counterfactuals = source.joint("counterfactuals")
    _example(source, found)
    caption = (
        "Share of predictions that change with the background (0–1), with 95 % intervals. What already changes before "
        "another background of the same class is the paste's own doing. Click a point to see its pictures."
    )
    show_figure(
        flip_figure(found, runs=source.runs),
        key=_CHART,
        alt=caption,
        on_select=lambda: _take_click(found),
        selection_mode="points",
    )
    st.caption(caption)
    _changed(source, found)
    caption = (
        "What is left once the paste's own doing is taken off (0.1 is 10 percentage points): at zero the class of the "
        "background does nothing."
    )
    show_figure(gap_figure(found, runs=source.runs), key="spurious-gaps", alt=caption)
    left = f" {found.left_out} pictures without object, background or donor are left out." if found.left_out else ""
    st.caption(f"{caption} {len(found.keys)} pictures; backgrounds from the {plain(found.donor_split)} split.{left}")


def _example(source: Source, found: Counterfactuals) -> None:
    from concept_tuning.figures.counterfactuals import strip_figure
    from concept_tuning.report.spurious import STRIP_HELP, telling_examples

    keys = telling_examples(found)
    if not keys:
        return
    names = {key: f"{place + 1}" for place, key in enumerate(keys)}
    key = choose_one(
        "Edited picture (those whose predictions change most first)",
        keys,
        key=_PICTURE,
        words=names.__getitem__,
        bind="query-params",
    )
    caption = f"{key} as it is and before other backgrounds, with what each run says."
    show_figure(strip_figure(found, key, runs=source.runs), key=f"spurious-strip-{key}", alt=caption)
    st.caption(f"{plain(caption)} {STRIP_HELP}")


def _take_click(found: Counterfactuals) -> None:
    point = clicked(_CHART)
    if point is not None:
        run = found.runs[int(point["curve_number"]) % len(found.runs)]
        st.session_state[_RUN], st.session_state[_EDIT] = run.run, run.outcomes[int(point["point_index"])].kind


def _changed(source: Source, found: Counterfactuals) -> None:
    """Show the pictures whose prediction an edit changes, as they are without it."""
    from concept_tuning.figures.counterfactuals import edit_name, flipped_keys
    from concept_tuning.report.picture_lists import pictures_of

    runs = {run.run: run for run in found.runs}
    left, right = st.columns(2)
    name = left.selectbox("Predictions of", list(runs), key=_RUN)
    outcomes = {one.kind: one for one in runs[name].outcomes}
    kind = right.selectbox(
        "that change by", list(outcomes), index=None, key=_EDIT, format_func=edit_name, placeholder="Choose an edit"
    )
    if kind is None:
        return
    keys = flipped_keys(found, runs[name], outcomes[kind])
    told = source.each("predictions").get(name)
    with st.container(border=True):
        st.markdown(f"{len(keys)} predictions of {plain(name)} change by this. The pictures before it:")
        if told is not None:
            show_pictures(pictures_of(told, keys), source.thumbnails, key=f"spurious-flips-{name}-{kind}")
