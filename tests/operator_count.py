"""Torch's operators as a measure of work that is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def operators(work: Callable[[], object]) -> list[str]:
    """Return the names of the operators that some work takes, in order, those of its backward pass among them."""
    with _Operators() as seen:
        work()
    return seen.names
