"""Group DRO in batches drawn as the data lie: in expectation it is group DRO on whole groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rivals import build, rival_config
from torch import Tensor, nn

from concept_tuning.methods.base import Batch, Method, StepContext
from concept_tuning.methods.group_dro import GroupDro


class FixedLosses(nn.Module):
    """A classifier of 2 classes whose loss for an image of class 0 or 1 does not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(1.0))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([self.logit, torch.zeros(())]).expand(len(features), 2)


class RarePictures:
    """60 pictures of 2 classes in 2 groups, one cell of which has 2."""

    def batches(self, split: str) -> Iterator[Batch]:
        raise AssertionError(split)

    def group_counts(self) -> Tensor:
        return torch.tensor([[30, 18], [2, 10]])


def drawn_as_the_data_lie(method: Method, steps: int) -> list[float]:
    """Give a method batches of 8 as a run draws them, and return the loss of each."""
    cells = torch.arange(4).repeat_interleave(torch.tensor([30, 18, 2, 10]))
    generator, views, found = torch.Generator().manual_seed(3), torch.zeros(8, 1, 3, 32, 32), []
    order: list[Tensor] = []
    for _ in range(steps):
        order = order or list(torch.randperm(60, generator=generator)[:56].split(8))
        batch = cells[order.pop()]
        terms, keep = method(views, batch // 2, StepContext(generator, groups=batch % 2))
        method.after_step(keep)
        found.append(terms["cross_entropy"].item())
    return found


def with_fixed_losses(**settings: object) -> Method:
    method = build(GroupDro, rival_config("group_dro", **settings), classes=2).eval()
    method.prepare(RarePictures())
    method.backbone, method.classifier = nn.Identity(), FixedLosses()
    return method


@pytest.fixture
def fixed() -> Method:
    return with_fixed_losses(step_size=0.001)


def test_group_dro_trains_on_the_whole_groups_in_expectation_though_one_is_absent_from_most_batches(
    fixed: Method,
) -> None:
    """Class 0's loss is log(1 + 1/e) = 0.31 and class 1's 1.31; by even weights of the cells their mean is 0.81."""
    start = fixed.weights.clone()
    found = []
    for _ in range(20):
        fixed.weights = start.clone()
        found += drawn_as_the_data_lie(fixed, 35)
    assert np.mean(found) == pytest.approx(0.8133, rel=0.03)


def test_group_dro_raises_a_rare_cells_weight_as_a_frequent_ones_with_the_same_loss(fixed: Method) -> None:
    """Exponentiated ascent over whole groups gives the closed form; only present cells raised would leave it behind."""
    drawn_as_the_data_lie(fixed, 1400)
    losses = torch.tensor([0.3133, 0.3133, 1.3133, 1.3133])
    expected = (0.001 * 1400 * losses).softmax(0)
    torch.testing.assert_close(fixed.weights.flatten(), expected, rtol=0.08, atol=0)


def test_group_dro_with_every_group_in_every_batch_is_the_authors_step() -> None:
    """The whole set as one batch: the loss is the group means by the raised weights, with the adjustment in these."""
    method = with_fixed_losses(step_size=0.5, adjustment=1.0)
    cells = torch.arange(4).repeat_interleave(torch.tensor([30, 18, 2, 10]))
    terms, _ = method(torch.zeros(60, 1, 3, 8, 8), cells // 2, StepContext(torch.Generator(), groups=cells % 2))
    means = torch.tensor([0.3133, 0.3133, 1.3133, 1.3133])
    raised = torch.exp(0.5 * (means + torch.tensor([30.0, 18.0, 2.0, 10.0]).rsqrt()))
    expected = (raised / raised.sum() * means).sum()
    assert terms["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-3)
