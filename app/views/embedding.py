"""Embedding: how networks lay out the pictures, before and after fine-tuning, and the pictures behind the points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import state
from app.blocks import plain, show_figure

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.embedding import Embedding

KINDS = {"embedding": "pictures", "concept-embedding": "concept patches"}
COLOURS = {"class": "class", "group": "group", "right": "right or wrong", "run": "run"}
#: Pictures of the gallery.
_SHOWN = 24


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
    if not kinds:
        st.info("This diagnosis was made without layouts; diagnose the runs again to see them.")
        return
    left, right = st.columns(2)
    kind = left.segmented_control(
        "Points", kinds, default=kinds[0], format_func=KINDS.__getitem__, key="embedding-kind", required=True
    )
    result: Embedding = diagnosis.results[kind, None]
    offered = [colour for colour in COLOURS if colour != "group" or result.groups is not None]
    colour = right.segmented_control(
        "Colour", offered, default="class", format_func=COLOURS.__getitem__, key="embedding-colour", required=True
    )
    _show(diagnosis, result, colour)


def _show(diagnosis: Diagnosis, result: Embedding, colour: Any) -> None:
    from concept_tuning.figures.embedding import embedding_figure

    figure = embedding_figure(result, colour=colour, runs=[card.name for card in diagnosis.overview.runs])
    figure.update_layout(dragmode="lasso")
    points = show_figure(
        figure, key=f"embedding-{result.kind}-{colour}", on_select="rerun", selection_mode=("points", "lasso", "box")
    ).selection.points
    st.caption(
        f"{len(result.labels)} of {result.total} points. Draw around points, or click one, to see their pictures below."
    )
    for missing in result.missing:
        st.caption(f":material/info: {plain(f'{missing.analysis}: {missing.reason}')}")
    _gallery(diagnosis, list(dict.fromkeys(_key(point) for point in points)))


def _gallery(diagnosis: Diagnosis, keys: list[str]) -> None:
    if not keys:
        return
    thumbnails = diagnosis.thumbnails
    shown = [key for key in keys if key in thumbnails][:_SHOWN]
    st.markdown(f"##### {len(keys)} chosen, {len(shown)} shown")
    st.image(
        [thumbnails.file(key) for key in shown],
        caption=[diagnosis.overview.class_names[int(thumbnails.labels[thumbnails.keys.index(key)])] for key in shown],
        width=112,
    )


def _key(point: dict[str, Any]) -> str:
    data = point.get("customdata")
    return str(data[0] if isinstance(data, list) else data)
