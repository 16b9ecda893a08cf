"""Steps of group DRO in closed form, and whose batches are drawn evenly over the groups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from rivals import build, rival_config
from torch import Tensor, nn

from concept_tuning.methods.base import Batch, Method, StepContext
from concept_tuning.methods.group_dro import GroupDro
from concept_tuning.methods.registry import METHODS


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


#: Cross-entropy of the logits (1, 0) for class 0 and class 1, in each of two groups.
LOSSES = torch.tensor([0.3133, 0.3133, 1.3133, 1.3133])
ROOTS = torch.tensor([30.0, 18.0, 2.0, 10.0]).rsqrt()


def with_fixed_losses(**settings: object) -> Method:
    method = build(GroupDro, rival_config("group_dro", **settings), classes=2).eval()
    method.prepare(RarePictures())
    method.backbone, method.classifier = nn.Identity(), FixedLosses()
    return method


def step(method: Method, cells: list[int]) -> float:
    batch = torch.tensor(cells)
    context = StepContext(torch.Generator(), groups=batch % 2)
    terms, keep = method(torch.zeros(len(batch), 1, 3, 8, 8), batch // 2, context)
    method.after_step(keep)
    return terms["cross_entropy"].item()


def test_weights_and_gradient_are_those_of_the_authors_step() -> None:
    """The loss is the group means by the raised weights; the adjustment is in the weights, and theirs reports it."""
    method = with_fixed_losses(step_size=0.5, adjustment=1.0)
    found = step(method, [0, 0, 0, 1, 2, 3, 3])
    weights = (0.5 * (LOSSES + ROOTS)).softmax(0)
    assert found == pytest.approx((weights * LOSSES).sum().item(), rel=1e-3)
    torch.testing.assert_close(method.weights.flatten(), weights, rtol=1e-3, atol=0)


def test_a_group_that_is_not_in_the_batch_adds_no_loss_and_is_raised_by_its_adjustment_alone() -> None:
    method = with_fixed_losses(step_size=0.5, adjustment=1.0)
    found = step(method, [0, 1, 3])
    there = LOSSES * torch.tensor([1, 1, 0, 1])
    weights = (0.5 * (there + ROOTS)).softmax(0)
    assert found == pytest.approx((weights * there).sum().item(), rel=1e-3)
    torch.testing.assert_close(method.weights.flatten(), weights, rtol=1e-3, atol=0)


def test_it_alone_draws_its_batches_evenly_over_the_groups() -> None:
    assert [name for name, kind in METHODS.items() if kind.even_groups] == ["group-dro"]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_what_is_loaded_goes_to_the_method_s_device() -> None:
    """A checkpoint is read into main memory, after the method has moved to its device."""
    saved = {name: values for name, values in with_fixed_losses().state_dict().items() if name in ("weights", "sizes")}
    method = with_fixed_losses().to("meta")
    method.load_state_dict(saved, strict=False)
    assert {method.weights.device.type, method.sizes.device.type} == {"meta"}
    assert method.weights.shape == (2, 2)
