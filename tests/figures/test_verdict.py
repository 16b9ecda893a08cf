from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.verdict import Comparison, Outcome, Verdict, sentence_of
from concept_tuning.figures.style import BAD, GOOD, NEUTRAL
from concept_tuning.figures.verdict import verdict_figure

NONE = Unavailable(analysis="worst-group verdict", reason="No groups.")


def comparison(value: float, low: float, high: float, outcome: Outcome, measure: str = "accuracy") -> Comparison:
    return Comparison(
        measure=measure,
        first=0.8,
        second=0.8 - value,
        difference=Interval(value=value, low=low, high=high, n=400),
        differing=31,
        outcome=outcome,
        sentence=f"A sentence of some length on <{measure}>, with all that there is to say about it: {outcome}.",
    )


def verdict(accuracy: Comparison, worst: Comparison | Unavailable = NONE) -> Verdict:
    return Verdict(
        names=("concept-tuning", "vanilla"),
        seeds=(3, 3),
        seeds_paired=True,
        images=400,
        accuracy=accuracy,
        worst_group=worst,
        worst_cells=(),
        caveat="",
    )


def test_differences_and_intervals_are_in_points() -> None:
    worst = comparison(-0.2, -0.3, -0.25, "worse", "worst-group accuracy")
    figure = verdict_figure([verdict(comparison(0.1, -0.02, 0.2, "no difference shown"), worst)])
    lines, points = figure.data[::2], figure.data[1::2]
    assert [point.x[0] for point in points] == pytest.approx([10, -20])
    # The interval is drawn as it is, also where it does not hold the estimate.
    assert [(min(line.x), max(line.x)) for line in lines] == [
        pytest.approx((-2, 20)),
        pytest.approx((-30, -25)),
    ]
    assert [point.marker.color for point in points] == [NEUTRAL, BAD]
    assert "concept-tuning − vanilla<br>+10.00 points, 95 % interval −2.00 to +20.00" in points[0].text[0]
    assert "31 of 400 pictures differ" in points[0].text[0]


def test_sentences_stand_whole_above_their_interval() -> None:
    found = [comparison(0.1, 0.02, 0.2, "better"), comparison(0.0, 0.0, 0.0, "no difference shown")]
    verdicts = [verdict(replace(one, sentence="Words of an old result.")) for one in found]
    figure = verdict_figure(verdicts)
    assert figure.data[1].marker.color == GOOD
    for one, note, point in zip(verdicts, figure.layout.annotations, figure.data[1::2], strict=True):
        assert sentence_of(one, one.accuracy) in re.sub("<br>", " ", note.text)
        assert note.y + 15 * note.text.count("<br>") < point.y[0]


def test_what_is_not_there_is_left_out_and_zero_is_in_view() -> None:
    figure = verdict_figure([verdict(comparison(0.1, 0.05, 0.2, "better"))])
    assert len(figure.layout.annotations) == 1
    low, high = figure.layout.xaxis.range
    assert low < 0 < 20 < high
    assert figure.layout.shapes[0].x0 == 0
    empty = verdict_figure([])
    assert not empty.data
    assert np.isfinite(empty.layout.height)
