"""Findings as lines of text with a sign for good or bad news."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import streamlit as st

from app.markdown import plain

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import Diagnosis

_ICONS = {"good": ":green[:material/check_circle:]", "bad": ":orange[:material/warning:]", "neutral": ":material/info:"}


def show_findings(diagnosis: Diagnosis, chapters: Collection[str]) -> None:
    """Show what a diagnosis found in some chapters, one sentence a line."""
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.findings import findings

    lines = [f"{_ICONS[one.tone]} {plain(one.text)}" for one in findings(Source(diagnosis)) if one.chapter in chapters]
    if lines:
        st.markdown("\n\n".join(lines))
        if any("[" in line for line in lines):
            st.caption("Brackets are 95 % intervals.")
