"""Compare and report: which run is better, how sure that is, on which pictures, and everything to take away."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import plain, show_chapter, show_figure

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.predictions import Predictions

_ICONS = {"good": ":material/check_circle:", "bad": ":material/warning:", "neutral": ":material/arrow_right:"}
#: Pictures of a cell.
_SHOWN = 16


def render() -> None:
    """Show the page."""
    st.title("Compare and report")
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    _runs(diagnosis)
    _findings(diagnosis)
    st.subheader("Verdict")
    show_chapter(diagnosis, "verdict", key="compare")
    st.subheader("Mistakes")
    _confusion(diagnosis)
    st.subheader("Negative-transfer ledger")
    show_chapter(diagnosis, "ledger", key="compare")
    st.subheader("Take away")
    _downloads(diagnosis)


def _runs(diagnosis: Diagnosis) -> None:
    from concept_tuning.report.blocks import percent_interval

    overview = diagnosis.overview
    rows = []
    for card in overview.runs:
        found: Predictions | None = diagnosis.results.get(("predictions", card.name))
        groups = diagnosis.results.get(("groups", card.name))
        rows.append(
            {
                "run": card.name,
                "method": card.method,
                "seed": card.seed,
                "accuracy [95 %]": "–" if found is None else percent_interval(found.accuracy),
                "worst group": "–" if groups is None else f"{groups.worst.class_name} | {groups.worst.group}",
                "its accuracy [95 %]": "–" if groups is None else percent_interval(groups.worst.accuracy),
            }
        )
    st.dataframe(rows, hide_index=True, width="stretch")
    st.caption(
        f"{overview.pictures} of {overview.total} pictures of the {overview.split} split, the same for every run."
    )


def _findings(diagnosis: Diagnosis) -> None:
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.findings import findings

    st.subheader("Findings")
    for finding in findings(Source(diagnosis)):
        st.markdown(f"{_ICONS[finding.tone]} {plain(finding.text)}")


def _confusion(diagnosis: Diagnosis) -> None:
    from concept_tuning.figures.confusion import confusion_figure

    runs = [card.name for card in diagnosis.overview.runs if ("predictions", card.name) in diagnosis.results]
    if not runs:
        st.info("This diagnosis was made without predictions; diagnose the runs again to see them.")
        return
    run = st.segmented_control("Run", runs, default=runs[0], key="compare-run", required=True)
    found: Predictions = diagnosis.results["predictions", run]
    names = list(found.class_names)
    show_figure(confusion_figure([found]), key=f"compare-confusion-{run}")
    st.caption("Rows are the true classes, columns the predictions. Choose a cell to see its pictures:")
    left, right = st.columns(2)
    label = left.selectbox("True class", names, key="compare-label")
    said = right.selectbox("Predicted as", names, index=min(1, len(names) - 1), key="compare-said")
    keys = found.cell(names.index(label), names.index(said))
    shown = [key for key in keys if key in diagnosis.thumbnails][:_SHOWN]
    st.markdown(f"{len(keys)} pictures of this cell, the surest first; {len(shown)} shown.")
    if shown:
        st.image([diagnosis.thumbnails.file(key) for key in shown], caption=shown, width=112)


def _downloads(diagnosis: Diagnosis) -> None:
    st.download_button(
        "Predictions (CSV)",
        _predictions_csv(diagnosis),
        file_name="predictions.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/table:",
    )
    if st.button("Prepare the report", icon=":material/description:", help="One HTML file that opens offline"):
        from concept_tuning.report.page import render_report

        with st.spinner("Drawing the report"):
            st.session_state["compare-report"] = render_report(diagnosis)
    if "compare-report" in st.session_state:
        st.download_button(
            "Report (HTML)",
            st.session_state["compare-report"],
            file_name="report.html",
            mime="text/html",
            on_click="ignore",
            icon=":material/download:",
        )


def _predictions_csv(diagnosis: Diagnosis) -> str:
    """Return a row for each picture; names that a spreadsheet would take for a formula get an apostrophe."""
    found = [diagnosis.results.get(("predictions", card.name)) for card in diagnosis.overview.runs]
    runs: list[Predictions] = [one for one in found if one is not None]
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["picture", "class", *(f"{_safe(one.run)} predicts" for one in runs)])
    for place, key in enumerate(runs[0].keys if runs else ()):
        names = runs[0].class_names
        said = [_safe(names[int(one.predicted[place])]) for one in runs]
        table.writerow([_safe(key), _safe(names[int(runs[0].labels[place])]), *said])
    return out.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
