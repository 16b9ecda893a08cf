"""The chapters on shortcuts, where something could not be measured."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.report.blocks import Fold, Note, Source
from concept_tuning.report.spurious import effect_caption, properties
from tests.figures.test_concept_effects import FIRST, LAST, MASKS, effects
from tests.figures.test_properties import score, table

NO_MASKS = Unavailable(analysis="masks", reason="There are none.")
PULL = "pull 0.8 [0.7, 0.95] (0.5 is none); "


@pytest.mark.parametrize(
    ("one", "masks", "pulls", "lies"),
    [
        (FIRST, MASKS, PULL, " By the masks, 20 % of its strength lies outside the object (even spread: 70 %)."),
        (FIRST, NO_MASKS, PULL, ""),
        (LAST, NO_MASKS, "", ""),
    ],
)
def test_of_a_concept_what_was_measured_is_said(one, masks, pulls: str, lies: str) -> None:
    text = effect_caption(effects(one, masks=masks), one)
    assert text == f"In 75 % of the pictures; {pulls}without it 33 % of these predictions change.{lies}"


def test_where_no_property_could_be_scored_the_reasons_are_said() -> None:
    missing = Unavailable(analysis="size", reason="The files are gone.")

    def blocks(*scores):
        found = dataclasses.replace(table(*scores), unavailable=(missing,))
        return properties(Source(SimpleNamespace(results={("properties", None): found})))

    scored = blocks(score("hue", 0.9, flagged=True, informative=True))
    assert [block.title for block in scored if isinstance(block, Fold)] == ["How hue is spread over the classes"]
    chart, *notes = blocks()
    assert chart.kind == "chart"
    assert notes == [Note(text=table().caveat), Note(text="size: The files are gone.")]
