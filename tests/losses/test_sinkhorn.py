from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import FIGURES, wave
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.sinkhorn import (
    SCALING_LIMIT,
    Transport,
    _domain,
    _Logarithms,
    _precision,
    _Scaling,
    entries_at_once,
    heaviest_pairs,
    solve_transport,
    transport_plan,
)

GOLDEN = FIGURES["sinkhorn"]


def golden_cost() -> Tensor:
    x = F.normalize(wave((1, 9, 20), 0.7, 0.1), dim=-1)
    y = F.normalize(wave((40, 9, 20), 0.3, 0.2), dim=-1)
    return 1 - x @ y.mT


def slow_sinkhorn(cost: np.ndarray, epsilon: float, limit: int, tolerance: float) -> tuple[np.ndarray, int]:
    """The log-domain loop of METHOD's part 1b.3, set by set in plain numpy."""
    sets, rows, columns = cost.shape
    u, v = np.zeros((sets, rows)), np.zeros((sets, columns))

    def lse(values: np.ndarray, axis: int) -> np.ndarray:
        top = values.max(axis, keepdims=True)
        return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)

    iteration = 0
    while iteration < limit:
        iteration += 1
        before = u
        u = epsilon * (math.log(1 / rows) - lse((v[:, None, :] - cost) / epsilon, 2))
        v = epsilon * (math.log(1 / columns) - lse((u[:, :, None] - cost) / epsilon, 1))
        if np.abs(u - before).sum(1).mean() < tolerance:
            break
    return np.exp((u[:, :, None] + v[:, None, :] - cost) / epsilon), iteration


def test_plan_and_matched_costs_agree_with_the_authors() -> None:
    cost = golden_cost()
    plan = transport_plan(cost)
    solved = solve_transport(cost.permute(1, 2, 0), torch.zeros(40, dtype=torch.int64), 1)
    assert solved.iterations.tolist() == [GOLDEN["iterations"]]
    expected = torch.tensor(GOLDEN["transport_cost"], dtype=torch.float64)
    torch.testing.assert_close((plan * cost).sum((1, 2))[: len(expected)], expected, rtol=1e-4, atol=0)
    row = torch.tensor(GOLDEN["plan_0_row0"], dtype=torch.float64)
    torch.testing.assert_close(plan[0, 0], row, rtol=1e-4, atol=1e-12)
    for count in (3, 10):
        rows, columns = heaviest_pairs(plan[:4], count)
        matched = cost[torch.arange(4)[:, None], rows, columns]
        expected = torch.tensor(GOLDEN[f"matched_cost_top{count}_sets0to3"])
        torch.testing.assert_close(matched, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("epsilon", "shape"), [(0.01, (3, 9, 9)), (0.05, (2, 4, 7)), (0.002, (2, 5, 5))])
def test_plan_equals_the_slow_loop(epsilon: float, shape: tuple[int, ...]) -> None:
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    expected, iterations = slow_sinkhorn(cost.numpy(), epsilon, 200, 1e-3)
    plan = transport_plan(cost, epsilon=epsilon)
    np.testing.assert_allclose(plan.numpy(), expected, rtol=1e-8, atol=1e-14)
    entry = torch.zeros(shape[0], dtype=torch.int64)
    assert solve_transport(cost.permute(1, 2, 0), entry, 1, epsilon=epsilon).iterations.item() == iterations


def test_both_domains_give_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = golden_cost()
    scaled = transport_plan(cost)
    monkeypatch.setattr("concept_tuning.losses.sinkhorn.SCALING_LIMIT", 0.0)
    torch.testing.assert_close(transport_plan(cost), scaled, rtol=1e-9, atol=1e-15)


def test_constant_cost_gives_the_product_of_the_marginals() -> None:
    plan = transport_plan(torch.full((2, 3, 5), 0.7))
    torch.testing.assert_close(plan, torch.full((2, 3, 5), 1 / 15, dtype=torch.float64))


def test_two_by_two_closed_form() -> None:
    # minimising <cost, plan> - epsilon * entropy with marginals 1/2: plan_00 = sigmoid(gap / (2 epsilon)) / 2
    cost, epsilon = torch.tensor([[[0.0, 0.3], [0.2, 0.1]]]), 0.1
    gap = (0.3 + 0.2 - 0.0 - 0.1) / (2 * epsilon)
    expected = 0.5 / (1 + math.exp(-gap))
    plan = transport_plan(cost, epsilon=epsilon, max_iterations=10_000, tolerance=1e-12)
    assert plan[0, 0, 0].item() == pytest.approx(expected, rel=1e-6)
    assert plan[0, 0, 1].item() == pytest.approx(0.5 - expected, rel=1e-6)


def test_a_cheap_permutation_is_found() -> None:
    order = torch.tensor([2, 0, 3, 1])
    cost = torch.ones(1, 4, 4)
    cost[0, torch.arange(4), order] = 0
    rows, columns = heaviest_pairs(transport_plan(cost), 4)
    assert dict(zip(rows[0].tolist(), columns[0].tolist(), strict=True)) == dict(enumerate(order.tolist()))


def test_entries_stop_as_if_alone_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(6, 4, 5, 5, generator=generator)
    cost[2] *= 0.01
    together = transport_plan(cost)
    for entry in range(6):
        torch.testing.assert_close(together[entry], transport_plan(cost[entry]), rtol=1e-12, atol=1e-30)
    monkeypatch.setattr("concept_tuning.losses.sinkhorn._CPU_ENTRIES", 1)
    torch.testing.assert_close(together, transport_plan(cost), rtol=1e-12, atol=1e-30)


