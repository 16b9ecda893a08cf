"""Looks that give the class away, and looks in which mistakes gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_blocks, show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.markdown import plain
from app.picture_list import show_pictures

if TYPE_CHECKING:
    from concept_tuning.diagnostics.properties import PropertyTable
    from concept_tuning.diagnostics.slices import Slice, SliceTable
    from concept_tuning.report.blocks import Source

_RUN, _PROPERTY, _SLICE = "spurious-run", "spurious-property", "spurious-slice"
_STRENGTHS = "spurious-strengths"


def show_properties(source: Source) -> None:
    """Show how well each simple property tells the classes, and how a chosen one is spread over them."""
    from concept_tuning.figures.properties import property_figure, strength_figure
    from concept_tuning.report.blocks import Note

    found: PropertyTable = source.joint("properties")
    caption = (
        "Cross-validated accuracy of naive Bayes from one property alone, on the training pictures: 0 is as good as "
        "naming the largest class, 1 gives the class away. Click a bar to see how the property is spread."
    )
    show_figure(strength_figure(found), key=_STRENGTHS, alt=caption, on_select=_take_property, selection_mode="points")
    st.caption(caption)
    if found.properties:
        name = st.selectbox("Property", [one.name for one in found.properties], key=_PROPERTY, bind="query-params")
        caption = f"{name.capitalize()} of the pictures of each class: box, middle half; line, median; diamond, mean."
        show_figure(property_figure(found, name), key=f"spurious-property-{name}", alt=caption)
        st.caption(plain(caption))
    show_blocks(
        [Note(text=found.caveat), *(Note(text=f"{one.analysis}: {one.reason}") for one in found.unavailable)],
        key="spurious-property-notes",
    )


def _take_property() -> None:
    point = clicked(_STRENGTHS)
    if point is not None:
        name = point["customdata"]
        st.session_state[_PROPERTY] = name[0] if isinstance(name, list) else name


def show_slices(source: Source) -> None:
    """Show a run's slices and the pictures of a chosen one."""
    from concept_tuning.figures.labels import number
    from concept_tuning.figures.slices import slice_figure
    from concept_tuning.report.blocks import Note

    tables: dict[str, SliceTable] = source.each("slices")
    run = choose_one("Run", list(tables), key=_RUN, bind="query-params")
    found = tables[run]
    chance = "" if found.p_value is None else f" Chance gives as bad a slice with p = {number(found.p_value, 2)}."
    caption = (
        "Pictures that look alike and share a label, with their accuracy (0–1) and its 95 % interval; the band is all "
        f"pictures.{chance} Click a point to see its pictures."
    )
    chart = f"spurious-slices-{run}"
    show_figure(
        slice_figure(found),
        key=chart,
        alt=caption,
        on_select=lambda: _take_slice(chart, found),
        selection_mode="points",
    )
    st.caption(caption)
    if found.slices:
        _slice(source, found, run)
    show_blocks([Note(text=found.caveat)], key="spurious-slices-note")


def _take_slice(chart: str, found: SliceTable) -> None:
    point = clicked(chart)
    keys = point.get("customdata") if point else None
    if keys:
        places = [place for place, one in enumerate(found.slices) if one.keys[:1] == tuple(keys[:1])]
        st.session_state[_SLICE] = places[0] + 1 if places else 1


def _slice(source: Source, found: SliceTable, run: str) -> None:
    from concept_tuning.figures.labels import number
    from concept_tuning.report.blocks import percent_interval
    from concept_tuning.report.picture_lists import pictures_of

    with st.container(border=True):
        chosen = st.selectbox(
            "Slice",
            list(range(1, len(found.slices) + 1)),
            format_func=lambda number: f"{number}, {_name(found.slices[number - 1])}",
            key=_SLICE,
            bind="query-params",
        )
        one = found.slices[chosen - 1]
        more = "more" if one.excess > 0 else "fewer"
        st.markdown(
            f"Accuracy {percent_interval(one.accuracy)}; {number(abs(one.excess), 2)} errors {more} than its classes "
            "have on average. Its most typical pictures:"
        )
        told = source.each("predictions").get(run)
        if told is None:
            st.caption("Diagnose with the analysis “predictions” as well to see them.")
        else:
            show_pictures(pictures_of(told, list(one.keys)), source.thumbnails, key=f"spurious-slice-{run}-{chosen}")


def _name(one: Slice) -> str:
    return f"mostly {one.classes[0][0]}, {one.accuracy.n} pictures"
