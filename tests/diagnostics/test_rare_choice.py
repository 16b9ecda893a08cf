from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from concept_tuning.diagnostics.concept_activations import define_concepts
from concept_tuning.diagnostics.features import Features
from concept_tuning.diagnostics.rare_choice import choose_rare
from concept_tuning.diagnostics.rare_features import measure_rare_features
from concept_tuning.diagnostics.rare_results import RareFeatures, Rarity
from concept_tuning.diagnostics.rare_selection import SWEEP, RareFeatureSettings
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import PretrainedMaps

SETTINGS = RareFeatureSettings(permutations=99, network_permutations=19, resamples=50)


def measured(share: float = 0.1) -> RareFeatures:
    """Thirty concepts of three classes: 0 to 5 mark a class, 0 and 1 at strengths seldom seen, 6 never varies."""
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    z = rng.normal(size=(90, 30, 2, 2)).astype(np.float32)
    for concept, strength in enumerate((5, 4, 3, 2, 2, 1)):
        z[labels == concept % 3, concept] += strength
    z[:, 6] = 0
    low = np.zeros(30, np.float32)
    frozen = PretrainedMaps(maps=np.maximum(z, 0), standardised=z, floor=low, link="relu", missing=None)
    tuned: dict[str, Features] = {}
    return measure_rare_features(
        define_concepts("channels", frozen.maps, standardised=z, count=4),
        frozen,
        tuned,
        labels,
        keys=tuple(str(place) for place in range(90)),
        class_names=("a", "b", "c"),
        settings=replace(SETTINGS, rare_share=share),
    )


RESULT = measured()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_another_share_is_what_the_analysis_would_have_found(share: float) -> None:
    chosen, anew = choose_rare(RESULT, share), measured(share).rarity
    assert isinstance(anew, Rarity)
    np.testing.assert_array_equal(chosen.low, anew.low)
    np.testing.assert_array_equal(chosen.rare, anew.rare)
    assert chosen.threshold == anew.threshold
    assert chosen.rare.any()
    assert not chosen.low[6]


def test_it_agrees_with_the_saved_sweep_and_only_grows() -> None:
    assert isinstance(RESULT.rarity, Rarity)
    assert [choose_rare(RESULT, share).threshold for share in SWEEP] == list(RESULT.rarity.sweep)
    for less, more in itertools.pairwise(SWEEP):
        assert not (choose_rare(RESULT, less).rare & ~choose_rare(RESULT, more).rare).any()


def test_it_refuses_what_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="above 0"):
        choose_rare(RESULT, 0.0)
    said = Unavailable(analysis="source frequency", reason="There is no batch norm.")
    with pytest.raises(ValueError, match="source frequencies"):
        choose_rare(replace(RESULT, source=said, rarity=said), 0.1)
