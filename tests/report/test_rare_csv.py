from __future__ import annotations

import csv
import io

import numpy as np
from figures.examples import BAND, FREQUENCY, INFORMATION, MISSING, point, rare_features

from concept_tuning.diagnostics.rare_choice import RareChoice
from concept_tuning.report.rare_csv import concept_rows, concepts_csv


def choice() -> RareChoice:
    low = np.array([False, True, True, False, False])
    return RareChoice(low=low, rare=np.array([False, False, True, False, False]), threshold=point(0.4, 1))


def test_rare_concepts_come_first_then_those_furthest_beyond_the_band() -> None:
    rows = concept_rows(rare_features(), choice())
    assert [row["concept"] for row in rows] == [f"channel {place}" for place in (2, 0, 4, 1, 3)]
    assert [row["kind"] for row in rows] == ["rare", "other", "other", "seldom seen, not useful", "other"]
    first = rows[0]
    assert (first["marks"], first["channels"]) == ("gull", "2")
    assert (first["seen in pre-training"], first["information (nats)"], first["band (nats)"]) == (
        FREQUENCY[2],
        INFORMATION[2],
        BAND[2],
    )
    assert (first["AUC pre-trained"], first["AUC vanilla"]) == (0.7, 0.8)
    # Half of the pictures lacks the class: no number, not a wrong one.
    assert rows[2]["AUC vanilla"] is None


def test_without_a_source_nothing_is_called_rare() -> None:
    rows = concept_rows(rare_features(source=MISSING, rarity=MISSING))
    assert {row["kind"] for row in rows} == {"unknown"}
    assert {row["seen in pre-training"] for row in rows} == {None}


def test_the_file_can_be_read_back_and_holds_no_formula() -> None:
    text = concepts_csv(rare_features(class_names=("=1+1", "jay")), choice())
    heading, *rows = csv.reader(io.StringIO(text))
    assert heading[:3] == ["concept", "kind", "marks"]
    assert len(rows) == 5
    assert rows[0][2] == "'=1+1"
    assert float(rows[0][heading.index("seen in pre-training")]) == FREQUENCY[2]
    assert rows[2][heading.index("AUC vanilla")] == ""
    # Numbers below 0 stay numbers.
    negative = concepts_csv(rare_features(knn=np.full(5, -0.25)), choice())
    assert list(csv.reader(io.StringIO(negative)))[1][heading.index("nearest-neighbour information (nats)")] == "-0.25"
