"""A setting that is refused because its term has weight 0 changes nothing that is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import rivals
import torch

from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import METHODS

#: The method, what has weight 0, and settings that then do nothing.
CASES = [
    ("bss", {"weight": 0.0}, {"singular_values": 2}),
    ("lwf", {"weight": 0.0}, {"temperature": 9.0}),
    ("delta", {"weight": 0.0}, {"attention": False}),
    ("core-tuning", {"weight": 0.0}, {"focal": 3.0, "projection_dim": 5, "temperature": 0.5}),
    ("bi-tuning", {"projector_weight": 0.0}, {"projection_dim": 5}),
    (
        "bi-tuning",
        {"projector_weight": 0.0, "classifier_weight": 0.0},
        {"temperature": 0.5, "queue_size": 3, "encoder_momentum": 0.1},
    ),
]


def learnt(name: str, weights: str, settings: dict[str, object]) -> dict[str, torch.Tensor]:
    """Train a method for three steps and return what prediction needs."""
    method: Method = rivals.build(METHODS[name], rivals.rival_config(name.replace("-", "_"), weights, **settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        method.prepare(rivals.TinyPictures())
    rivals.train(method, 3)
    return method.inference_state()


@pytest.mark.parametrize(("name", "off", "idle"), CASES)
def test_it_learns_the_same_to_the_last_bit(name: str, off: dict, idle: dict, tmp_path: Path) -> None:
    weights = rivals.source_file(tmp_path)
    plain, changed = learnt(name, weights, off), learnt(name, weights, off | idle)
    assert plain.keys() == changed.keys()
    assert all(torch.equal(plain[key], changed[key]) for key in plain)
