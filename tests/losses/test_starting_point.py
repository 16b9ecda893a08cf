"""Distances from the start against closed forms and slow references."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from concept_tuning.losses.starting_point import (
    channel_attention,
    feature_map_distance,
    half_squared_distance,
    half_squared_norm,
)


def test_half_squares_in_closed_form() -> None:
    values = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    start = [torch.tensor([1.0, 0.0]), torch.tensor([[0.0]])]
    assert half_squared_distance(values, start).item() == pytest.approx((4 + 9) / 2)
    assert half_squared_norm(values).item() == pytest.approx((1 + 4 + 9) / 2)
    assert half_squared_distance([], []).item() == half_squared_norm([]).item() == 0
    with pytest.raises(ValueError, match="shape"):
        half_squared_distance(values, [start[0], torch.zeros(2)])
    with pytest.raises(ValueError, match="argument"):
        half_squared_distance(values, start[:1])


def test_the_gradient_of_the_distance_points_back_to_the_start() -> None:
    value = torch.tensor([2.0, -1.0], requires_grad=True)
    half_squared_distance([value], [torch.tensor([0.5, 0.5])]).backward()
    assert value.grad.tolist() == [1.5, -1.5]


def test_the_feature_maps_distance_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, start = (torch.randn(3, 5, 2, 4, generator=generator) for _ in range(2))
    weights = torch.rand(5, generator=generator).softmax(0)
    expected = 0.0
    for image in range(3):
        for channel in range(5):
            gap = (maps[image, channel] - start[image, channel]).pow(2).mean()
            expected += 5 * weights[channel] * gap / (2 * 3)
    assert feature_map_distance(maps, start, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    even = feature_map_distance(maps, start, torch.full((5,), 0.2))
    assert feature_map_distance(maps, start).item() == pytest.approx(even.item(), rel=1e-5)
    assert feature_map_distance(maps, maps, weights).item() == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="alike"):
        feature_map_distance(maps, maps[:1])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        feature_map_distance(maps, maps, torch.ones(4))


def test_attention_is_the_softmax_of_what_the_loss_rises_without_a_channel() -> None:
    generator = torch.Generator().manual_seed(1)
    pooled, labels = torch.randn(7, 70, generator=generator), torch.arange(7) % 3
    weight, bias = torch.randn(3, 70, generator=generator), torch.randn(3, generator=generator)
    base = F.cross_entropy(pooled @ weight.T + bias, labels)
    rises = []
    for channel in range(70):
        without = pooled.clone()
        without[:, channel] = 0
        rises.append(F.cross_entropy(without @ weight.T + bias, labels) - base)
    found = channel_attention(pooled, labels, weight, bias)
    torch.testing.assert_close(found, torch.stack(rises).softmax(0), rtol=1e-4, atol=1e-6)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
