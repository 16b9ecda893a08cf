"""Concept attention: one picture, several networks, and where each of them looks."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import state
from app.choice import choose_one
from app.errors import shown_errors
from app.markdown import plain
from app.views import (
    attention_cells,
    attention_gallery,
    attention_guess,
    attention_links,
    attention_looks,
    attention_switches,
)
from app.views.attention_picture import ChosenPicture, PictureList

#: What can be looked at besides the maps: what it is called, and how it is shown.
PARTS: dict[str, tuple[str, Callable[[ChosenPicture], None]]] = {
    "concepts": ("Nine concepts", attention_looks.show_concepts),
    "cells": ("Where a patch attends", attention_cells.show),
    "switches": ("Front-door switches", attention_switches.show),
    "links": ("A second picture", attention_links.show),
}


def render() -> None:
    """Show the page."""
    st.title("Concept attention")
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    pictures = PictureList(diagnosis, state.chosen_folder())
    if not pictures.diagnosed:
        st.info(
            "This diagnosis kept no pictures; diagnose the runs again on the Train page to see where they look.",
            icon=":material/info:",
        )
        return
    key = attention_gallery.chosen(pictures)
    attention_gallery.show(pictures, key)
    one = ChosenPicture(pictures, key)
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        _heading(one)
        on = attention_guess.offer()
    if one.image is None:
        st.info(
            "This picture was not kept as a thumbnail, and no run's folder is there to read it from. Choose another.",
            icon=":material/info:",
        )
    if not attention_guess.show(one, on=on):
        return
    attention_looks.show_maps(one)
    _details(one)


@st.fragment
def _details(one: ChosenPicture) -> None:
    """Show one part of what is known besides."""
    with shown_errors():
        wanted = st.query_params.get("part")
        part = choose_one(
            "Look closer",
            list(PARTS),
            key="attention-part",
            default=wanted if wanted in PARTS else None,
            words=lambda name: PARTS[name][0],
        )
        st.query_params["part"] = part
        PARTS[part][1](one)


def _heading(one: ChosenPicture) -> None:
    names = one.pictures.diagnosis.overview.class_names
    label = plain(names[one.label]) if one.label is not None else "unknown class"
    group = f", {plain(one.group)}" if one.group else ""
    st.subheader(f"A {label}{group}", anchor="picture", width="content")
    st.caption(plain(one.key), width="content")
