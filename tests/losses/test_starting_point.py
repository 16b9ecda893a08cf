"""Distances from the start against closed forms and slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from concept_tuning.config_methods import DeltaConfig
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


@pytest.mark.parametrize("times", [2, 5])
def test_the_distance_does_not_depend_on_the_size_of_the_batch(times: int) -> None:
    maps, start = torch.randn(2, 3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    expected = feature_map_distance(maps, start).item()
    found = feature_map_distance(maps.repeat(times, 1, 1, 1), start.repeat(times, 1, 1, 1)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_default_weight_is_that_of_the_librarys_sum_at_its_batch() -> None:
    """The term of the Transfer-Learning-Library, written from its code, at its batch of 48 with its 0.01."""
    maps, start = torch.randn(2, 48, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(5, generator=torch.Generator().manual_seed(1)).softmax(0)
    lengths = torch.linalg.vector_norm((maps - start).flatten(2), dim=2)
    theirs = 0.01 * 0.5 * (5 * weights * lengths**2 / (2 * 4)).sum()
    found = DeltaConfig().weight * feature_map_distance(maps, start, weights)
    assert found.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_attention_is_the_softmax_of_the_standardised_rises_of_the_loss_over_five() -> None:
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
    values = np.array([rise.item() for rise in rises])
    expected = torch.tensor((values - values.mean()) / values.std() / 5).float().softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_few_of_many_channels_that_matter_weigh_more_however_little_the_loss_rises() -> None:
    """4 of 1280 channels tell the class and the others nothing; the plain softmax would weigh all alike."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(60) % 2
    pooled = torch.rand(60, 1280, generator=generator)
    weight = 0.001 * torch.randn(2, 1280, generator=generator)
    pooled[:, :4] = labels[:, None].float()
    weight[:, :4] = torch.tensor([[-0.1], [0.1]])
    found = 1280 * channel_attention(pooled, labels, weight, torch.zeros(2))
    assert found[:4].min().item() > 3
    assert found[4:].max().item() < 1.5
    assert found[:4].min() > 2 * found[4:].max()


def test_channels_of_which_none_matters_more_weigh_alike() -> None:
    pooled, labels = torch.ones(6, 5), torch.arange(6) % 3
    found = channel_attention(pooled, labels, torch.zeros(3, 5), torch.zeros(3))
    assert found.tolist() == pytest.approx([0.2] * 5)