def test_entries_are_solved_together_while_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, counts = torch.rand(6, 4, 5, 5), []

    def counting(block: Tensor, entry: Tensor, entries: int, **settings: float) -> Transport:
        counts.append(entries)
        return solve_transport(block, entry, entries, **settings)

    monkeypatch.setattr("concept_tuning.losses.sinkhorn.solve_transport", counting)
    transport_plan(cost)
    monkeypatch.setattr("concept_tuning.losses.sinkhorn._CPU_ENTRIES", 4 * 100)
    transport_plan(cost)
    assert counts == [6, 4, 2]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_what_does_not_stop_takes_all_iterations(limit: int) -> None:
    cost = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, _ = slow_sinkhorn(cost.numpy(), 0.05, limit, 0)
    solved = solve_transport(
        cost.permute(1, 2, 0), torch.tensor([0, 0]), 1, epsilon=0.05, max_iterations=limit, tolerance=0
    )
    np.testing.assert_allclose(solved.plan.permute(2, 0, 1).numpy(), expected, rtol=1e-9)
    assert solved.iterations.tolist() == [limit]


def test_it_stops_below_the_tolerance_and_not_at_it() -> None:
    """Of a constant cost the duals do not change at all from the second iteration on."""
    found = [solve_transport(torch.ones(2, 2, 1), torch.tensor([0]), 1, tolerance=value) for value in (0, 1e-3)]
    assert [solved.iterations.tolist() for solved in found] == [[200], [2]]


def test_no_sets_are_solved_at_once() -> None:
    solved = solve_transport(torch.zeros(2, 3, 0), torch.zeros(0, dtype=torch.int64), 1)
    assert (solved.plan.shape, solved.iterations.tolist()) == ((2, 3, 0), [1])


def test_the_fast_domain_is_taken_up_to_its_limit_where_there_is_double_precision() -> None:
    for largest, domain in ((SCALING_LIMIT - 1, _Scaling), (SCALING_LIMIT, _Logarithms)):
        cost = torch.tensor([0.0, largest]).view(1, 2, 1)
        assert isinstance(_domain(cost, 1.0), domain)
    assert [_precision(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [torch.float64] * 2 + [torch.float32]


def test_as_many_entries_as_fit_are_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concept_tuning.losses.sinkhorn._CPU_ENTRIES", 100)
    monkeypatch.setattr("concept_tuning.losses.sinkhorn._DEVICE_ENTRIES", 1000)
    assert [entries_at_once(size, torch.device("cpu")) for size in (0, 1, 10, 101)] == [100, 100, 10, 1]
    assert entries_at_once(10, torch.device("cuda")) == 100


def test_without_a_stop_there_are_200_iterations() -> None:
    cost = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    plan = transport_plan(cost, epsilon=0.005, tolerance=0)
    assert torch.equal(plan, transport_plan(cost, epsilon=0.005, tolerance=0, max_iterations=200))
    assert not torch.equal(plan, transport_plan(cost, epsilon=0.005, tolerance=0, max_iterations=201))


def test_nothing_keeps_a_gradient_and_an_entry_may_be_empty() -> None:
    cost = torch.rand(2, 3, 3, requires_grad=True)
    assert not transport_plan(cost).requires_grad
    solved = solve_transport(cost.permute(1, 2, 0), torch.zeros(2, dtype=torch.int64), 2)
    assert solved.iterations[1].item() == 1
    assert transport_plan(torch.zeros(0, 2, 3, 3)).shape == (0, 2, 3, 3)


def test_single_concept_moves_all_its_mass() -> None:
    for cost in (1.3, 1e6):
        assert transport_plan(torch.tensor([[[cost]]])).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transport_plan(torch.zeros(3, 3)), r"cost must be .* got \(3, 3\)"),
        (lambda: transport_plan(torch.zeros(1, 0, 3)), "cost must be"),
        (lambda: transport_plan(torch.zeros(0, 2, 3)), r"S, P, Q >= 1, got \(0, 2, 3\)"),
        (lambda: transport_plan(torch.zeros(1, 2, 2), epsilon=0), "epsilon must be > 0"),
        (lambda: transport_plan(torch.zeros(1, 2, 2), max_iterations=0), "max_iterations >= 1"),
        (lambda: solve_transport(torch.zeros(2, 2, 3), torch.zeros(2, dtype=torch.int64), 1), r"entry \(N,\)"),
        (lambda: heaviest_pairs(torch.zeros(2, 2), 0), "count >= 1"),
        (lambda: heaviest_pairs(torch.zeros(2), 1), "plan must be"),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_heaviest_pairs_are_ordered_and_clipped() -> None:
    plan = torch.tensor([[0.1, 0.4], [0.2, 0.3]])
    rows, columns = heaviest_pairs(plan, 9)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 1), (1, 0), (0, 0)]
    assert [place.tolist() for place in heaviest_pairs(plan, 1)] == [[0], [1]]
    plans = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for plan, row, column in zip(plans, *heaviest_pairs(plans, 5), strict=True):
        found = list(zip(row.tolist(), column.tolist(), strict=True))
        assert found == sorted(np.ndindex(3, 4), key=lambda place: -float(plan[place]))[:5]
