from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.lessons import FrontDoorWorld, HabitatGuess
from concept_tuning.figures.lessons import effect_figure, points_figure, shortcut_figure


def test_the_shortcut_is_drawn_in_percent_with_the_chosen_rho() -> None:
    guesses = [HabitatGuess(rho=0.0, train=0.25, test=0.25), HabitatGuess(rho=1.0, train=1.0, test=0.25)]
    figure = shortcut_figure(guesses, 0.8)
    assert [list(line.y) for line in figure.data] == [[25, 100], [25, 25]]
    assert figure.layout.shapes[0].x0 == 0.8


def test_the_three_effects_are_bars_with_their_numbers() -> None:
    figure = effect_figure(FrontDoorWorld(observed=0.85, adjusted=0.4, true=0.4))
    (bars,) = figure.data
    assert list(bars.text) == ["0.85", "0.40", "0.40"]
    assert len(figure.layout.xaxis.title.text) <= 28  # what a phone has room for


def test_pairs_are_drawn_as_wide_as_what_goes_along_them_and_tiny_ones_not() -> None:
    first, second = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    plan = np.array([[0.3, 0.2, 0.0], [0.0, 0.005, 0.495]])
    lines = [trace for trace in points_figure(first, second, plan).data if trace.mode == "lines"]
    assert [(tuple(line.x), tuple(line.y)) for line in lines] == [
        ((0.0, 0.0), (0.0, 1.0)),
        ((0.0, 1.0), (0.0, 0.0)),
        ((1.0, 0.5), (1.0, 0.5)),
    ]
    widths = [line.line.width for line in lines]
    assert widths[0] / widths[1] == pytest.approx(1.5)
    assert widths[2] > widths[0]
