"""Concept attention: one picture, several networks, and where each of them looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app import state
from app.blocks import plain, show_figure

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.picture_maps import PictureMaps


def render() -> None:
    """Show the page."""
    st.title("Concept attention")
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    maps = _each(diagnosis, "picture-maps")
    if not maps:
        st.info("This diagnosis was made without maps of pictures; diagnose the runs again to see them.")
        return
    key = _choose_picture(diagnosis, next(iter(maps.values())))
    _maps(diagnosis, maps, key)
    _concepts(diagnosis, key)
    _positions(diagnosis, key)


def _each(diagnosis: Diagnosis, analysis: str) -> dict[str, Any]:
    names = [card.name for card in diagnosis.overview.runs]
    return {name: diagnosis.results[analysis, name] for name in names if (analysis, name) in diagnosis.results}


def _choose_picture(diagnosis: Diagnosis, maps: PictureMaps) -> str:
    """Let the user choose one of the pictures with maps and return its name; the choice is in the address."""
    keys, classes = list(maps.keys), diagnosis.overview.class_names
    wanted = st.query_params.get("picture")
    st.image([diagnosis.thumbnails.file(key) for key in keys], caption=[str(n + 1) for n in range(len(keys))], width=96)
    key = st.pills(
        "Picture",
        keys,
        default=wanted if wanted in keys else keys[0],
        format_func=lambda name: f"{keys.index(name) + 1}: {classes[int(maps.labels[keys.index(name)])]}",
        key="attention-picture",
        required=True,
        help="Those on which the runs disagree come first.",
    )
    st.query_params["picture"] = key
    return key


def _maps(diagnosis: Diagnosis, maps: dict[str, PictureMaps], key: str) -> None:
    from concept_tuning.figures.style import overlay
    from concept_tuning.report.blocks import percent
    from concept_tuning.report.looking import badge_counts

    names = list(next(iter(maps.values())).names)
    left, right = st.columns(2)
    method = left.segmented_control("Map", names, default=names[0], key="attention-map", required=True)
    opacity = right.slider("Opacity of the map", 0.0, 1.0, 0.5, 0.05, key="attention-opacity")
    image = diagnosis.thumbnails.image(key)
    controls = _each(diagnosis, "controls")
    for column, (run, result) in zip(st.columns(len(maps)), maps.items(), strict=True):
        place = result.keys.index(key)
        said, right_one = int(result.predicted[place]), result.predicted[place] == result.labels[place]
        with column:
            st.markdown(f"##### {plain(run)}")
            caption = f"{method} for {result.class_names[said]}; bright places counted most"
            values = result.values[names.index(method), place]
            st.image(overlay(image, values, opacity=opacity), caption=caption, alt=f"{run}: {caption}", width="stretch")
            mark = ":green-badge[:material/check: right]" if right_one else ":orange-badge[:material/close: wrong]"
            st.markdown(f"says **{plain(result.class_names[said])}** {mark}")
            for label in np.argsort(-result.probabilities[place], kind="stable")[:3]:
                share = float(result.probabilities[place, label])
                st.progress(min(max(share, 0.0), 1.0), text=f"{plain(result.class_names[label])} {percent(share, 0)}")
            won = badge_counts(controls[run]).get(method, {}) if run in controls else {}
            if won:
                st.caption(
                    "Controls that know nothing, beaten over all pictures: "
                    + ", ".join(f"{measure} {a} of {b}" for measure, (a, b) in won.items())
                )


def _concepts(diagnosis: Diagnosis, key: str) -> None:
    from concept_tuning.figures.concept_maps import concept_figure

    found = _each(diagnosis, "concept-maps")
    if found:
        st.subheader("The nine concepts")
        show_figure(
            concept_figure(list(found.values()), key, diagnosis.thumbnails.image(key)), key=f"attention-concepts-{key}"
        )
        st.caption(
            "Channels are ranked by how much they speak for the predicted class; each concept is 30 neighbours. "
            "The maps tell where its channels fire, the boxes the patch around the peak."
        )


def _positions(diagnosis: Diagnosis, key: str) -> None:
    from concept_tuning.figures.attention_maps import position_figure

    found = _each(diagnosis, "position-attention")
    if not found:
        return
    st.subheader("Where a patch attends")
    rows, columns = next(iter(found.values())).mean.shape[1:]
    left, right = st.columns(2)
    row = left.slider("Row of the patch, from the top", 1, rows, (rows + 1) // 2, key="attention-row")
    column = right.slider("Column of the patch, from the left", 1, columns, (columns + 1) // 2, key="attention-column")
    for run, result in found.items():
        st.markdown(f"##### {plain(run)}")
        image = diagnosis.thumbnails.image(key)
        figure = position_figure(result, key, image, cells=[(row - 1, column - 1)])
        show_figure(figure, key=f"attention-position-{run}-{key}-{row}-{column}")
        st.caption("The marked patch, where it attends in the front-door head, and the mean over all patches.")
