from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.embedding import Embedding, Layout
from concept_tuning.figures.embedding import colour_keys, embedding_figure, named_networks
from concept_tuning.figures.style import BAD, COLOURS, GOOD, NEUTRAL

KEYS = ("a.png", "b.png", "c.png")
POINTS = np.array([[0, 1], [2, 3], [-4, 5]], np.float32)


def layout(name: str, run: str, predicted: np.ndarray | None, points: np.ndarray = POINTS) -> Layout:
    return Layout(
        name=name,
        run=run,
        tuned=predicted is not None,
        technique="pca" if predicted is None else "umap",
        points=points,
        predicted=predicted,
        distinct=len(points),
        explained=0.9,
    )


BEFORE = layout("before one", "one", None, POINTS + 1)
ONE, TWO = layout("one", "one", np.array([0, 1, 1])), layout("two", "two", np.array([1, 1, 0]), -POINTS)


def embedding(*layouts: Layout, **changes: object) -> Embedding:
    fields: dict[str, object] = {
        "kind": "pictures",
        "keys": KEYS,
        "picture": np.arange(3),
        "concept": None,
        "boxes": None,
        "image_size": None,
        "labels": np.array([0, 1, 0]),
        "groups": np.array([1, 1, 0]),
        "class_names": ("owl", "tern"),
        "group_names": ("land", "sea"),
        "total": 3,
        "layouts": layouts,
        "missing": (),
    }
    return Embedding(**{**fields, **changes})


def test_each_network_has_a_panel_and_each_class_a_colour() -> None:
    figure = embedding_figure(embedding(BEFORE, ONE, TWO))
    assert [(trace.name, trace.xaxis) for trace in figure.data] == [
        (name, axis) for axis in ("x", "x2", "x3") for name in ("owl", "tern")
    ]
    owl, tern = figure.data[2:4]
    assert (list(owl.x), list(owl.y), list(owl.customdata)) == ([0, -4], [1, 5], ["a.png", "c.png"])
    assert (list(tern.x), list(tern.customdata)) == ([2], ["b.png"])
    assert (owl.marker.color, tern.marker.color) == COLOURS[:2]
    assert "predicted tern" in owl.text[1]
    assert "group land" in owl.text[1]
    assert "predicted" not in figure.data[0].text[0]
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False, False, False]
    titles = [figure.layout[axis].title.text for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert titles == ["before one (PCA)", "one", "two"]
    ranges = {figure.layout[axis].range for axis in ("xaxis", "xaxis2", "xaxis3", "yaxis", "yaxis3")}
    assert len(ranges) == 1
    assert figure.layout.yaxis2.scaleanchor == "x2"


def test_where_the_last_row_is_not_full_no_empty_panel_is_drawn() -> None:
    figure = embedding_figure(embedding(BEFORE, ONE, TWO, layout("three", "three", np.array([0, 1, 0]))))
    drawn = {trace.xaxis for trace in figure.data}
    axes = {axis.anchor.replace("y", "x"): axis.visible for axis in figure.select_xaxes()}
    assert len(axes) > len(drawn) == 4
    assert {axis for axis, visible in axes.items() if visible is not False} == drawn
    assert {axis.anchor for axis in figure.select_yaxes() if axis.visible is not False} == drawn


def test_by_group() -> None:
    figure = embedding_figure(embedding(ONE), colour="group")
    assert {trace.name: list(trace.customdata) for trace in figure.data} == {
        "land": ["c.png"],
        "sea": ["a.png", "b.png"],
    }
    with pytest.raises(ValueError, match="no groups"):
        embedding_figure(embedding(ONE, groups=None), colour="group")


def test_right_and_wrong_are_of_the_network_of_the_panel() -> None:
    figure = embedding_figure(embedding(BEFORE, ONE, TWO), colour="right")
    found = [(trace.name, list(trace.customdata), trace.marker.color) for trace in figure.data]
    assert found == [
        ("not fine-tuned", list(KEYS), NEUTRAL),
        ("right", ["a.png", "b.png"], GOOD),
        ("wrong", ["c.png"], BAD),
        ("right", ["b.png", "c.png"], GOOD),
        ("wrong", ["a.png"], BAD),
    ]


def test_by_run_all_networks_share_a_panel() -> None:
    figure = embedding_figure(embedding(BEFORE, ONE, TWO), colour="run", runs=["other", "one", "two"])
    assert [trace.name for trace in figure.data] == ["before one", "one", "two"]
    assert {trace.xaxis for trace in figure.data} == {"x"}
    assert [trace.marker.color for trace in figure.data] == [NEUTRAL, COLOURS[1], COLOURS[2]]
    assert list(figure.data[2].x) == [0, -2, 4]


def test_concept_patches_name_picture_and_concept() -> None:
    points = np.concatenate([POINTS, POINTS])
    patches = embedding(
        layout("one", "one", np.zeros(6, np.int64), points),
        kind="concepts",
        picture=np.arange(3).repeat(2),
        concept=np.tile([0, 1], 3),
        labels=np.zeros(6, np.int64),
        groups=None,
    )
    (trace,) = embedding_figure(patches).data
    assert [tuple(found) for found in trace.customdata][:3] == [("a.png", 0), ("a.png", 1), ("b.png", 0)]
    assert "concept 2" in trace.text[1]


def test_many_classes_keep_apart_by_symbol_and_leave_the_legend() -> None:
    count = 20
    labels, points = np.arange(count), np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    figure = embedding_figure(
        embedding(
            layout("one", "one", labels, points),
            labels=labels,
            groups=None,
            picture=np.zeros(count, np.int64),
            class_names=tuple(f"class {place}" for place in labels),
        )
    )
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == count
    assert len({trace.marker.symbol for trace in figure.data[:6]}) == 6  # colours alone do not tell them apart
    assert figure.layout.showlegend is False


def test_points_on_one_spot_and_no_layout() -> None:
    spot = embedding_figure(embedding(layout("one", "one", np.zeros(3, np.int64), np.zeros((3, 2), np.float32))))
    assert spot.layout.xaxis.range == (-1, 1)
    assert not embedding_figure(embedding()).data


def test_one_pre_trained_network_is_called_after_none_of_the_runs() -> None:
    assert [one.name for one in named_networks(embedding(BEFORE, ONE)).layouts] == ["before fine-tuning", "one"]
    several = embedding(BEFORE, layout("before two", "two", None), ONE, TWO)
    assert named_networks(several) is several


def test_colours_are_named_beside_figures_without_a_legend() -> None:
    result = embedding(BEFORE, ONE)
    assert [(key.name, key.colour) for key in colour_keys(result)] == [("owl", COLOURS[0]), ("tern", COLOURS[1])]
    assert [key.name for key in colour_keys(result, colour="run")] == ["before one", "one"]
    assert embedding_figure(result, legend=False).layout.showlegend is False
