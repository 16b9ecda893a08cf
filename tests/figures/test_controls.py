from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.control_maps import CONTROLS, source_of
from concept_tuning.diagnostics.controls import Badge, ControlledMaps, MeasureValues
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.controls import advantage_figure, badge_figure, measure_figure

MAPS = ("grad-cam", "eigen-cam")
MEASURES = ("outside mass", "ROAD")


def measured(source: str, measure: str, mean: float) -> MeasureValues:
    return MeasureValues(source=source, measure=measure, values=np.full(12, mean), mean=mean, n=12, blank=1)


def badge(name: str, control: str, measure: str, value: float) -> Badge:
    interval = Interval(value=value, low=value - 0.1, high=value + 0.2, n=12)
    return Badge(map=name, control=control, measure=measure, difference=interval, beats=value > 0.1)


def controlled(**changes: object) -> ControlledMaps:
    sources = [*MAPS, *(source_of(CONTROLS[0], name) for name in MAPS), *CONTROLS[1:]]
    means = {
        (source, measure): row / 10 + column / 100
        for row, source in enumerate(sources)
        for column, measure in enumerate(MEASURES)
    }
    badges = [badge("grad-cam", control, measure, 0.3) for control in CONTROLS for measure in MEASURES]
    badges += [badge("eigen-cam", control, "ROAD", place / 10) for place, control in enumerate(CONTROLS)]
    fields: dict[str, object] = {
        "subject": "tuned",
        "keys": tuple("abcdefghijkl"),
        "targets": np.zeros(12, np.int64),
        "maps": MAPS,
        "controls": CONTROLS,
        "values": tuple(measured(*key, mean) for key, mean in means.items()),
        "badges": tuple(badges),
        "unavailable": (),
        "tolerance": 0.0,
        "seed": 0,
    }
    return ControlledMaps(**{**fields, **changes})


def test_each_map_stands_beside_its_own_controls() -> None:
    figure = measure_figure(controlled())
    road = {trace.name: trace for trace in figure.data if trace.xaxis == "x2"}
    assert list(road["the map itself"].x) == pytest.approx([0.01, 0.11])
    assert list(road["randomised weights"].x) == pytest.approx([0.21, 0.31])
    assert list(road["edges"].x) == pytest.approx([0.61, 0.61])
    assert list(road["edges"].y) == list(MAPS)
    assert list(figure.layout.xaxis.range) == [-0.06, 1.06]
    assert figure.layout.xaxis2.range is None
    assert sum(bool(trace.showlegend) for trace in figure.data) == 1 + len(CONTROLS)


def test_rows_count_the_beaten_controls() -> None:
    figure = measure_figure(controlled(), measures=["ROAD"])
    counts = {note.y: note.text for note in figure.layout.annotations if note.y in MAPS}
    assert counts == {"grad-cam": "✓ 4/4", "eigen-cam": "✓ 2/4"}
    outside = measure_figure(controlled(), measures=["outside mass"])
    assert [note.y for note in outside.layout.annotations if note.y in MAPS] == ["grad-cam"]
    assert "lower is better" in outside.layout.annotations[0].text


def test_the_table_marks_who_beats_whom_and_leaves_out_what_was_not_compared() -> None:
    trace = badge_figure(controlled()).data[0]
    assert list(trace.x) == [measure.replace(" ", "<br>") for measure in MEASURES]
    assert [list(level) for level in trace.y] == [
        ["grad-cam"] * 4 + ["eigen-cam"] * 4,
        [*CONTROLS, *CONTROLS],
    ]
    assert [list(row) for row in trace.z] == [[1, 1]] * 4 + [[None, 0], [None, 0], [None, 1], [None, 1]]
    assert "beats edges" in trace.customdata[3][0]
    assert "−0.1 to 0.2" in trace.customdata[4][1]


def test_advantages_carry_their_intervals() -> None:
    figure = advantage_figure(controlled(), "ROAD")
    assert [trace.name for trace in figure.data] == [f"against {control}" for control in CONTROLS]
    trace = figure.data[1]
    assert list(trace.x) == [0.3, 0.1]
    assert list(trace.error_x.array) == pytest.approx([0.2, 0.2])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(trace.marker.symbol) == ["circle", "circle-open"]
    assert [round(y) for y in trace.y] == [0, 1]


def test_a_measure_that_was_never_defined_leaves_a_gap() -> None:
    values = tuple(measured(source, "ROAD", float("nan")) for source in MAPS)
    figure = measure_figure(controlled(values=values, badges=()))
    assert np.isnan(np.array(figure.data[0].x, float)).all()
    assert "not defined" in figure.data[0].text[0]
    assert list(figure.data[1].x) == [None, None]


def test_nothing_measured_is_no_error() -> None:
    empty = controlled(values=(), badges=(), maps=())
    assert not any(len(trace.x) for trace in measure_figure(empty).data)
    badge_figure(empty)
    advantage_figure(empty, "ROAD")
