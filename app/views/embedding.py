"""Embedding: how networks lay out the pictures, before and after fine-tuning, and the pictures behind the points."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app import state
from app.blocks import show_figure
from app.choice import choose_one
from app.errors import shown_errors
from app.markdown import plain
from app.picture_list import show_pictures

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.embedding import Embedding

KINDS = {"embedding": "pictures", "concept-embedding": "concept patches"}
COLOURS = {"class": "class", "group": "group", "right": "right or wrong", "run": "run"}
DRAWING = {"lasso": "lasso", "select": "box", "click": "click only"}
#: Of patches, whose gallery is one figure; and maps side by side, without and with pictures on them.
_PATCHES, _ACROSS, _ACROSS_PICTURES = 24, 3, 2
#: Height of a map for its width, title included, and its greatest in pixels alone and beside others.
_FIT, _ALONE, _BESIDE = 1.07, 460, 400
_SIGNS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★", "x": "✕"}


def render() -> None:
    """Show the page."""
    st.title("Embedding")
    st.markdown(
        "Each point is a picture or a patch; near points look alike to the network. Distances between far points, the "
        "size of clusters and the axes mean nothing."
    )
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    kinds = [kind for kind in KINDS if (kind, None) in diagnosis.results]
    if kinds:
        _show(diagnosis, kinds)
    else:
        _say_missing(diagnosis)


@st.fragment
def _show(diagnosis: Diagnosis, kinds: list[str]) -> None:
    from concept_tuning.figures.embedding import named_networks
    from concept_tuning.figures.embedding_pictures import chosen_places

    with shown_errors():
        left, right = st.columns(2)
        kind = choose_one(
            "Points", kinds, key="embedding-kind", words=KINDS.__getitem__, place=left, bind="query-params"
        )
        result: Embedding = named_networks(diagnosis.results[kind, None])
        colour = _choose_colour(right, result)
        result = _choose_networks(result, kind)
        places = chosen_places(result, _chosen(kind))
        _map(diagnosis, result, kind, colour, places)
        _choose_by_name(result, kind)
        _gallery(diagnosis, result, kind, places)


def _choose_colour(column: Any, result: Embedding) -> str:
    offered = [colour for colour in COLOURS if colour != "group" or result.groups is not None]
    return choose_one(
        "Colour", offered, key="embedding-colour", words=COLOURS.__getitem__, place=column, bind="query-params"
    )


def _choose_networks(result: Embedding, kind: str) -> Embedding:
    """Return the layouts of the networks that the user wants, all of them where none is named."""
    names = [layout.name for layout in result.layouts]
    if len(names) < 2:
        return result
    wanted = st.pills(
        "Networks",
        names,
        default=names,
        selection_mode="multi",
        format_func=plain,
        key=f"embedding-networks-{kind}",
        help="“before …” is the network as pre-training left it.",
    )
    kept = tuple(layout for layout in result.layouts if layout.name in wanted)
    return replace(result, layouts=kept or result.layouts)


def _map(diagnosis: Diagnosis, result: Embedding, kind: str, colour: Any, places: Sequence[int]) -> None:
    left, right = st.columns(2)
    how = choose_one("Choose points by", list(DRAWING), key="embedding-drawing", words=DRAWING.__getitem__, place=left)
    pictures = right.toggle(f"Show {KINDS[kind]} on the map", key="embedding-pictures", value=False)
    way = "Click one" if how == "click" else f"Draw a {DRAWING[how]} around points, or click one,"
    caption = (
        f"{len(result.labels)} of {result.total} {KINDS[kind]}, coloured by {COLOURS[colour]}. {way} to see the "
        "pictures below, and where the same points lie for the other networks."
    )
    _legend(diagnosis, result, colour)
    for name, part, column in _panels(result, colour, _ACROSS_PICTURES if pictures else _ACROSS):
        figure = _figure(diagnosis, part, colour, places, pictures=pictures)
        figure.update_layout(dragmode=False if how == "click" else how)
        key = f"embedding-map-{kind}-{name}"
        with column:
            show_figure(
                figure,
                key=key,
                alt=f"{name}: {caption}",
                on_select=lambda key=key: _take_points(key, kind),
                selection_mode=("points", "lasso", "box"),
            )
    st.caption(caption)
    for missing in result.missing:
        st.caption(f":material/info: {plain(f'{missing.analysis}: {missing.reason}')}")


def _panels(result: Embedding, colour: Any, across: int) -> Iterator[tuple[str, Embedding, Any]]:
    """Return the maps with a place for each: one of each network, or one of all of them where colours tell them."""
    layouts = result.layouts
    if colour == "run" or len(layouts) < 2:
        yield colour, result, st.container()
        return
    for start in range(0, len(layouts), across):
        columns = st.columns(min(across, len(layouts)), gap="small")
        for layout, column in zip(layouts[start : start + across], columns, strict=False):
            yield layout.name, replace(result, layouts=(layout,)), column


def _legend(diagnosis: Diagnosis, result: Embedding, colour: Any) -> None:
    """Name the colours above the maps."""
    from concept_tuning.figures.embedding import colour_keys

    keys = colour_keys(result, colour=colour, runs=[card.name for card in diagnosis.overview.runs])
    if keys:
        parts = (
            f'<span style="white-space: nowrap"><span style="color: {key.colour}" aria-hidden="true">'
            f"{_SIGNS.get(key.symbol, '●')}</span> {html.escape(key.name)}</span>"
            for key in keys
        )
        st.html(f'<div style="display: flex; flex-wrap: wrap; gap: 0 1rem">{"".join(parts)}</div>')


def _figure(
    diagnosis: Diagnosis, result: Embedding, colour: Any, places: Sequence[int], *, pictures: bool
) -> go.Figure:
    from concept_tuning.figures.embedding import embedding_figure
    from concept_tuning.figures.embedding_pictures import add_pictures, mark_chosen

    runs = [card.name for card in diagnosis.overview.runs]
    figure = embedding_figure(result, colour=colour, runs=runs, legend=False)
    mark_chosen(figure, result, places)
    figure.update_layout(height=_ALONE if colour == "run" else _BESIDE, meta={"fit": _FIT})
    return add_pictures(figure, result, diagnosis.thumbnails) if pictures else figure


def _key(kind: str) -> str:
    return f"embedding-chosen-{kind}"


def _chosen(kind: str) -> list[Any]:
    """Return the customdata of the chosen points; at first the picture of the address."""
    wanted = st.query_params.get("picture")
    return st.session_state.get(_key(kind), [wanted] if wanted and kind == "embedding" else [])


def _choose(kind: str, names: list[Any]) -> None:
    """Remember points, and a single picture in the address; for callbacks."""
    st.session_state[_key(kind)] = names
    if kind == "embedding" and len(names) == 1:
        st.query_params["picture"] = names[0]
    else:
        st.query_params.pop("picture", None)


def _take_points(chart: str, kind: str) -> None:
    points = st.session_state[chart]["selection"]["points"]
    names = [_plain_data(point["customdata"]) for point in points if "customdata" in point]
    _choose(kind, [list(name) if isinstance(name, tuple) else name for name in dict.fromkeys(names)])


def _plain_data(data: Any) -> str | tuple[Any, ...]:
    """Return customdata as a name, or name and number."""
    if isinstance(data, str):
        return data
    return data[0] if len(data) == 1 else tuple(data)


def _choose_by_name(result: Embedding, kind: str) -> None:
    """Offer what the mouse does on the map to those who use the keyboard."""
    key = f"{kind}-name"
    names = list(dict.fromkeys(result.keys[int(place)] for place in result.picture))

    def take() -> None:
        name = st.session_state[key]
        if name is None:
            return
        numbers = result.concept
        if numbers is None:
            _choose(kind, [name])
        else:  # all patches of the picture
            own = np.flatnonzero(result.picture == result.keys.index(name))
            _choose(kind, [[name, int(numbers[place])] for place in own])

    what = "a picture" if result.concept is None else "the patches of a picture"
    st.selectbox(f"Or find {what} by its name", names, index=None, key=key, on_change=take, placeholder="Name")


def _gallery(diagnosis: Diagnosis, result: Embedding, kind: str, places: Sequence[int]) -> None:
    """Show the pictures of the chosen points, and what they are."""
    from concept_tuning.report.chosen_points import chosen_pictures, chosen_words

    if not places:
        return
    with st.container(border=True):
        st.markdown(f"##### {plain(chosen_words(result, places)[0])}")
        for line in chosen_words(result, places)[1:]:
            st.markdown(plain(line))
        if result.boxes is None:
            show_pictures(chosen_pictures(result, places), diagnosis.thumbnails, key="embedding-gallery")
        else:
            _patches(diagnosis, result, places)
        st.button("Clear the choice", key="embedding-clear", on_click=lambda: _choose(kind, []))


def _patches(diagnosis: Diagnosis, result: Embedding, places: Sequence[int]) -> None:
    from concept_tuning.figures.embedding_pictures import patch_gallery

    kept = [place for place in places if result.keys[int(result.picture[place])] in diagnosis.thumbnails]
    caption = f"{min(len(kept), _PATCHES)} of {len(places)} patches, each framed in its picture."
    figure = patch_gallery(result, kept, diagnosis.thumbnails, most=_PATCHES)
    show_figure(figure, key="embedding-patches", alt=caption)
    st.caption(caption)


def _say_missing(diagnosis: Diagnosis) -> None:
    reasons = [
        entry.reason for entry in diagnosis.overview.entries if entry.analysis in KINDS and entry.reason is not None
    ]
    st.info(
        " ".join(plain(reason) for reason in dict.fromkeys(reasons))
        or "This diagnosis was made without layouts; diagnose the runs again to see them.",
        icon=":material/info:",
    )
