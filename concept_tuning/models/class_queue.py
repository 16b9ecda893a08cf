"""A first-in-first-out store of keys for each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassQueue(nn.Module):
    """One ring of the last ``size`` keys for each class, all of it in the state dict.

    The queue of Bi-Tuning and Concept-Tuning (arXiv 2311.06868, part 1). Of class c the first ``filled[c]``
    slots are in use, and ``pointer[c]`` is the slot the next key goes to.

    Args:
        classes: Number C of classes, >= 1.
        size: Number K of keys kept for each class, >= 1.
        key_shape: Shape of one key.

    Raises:
        ValueError: If ``classes`` or ``size`` is below 1.
    """

    keys: Tensor
    filled: Tensor
    pointer: Tensor

    def __init__(self, classes: int, size: int, key_shape: tuple[int, ...]) -> None:
        super().__init__()
        if classes < 1 or size < 1:
            raise ValueError(f"classes and size must be >= 1, got {classes} and {size}.")
        self.register_buffer("keys", torch.zeros(classes, size, *key_shape))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        """Store keys in the order of the batch, each over the oldest key of its class.

        Where a batch holds more than K keys of a class, its last K stay.

        Args:
            keys: (B, *key_shape); stored detached, in the queue's type.
            labels: (B,) int64, 0..C-1.

        Raises:
            ValueError: If the shapes do not fit the queue.
        """
        classes, size = self.keys.shape[:2]
        if keys.shape[1:] != self.keys.shape[2:] or labels.shape != keys.shape[:1]:
            raise ValueError(
                f"keys must be (B, {', '.join(map(str, self.keys.shape[2:]))}) and labels (B,), got "
                f"{tuple(keys.shape)} and {tuple(labels.shape)}."
            )
        same = labels[:, None] == labels
        earlier = same.tril(-1).sum(1)
        kept = same.triu(1).sum(1) < size
        slots = (self.pointer[labels] + earlier) % size
        self.keys[labels[kept], slots[kept]] = keys[kept].to(self.keys.dtype)
        arrived = torch.bincount(labels, minlength=classes)
        self.pointer.add_(arrived).remainder_(size)
        self.filled.add_(arrived).clamp_(max=size)

    def of_class(self, label: int) -> Tensor:
        """Return the stored keys of one class, (filled, *key_shape), the oldest first."""
        size, filled = self.keys.shape[1], self.filled[label]
        order = torch.arange(int(filled), device=self.keys.device)
        return self.keys[label, (self.pointer[label] - filled + order) % size]
