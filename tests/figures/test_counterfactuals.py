from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from concept_tuning.diagnostics.counterfactuals import Counterfactuals, EditedPicture, EditOutcome, RunCounterfactuals
from concept_tuning.diagnostics.editing import EDITS, OTHER_CLASS
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.statistics import share
from concept_tuning.figures.counterfactuals import flip_figure, gap_figure, strip_figure
from concept_tuning.figures.style import COLOURS
from tests.figures.examples import picture

KEYS = ("a.png", "b.png", "c.png", "d.png")
LABELS = np.array([0, 0, 1, 1])
#: Predictions of the pictures as they are, and of each kind of edit.
BEFORE = np.array([0, 0, 1, 0])
ROWS = ([1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0])
AFTER = {kind: np.array(row) for kind, row in zip(EDITS, ROWS, strict=True)}
VIEWS = np.random.default_rng(0).integers(0, 255, (5, 6, 6, 3)).astype(np.uint8)


def run(name: str, gap: float = 0.5) -> RunCounterfactuals:
    return RunCounterfactuals(
        run=name,
        predicted=BEFORE,
        accuracy=share(BEFORE == LABELS),
        outcomes=tuple(
            EditOutcome(
                kind=kind,
                predicted=now,
                flips=share(now != BEFORE),
                accuracy=share(now == LABELS),
                followed=share(np.array([True, False])) if kind == OTHER_CLASS else None,
                probability_drop=0.25,
            )
            for kind, now in AFTER.items()
        ),
        flip_gap=Interval(value=gap, low=gap - 0.2, high=gap + 0.1, n=4),
        background_gap=Interval(value=0.25, low=0.0, high=0.5, n=4),
    )


def result(*runs: RunCounterfactuals) -> Counterfactuals:
    return Counterfactuals(
        keys=KEYS,
        labels=LABELS,
        class_names=("owl", "tern"),
        donor_split="train",
        donor_keys=("x.png", "y.png"),
        donors=np.array([[0, 1]] * 4),
        donor_classes=np.array([[1, 0]] * 4),
        left_out=0,
        runs=runs,
        examples=(
            EditedPicture(
                key="b.png", label=0, place=1, donors=("x.png", "y.png"), original=VIEWS[0], edits=tuple(VIEWS[1:])
            ),
        ),
    )


def test_flip_rates_have_their_intervals_and_pictures() -> None:
    figure = flip_figure(result(run("one"), run("two")))
    first, second = figure.data
    assert list(first.x) == [0.5, 0, 0.25, 0.25]
    assert [round(row) for row in second.y] == [0, 1, 2, 3]
    assert first.y[0] < second.y[0]
    assert [list(keys) for keys in first.customdata] == [["a.png", "b.png"], [], ["c.png"], ["b.png"]]
    wilson = share(np.array([True, True, False, False]))
    assert first.error_x.array[0] == pytest.approx(wilson.high - 0.5)
    assert "predicted as the background's class 0.5" in first.text[0]
    assert "background's class" not in first.text[1]
    assert figure.layout.yaxis.ticktext[0] == "background of<br>another class"


def test_colours_are_those_of_all_runs() -> None:
    figure = flip_figure(result(run("two")), runs=["one", "two"])
    assert figure.data[0].marker.color == COLOURS[1]
    assert figure.layout.showlegend is False


def test_gaps_are_set_against_zero() -> None:
    figure = gap_figure(result(run("one"), run("two", gap=-0.4)))
    assert [list(trace.x) for trace in figure.data] == [[0.5, 0.25], [-0.4, 0.25]]
    low, high = figure.layout.xaxis.range
    assert low < -0.6
    assert high > 0.6
    assert figure.layout.shapes[0].x0 == 0


def test_the_strip_shows_all_views_and_what_is_predicted() -> None:
    figure = strip_figure(result(run("one")), "b.png")
    images = [trace for trace in figure.data if trace.type == "image"]
    assert all(np.array_equal(picture(trace), view) for trace, view in zip(images, VIEWS, strict=True))
    titles = [note.text.split("<br>")[-1] for note in figure.layout.annotations]
    assert titles == ["owl ✓", "<b>tern ✗</b>", "owl ✓", "owl ✓", "now says <b>tern</b>"]
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert set(points.customdata) == {"b.png"}
    assert "from x.png, tern" in points.text[1]
    assert "from y.png, owl" in points.text[2]
    assert figure.layout.showlegend is False


def test_without_its_object_no_answer_is_right() -> None:
    found = run("one")
    kept = dataclasses.replace(found.outcomes[-1], predicted=BEFORE)
    figure = strip_figure(result(dataclasses.replace(found, outcomes=(*found.outcomes[:-1], kept))), "b.png")
    last = figure.layout.annotations[-1].text
    assert last == "<b>object removed</b><br>still says owl"


def test_the_strip_of_several_runs_tells_them_apart() -> None:
    figure = strip_figure(result(run("one"), run("two")), "b.png")
    title = figure.layout.annotations[1].text
    assert title.index(COLOURS[0]) < title.index(COLOURS[1])
    assert [trace.name for trace in figure.data if trace.type == "scatter" and trace.showlegend] == ["one", "two"]
    with pytest.raises(KeyError):
        strip_figure(result(run("one")), "a.png")
