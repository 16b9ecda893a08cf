from __future__ import annotations

from concept_tuning.engine.curves import Metrics
from concept_tuning.figures.training_curves import accuracy_figure, loss_figure


def metrics(steps: dict, evaluations: dict | None = None) -> Metrics:
    return Metrics(steps, evaluations or {})


def test_each_term_is_a_line_and_a_single_one_is_not_drawn_twice() -> None:
    several = {"step": [1, 2], "epoch": [0, 0], "cross_entropy": [2.0, 1.0], "kl": [0.5, None], "loss": [2.5, 1.0]}
    figure = loss_figure(metrics(several))
    assert {line.name: list(line.y) for line in figure.data} == {
        "all together": [2.5, 1.0],
        "cross entropy": [2.0, 1.0],
        "kl": [0.5, None],
    }
    assert len({(line.line.color, line.line.dash) for line in figure.data}) == 3
    single = {"step": [1], "epoch": [0], "cross_entropy": [2.0], "loss": [2.0]}
    assert [line.name for line in loss_figure(metrics(single)).data] == ["cross entropy"]
    assert len(loss_figure(metrics({})).data) == 0


def test_terms_far_apart_are_drawn_on_a_logarithmic_axis_that_says_so() -> None:
    apart = {"step": [1, 2], "cross_entropy": [1.0, 0.0], "bottleneck_kl": [1150.0, 900.0], "loss": [7.0, 6.0]}
    figure = loss_figure(metrics(apart))
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.title.text == "loss (logarithmic, without zeros)"
    assert [list(line.y) for line in figure.data] == [[7.0, 6.0], [1.0, None], [1150.0, 900.0]]
    low, high = figure.layout.yaxis.range
    assert low < 0 < 3.06 < high
    near = {"step": [1, 2], "cross_entropy": [1.0, 0.9], "kl": [40.0, 20.0], "loss": [3.0, 2.0]}
    assert loss_figure(metrics(near)).layout.yaxis.type is None


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    count = 100_001
    steps = list(range(1, count + 1))
    (line,) = loss_figure(metrics({"step": steps, "kl": steps, "loss": steps})).data
    assert len(line.x) <= 602
    assert (line.x[0], line.x[-1], line.y[-1]) == (1, count, count)


def test_accuracies_are_in_percent_and_runs_without_any_are_left_out() -> None:
    figure = accuracy_figure(
        {"none": metrics({}), "<one>": metrics({}, {"step": [5, 9], "accuracy": [0.25, None], "loss": [1, 1]})}
    )
    (line,) = figure.data
    assert list(line.y) == [25.0, None]
    assert line.name == "&lt;one&gt;"
    assert "%" in figure.layout.yaxis.title.text
