"""Compare and report: which run is better, how sure that is, on which pictures, and everything to take away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import show_chapter
from app.finding_list import show_findings
from app.markdown import plain
from app.method_words import method_label
from app.pages import page
from app.views import compare_downloads, compare_mistakes

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.report.blocks import Source

#: Chapters of the report by the page that shows them.
_CHAPTERS = {
    "compare": ("predictions", "ledger"),
    "spurious": ("groups", "counterfactuals", "switches", "properties", "concept-effects", "slices"),
    "rare": ("rare-features",),
    "attention": ("controls", "sanity", "concept-maps", "position-attention", "transport"),
}
_SIGNS = {"better": ":green[:material/trending_up:]", "worse": ":orange[:material/trending_down:]"}


def render() -> None:
    """Show the page."""
    from concept_tuning.report.blocks import Source

    st.title("Compare and report")
    st.markdown("Which run is better, how sure that is, and on which pictures; and everything to take away.")
    diagnosis = state.choose_diagnosis()
    if diagnosis is None:
        return
    source = Source(diagnosis)
    st.subheader("Verdict")
    _verdict(source)
    st.subheader("Runs")
    _runs(source)
    st.subheader("Mistakes")
    compare_mistakes.show(source)
    st.subheader("Negative transfer")
    _ledger(source)
    st.subheader("All findings")
    _findings(diagnosis)
    st.subheader("Take away")
    compare_downloads.show(source, state.chosen_folder())


def _verdict(source: Source) -> None:
    """Show the sentence of each comparison, and on demand the intervals behind them."""
    from concept_tuning.diagnostics.verdict import Comparison, Verdict, sentence_of

    found = source.joint("verdict")
    verdicts = [one for one in (found.verdicts if found is not None else ()) if isinstance(one, Verdict)]
    if not verdicts:
        show_chapter(source.diagnosis, "verdict", key="compare")
        return
    with st.container(border=True):
        for verdict in verdicts:
            for part in (verdict.accuracy, verdict.worst_group):
                if isinstance(part, Comparison):
                    sign = _SIGNS.get(part.outcome if min(verdict.seeds) > 1 else "", ":material/balance:")
                    st.markdown(f"{sign} {plain(sentence_of(verdict, part))}")
    if st.toggle("The intervals behind it", key="compare-intervals"):
        show_chapter(source.diagnosis, "verdict", key="compare")


def _runs(source: Source) -> None:
    from concept_tuning.report.blocks import percent_interval, units_text

    overview = source.diagnosis.overview
    predictions, groups = source.each("predictions"), source.each("groups")
    rows = []
    for card in overview.runs:
        found, table = predictions.get(card.name), groups.get(card.name)
        row = {
            "run": card.name,
            "method": method_label(card.method),
            "accuracy [95 %]": "not looked at" if found is None else percent_interval(found.accuracy),
        }
        if groups:
            row |= {
                "worst group": "–" if table is None else f"{table.worst.class_name} | {table.worst.group}",
                "its accuracy [95 %]": "–" if table is None else percent_interval(table.worst.accuracy),
            }
        rows.append(row | {"backbone": card.backbone, "data": card.source, "seed": str(card.seed)})
    of = f"{overview.pictures} of {overview.total} pictures of the"
    caption = f"{of} {plain(overview.split)} split, the same for every run. {units_text(overview)}".strip()
    st.dataframe(rows, hide_index=True, width="stretch", alt=f"The runs and how good they are. {caption}")
    st.caption(caption)


def _ledger(source: Source) -> None:
    """Show what fine-tuning loses against training from scratch, or how to find out."""
    st.markdown("Which pictures does fine-tuning get wrong that training from scratch gets right?")
    if source.joint("ledger") is None:
        why = " ".join(plain(note.text) for note in source.missing("ledger"))
        st.info(
            f"{why} Train a run of the method “From scratch” beside the others, then diagnose them together.".strip(),
            icon=":material/info:",
        )
        return
    show_findings(source.diagnosis, ["ledger"])
    show_chapter(source.diagnosis, "ledger", key="compare")


def _findings(diagnosis: Diagnosis) -> None:
    """Show all findings under the page that shows more of them."""
    for name, chapters in _CHAPTERS.items():
        asked = {entry.analysis for entry in diagnosis.overview.entries}
        if not asked & set(chapters):
            continue
        with st.container(border=True):
            if name == "compare":
                st.markdown("**How good each run is**")
            else:
                target = page(name)
                st.page_link(target, label=f"**{target.title}**", icon=target.icon)
            show_findings(diagnosis, chapters)
