from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.thumbnails import LOSSLESS, pack_thumbnails
from concept_tuning.figures.galleries import Entry, class_name, gallery
from concept_tuning.figures.tiles import Box
from tests.figures.examples import picture

KEYS = ("a.png", "b.png", "c.png")
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
THUMBNAILS = pack_thumbnails(KEYS, IMAGES, np.array([1, 0, 1]), quality=LOSSLESS)


def entries(*keys: str) -> list[Entry]:
    return [Entry(key=key, title=f"<b>{key}</b>", hover=f"hover {key}") for key in keys]


def test_each_entry_shows_its_own_picture_in_the_order_given() -> None:
    figure = gallery(entries("c.png", "a.png"), THUMBNAILS, most=5)
    shown = [trace for trace in figure.data if trace.type == "image"]
    assert [trace.name for trace in shown] == ["c.png", "a.png"]
    assert all(np.array_equal(picture(trace), THUMBNAILS.image(trace.name)) for trace in shown)
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["c.png", "a.png"]
    assert list(points.text) == ["hover c.png", "hover a.png"]


def test_pictures_without_thumbnail_make_way_for_those_that_have_one() -> None:
    figure = gallery(entries("lost.png", "a.png", "b.png", "c.png"), THUMBNAILS, most=2)
    assert [trace.name for trace in figure.data if trace.type == "image"] == ["a.png", "b.png"]


def test_no_picture_is_said_in_words() -> None:
    figure = gallery(entries("lost.png"), THUMBNAILS, most=2)
    assert not figure.data
    assert figure.layout.annotations[0].text == "no pictures to show"


def test_boxes_lie_on_their_picture() -> None:
    boxed = Entry(key="b.png", title="", hover="", boxes=(Box(corners=(0.25, 0, 0.75, 0.5)),))
    figure = gallery([*entries("a.png"), boxed], THUMBNAILS, most=2)
    line = next(trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines")
    second = [trace for trace in figure.data if trace.type == "image"][1]
    left = second.x0 - second.dx / 2
    assert min(x for x in line.x if x is not None) == left + 0.25
    assert max(x for x in line.x if x is not None) == left + 0.75


def test_class_names_are_of_the_thumbnail() -> None:
    assert class_name(THUMBNAILS, "b.png", ("owl", "tern")) == "owl"
    assert class_name(THUMBNAILS, "b.png", ()) == ""
    assert class_name(THUMBNAILS, "lost.png", ("owl", "tern")) == ""
