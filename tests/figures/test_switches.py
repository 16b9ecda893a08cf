from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.statistics import share
from concept_tuning.diagnostics.switches import FRONT_DOOR, PREDICTION, FrontDoorSwitches, SwitchOutcome
from concept_tuning.figures.style import COLOURS
from concept_tuning.figures.switches import switch_figure

SETTINGS = {"everything on": (True, True), "position off": (False, True), "channel off": (True, False)}
BOTH = {**SETTINGS, "both off": (False, False)}


def outcome(name: str, reads: str, switches: tuple[bool, bool], right: int, flips: int) -> SwitchOutcome:
    return SwitchOutcome(
        name=name,
        reads=reads,
        use_position=switches[0],
        use_channel=switches[1],
        predicted=np.zeros(10, np.int64),
        accuracy=share(np.arange(10) < right),
        agreement=share(np.arange(10) >= flips),
        flips=share(np.arange(10) < flips),
        lost=2,
        won=1,
        p_value=0.25,
        probability_shift=0.1,
        classes=(),
        groups=(),
        cells=(),
    )


def switches(run: str, settings: dict[str, tuple[bool, bool]] = BOTH) -> FrontDoorSwitches:
    return FrontDoorSwitches(
        run=run,
        keys=tuple(str(place) for place in range(10)),
        labels=np.zeros(10, np.int64),
        rule=("plain", "front_door"),
        position_gamma=0.5,
        channel_gamma=None,
        outcomes=tuple(
            outcome(name, reads, switched, right=9 - place - less, flips=place + less)
            for less, reads in enumerate((PREDICTION, FRONT_DOOR))
            for place, (name, switched) in enumerate(settings.items())
        ),
    )


def test_accuracy_and_flips_of_each_setting() -> None:
    figure = switch_figure([switches("run")])
    accuracy, flips = figure.data
    assert list(accuracy.x) == [0.9, 0.8, 0.7, 0.6]
    assert list(accuracy.y) == [0, 1, 2, 3]
    # Against itself nothing flips: everything on has no point there.
    assert list(flips.x) == [0.1, 0.2, 0.3]
    assert list(flips.y) == [1, 2, 3]
    interval = share(np.arange(10) < 1)
    assert flips.error_x.array[0] == pytest.approx(interval.high - 0.1)
    assert "2 right ones lost, 1 won" in accuracy.text[1]
    assert "learnt scale of patch attention 0.5" in accuracy.text[0]
    assert "channel attention" not in accuracy.text[0]


def test_the_front_door_head_alone() -> None:
    accuracy, _ = switch_figure([switches("run")], reads=FRONT_DOOR).data
    assert list(accuracy.x) == [0.8, 0.7, 0.6, 0.5]


def test_a_run_with_one_attention_leaves_out_what_it_has_not() -> None:
    some = {name: BOTH[name] for name in ("everything on", "channel off")}
    alone = switch_figure([switches("b", some)])
    assert list(alone.layout.yaxis.ticktext) == ["everything on", "channel attention<br>off"]
    both = switch_figure([switches("a"), switches("b", some)], runs=["scratch", "a", "b"])
    assert len(both.layout.yaxis.ticktext) == 4
    second = next(trace for trace in both.data if trace.name == "b")
    assert [round(row) for row in second.y] == [0, 2]
    assert second.marker.color == COLOURS[2]
