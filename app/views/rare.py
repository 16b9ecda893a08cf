"""Rare features: what pre-training hardly saw, whether it matters here, and whether fine-tuning learnt it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import plain, show_blocks, show_figure

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport


def render() -> None:
    """Show the page."""
    st.title("Rare features")
    st.markdown(
        "A feature is rare if pre-training hardly saw it and it tells the classes of this data apart: the feet of a "
        "gull, say. Fine-tuning that leans on what pre-training made strong looks past it."
    )
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    report: RareFeaturesReport | None = diagnosis.results.get(("rare-features", None))
    if report is None:
        _say_missing(diagnosis)
        return
    result = _choose_view(report)
    if result is not None:
        _show(diagnosis, result)
    for missing in report.missing:
        st.caption(f":material/info: {plain(missing.reason)}")


def _choose_view(report: RareFeaturesReport) -> RareFeatures | None:
    """Return the analysis that the user chose, or None where there is none."""
    if not report.analyses:
        return None
    names = [f"{result.view} of {result.backbone}" for result in report.analyses]
    wanted = st.query_params.get("view")
    name = st.segmented_control(
        "What counts as a concept",
        names,
        default=wanted if wanted in names else names[0],
        required=True,
        key="rare-view",
        help="Single channels of the last feature map, groups of channels that fire together, or factors of patches.",
    )
    st.query_params["view"] = name
    return report.analyses[names.index(name)]


def _show(diagnosis: Diagnosis, result: RareFeatures) -> None:
    from concept_tuning.figures.rare_features import rarity_figure
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.rare import view_blocks

    blocks = view_blocks(Source(diagnosis), result)
    chosen = show_figure(
        rarity_figure(result), key="rare-chart", on_select="rerun", selection_mode=("points",)
    ).selection.points
    st.caption(
        "One point for each concept: how often pre-training saw it, against what its presence says of the class beyond "
        "shuffled labels. Rare features are in the upper left. Click a point to see its patches."
    )
    _show_concept(diagnosis, result, int(chosen[0]["customdata"][0]) if chosen else None)
    show_blocks(blocks[1:], key=f"rare-{result.view}")


def _show_concept(diagnosis: Diagnosis, result: RareFeatures, concept: int | None) -> None:
    """Show the patches of the clicked concept, and how often each class has it."""
    from concept_tuning.figures.rare_features import gallery_figure
    from concept_tuning.report.blocks import percent

    if concept is None:
        return
    with st.container(border=True):
        st.markdown(f"##### {plain(result.concepts[concept])}, marks {plain(_marked(result, concept))}")
        show_figure(gallery_figure(result, diagnosis.thumbnails, concepts=[concept]), key=f"rare-patches-{concept}")
        st.caption("Its strongest patches on the pre-trained network, and the share of each class's pictures with it:")
        shares = [
            {"class": name, "pictures with the concept": percent(float(share), 0)}
            for name, share in zip(result.class_names, result.class_frequency[:, concept], strict=True)
        ]
        st.dataframe(shares, hide_index=True)


def _marked(result: RareFeatures, concept: int) -> str:
    return result.class_names[int(result.marked_class[concept])]


def _say_missing(diagnosis: Diagnosis) -> None:
    reasons = [entry.reason for entry in diagnosis.overview.entries if entry.analysis == "rare-features"]
    st.info(reasons[0] if reasons and reasons[0] else "This diagnosis was made without rare features; make it again.")
