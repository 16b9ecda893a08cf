"""Entropic optimal transport between many small sets at once.

The plan only *selects* the pairs of concepts that are contrasted (Concept-Tuning, arXiv 2311.06868,
section on rare features), so nothing here keeps a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: Largest max|cost| / epsilon solved by scaling: kernel, scalings and their products then stay well
#: inside the range of float64 (about e^-745 to e^709).
SCALING_LIMIT = 300.0
#: Plan entries solved at once on a CPU (its second-level cache holds them) and elsewhere (bounds the memory).
_CPU_ENTRIES, _DEVICE_ENTRIES = 1 << 17, 1 << 23


@dataclass(frozen=True)
class Transport:
    """Plans of many sets.

    Attributes:
        plan: (P, Q, N), each (P, Q) slice sums to 1.
        iterations: (E,) int64, the iterations that each entry took.
    """

    plan: Tensor
    iterations: Tensor


class _Domain(Protocol):
    """One way to write the two duals (P, N) and (Q, N) of N problems; changes are in units of epsilon."""

    def start(self) -> tuple[Tensor, Tensor]: ...

    def step(self, second: Tensor) -> tuple[Tensor, Tensor]: ...

    def change(self, new: Tensor, old: Tensor) -> Tensor: ...

    def plan(self, first: Tensor, second: Tensor) -> Tensor: ...

    def keep(self, columns: Tensor) -> _Domain: ...


class _Scaling:
    """Duals as scalings a, b of the kernel exp(-cost / epsilon): plan = a * kernel * b."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel
        self.work = torch.empty_like(kernel)
        self.marginals = tuple(torch.tensor(1 / size, dtype=kernel.dtype, device="cpu") for size in kernel.shape[:2])

    def start(self) -> tuple[Tensor, Tensor]:
        rows, columns, count = self.kernel.shape
        return self.kernel.new_ones(rows, count), self.kernel.new_ones(columns, count)

    def step(self, second: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.mul(self.kernel, second, out=self.work).sum(1)
        torch.div(self.marginals[0], first, out=first)
        second = torch.mul(self.kernel, first[:, None], out=self.work).sum(0)
        torch.div(self.marginals[1], second, out=second)
        return first, second

    def change(self, new: Tensor, old: Tensor) -> Tensor:
        return (new / old).log_().abs_().sum(0)

    def plan(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.kernel * second).mul_(first[:, None])

    def keep(self, columns: Tensor) -> _Scaling:
        return _Scaling(self.kernel.index_select(2, columns))


class _Logarithms:
    """Duals divided by epsilon: plan = exp(f + g - cost / epsilon); slower, for any range of costs."""

    def __init__(self, exponent: Tensor) -> None:
        self.exponent = exponent

    def start(self) -> tuple[Tensor, Tensor]:
        rows, columns, count = self.exponent.shape
        return self.exponent.new_zeros(rows, count), self.exponent.new_zeros(columns, count)

    def step(self, second: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns, _ = self.exponent.shape
        first = -(self.exponent + second).logsumexp(1) - math.log(rows)
        second = -(self.exponent + first[:, None]).logsumexp(0) - math.log(columns)
        return first, second

    def change(self, new: Tensor, old: Tensor) -> Tensor:
        return (new - old).abs_().sum(0)

    def plan(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.exponent + second).add_(first[:, None]).exp_()

    def keep(self, columns: Tensor) -> _Logarithms:
        return _Logarithms(self.exponent.index_select(2, columns))


@torch.no_grad()
def transport_plan(
    cost: Tensor, *, epsilon: float = 0.01, max_iterations: int = 200, tolerance: float = 1e-3
) -> Tensor:
    """Return the entropic transport plans of many small cost matrices, with uniform marginals.

    The S sets of one leading entry are solved together and stop together: at the first iteration in
    which the mean over the sets of sum_i |u_new - u_old| is below ``tolerance`` (u: the first dual, in
    units of the cost). Each leading entry stops by itself, as if it were alone.

    Args:
        cost: (..., S, P, Q), S, P, Q >= 1; any leading shape, also none.
        epsilon: Entropic regularisation, in units of the cost, > 0.
        max_iterations: Most Sinkhorn iterations, >= 1.
        tolerance: Threshold of the stopping rule, in units of the cost.

    Returns:
        (..., S, P, Q) in float64 (float32 where the device has none), without gradient. Each plan sums
        to 1; the column sums are exactly 1/Q, the row sums 1/P up to convergence.

    Raises:
        ValueError: If ``cost`` has fewer than three dimensions or is empty in one of the last three, or a setting is
            out of range.
    """
    if cost.ndim < 3 or 0 in cost.shape[-3:]:
        raise ValueError(f"cost must be (..., S, P, Q) with S, P, Q >= 1, got {tuple(cost.shape)}.")
    sets, rows, columns = cost.shape[-3:]
    flat = cost.reshape(-1, sets, rows, columns)
    plan = torch.empty_like(flat, dtype=_precision(cost.device), memory_format=torch.contiguous_format)
    together = entries_at_once(sets * rows * columns, cost.device)
    for start in range(0, len(flat), together):
        block = flat[start : start + together]
        entry = torch.arange(len(block), device=cost.device).repeat_interleave(sets)
        solved = solve_transport(
            block.permute(2, 3, 0, 1).reshape(rows, columns, -1),
            entry,
            len(block),
            epsilon=epsilon,
            max_iterations=max_iterations,
            tolerance=tolerance,
        )
        plan[start : start + together] = solved.plan.view(rows, columns, len(block), sets).permute(2, 3, 0, 1)
    return plan.reshape(cost.shape)


@torch.no_grad()
def solve_transport(
    cost: Tensor,
    entry: Tensor,
    entries: int,
    *,
    epsilon: float = 0.01,
    max_iterations: int = 200,
    tolerance: float = 1e-3,
) -> Transport:
    """Solve N problems that belong to entries of any size; :func:`transport_plan` in its inner layout.

    Args:
        cost: (P, Q, N); the sets are the contiguous axis, over which all work is vectorised.
        entry: (N,) int64, the entry 0..``entries``-1 that each set stops with; in any order.
        entries: Number of entries; an entry without sets is done after one iteration.
        epsilon: See :func:`transport_plan`.
        max_iterations: See :func:`transport_plan`.
        tolerance: See :func:`transport_plan`.

    Raises:
        ValueError: If the shapes do not fit together or a setting is out of range.
    """
    if cost.ndim != 3 or entry.shape != cost.shape[2:]:
        raise ValueError(f"cost must be (P, Q, N) and entry (N,), got {tuple(cost.shape)} and {tuple(entry.shape)}.")
    if epsilon <= 0 or max_iterations < 1:
        raise ValueError(f"epsilon must be > 0 and max_iterations >= 1, got {epsilon} and {max_iterations}.")
    domain = _domain(cost, epsilon)
    first, second = domain.start()
    sets = torch.bincount(entry, minlength=entries)
    threshold = (sets.to(first.dtype) * (tolerance / epsilon)).masked_fill_(sets == 0, math.inf)
    iterations = torch.full((entries,), max_iterations, device=cost.device)
    plan = torch.empty_like(cost, dtype=first.dtype)
    columns = torch.arange(cost.shape[2], device=cost.device)
    for iteration in range(1, max_iterations + 1):
        before = first
        first, second = domain.step(second)
        stops = first.new_zeros(entries).index_add_(0, entry, domain.change(first, before)) < threshold
        if not stops.any():
            continue
        iterations.masked_fill_(stops, iteration)
        threshold.masked_fill_(stops, -1)
        done = stops[entry]
        gone, left = done.nonzero().squeeze(1), (~done).nonzero().squeeze(1)
        plan.index_copy_(2, columns[gone], domain.keep(gone).plan(first[:, gone], second[:, gone]))
        domain, columns, entry = domain.keep(left), columns[left], entry[left]
        first, second = first[:, left], second[:, left]
        if not len(columns):
            break
    plan.index_copy_(2, columns, domain.plan(first, second))
    return Transport(plan, iterations)


def heaviest_pairs(plan: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the ``count`` heaviest entries of each plan, heaviest first.

    Args:
        plan: (..., P, Q).
        count: Number of pairs, >= 1; clipped to P * Q.

    Returns:
        Two int64 tensors (..., min(count, P * Q)).

    Raises:
        ValueError: If ``plan`` has fewer than two dimensions or ``count`` is below 1.
    """
    if plan.ndim < 2 or count < 1:
        raise ValueError(f"plan must be (..., P, Q) and count >= 1, got {tuple(plan.shape)} and {count}.")
    flat = plan.flatten(-2)
    chosen = flat.topk(min(count, flat.shape[-1]), dim=-1).indices
    return chosen // plan.shape[-1], chosen % plan.shape[-1]


def entries_at_once(size: int, device: torch.device) -> int:
    """Return how many leading entries of ``size`` plan entries each are best solved together, at least one."""
    limit = _CPU_ENTRIES if device.type == "cpu" else _DEVICE_ENTRIES
    return max(1, limit // max(1, size))


def _domain(cost: Tensor, epsilon: float) -> _Domain:
    exponent = cost.to(_precision(cost.device)).div(-epsilon)
    within = cost.numel() == 0 or bool(exponent.abs().amax() < SCALING_LIMIT)
    if within and exponent.dtype == torch.float64:
        return _Scaling(exponent.exp_())
    return _Logarithms(exponent)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
