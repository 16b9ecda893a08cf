from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from concept_tuning.models.momentum import frozen_running_statistics, momentum_copy, update_momentum_copy


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.InstanceNorm2d(2, affine=True))


def images(seed: int = 0) -> Tensor:
    return 3 + 2 * torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_copy_starts_equal_stands_apart_and_takes_no_gradient() -> None:
    query = small()
    query(images()).square().sum().backward()
    twin = momentum_copy(query)
    assert same(query.state_dict(), twin.state_dict())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in query.parameters())
    with torch.no_grad():
        query[0].weight.add_(1)
    assert not torch.equal(query[0].weight, twin[0].weight)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999, 1.0])
def test_many_updates_follow_the_closed_form(momentum: float) -> None:
    """A query that stays still: key = m^n * key_0 + (1 - m^n) * query."""
    query = nn.Linear(3, 2).double()
    key = momentum_copy(query)
    with torch.no_grad():
        query.weight.normal_()
    start, target = key.weight.clone(), query.weight.detach().clone()
    for _ in range(20):
        update_momentum_copy(query, key, momentum)
    kept = momentum**20
    torch.testing.assert_close(key.weight, kept * start + (1 - kept) * target, rtol=1e-12, atol=1e-12)
    assert torch.equal(query.weight, target)


def test_a_moving_query_is_averaged_with_falling_weights() -> None:
    query = nn.Linear(1, 1, bias=False)
    key = momentum_copy(query)
    nn.init.constant_(key.weight, 8.0)
    for value in (16.0, 0.0, 4.0):
        nn.init.constant_(query.weight, value)
        update_momentum_copy(query, key, 0.5)
    assert key.weight.item() == 8 / 8 + 16 / 8 + 0 / 4 + 4 / 2


def test_parameters_move_and_buffers_stay() -> None:
    query = small()
    key = momentum_copy(query)
    query.train()(images())
    with torch.no_grad():
        query[1].weight.fill_(3)
    before = buffers(key)
    update_momentum_copy(query, key, 0.75)
    assert same(buffers(key), before)
    assert not torch.equal(query[1].running_mean, key[1].running_mean)
    assert key[1].weight.tolist() == [1.5] * 4
    assert not key[1].weight.requires_grad


def test_the_copy_keeps_its_own_precision() -> None:
    query = nn.Linear(2, 2)
    key = momentum_copy(query).double()
    with torch.no_grad():
        query.weight.fill_(1)
        key.weight.zero_()
    update_momentum_copy(query, key, 0.999)
    # In float32 the sum would be off by about 1e-8.
    torch.testing.assert_close(key.weight, torch.full((2, 2), 0.001, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_that_is_no_share_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=f"momentum must lie between 0 and 1, got {momentum}"):
        update_momentum_copy(nn.Linear(1, 1), nn.Linear(1, 1), momentum)


def test_networks_that_differ_are_refused_and_left_alone() -> None:
    key = nn.Linear(3, 2)
    before = copy.deepcopy(key.state_dict())
    with pytest.raises(ValueError, match=r"only one of them has bias\."):
        update_momentum_copy(nn.Linear(3, 2, bias=False), key, 0.5)
    with pytest.raises(ValueError, match=r"Parameter weight has shape \(2, 4\) in query and \(2, 3\) in key"):
        update_momentum_copy(nn.Linear(4, 2), key, 0.5)
    assert same(key.state_dict(), before)


# Frozen running statistics


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, momentum=None),
        nn.SyncBatchNorm(3),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ],
    ids=["batch", "cumulative", "synchronised", "instance"],
)
def test_statistics_of_the_batch_normalise_and_are_not_kept(norm: nn.Module) -> None:
    norm.train()
    before = buffers(norm)
    with frozen_running_statistics(norm):
        inside = norm(images())
    assert same(buffers(norm), before)
    expected = norm(images())
    torch.testing.assert_close(inside, expected)
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_a_norm_in_evaluation_still_reads_its_running_statistics() -> None:
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    with frozen_running_statistics(norm):
        torch.testing.assert_close(norm(images()), (images() - 3) / 2, rtol=1e-4, atol=1e-4)


def test_a_norm_without_running_statistics_stays_without() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with frozen_running_statistics(norm):
        norm(images())
    assert not norm.track_running_stats


def test_gradient_flows_through_frozen_statistics() -> None:
    frozen = small()
    plain = copy.deepcopy(frozen)
    with frozen_running_statistics(frozen):
        loss = frozen(images()).pow(3).sum()
    loss.backward()
    plain(images()).pow(3).sum().backward()
    for ours, theirs in zip(frozen.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert frozen[0].weight.grad.abs().max() > 0


def test_blocks_may_be_nested() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    before = buffers(network)
    with frozen_running_statistics(network):
        with frozen_running_statistics(network[0]):
            network(images())
        # The inner block's end does not thaw what the outer one froze.
        network(images())
        assert same(buffers(network), before)
    network(images())
    assert network[0].num_batches_tracked.item() == network[1].num_batches_tracked.item() == 1


def test_after_an_error_statistics_are_kept_again() -> None:
    norm = nn.BatchNorm2d(3)
    broken = nn.Sequential(norm, nn.Conv2d(7, 1, 1))
    with pytest.raises(RuntimeError, match="channels"), frozen_running_statistics(broken):
        broken(images())
    assert norm.num_batches_tracked.item() == 0
    norm(images())
    assert norm.num_batches_tracked.item() == 1


def test_a_norm_used_twice_is_thawed() -> None:
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(norm, nn.Sequential(norm))
    with frozen_running_statistics(network):
        network(images())
    assert norm.track_running_stats
    assert norm.num_batches_tracked.item() == 0
