"""The chapter on rare features: what a view shows, and what is left out or said where it has less."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from concept_tuning.diagnostics.information import ContrastBound
from concept_tuning.diagnostics.rare_results import RareFeatures
from concept_tuning.diagnostics.thumbnails import pack_thumbnails
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table
from concept_tuning.report.rare import BOUND_TITLE, NO_PROBES, view_blocks
from tests.figures.examples import MISSING, point, rare_features
from tests.figures.test_rare_use import change, interval, use

GALLERY, COVERAGE, TENTH, CHANGE = "Strongest", "Share of pictures", "Accuracy on the tenth", "Did fine-tuning"
THUMBNAILS = pack_thumbnails("abc", np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1, 0]))


def view(**changes: object) -> RareFeatures:
    """A view of which everything is known, but for changes of its rarity."""
    example = rare_features()
    known = {"uses": (use("vanilla", 0.4),), "changes": (change(0.1, interval(0.2)),)}
    bound = ContrastBound(value=0.25, cap=2.0, batch=8, n=40)
    networks = tuple(replace(network, contrast=(bound,)) for network in example.networks)
    return replace(example, rarity=replace(example.rarity, **(known | changes)), networks=networks)


def made(result: RareFeatures) -> list[Block]:
    overview = SimpleNamespace(runs=(SimpleNamespace(name="vanilla"),), class_names=result.class_names, entries=())
    return view_blocks(Source(SimpleNamespace(overview=overview, results={}, thumbnails=THUMBNAILS)), result)


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({}, set()),
        ({"rare": np.zeros(5, bool), "threshold": point(0.6, 0)}, {GALLERY, COVERAGE}),
        ({"uses": ()}, {COVERAGE, TENTH}),
        ({"uses": (replace(use("vanilla", 0.4), coverage=None),)}, {COVERAGE}),
        ({"changes": MISSING}, {CHANGE}),
    ],
    ids=["everything", "none rare", "no uses", "no coverage", "no changes"],
)
def test_a_view_has_the_charts_that_it_has_numbers_for(changes: dict[str, object], lacking: set[str]) -> None:
    blocks = made(view(**changes))
    captions = [block.caption for block in blocks if isinstance(block, Chart)]
    assert {
        start
        for start in (GALLERY, COVERAGE, TENTH, CHANGE)
        if not any(caption.startswith(start) for caption in captions)
    } == lacking
    assert any(isinstance(block, Table) for block in blocks) == (GALLERY not in lacking)
    assert (Note(text=MISSING.reason) in blocks) == (CHANGE in lacking)


def test_rare_concepts_are_listed_with_those_furthest_beyond_their_band_first() -> None:
    (table,) = [block for block in made(view()) if isinstance(block, Table)]
    assert [dict(zip(table.columns, row, strict=True)) for row in table.rows] == [
        {
            "concept": "channel 0",
            "marks": "gull",
            "in its pictures": "0 %",
            "source frequency": "0",
            "target frequency": "0.2",
            "information (nats)": "0.5",
            "band": "0.1",
            "k-nearest-neighbour": "0",
            "AUC pre-trained": "0.6",
            "AUC vanilla": "0.5",
        },
        {
            "concept": "channel 2",
            "marks": "gull",
            "in its pictures": "0 %",
            "source frequency": "0.01",
            "target frequency": "0.01",
            "information (nats)": "0.4",
            "band": "0.2",
            "k-nearest-neighbour": "0",
            "AUC pre-trained": "0.7",
            "AUC vanilla": "0.8",
        },
    ]


def test_the_bound_of_each_network_is_set_against_what_it_cannot_pass() -> None:
    (fold,) = [block for block in made(view()) if isinstance(block, Fold) and block.title == BOUND_TITLE]
    (table,) = fold.blocks
    assert table.rows == [[name, "8", "0.25", "2"] for name in ("pre-trained", "vanilla")]
    assert BOUND_TITLE not in [block.title for block in made(rare_features()) if isinstance(block, Fold)]


def test_where_no_concept_tells_classes_this_is_said_in_place_of_the_probes() -> None:
    nothing = view(rare=np.zeros(5, bool), threshold=point(0.6, 0))
    useless = replace(nothing, presence=replace(nothing.presence, useful=np.zeros(5, bool)))
    assert (Note(text=NO_PROBES) in made(nothing), Note(text=NO_PROBES) in made(useless)) == (False, True)
