from __future__ import annotations

import pytest
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.rows import add_points, error_bars, name_rows, spread, symbol_of


def test_bars_reach_from_the_estimate_to_the_ends() -> None:
    bars = error_bars([Interval(value=0.5, low=0.2, high=0.6, n=9)])
    assert bars["arrayminus"] == pytest.approx([0.3])
    assert bars["array"] == pytest.approx([0.1])


def test_an_estimate_outside_its_interval_has_no_bar_of_negative_length() -> None:
    bars = error_bars([Interval(value=0.5, low=0.6, high=0.8, n=9), Interval(value=0.5, low=0.1, high=0.4, n=9)])
    assert bars["array"] == pytest.approx([0.3, 0])
    assert bars["arrayminus"] == pytest.approx([0, 0.4])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_points_of_a_row_are_apart_and_stay_in_it(count: int) -> None:
    offsets = spread(count)
    assert len(set(offsets)) == count
    assert sum(offsets) == pytest.approx(0)
    assert max(offsets) < 0.5
    assert len({symbol_of(place) for place in range(count)}) == count


def test_points_and_names_go_to_their_panel() -> None:
    figure = make_subplots(rows=1, cols=2)
    where = [Interval(value=0.5, low=0.2, high=0.6, n=9)]
    add_points(figure, where, [1], name="a", hover=["h"], colour="#000000", customdata=["key"], panel=(1, 2))
    name_rows(figure, ["one", "two"], panel=(1, 2))
    trace = figure.data[0]
    assert (trace.xaxis, list(trace.x), list(trace.y), list(trace.customdata)) == ("x2", [0.5], [1], ["key"])
    assert list(figure.layout.yaxis2.ticktext) == ["one", "two"]
    assert figure.layout.yaxis2.range == (1.5, -0.5)
    assert figure.layout.yaxis.ticktext is None
