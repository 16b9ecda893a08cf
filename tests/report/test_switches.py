"""The chapter on the front-door switches: one set of names, and a sentence where no switch changes anything."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from concept_tuning.diagnostics.statistics import share
from concept_tuning.report.blocks import Note, Source, Table
from concept_tuning.report.spurious import switches as chapter
from tests.figures.test_switches import switches


@pytest.mark.parametrize("idle", [True, False])
def test_settings_have_their_names_and_idle_switches_are_told_in_a_sentence(idle: bool) -> None:
    found = switches("run")
    if idle:
        none = share(np.zeros(10, bool))
        outcomes = tuple(dataclasses.replace(one, flips=none, probability_shift=0.4) for one in found.outcomes)
        found = dataclasses.replace(found, outcomes=outcomes)
    overview = SimpleNamespace(runs=(SimpleNamespace(name="run"),), class_names=("owl", "tern"), entries=())
    blocks = chapter(Source(SimpleNamespace(overview=overview, results={("switches", "run"): found}, thumbnails=None)))
    (table,) = [block for block in blocks if isinstance(block, Table)]
    assert [row[1] for row in table.rows] == [
        "everything on",
        "patch attention off",
        "channel attention off",
        "both off",
    ]
    assert "McNemar p: how often chance" in table.caption
    told = [block.text for block in blocks if isinstance(block, Note)]
    idle_words = "No switch changes any of the 10 answers of run (mean shift of probability 0.4 at most)."
    assert (idle_words in told) == idle
    assert not any("attentions do nothing" in text or "no change says" in text for text in told)
    assert "no net gain or loss" in table.caption
