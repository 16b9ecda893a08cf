"""Stochastic normalisation of one layer in closed form."""

from __future__ import annotations

import torch
from torch import nn

from concept_tuning.methods.stoch_norm import make_stochastic


def test_the_chosen_channels_are_normalised_by_the_statistics_that_the_batch_has_moved() -> None:
    layer = nn.BatchNorm2d(3, momentum=0.25, eps=1e-12, affine=False)
    layer.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    layer.running_var.copy_(torch.tensor([4.0, 0.5, 2.0]))
    (stochastic,) = make_stochastic(layer)
    stochastic.chosen = torch.tensor([True, False, True])
    inputs = torch.randn(5, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    mean, unbiased, biased = inputs.mean((0, 2, 3)), inputs.var((0, 2, 3)), inputs.var((0, 2, 3), correction=0)
    moved_mean = 0.75 * torch.tensor([1.0, -2.0, 0.5]) + 0.25 * mean
    moved_variance = 0.75 * torch.tensor([4.0, 0.5, 2.0]) + 0.25 * unbiased
    centre = torch.where(stochastic.chosen, moved_mean, mean).view(1, 3, 1, 1)
    variance = torch.where(stochastic.chosen, moved_variance, biased).view(1, 3, 1, 1)
    found = layer.train()(inputs)
    torch.testing.assert_close(found, (inputs - centre) / variance.sqrt())
    torch.testing.assert_close(layer.running_mean, moved_mean)
    assert layer.training
