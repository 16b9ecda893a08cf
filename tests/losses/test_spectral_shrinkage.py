"""Batch spectral shrinkage against closed forms."""

from __future__ import annotations

import pytest
import torch

from concept_tuning.losses.spectral_shrinkage import spectral_shrinkage


def test_of_a_diagonal_matrix_it_is_the_smallest_squares() -> None:
    features = torch.zeros(3, 5)
    features[range(3), range(3)] = torch.tensor([3.0, -1.0, 2.0])
    assert spectral_shrinkage(features, count=1).item() == pytest.approx(1)
    assert spectral_shrinkage(features, count=2).item() == pytest.approx(1 + 4)
    assert spectral_shrinkage(features, count=99).item() == pytest.approx(1 + 4 + 9)


def test_all_of_them_are_the_squared_frobenius_norm_and_gradient_flows() -> None:
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    total = spectral_shrinkage(features, count=4)
    assert total.item() == pytest.approx(features.pow(2).sum().item(), rel=1e-5)
    total.backward()
    torch.testing.assert_close(features.grad, 2 * features.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "count"), [((3,), 1), ((2, 3, 4), 1), ((2, 3), 0)])
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        spectral_shrinkage(torch.zeros(shape), count=count)
