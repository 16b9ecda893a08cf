"""Rare features: what pre-training hardly saw, whether it matters here, and whether fine-tuning learnt it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import show_blocks
from app.choice import choose_one
from app.errors import shown_errors
from app.finding_list import show_findings
from app.markdown import plain
from app.views import rare_concepts, rare_runs

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport

_ANALYSIS = "rare-features"


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
    report: RareFeaturesReport | None = diagnosis.results.get((_ANALYSIS, None))
    if report is None or not report.analyses:
        _say_missing(diagnosis, report)
        return
    _show(diagnosis, report)


@st.fragment
def _show(diagnosis: Diagnosis, report: RareFeaturesReport) -> None:
    from concept_tuning.report.blocks import Note, Source

    with shown_errors():
        result, place = _choose_view(report)
        source = Source(diagnosis)
        rare_concepts.show(source, result, place)
        rare_runs.show(source, result, place)
        with st.expander("What was found, in words"):
            show_findings(diagnosis, [_ANALYSIS])
        notes = [report.note] if report.note else []
        notes += [f"{one.analysis}: {one.reason}" for one in report.missing]
        show_blocks([Note(text=text) for text in notes], key="rare-notes")


def _choose_view(report: RareFeaturesReport) -> tuple[RareFeatures, int]:
    """Return the analysis that the user chose, and its place."""
    often = Counter(result.view for result in report.analyses)
    names = [
        result.view if often[result.view] == 1 else f"{result.view} of {result.backbone}, set {place + 1}"
        for place, result in enumerate(report.analyses)
    ]
    name = choose_one(
        "What counts as a concept",
        names,
        key="rare-view",
        bind="query-params",
        help="Channels: single features of the network's last layer. Groups: channels that fire together. Factors and "
        "clusters: patterns that patches have in common.",
    )
    place = names.index(name)
    result = report.analyses[place]
    what = plain(f"{result.view} of {result.backbone}")
    st.caption(f"{len(result.concepts)} {what}, on {result.presence.n} pictures.")
    return result, place


def _say_missing(diagnosis: Diagnosis, report: RareFeaturesReport | None) -> None:
    """Say why there is nothing, and what to do."""
    reasons = [one.reason for one in report.missing] if report is not None else []
    reasons += [
        entry.reason for entry in diagnosis.overview.entries if entry.analysis == _ANALYSIS and entry.reason is not None
    ]
    st.info(
        " ".join(plain(reason) for reason in dict.fromkeys(reasons))
        or "This diagnosis was made without rare features; diagnose the runs again to see them.",
        icon=":material/info:",
    )
    if reasons:
        st.caption("Choose another diagnosis in the sidebar, such as the demo, to see what this page shows.")
