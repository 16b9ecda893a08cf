from __future__ import annotations

from dataclasses import replace

import pytest

from concept_tuning.diagnostics.rare_use import PRETRAINED, InformationChange, RunUse
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.rare_use import change_figure, coverage_figure, network_colours, rarest_figure
from concept_tuning.figures.style import COLOURS, NEUTRAL


def interval(value: float, margin: float = 0.1, n: int = 50) -> Interval:
    return Interval(value=value, low=value - margin, high=value + 2 * margin, n=n)


def use(name: str, value: float) -> RunUse:
    return RunUse(
        name=name,
        coverage=interval(value),
        chance=0.125,
        top=10,
        rarest_tenth=interval(value - 0.1, n=5),
        others=interval(value + 0.1, 0.01, n=45),
    )


BEFORE = replace(use(PRETRAINED, 0.2), rarest_tenth=None, others=None)
# Names that look alike once shortened must not fall on one row.
FIRST, SECOND = use("concept-tuning-with-seed-1-birds", 0.4), use("concept-tuning-with-seed-2-birds", 0.6)


def change(value: float, others: Interval | None) -> InformationChange:
    return InformationChange(
        before=PRETRAINED,
        after="tuned",
        per_concept=interval(value),
        total=interval(20 * value),
        others=others,
        before_value=0.5,
        after_value=0.5 + value,
        concepts=(7, 9, 8),
    )


def test_runs_keep_their_colours_and_the_network_before_has_none() -> None:
    assert network_colours([PRETRAINED, "b"], ["a", "b"])["b"] == COLOURS[1]
    assert network_colours([PRETRAINED, "b"], None) == {PRETRAINED: NEUTRAL, "b": COLOURS[0]}


def test_coverage_stands_with_interval_and_chance_on_a_row_of_its_own() -> None:
    figure = coverage_figure([BEFORE, FIRST, SECOND])
    points, chance = figure.data[:3], figure.data[3]
    assert [trace.x[0] for trace in points] == [0.2, 0.4, 0.6]
    assert [trace.y[0] for trace in points] == [0, 1, 2]
    assert points[1].error_x.array[0] == pytest.approx(0.2)
    assert points[1].error_x.arrayminus[0] == pytest.approx(0.1)
    assert points[0].marker.color == NEUTRAL
    assert list(chance.x) == [0.125] * 3
    assert "n = 50" in points[2].text[0]


def test_networks_without_coverage_are_left_out() -> None:
    figure = coverage_figure([replace(BEFORE, coverage=None), FIRST])
    assert len(figure.data) == 2
    assert len(figure.layout.yaxis.ticktext) == 1
    assert not len(coverage_figure([replace(BEFORE, coverage=None)]).data[0].x)


def test_the_rarest_tenth_stands_beside_the_others() -> None:
    figure = rarest_figure([BEFORE, FIRST, replace(SECOND, others=None)])
    points = [trace for trace in figure.data if trace.x[0] is not None]
    assert [trace.x[0] for trace in points] == pytest.approx([0.3, 0.5, 0.5])
    assert [round(trace.y[0]) for trace in points] == [0, 0, 1]
    assert [trace.marker.symbol for trace in points] == ["circle", "circle-open", "circle"]
    assert len(rarest_figure([BEFORE]).data) == 2


def test_changes_stand_with_their_intervals_rare_concepts_and_others() -> None:
    figure = change_figure([change(0.3, interval(0.05)), change(-0.4, None)])
    rare, others = figure.data
    assert list(rare.x) == [0.3, -0.4]
    assert list(rare.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(others.x) == [0.05]
    assert [round(y) for y in others.y] == [0]
    assert "raised" in rare.text[0]
    assert "summed over them: 6 " in rare.text[0]
    assert "7, 9 and 8 rare concepts in the thirds of the pictures: raised" in rare.text[0]
    older = change_figure([replace(change(0.3, None), concepts=(7, 9))]).data[0]
    assert "7 and 9 rare concepts in the halves of the pictures" in older.text[0]
    assert "lowered" in rare.text[1]
    assert not len(change_figure([]).data[0].x)


def test_names_are_escaped_once_and_never_cut_inside_a_sign() -> None:
    figure = change_figure([replace(change(0.3, None), before="a<b & c", after="&" * 30)])
    (text,) = figure.layout.yaxis.ticktext
    assert text == f"a&lt;b &amp; c →<br>{'&amp;' * 12}…{'&amp;' * 11}"
