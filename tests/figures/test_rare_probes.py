from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.figures.rare_probes import has_probes, probe_figure
from concept_tuning.figures.style import COLOURS
from figures.examples import MISSING, rare_features


def test_rows_are_the_groups_and_then_the_most_informative_rare_concepts() -> None:
    figure = probe_figure(rare_features())
    assert list(figure.layout.yaxis.ticktext) == [
        "<b>rare (2)</b>",
        "<b>useful, not rare (1)</b>",
        "channel 0",
        "channel 2",
    ]
    before, after = figure.data[-2:]
    assert (before.name, after.name) == (PRETRAINED, "vanilla")
    np.testing.assert_allclose(before.x, [0.65, np.nan, 0.6, 0.7])
    np.testing.assert_allclose(after.x, [0.65, np.nan, 0.5, 0.8])
    # Quartiles of 0.6 and 0.7, none for single concepts.
    assert before.error_x.array[0] == pytest.approx(0.025)
    assert list(before.error_x.array[2:]) == [0, 0]
    assert list(before.customdata) == [None, None, 0, 2]
    assert "change −0.1" in after.text[2]
    assert "not defined" in after.text[1]


def test_lines_join_before_and_after() -> None:
    line = probe_figure(rare_features(), runs=["other", "vanilla"]).data[0]
    assert line.mode == "lines"
    assert list(line.x[6:8]) == [0.6, 0.5]
    assert list(line.x[9:11]) == [0.7, 0.8]
    assert line.line.color == COLOURS[1]


def test_few_rows_on_demand() -> None:
    assert len(probe_figure(rare_features(), limit=1).layout.yaxis.ticktext) == 3


def test_without_rarity_the_useful_concepts_stand_alone() -> None:
    figure = probe_figure(rare_features(rarity=MISSING, source=MISSING))
    assert list(figure.layout.yaxis.ticktext) == ["<b>useful, not rare (3)</b>"]


def test_one_network_has_nothing_to_be_joined_with() -> None:
    networks = rare_features().networks
    alone = probe_figure(rare_features(networks=networks[:1]))
    assert [trace.name for trace in alone.data] == [PRETRAINED]
    runs_only = probe_figure(rare_features(networks=networks[1:]))
    assert [trace.name for trace in runs_only.data] == ["vanilla"]


def test_without_a_useful_concept_there_is_nothing_to_draw() -> None:
    result = rare_features()
    assert has_probes(result)
    idle = replace(result.presence, useful=np.zeros(len(result.concepts), bool))
    none = replace(result.rarity, rare=np.zeros(len(result.concepts), bool))
    assert not has_probes(replace(result, presence=idle, rarity=none))
