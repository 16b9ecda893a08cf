from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.statistics import wilson
from concept_tuning.figures.confusion import confusion_figure


def predictions(labels: list[int], predicted: list[int], *, run: str = "a", classes: int = 2) -> Predictions:
    chosen = np.array(predicted)
    return Predictions(
        run=run,
        keys=tuple(f"{place}.png" for place in range(len(labels))),
        labels=np.array(labels),
        groups=None,
        predicted=chosen,
        probabilities=np.eye(classes, dtype=np.float32)[chosen],
        class_names=tuple(f"<b>{place}" for place in range(classes)),
        group_names=(),
        accuracy=wilson(int((chosen == labels).sum()), len(labels)),
        classes=(),
    )


def test_cells_have_counts_and_shares_of_their_row() -> None:
    figure = confusion_figure([predictions([0, 0, 0, 0, 1], [0, 0, 0, 1, 1]), predictions([0, 1], [1, 1], run="b")])
    first, second = figure.data
    assert first.z.tolist() == [[0.75, 0.25], [0, 1]]
    assert first.text.tolist() == [[3, 1], [0, 1]]
    assert first.customdata[0][1].tolist() == [0, 1]
    assert "&lt;b&gt;0 predicted as &lt;b&gt;1<br>1 of 4" in first.hovertext[0][1]
    assert second.z.tolist() == [[0, 1], [0, 1]]
    assert [note.text for note in figure.layout.annotations] == ["a", "b"]


def test_a_class_without_pictures_is_empty() -> None:
    assert np.isnan(confusion_figure([predictions([1], [1])]).data[0].z[0]).all()


@pytest.mark.parametrize(("classes", "counted"), [(15, True), (16, False), (120, False)])
def test_many_classes_leave_counts_to_the_hover(classes: int, counted: bool) -> None:
    figure = confusion_figure([predictions([0, 1], [1, 1], classes=classes)])
    assert bool(figure.data[0].texttemplate) == counted
    assert figure.layout.coloraxis.showscale is not counted
    assert len(figure.layout.yaxis.ticktext) <= 30
    assert figure.layout.height < 2000


def test_a_name_is_never_a_template() -> None:
    figure = confusion_figure([predictions([0, 1], [1, 1], run="%{z} of <i>me")])
    assert figure.data[0].hovertemplate == "%{hovertext}<extra></extra>"
    assert figure.data[0].hovertext[0][1].startswith("%{z} of &lt;i&gt;me<br>&lt;b&gt;0 predicted as ")
