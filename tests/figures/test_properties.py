from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.properties import PropertyScore, PropertyTable
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.properties import property_figure, strength_figure
from concept_tuning.figures.style import BAD, COLOURS, NEUTRAL

LABELS = np.array([0, 0, 1, 1])
KEYS = ("a.png", "b.png", "c.png", "d.png")


def score(name: str, accuracy: float, *, flagged: bool, informative: bool, components: int = 1) -> PropertyScore:
    values = np.arange(4 * components, dtype=np.float32).reshape(4, components)
    means = np.stack([values[label == LABELS].mean(0) for label in (0, 1)] + [np.full(components, np.nan)])
    return PropertyScore(
        name=name,
        components=tuple(f"part {place}" for place in range(components)),
        accuracy=Interval(value=accuracy, low=accuracy - 0.2, high=min(1.0, accuracy + 0.1), n=4),
        baseline=0.5,
        score=2 * (1 - accuracy),
        strength=1 - 2 * (1 - accuracy),
        flagged=flagged,
        informative=informative,
        class_means=means.astype(float),
        values=values,
    )


def table(*scores: PropertyScore) -> PropertyTable:
    return PropertyTable(
        class_names=("owl", "tern", "absent"),
        keys=KEYS,
        labels=LABELS,
        counts=np.array([2, 2, 0]),
        properties=scores,
        unavailable=(),
        left_out=(),
    )


def test_strengths_have_the_intervals_of_the_accuracy_on_their_scale() -> None:
    figure = strength_figure(
        table(
            score("hue", 0.9, flagged=True, informative=True),
            score("contrast", 0.75, flagged=False, informative=True),
            score("size", 0.55, flagged=False, informative=False),
        )
    )
    flagged, telling, idle = figure.data
    assert [trace.marker.color for trace in figure.data] == [BAD, COLOURS[0], NEUTRAL]
    assert [(trace.x[0], trace.y[0]) for trace in figure.data] == [
        pytest.approx((0.8, 0)),
        pytest.approx((0.5, 1)),
        pytest.approx((0.1, 2)),
    ]
    # (0.7 - 0.5) / 0.5 = 0.4 and (1 - 0.5) / 0.5 = 1.
    assert flagged.error_x.arrayminus[0] == pytest.approx(0.4)
    assert flagged.error_x.array[0] == pytest.approx(0.2)
    # Below the largest class there is no strength to lose.
    assert idle.error_x.arrayminus[0] == pytest.approx(0.1)
    assert list(figure.layout.yaxis.ticktext) == ["hue, 90 % right", "contrast, 75 % right", "size, 55 % right"]
    assert list(telling.customdata) == ["contrast"]
    assert figure.layout.shapes[0].x0 == pytest.approx(0.7)


def test_nothing_flagged_needs_no_entry_in_the_legend() -> None:
    figure = strength_figure(table(score("size", 0.55, flagged=False, informative=False)))
    assert [trace.name for trace in figure.data] == ["no more than chance"]
    assert not strength_figure(table()).data


def test_each_picture_is_a_point_of_its_class() -> None:
    figure = property_figure(table(score("brightness", 0.9, flagged=True, informative=True)), "brightness")
    boxes, means = figure.data
    assert list(boxes.x) == [0, 1, 2, 3]
    assert list(boxes.y) == [0, 0, 1, 1]
    assert list(boxes.customdata) == list(KEYS)
    assert list(means.x[:2]) == [0.5, 2.5]
    assert np.isnan(means.x[2])
    assert "not defined, n = 0" in means.text[2]
    assert list(figure.layout.yaxis.ticktext) == ["owl<br>n = 2", "tern<br>n = 2", "absent<br>n = 0"]
    assert figure.layout.xaxis.title.text.startswith("mean brightness")


def test_each_number_of_a_property_has_a_panel() -> None:
    found = table(score("border colour", 0.9, flagged=True, informative=True, components=3))
    figure = property_figure(found, "border colour")
    assert [list(trace.x) for trace in figure.data[::2]] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert figure.layout.xaxis3.title.text == "mean part 2 of the border (0–1)"
    with pytest.raises(KeyError):
        property_figure(found, "hue")
    hue = property_figure(table(score("hue", 0.9, flagged=True, informative=True, components=2)), "hue")
    assert hue.layout.xaxis2.title.text == "hue, part 1 (−1 to 1)"
