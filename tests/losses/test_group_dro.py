"""Group means and the groups' weights against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from concept_tuning.losses.group_dro import group_means, reweighted


def test_means_and_sizes_of_groups_and_gradient_to_each_image() -> None:
    losses = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    means, sizes = group_means(losses, torch.tensor([2, 0, 2]), count=4)
    assert means.tolist() == [3.0, 0.0, 3.0, 0.0]
    assert sizes.tolist() == [1, 0, 2, 0]
    means[2].backward()
    assert losses.grad.tolist() == [0.5, 0.0, 0.5]
    assert group_means(losses.detach().double(), torch.tensor([2, 0, 2]), count=4)[0].dtype == torch.float64


def test_weights_grow_by_the_exponential_of_the_loss() -> None:
    found = reweighted(torch.tensor([0.5, 0.5]), torch.tensor([0.0, math.log(3.0)]), step_size=1.0)
    assert found.tolist() == pytest.approx([0.25, 0.75])
    weights = torch.tensor([0.5, 0.5])
    for _ in range(200):
        weights = reweighted(weights, torch.tensor([1.0, 2.0]), step_size=0.1)
    assert weights[1].item() == pytest.approx(1, abs=1e-6)


def test_a_weight_of_zero_stays_and_a_great_loss_does_not_overflow() -> None:
    found = reweighted(torch.tensor([0.0, 0.5, 0.5]), torch.tensor([500.0, 400.0, 0.0]), step_size=1.0)
    assert found.tolist() == pytest.approx([0, 1, 0])
