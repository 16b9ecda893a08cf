from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from concept_tuning.diagnostics.rare_choice import RareChoice
from concept_tuning.diagnostics.rare_results import Rarity
from concept_tuning.diagnostics.source_frequency import SourceFrequency
from concept_tuning.diagnostics.thumbnails import LOSSLESS, pack_thumbnails
from concept_tuning.figures.rare_features import classes_with, gallery_figure, rarity_figure, sweep_figure
from figures.examples import BAND, FREQUENCY, INFORMATION, MISSING, image, picture, point, rare_features


def test_points_are_source_frequency_against_information_beyond_the_band() -> None:
    figure = rarity_figure(rare_features())
    points = {
        int(row[0]): (x, y)
        for trace in figure.data
        for row, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    assert sorted(points) == [0, 1, 2, 3, 4]
    for concept in range(1, 5):
        assert points[concept][0] == FREQUENCY[concept]
    for concept in range(5):
        assert points[concept][1] == pytest.approx(INFORMATION[concept] - BAND[concept])
    # A frequency of 0 has no place on a logarithmic axis: left of all others, and the hover tells the truth.
    assert 0 < points[0][0] < 0.001
    kinds = {trace.name: [int(row[0]) for row in trace.customdata] for trace in figure.data}
    assert kinds == {"others (2)": [3, 4], "seldom seen, not useful (1)": [1], "rare (2)": [0, 2]}
    rare = figure.data[-1]
    np.testing.assert_allclose(rare.customdata[0], [0, 0, 0.2, 0.5, 0.1, 0.01, 0.2, 0])
    assert "marks gull" in rare.text[0]
    assert isinstance(rare.to_plotly_json()["customdata"][0], list)


def test_the_quadrant_ends_at_the_threshold_and_holds_the_rare_alone() -> None:
    figure = rarity_figure(rare_features())
    quadrant = next(shape for shape in figure.layout.shapes if shape.x1 == 0.01)
    assert (quadrant.y0, quadrant.x0 > 0) == (0, True)
    inside = [
        int(row[0])
        for trace in figure.data
        for row, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
        if quadrant.x0 <= x <= quadrant.x1 and quadrant.y0 < y <= quadrant.y1
    ]
    assert sorted(inside) == [0, 2]


def test_without_a_source_the_pictures_own_frequency_is_named_and_there_is_no_quadrant() -> None:
    figure = rarity_figure(rare_features(source=MISSING, rarity=MISSING))
    assert "in these pictures" in figure.layout.xaxis.title.text
    points = {int(row[0]): x for trace in figure.data for row, x in zip(trace.customdata, trace.x, strict=True)}
    assert [points[concept] for concept in range(4)] == [0.2, 0.1, 0.01, 0.001]
    # The edge of the band and what is below it.
    assert len(figure.layout.shapes) == 2
    assert "pre-training saw" not in figure.data[0].hovertemplate


def test_another_choice_of_the_rare_moves_kinds_and_quadrant() -> None:
    result = rare_features()
    low = np.array([True, False, False, False, False])
    choice = RareChoice(low=low, rare=low & result.presence.useful, threshold=replace(point(0.2, 1), frequency=0.005))
    figure = rarity_figure(result, choice=choice)
    kinds = {trace.name: [int(row[0]) for row in trace.customdata] for trace in figure.data}
    assert kinds == {"others (4)": [1, 2, 3, 4], "rare (1)": [0]}
    assert [shape.x1 for shape in figure.layout.shapes if shape.y0 == 0 and shape.type == "rect"] == [0.005]


def test_the_chosen_concept_is_ringed_where_its_point_is() -> None:
    figure = rarity_figure(rare_features(), chosen=2)
    ring = figure.data[-1]
    assert (ring.x[0], ring.y[0]) == (FREQUENCY[2], pytest.approx(INFORMATION[2] - BAND[2]))
    # It takes no clicks: these look for customdata.
    assert ring.customdata is None
    # Once a point is clicked, that is marked, and the others stay as they are.
    assert ring.unselected.marker.opacity == 0
    assert all(trace.unselected.marker.opacity == trace.marker.opacity for trace in figure.data[:-1])
    assert len(rarity_figure(rare_features()).data) == len(figure.data) - 1


def test_frequencies_of_zero_alone_are_drawn() -> None:
    source = SourceFrequency(frequency=np.zeros(5), basis="last batch norm", note="")
    figure = rarity_figure(rare_features(source=source))
    assert all((np.array(trace.x) > 0).all() for trace in figure.data)
    assert np.isfinite(figure.layout.xaxis.range).all()


def test_the_sweep_counts_rare_concepts_beside_chance() -> None:
    rarity = rare_features().rarity
    assert isinstance(rarity, Rarity)
    bars, chance = sweep_figure(rarity).data
    assert list(bars.x) == ["20 %", "60 %"]
    assert list(bars.y) == [1, 2]
    assert list(chance.y) == [0.15, 0.15]
    assert bars.marker.color[0] != bars.marker.color[1]
    assert not len(sweep_figure(replace(rarity, sweep=())).data[0].x)


def test_the_gallery_shows_the_strongest_pictures_with_their_patches() -> None:
    kept = pack_thumbnails(("a", "b"), np.stack([image(0), image(1)]), np.array([0, 1]), quality=LOSSLESS)
    figure = gallery_figure(rare_features(), kept, concepts=[2, 0])
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["a", "b", "c", "a", "b"] * 2
    pictures = [picture(trace) for trace in figure.data if trace.type == "image"]
    assert len(pictures) == 8
    np.testing.assert_array_equal(pictures[1], image(1))
    assert "channel 2: 11 deviations" in points.text[1]
    assert "class jay" in points.text[1]
    assert "picture not kept" in points.text[2]
    titles = [note.text for note in figure.layout.annotations]
    assert "<b>channel 2</b> marks gull" in titles
    first = next(trace for trace in figure.data if trace.type == "image")
    lines = [trace for trace in figure.data if getattr(trace, "mode", "") == "lines"]
    assert list(lines[-1].x[:2]) == pytest.approx([0.25, 0.75])
    assert lines[-1].y[0] == pytest.approx(first.y0 - 1 / 16 + 0.25)


def test_groups_name_their_channels() -> None:
    kept = pack_thumbnails((), np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64))
    members = tuple(tuple(range(10)) for _ in range(5))
    figure = gallery_figure(rare_features(view="groups", members=members), kept, concepts=[1])
    assert any("channels 0, 1, 2, 3, 4, 5, …" in note.text for note in figure.layout.annotations)
    assert not [trace for trace in figure.data if trace.type == "image"]


def test_all_classes_that_have_a_concept_in_most_pictures_are_named() -> None:
    frequency = np.array([[0.98, 0.6, 0.2, 0.4, 0.9], [0.93, 0.7, 0.1, 0.5, 0.2]])
    result = rare_features(class_frequency=frequency)
    marked = [result.class_names[int(label)] for label in result.marked_class]
    named = [classes_with(result, place) for place in range(5)]
    assert [names[0] for names in named] == marked
    assert [len(names) for names in named] == [2, 2, 1, 1, 2 if marked[4] == result.class_names[1] else 1]
