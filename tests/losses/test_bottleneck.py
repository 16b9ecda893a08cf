from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from concept_tuning.losses.bottleneck import gaussian_kl


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, generator=generator), torch.rand(4, 6, generator=generator) + 0.05


def test_equals_torchs_divergence_of_normals() -> None:
    mean, deviation = draw()
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mean, deviation), expected)


def test_standard_normal_costs_nothing() -> None:
    assert gaussian_kl(torch.zeros(2, 3), torch.ones(2, 3)).item() == 0
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3), deviation_form="exp-sigma").item() == 0


def test_the_other_form_takes_the_exponential_as_deviation() -> None:
    mean, deviation = draw()
    expected = gaussian_kl(mean, deviation.exp())
    torch.testing.assert_close(gaussian_kl(mean, deviation, deviation_form="exp-sigma"), expected)
    assert not torch.isclose(gaussian_kl(mean, deviation), expected)


def test_gradient_pulls_mean_to_zero_and_deviation_to_one() -> None:
    mean, deviation = (value.requires_grad_() for value in draw())
    gaussian_kl(mean, deviation).backward()
    torch.testing.assert_close(mean.grad, mean.detach() / 4)
    torch.testing.assert_close(deviation.grad, (deviation - 1 / deviation).detach() / 4)


def test_zero_deviation_stays_finite() -> None:
    assert gaussian_kl(torch.zeros(1, 1), torch.zeros(1, 1)).isfinite()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="deviation_form must be"):
        gaussian_kl(torch.zeros(2, 3), torch.ones(2, 3), deviation_form="variance")  # type: ignore[arg-type]
