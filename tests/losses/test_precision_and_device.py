"""What holds for all losses: low precision is computed in single, and what they make lies where the inputs lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.bi_tuning import classifier_contrast, with_bias_entry
from concept_tuning.losses.bottleneck import gaussian_kl
from concept_tuning.losses.co_tuning import source_cross_entropy
from concept_tuning.losses.contrastive import contrastive_loss, image_contrast
from concept_tuning.losses.core_tuning import find_partners, focal_contrast
from concept_tuning.losses.distillation import distillation
from concept_tuning.losses.group_dro import group_means, reweighted
from concept_tuning.losses.rare_concept import concept_contrast
from concept_tuning.losses.sinkhorn import heaviest_pairs, solve_transport, transport_plan
from concept_tuning.losses.spectral_shrinkage import spectral_shrinkage
from concept_tuning.losses.starting_point import (
    channel_attention,
    feature_map_distance,
    half_squared_distance,
    half_squared_norm,
)

LABELS = torch.tensor([0, 2, 1, 0])


@dataclass(frozen=True)
class Case:
    """A loss, the shapes of its float arguments (unit vectors along the last axis), and its other arguments."""

    function: Callable[..., object]
    shapes: dict[str, tuple[int, ...]]
    others: dict[str, object] = field(default_factory=dict)

    def floats(self) -> dict[str, Tensor]:
        """Return the float arguments, with values that bfloat16 holds exactly."""
        generator = torch.Generator().manual_seed(0)
        drawn = {name: torch.randn(*shape, generator=generator) for name, shape in self.shapes.items()}
        return {name: F.normalize(value, dim=-1).bfloat16().float() for name, value in drawn.items()}

    def result(self, floats: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = self.function(**floats, **self.others)
        return (found,) if isinstance(found, Tensor) else tuple(getattr(found, "__dict__", {}).values()) or tuple(found)


FILLED = torch.tensor([2, 1, 0])
PRECISE = {
    "with_bias_entry": Case(with_bias_entry, {"features": (4, 5)}),
    "classifier_contrast": Case(
        classifier_contrast,
        {"features": (4, 6), "weight": (3, 5), "bias": (3,), "queue": (3, 2, 6)},
        {"filled": FILLED, "labels": LABELS, "temperature": 0.1},
    ),
    "source_cross_entropy": Case(
        source_cross_entropy, {"source_logits": (4, 7), "relationship": (3, 7)}, {"labels": LABELS}
    ),
    "contrastive_loss": Case(
        contrastive_loss,
        {"similarities": (2, 4)},
        {"positive_mask": torch.eye(2, 4).bool(), "valid_mask": torch.ones(2, 4).bool(), "temperature": 0.1},
    ),
    "image_contrast": Case(
        image_contrast,
        {"queries": (4, 5), "keys": (4, 5), "queue": (3, 2, 5)},
        {"filled": FILLED, "labels": LABELS, "temperature": 0.1},
    ),
    "concept_contrast": Case(
        concept_contrast,
        {"queries": (4, 3, 5), "keys": (4, 3, 5), "queue": (3, 2, 3, 5)},
        {
            "filled": FILLED,
            "labels": LABELS,
            "confusing": (LABELS[:, None] + 1) % 3,
            "temperature": 0.1,
            "draws": torch.linspace(0, 0.9, 12).view(4, 3),
        },
    ),
    "focal_contrast": Case(
        focal_contrast,
        {"anchors": (4, 5), "hard_positives": (4, 5), "hard_negatives": (4, 5)},
        {"labels": LABELS, "has_negative": torch.ones(4).bool(), "temperature": 0.1, "focal": 1.0},
    ),
    "distillation": Case(distillation, {"logits": (4, 6), "start_logits": (4, 6)}, {"temperature": 2.0}),
    "spectral_shrinkage": Case(spectral_shrinkage, {"features": (4, 6)}, {"count": 2}),
    "half_squared_distance": Case(
        lambda value, start: half_squared_distance([value], [start]), {"value": (4, 6), "start": (4, 6)}
    ),
    "half_squared_norm": Case(lambda value: half_squared_norm([value]), {"value": (4, 6)}),
    "feature_map_distance": Case(feature_map_distance, {"maps": (2, 3, 4, 4), "start": (2, 3, 4, 4), "weights": (3,)}),
    "find_partners": Case(
        find_partners, {"features": (200, 5)}, {"labels": torch.arange(200) % 3, "uniforms": torch.rand(200)}
    ),
}
PLACED = PRECISE | {
    "gaussian_kl": Case(gaussian_kl, {"mean": (4, 5), "deviation": (4, 5)}),
    "group_means": Case(group_means, {"losses": (4,)}, {"groups": LABELS, "count": 3}),
    "reweighted": Case(reweighted, {"losses": (3,)}, {"weights": torch.full((3,), 1 / 3), "step_size": 0.1}),
    "channel_attention": Case(
        channel_attention, {"pooled": (4, 70), "classifier": (3, 70), "bias": (3,)}, {"labels": LABELS}
    ),
    "concept_contrast with a generator": Case(
        lambda **given: concept_contrast(**given, generator=torch.Generator("cpu").manual_seed(0)),
        PRECISE["concept_contrast"].shapes,
        PRECISE["concept_contrast"].others | {"draws": None},
    ),
    "concept_contrast with global draws": Case(
        concept_contrast, PRECISE["concept_contrast"].shapes, PRECISE["concept_contrast"].others | {"draws": None}
    ),
    "transport_plan": Case(transport_plan, {"cost": (2, 3, 4, 4)}),
    "transport_plan over a wide range": Case(transport_plan, {"cost": (2, 3, 4, 4)}, {"epsilon": 1e-4}),
    "solve_transport": Case(solve_transport, {"cost": (3, 3, 4)}, {"entry": LABELS, "entries": 3}),
    "heaviest_pairs": Case(heaviest_pairs, {"plan": (2, 3, 3)}, {"count": 2}),
}
ARGUMENTS = [(name, argument) for name, case in PRECISE.items() for argument in case.shapes]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_one_argument_in_half_precision_is_computed_in_single(name: str, argument: str) -> None:
    floats = PRECISE[name].floats()
    expected = PRECISE[name].result(floats)
    found = PRECISE[name].result(floats | {argument: floats[argument].bfloat16()})
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", PRECISE)
def test_all_in_half_precision_is_computed_in_single(name: str) -> None:
    floats = PRECISE[name].floats()
    expected = PRECISE[name].result(floats)
    found = PRECISE[name].result({argument: value.bfloat16() for argument, value in floats.items()})
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", PRECISE)
def test_autocast_changes_nothing(name: str) -> None:
    floats = PRECISE[name].floats()
    expected = PRECISE[name].result(floats)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PRECISE[name].result(floats)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", PLACED)
def test_tensors_are_made_where_the_inputs_lie(name: str) -> None:
    """With another default device, whatever is made without naming one does not fit the inputs."""
    floats = PLACED[name].floats()
    torch.manual_seed(0)
    expected = PLACED[name].result(floats)
    torch.manual_seed(0)
    with torch.device("meta"):
        found = PLACED[name].result(floats)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
