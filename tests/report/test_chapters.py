from __future__ import annotations

from types import SimpleNamespace

import pytest

from concept_tuning.diagnostics.catalogue import BY_NAME
from concept_tuning.diagnostics.diagnose import Entry
from concept_tuning.report.blocks import Note, Source
from concept_tuning.report.chapters import CHAPTERS, chapters


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_without_a_result_says_why_and_nothing_else(name: str) -> None:
    run = None if BY_NAME[name].joint else "tuned"
    entry = Entry(analysis=name, run=run, file=None, reason="It lacks something.")
    overview = SimpleNamespace(
        runs=(SimpleNamespace(name="tuned"),), class_names=("owl", "tern"), entries=(entry,), units=None
    )
    (chapter,) = chapters(Source(SimpleNamespace(overview=overview, results={}, thumbnails=None)))
    whose = "" if run is None else " for tuned"
    assert (chapter.name, chapter.blocks) == (name, [Note(text=f"Not made{whose}: It lacks something.")])
