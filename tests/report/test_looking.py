"""Captions of the chapters on where networks look, on results made by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from concept_tuning.report import looking
from concept_tuning.report.blocks import Chart, Source
from tests.figures.examples import image
from tests.figures.test_concept_maps import concept_maps
from tests.figures.test_controls import controlled


def source(**results: Any) -> Source:
    """Results of the run ``tuned``, and a picture for every name."""
    found = {(name.replace("_", "-"), "tuned"): result for name, result in results.items()}
    return Source(
        SimpleNamespace(
            overview=SimpleNamespace(runs=(SimpleNamespace(name="tuned"),), class_names=("owl", "tern")),
            results=found,
            thumbnails=SimpleNamespace(image=lambda key: image(), keys=("a.png", "b.png"), labels=np.array([0, 1])),
        )
    )


@pytest.mark.parametrize("count", [4, 9])
def test_the_caption_counts_the_concepts_that_there_are(count: int) -> None:
    chart = looking.concept_maps(source(concept_maps=concept_maps("tuned", count=count)))[0]
    assert isinstance(chart, Chart)
    assert f"The {count} concepts of each run's own prediction" in chart.caption


def test_means_are_said_to_be_over_the_same_pictures_only_where_they_are() -> None:
    whole = controlled()
    first, *rest = whole.values
    other = dataclasses.replace(whole, values=(dataclasses.replace(first, n=9), *rest))
    captions = []
    for result in (whole, other):
        chart = looking.controls(source(controls=result))[0]
        assert isinstance(chart, Chart)
        captions.append(chart.caption)
    assert captions[0].startswith(
        "Means over the pictures for which neither the map nor any control is blank: outside mass over 12, "
        "ROAD over 12."
    )
    assert (
        "blank: ROAD over 12. Means over each one's own pictures, which differ: outside mass (9 to 12)." in captions[1]
    )
