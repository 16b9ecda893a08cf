from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.transport_links import Link, TransportLinks
from concept_tuning.figures.tiles import EDGE
from concept_tuning.figures.transport_links import links_figure, plan_figure
from figures.examples import image, picture


def transport_links(links: tuple[Link, ...]) -> TransportLinks:
    boxes = np.array(
        [
            [[0, 0, 32, 32], [0, 0, 32, 32], [64, 64, 128, 128]],
            [[0, 96, 32, 128], [64, 0, 96, 32], [64, 0, 96, 32]],
        ],
        np.float32,
    )
    plan = np.array([[0.3, 0.03, 0], [0, 0.3, 0.04], [0.03, 0, 0.3]])
    return TransportLinks(
        run="tuned",
        keys=("a.png", "b.png"),
        labels=(1, 0),
        image_size=128,
        boxes=boxes,
        costs=np.full((3, 3), 0.25),
        plan=plan,
        links=links,
        distance=0.25,
        epsilon=0.05,
    )


LINKS = (
    Link(first=1, second=1, weight=0.3, cost=0.25),
    Link(first=2, second=2, weight=0.2, cost=0.5),
    Link(first=0, second=2, weight=0.04, cost=0.75),
)


def test_links_join_the_middles_of_their_patches_by_width() -> None:
    shown = image(0), image(1)
    figure = links_figure(transport_links(LINKS), shown, class_names=("gull", "jay"))
    pictures = [trace for trace in figure.data if trace.type == "image"]
    for trace, expected in zip(pictures, shown, strict=True):
        np.testing.assert_array_equal(picture(trace), expected)
    lines = [
        trace
        for trace in figure.data
        if getattr(trace, "mode", "") == "lines" and len(trace.x) == 3 and trace.line.color != EDGE
    ]
    # Two of the three links join the same two patches.
    assert len(lines) == 2
    top, left = pictures[0].y0 - 1 / 16, pictures[1].x0 - 1 / 16
    assert lines[0].x[::2] == pytest.approx((16 / 128, left + 80 / 128))
    assert lines[0].y[::2] == pytest.approx((top + 16 / 128, top + 16 / 128))
    assert lines[1].x[::2] == pytest.approx((96 / 128, left + 80 / 128))
    assert lines[0].line.width == pytest.approx(6 * 0.34 * 3)
    assert lines[1].line.width == pytest.approx(6 * 0.2 * 3)


def test_hover_and_click_tell_the_links() -> None:
    figure = links_figure(transport_links(LINKS), (image(0), image(1)), class_names=("gull", "jay"))
    told = [trace for trace in figure.data if trace.name == "link"]
    assert told[0].text[0] == "2 with 2: weight 0.3, cost 0.25<br>1 with 3: weight 0.04, cost 0.75"
    assert list(told[0].customdata[0]) == ["a.png", "b.png"]
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["a.png", "b.png"]
    titles = [note.text for note in figure.layout.annotations]
    assert "<b>jay</b><br>a.png" in titles
    assert {"1 2", "3", "1", "2 3"} <= set(titles)


def test_no_links_and_no_class_names() -> None:
    figure = links_figure(transport_links(()), (image(0), image(1)))
    assert not [trace for trace in figure.data if trace.name == "link"]
    assert "a.png" in [note.text for note in figure.layout.annotations]


def test_the_plan_is_drawn_in_shares_of_each_concept() -> None:
    result = transport_links(LINKS)
    trace = plan_figure(result).data[0]
    np.testing.assert_allclose(trace.z, 300 * result.plan)
    np.testing.assert_allclose(trace.customdata[..., 0], result.plan)
    np.testing.assert_allclose(trace.customdata[..., 1], result.costs)
    assert [list(row) for row in trace.text] == [["90", "9", ""], ["", "90", "12"], ["9", "", "90"]]


def test_lines_along_one_row_do_not_lie_on_each_other() -> None:
    result = transport_links((LINKS[0], Link(first=0, second=0, weight=0.1, cost=0.1)))
    result.boxes[:, :, 1::2] = [0, 32]
    figure = links_figure(result, (image(0), image(1)))
    middles = [trace.y[0] for trace in figure.data if trace.name == "link"]
    assert abs(middles[0] - middles[1]) > 0.02
