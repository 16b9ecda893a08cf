"""The chapters that compare runs, on results made by hand: what the tables say, and which pictures are shown."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from concept_tuning.diagnostics.groups import NamedRate
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.statistics import share
from concept_tuning.diagnostics.thumbnails import LOSSLESS, Thumbnails, pack_thumbnails
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table
from concept_tuning.report.comparing import ledger as ledger_chapter
from concept_tuning.report.comparing import predictions, verdict
from tests.figures.test_ledger import SCRATCH, THUMBNAILS, TUNED, ledger
from tests.figures.test_verdict import comparison
from tests.figures.test_verdict import verdict as verdict_of
from tests.report.test_picture_choice import said


def source(results: dict[tuple[str, str | None], Any], thumbnails: Thumbnails | None = None) -> Source:
    runs = tuple(SimpleNamespace(name=run) for run in dict.fromkeys(run for _, run in results if run))
    overview = SimpleNamespace(runs=runs, class_names=("owl", "tern"), entries=())
    return Source(SimpleNamespace(overview=overview, results=results, thumbnails=thumbnails))


def folds(blocks: list[Block]) -> dict[str, Chart]:
    return {block.title: block.blocks[0] for block in blocks if isinstance(block, Fold)}


def shown(chart: Chart) -> list[str]:
    return next(list(trace.customdata) for trace in chart.figure.data if trace.name == "pictures")


def test_the_surest_mistakes_of_each_run_that_makes_any_are_shown() -> None:
    wrong = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.8, 0.2]], np.float32)
    runs = {"right": said("right", [0, 0, 1, 1]), "wrong": said("wrong", [0, 1, 0, 0])}
    runs["wrong"] = dataclasses.replace(runs["wrong"], probabilities=wrong)
    thumbnails = pack_thumbnails("abd", np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 0, 1]), quality=LOSSLESS)
    found = predictions(source({("predictions", run): result for run, result in runs.items()}, thumbnails))
    (chart,) = folds(found).values()
    assert list(folds(found)) == ["The surest mistakes of wrong"]
    # No picture of c was kept.
    assert shown(chart) == ["d", "b"]
    assert [note.text for note in chart.figure.layout.annotations] == [
        "jay<br>said gull, 80 %",
        "gull<br>said jay, 60 %",
    ]


def test_classes_stand_from_the_one_that_is_hardest_for_any_run_to_those_without_pictures() -> None:
    names = ("absent", "gull", "jay")
    rates = {"one": {"gull": (3, 4), "jay": (4, 4)}, "two": {"gull": (4, 4), "jay": (1, 4)}}
    runs = {
        run: dataclasses.replace(
            said(run, [0, 0, 1, 1]),
            class_names=names,
            classes=tuple(
                NamedRate(name=name, accuracy=share(np.arange(count) < right)) for name, (right, count) in of.items()
            ),
        )
        for run, of in rates.items()
    }
    found = predictions(source({("predictions", run): result for run, result in runs.items()}))
    (table,) = [block for block in found if isinstance(block, Table)]
    assert table.columns == ["class", "one", "two"]
    assert [[cell.split(" [")[0] for cell in row] for row in table.rows] == [
        ["jay", "100.0 %", "25.0 %"],
        ["gull", "75.0 %", "100.0 %"],
        ["absent", "no pictures", "no pictures"],
    ]


def test_methods_that_could_not_be_compared_have_their_reason_beside_the_others() -> None:
    missing = Unavailable(analysis="verdict", reason="vanilla against scratch: a seed is given twice.")
    alone = verdict(source({("verdict", None): SimpleNamespace(verdicts=(missing,))}))
    assert alone == [Note(text=missing.reason)]
    without_groups = verdict_of(comparison(0.1, 0.05, 0.2, "better"))
    both = dataclasses.replace(
        verdict_of(comparison(0.1, 0.05, 0.2, "better"), comparison(-0.2, -0.3, -0.1, "worse", "worst-group accuracy")),
        caveat="Cells are small.",
    )
    chart, table, *notes = verdict(
        source({("verdict", None): SimpleNamespace(verdicts=(without_groups, missing, both))})
    )
    assert chart.kind == "chart"
    assert table.rows == [
        ["concept-tuning − vanilla", "accuracy", "80.0 %", "70.0 %", "+10.0 points [+5.0, +20.0]"],
        ["concept-tuning − vanilla", "accuracy", "80.0 %", "70.0 %", "+10.0 points [+5.0, +20.0]"],
        ["concept-tuning − vanilla", "worst-group accuracy", "80.0 %", "100.0 %", "−20.0 points [−30.0, −10.0]"],
    ]
    assert [note.text for note in notes] == ["Cells are small.", missing.reason]


def test_the_ledger_of_each_method_is_a_row_with_every_pair() -> None:
    found = ledger()
    _, _, table, *_ = ledger_chapter(source({("ledger", None): found}, THUMBNAILS))
    assert [[cell.split(" [")[0] for cell in row] for row in table.rows] == [
        ["vanilla", "15.0 %", "20.0 %", "+5.0 points", "+10.0 points", "v0 / s0: p = 1; v0 / s1: p = 1"],
        ["ours", "0.0 %", "35.0 %", "+35.0 points", "−5.0 points", "o0 / s0: p = 0.12; o0 / s1: p = 0.25"],
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_of_one_run_from_scratch_nothing_is_said_beyond_churn() -> None:
    found = ledger({"s0": SCRATCH["s0"]}, TUNED)
    _, _, table, *_ = ledger_chapter(source({("ledger", None): found}, THUMBNAILS))
    place = list(table.columns).index("lost beyond churn")
    assert {row[place] for row in table.rows} == {"needs two scratch runs"}


@pytest.mark.parametrize("kept", [THUMBNAILS.keys, THUMBNAILS.keys[1:]])
def test_lost_and_rescued_pictures_are_shown_where_there_are_any(kept: tuple[str, ...]) -> None:
    thumbnails = pack_thumbnails(kept, np.zeros((len(kept), 4, 4, 3), np.uint8), np.zeros(len(kept), np.int64))
    found = folds(ledger_chapter(source({("ledger", None): ledger()}, thumbnails)))
    pictures = {title: shown(chart) for title, chart in found.items()}
    assert pictures == {
        "Pictures lost by vanilla": [key for key in ("0.png", "6.png") if key in kept],
        "Pictures rescued by vanilla": ["8.png", "9.png"],
        "Pictures rescued by ours": ["7.png", "8.png", "9.png", "6.png"],
    }
    assert found["Pictures lost by vanilla"].caption == "Pictures right from scratch, wrong here."
    assert found["Pictures rescued by ours"].caption == "Pictures wrong from scratch, right here."
