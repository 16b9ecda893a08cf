from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.statistics import share
from concept_tuning.diagnostics.switches import FRONT_DOOR, PREDICTION, FrontDoorSwitches, SwitchMaps, SwitchOutcome
from concept_tuning.figures.style import COLOURS, overlay
from concept_tuning.figures.switches import switch_figure, switch_maps_figure
from figures.examples import image, picture

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


def test_a_picture_under_each_setting_has_its_map_and_the_class_named_there() -> None:
    values = np.zeros((4, 2, 4, 4), np.float32)
    values[:3, 1, 0, 3] = (4, 2, 1)  # with both off it is blank
    maps = SwitchMaps(
        keys=("a.png", "b.png"),
        names=tuple(BOTH),
        explained=np.array([0, 1]),
        predicted=np.array([[0, 1], [0, 1], [0, 0], [0, 0]]),
        values=values,
    )
    shown = image()
    figure = switch_maps_figure(maps, "b.png", shown, class_names=("x<y", "tern"))
    assert [note.text for note in figure.layout.annotations] == [
        "picture",
        "everything on<br>tern",
        "patch attention<br>off<br>tern",
        "channel attention<br>off<br>x&lt;y",
        "both off<br>x&lt;y",
    ]
    pictures = [picture(trace) for trace in figure.data if trace.type == "image"]
    for place in (0, 4):
        np.testing.assert_array_equal(pictures[place], shown)
    for place in (1, 2, 3):  # each from its own least to its own greatest
        np.testing.assert_array_equal(pictures[place], overlay(shown, values[0, 1]))
    hover = figure.data[-1].text
    assert "for tern: logits 4 at most" in hover[1]
    assert "logits 1 at most" in hover[3]
    assert "blank" in hover[4]
    with pytest.raises(ValueError, match=r"no maps of 'c.png'"):
        switch_maps_figure(maps, "c.png", np.zeros((8, 8, 3), np.uint8), class_names=("x", "y"))
