from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.ledger import Ledger, negative_transfer
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.thumbnails import LOSSLESS, pack_thumbnails
from concept_tuning.figures.ledger import ledger_gallery, shares_figure, transfer_figure

KEYS = tuple(f"{place}.png" for place in range(10))
SCRATCH = {"s0": np.arange(10) < 6, "s1": np.arange(10) < 7}
#: Loses pictures 0 (both pairs) and 6 (one pair), and rescues 8 and 9.
TUNED = {"vanilla": {"v0": np.isin(np.arange(10), (1, 2, 3, 4, 5, 8, 9))}, "ours": {"o0": np.ones(10, bool)}}
THUMBNAILS = pack_thumbnails(KEYS, np.zeros((10, 4, 4, 3), np.uint8), np.arange(10) % 2, quality=LOSSLESS)


def ledger(scratch: dict[str, np.ndarray] = SCRATCH, tuned: dict[str, dict[str, np.ndarray]] = TUNED) -> Ledger:
    found = negative_transfer(keys=KEYS, scratch=scratch, tuned=tuned)
    assert isinstance(found, Ledger)
    return found


def test_lost_goes_left_and_rescued_right_with_their_intervals() -> None:
    result = ledger()
    figure = transfer_figure(result)
    lost, rescued, net, churn = figure.data
    assert list(lost.x) == pytest.approx([-0.15, 0])
    assert list(rescued.x) == pytest.approx([0.2, 0.35])
    assert list(net.x) == pytest.approx([0.05, 0.35])
    first = result.methods[0].lost
    # Mirrored: the upper end of the lost share is the left end of the bar.
    assert lost.error_x.arrayminus[0] == pytest.approx(first.high - first.value)
    assert lost.error_x.array[0] == pytest.approx(first.value - first.low)
    assert isinstance(result.churn, Interval)
    assert {x for x in churn.x if x is not None} == {-result.churn.value, result.churn.value}
    assert result.churn.value == pytest.approx(0.05)
    assert list(figure.layout.yaxis.ticktext) == ["vanilla", "ours"]
    assert all("−" not in text for text in figure.layout.xaxis.ticktext)


def test_without_a_second_run_from_scratch_there_is_no_churn() -> None:
    figure = transfer_figure(ledger({"s0": SCRATCH["s0"]}, {"same": {"v": SCRATCH["s0"]}}))
    assert [trace.name for trace in figure.data] == ["lost", "rescued", "rescued less lost"]
    assert list(figure.data[0].x) == [0]
    assert "p = 1 (McNemar)" in figure.data[0].text[0]


def test_all_four_shares_add_up() -> None:
    parts = {trace.name: np.array(trace.x, float) for trace in shares_figure(ledger()).data}
    assert list(parts) == ["both right", "rescued", "lost", "both wrong"]
    assert np.allclose(sum(parts.values()), 1)
    assert parts["both right"] == pytest.approx([0.5, 0.65])
    assert parts["both wrong"] == pytest.approx([0.15, 0])


def test_the_gallery_begins_with_what_is_lost_most_often() -> None:
    figure = ledger_gallery(ledger(), THUMBNAILS, "vanilla", class_names=("owl", "tern"))
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["0.png", "6.png"]
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["owl<br>lost in 2 of 2", "owl<br>lost in 1 of 2"]


def test_the_gallery_of_rescued_pictures_and_its_limit() -> None:
    figure = ledger_gallery(ledger(), THUMBNAILS, "ours", kind="rescued", most=3)
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["7.png", "8.png", "9.png"]


def test_nothing_lost_leaves_an_empty_gallery() -> None:
    assert not ledger_gallery(ledger(), THUMBNAILS, "ours").data
    with pytest.raises(KeyError):
        ledger_gallery(ledger(), THUMBNAILS, "theirs")
