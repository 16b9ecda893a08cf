"""The concept-level contrast for rare features; part 1b of Concept-Tuning (arXiv 2311.06868)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from concept_tuning.losses.contrastive import contrastive_loss
from concept_tuning.losses.sinkhorn import entries_at_once, solve_transport

#: Cosines of queries with queued concepts held at once: 8 MB of them on a CPU, elsewhere 128 MB, for fewer launches.
_CPU_COSINES, _DEVICE_COSINES = 1 << 21, 1 << 25


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How concepts of two sets are matched and how many matched pairs are used.

    Attributes:
        positive_pairs: Heaviest pairs of a positive set's plan that one is drawn from.
        negative_pairs: Heaviest pairs of a negative set's plan, all of which are used.
        epsilon: Entropic regularisation of the plan, in units of the cost 1 - cosine.
        max_iterations: Most Sinkhorn iterations.
        tolerance: Threshold of Sinkhorn's stopping rule, in units of the cost.
    """

    positive_pairs: int = 3
    negative_pairs: int = 10
    epsilon: float = 0.01
    max_iterations: int = 200
    tolerance: float = 1e-3


def concept_contrast(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    filled: Tensor,
    labels: Tensor,
    confusing: Tensor,
    *,
    temperature: float,
    positive_pairs: int = 3,
    negative_pairs: int = 10,
    epsilon: float = 0.01,
    max_iterations: int = 200,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """Return the contrastive loss between matched concepts; part 1b, steps 3 and 4.

    Each query set is matched by optimal transport with its own key set, with the queued sets of its
    class (positives) and with those of its confusing classes (negatives). Of each positive set one
    pair, drawn from the plan's heaviest, and of each negative set all of the heaviest pairs enter
    :func:`contrastive_loss` with their cosines. The plans carry no gradient. Slots of the queue that
    were never filled take no part. All sets of one image stop Sinkhorn's iteration together.

    Args:
        queries: (B, P, E) concept embeddings of the trained network, unit vectors; here E = C.
        keys: (B, P, E) concept embeddings of the momentum copy, unit vectors.
        queue: (C, K, P, E) earlier key sets; of class c the first ``filled[c]`` slots are in use.
        filled: (C,) int64, 0..K.
        labels: (B,) int64, 0..C-1.
        confusing: (B, n) int64, n >= 0 distinct classes other than the label.
        temperature: Softmax temperature, > 0.
        positive_pairs: Heaviest pairs a positive pair is drawn from; clipped to P * P.
        negative_pairs: Heaviest pairs of each negative set; clipped to P * P.
        epsilon: Entropic regularisation of the plans, in units of the cost 1 - cosine.
        max_iterations: Most Sinkhorn iterations.
        tolerance: See :func:`concept_tuning.losses.sinkhorn.transport_plan`.
        generator: Source of the draws of positive pairs; None: torch's global one.
        draws: (B, 1 + K) in [0, 1) to be used instead: column 0 for the own key set, the others for the
            slots of the queue.

    Returns:
        Scalar >= 0; gradient flows through the selected cosines alone, to ``queries`` and ``keys``, once, and never
        to ``queue``.

    Raises:
        ValueError: If the shapes do not fit together, one of B, P, E, C, K is 0, or a setting is out of range.
    """
    _check_shapes(queries, keys, queue, filled, labels, confusing, draws)
    if positive_pairs < 1 or negative_pairs < 1:
        raise ValueError(f"positive_pairs and negative_pairs must be >= 1, got {positive_pairs} and {negative_pairs}.")
    matching = Matching(
        positive_pairs=positive_pairs,
        negative_pairs=negative_pairs,
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    batch, size = len(queries), queue.shape[1]
    classes = torch.cat([labels[:, None], confusing], dim=1)
    in_use = torch.arange(size, device=labels.device) < filled[classes][..., None]
    if draws is None:
        source = queries.device if generator is None else generator.device
        draws = torch.rand(batch, 1 + size, generator=generator, device=source).to(queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries, queue = queries.to(dtype), queue.to(dtype)
        own = queries @ keys.to(dtype).mT
        chosen = _choose(queries.detach(), own.detach(), queue, classes, in_use, draws, matching)
        cosines = _QueuedCosines.apply(queries, queue.flatten(0, 2), chosen.places, chosen.cosines)
    similarities = torch.cat([own.flatten(1).gather(1, chosen.own), cosines], dim=1)
    own_valid = torch.ones(batch, 1, dtype=torch.bool, device=labels.device)
    negative_valid = in_use[:, 1:].flatten(1).repeat_interleave(min(negative_pairs, own[0].numel()), dim=1)
    valid = torch.cat([own_valid, in_use[:, 0], negative_valid], dim=1)
    positive = (torch.arange(valid.shape[1], device=labels.device) <= size).expand_as(valid)
    return contrastive_loss(similarities, positive, temperature=temperature, valid_mask=valid)


@dataclass(frozen=True)
class _Choice:
    """Pairs of concepts that are contrasted.

    Attributes:
        own: (B, 1) pair with the own key set, as row * P + column.
        places: (B, M) pairs with queued sets, as row * N + column of the cosines (P, N) with all N queued concepts.
        cosines: (B, M) their cosines.
    """

    own: Tensor
    places: Tensor
    cosines: Tensor


class _QueuedCosines(torch.autograd.Function):
    """Cosines with queued concepts at chosen places; the gradient needs the places alone, not all the cosines."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, queue: Tensor, places: Tensor, cosines: Tensor) -> Tensor:
        """Return the cosines (B, M) of queries (B, P, E) with the queue (N, E), which :func:`_choose` has computed."""
        ctx.save_for_backward(queue, places)
        ctx.concepts = queries.shape[1]
        return cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient (B, P, E) of the queries."""
        queue, places = ctx.saved_tensors
        parts = []
        with torch.autocast(queue.device.type, enabled=False):
            for block in _blocks(len(places), ctx.concepts * len(queue), queue.device):
                of_all = gradient.new_zeros(len(places[block]), ctx.concepts * len(queue))
                of_all.scatter_add_(1, places[block], gradient[block])
                parts.append(of_all.view(-1, len(queue)) @ queue)
        return torch.cat(parts).unflatten(0, (-1, ctx.concepts)), None, None, None


@torch.no_grad()
def _choose(
    queries: Tensor,
    own: Tensor,
    queue: Tensor,
    classes: Tensor,
    in_use: Tensor,
    draws: Tensor,
    matching: Matching,
) -> _Choice:
    """Match every image and choose its pairs, some images at a time: the cosines of all pairs are many."""
    concepts, (total, size) = queries.shape[1], queue.shape[:2]
    found = []
    for block in _blocks(len(queries), concepts * total * size * concepts, queries.device):
        queued = (queries[block].flatten(0, 1) @ queue.flatten(0, 2).T).view(-1, concepts, total, size, concepts)
        positives, negatives = _match(own[block], queued, classes[block], in_use[block], matching)
        count = positives.shape[-1]
        drawn = (draws[block] * count).long().clamp_(0, count - 1)
        positives = positives.gather(2, drawn[..., None])
        places = torch.cat(
            [
                _places(queued, classes[block, :1], positives[:, 1:].unflatten(1, (1, size))),
                _places(queued, classes[block, 1:], negatives.unflatten(1, (-1, size))),
            ],
            dim=1,
        )
        found.append((positives[:, 0], places, queued.flatten(1).gather(1, places)))
    return _Choice(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _blocks(batch: int, size: int, device: torch.device) -> Iterator[slice]:
    """Yield the images 0..batch - 1 in blocks of which the cosines, ``size`` an image, take bounded memory."""
    together = max(1, (_CPU_COSINES if device.type == "cpu" else _DEVICE_COSINES) // size)
    for start in range(0, batch, together):
        yield slice(start, min(batch, start + together))


@torch.no_grad()
def _match(own: Tensor, queued: Tensor, classes: Tensor, in_use: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Return the heaviest pairs, each as row * P + column, of every set.

    Args:
        own: (B, P, P) cosines with the own key set.
        queued: (B, P, C, K, P) cosines with all queued sets.
        classes: (B, 1 + n), the label first.
        in_use: (B, 1 + n, K) bool.
        matching: Settings.

    Returns:
        Positive pairs (B, 1 + K, p) and negative pairs (B, n * K, m); zeros where a slot is not in use.
    """
    batch, concepts, _, size, _ = queued.shape
    groups = classes.shape[1]
    pairs = concepts * concepts
    positives = classes.new_zeros(batch, 1 + size, min(matching.positive_pairs, pairs))
    negatives = classes.new_zeros(batch, (groups - 1) * size, min(matching.negative_pairs, pairs))
    together = entries_at_once(pairs * (1 + groups * size), own.device)
    for start in range(0, batch, together):
        block = slice(start, min(batch, start + together))
        count = len(classes[block])
        images = torch.arange(count, device=classes.device)
        chosen = queued[block].permute(1, 4, 0, 2, 3)[:, :, images[:, None], classes[block]]
        similarity = torch.cat([own[block].permute(1, 2, 0)[..., None], chosen.flatten(3)], dim=3)
        used = torch.cat([in_use.new_ones(count, 1), in_use[block].flatten(1)], dim=1)
        columns = used.flatten().nonzero().squeeze(1)
        plan = solve_transport(
            (1 - similarity).flatten(2).index_select(2, columns),
            columns // used.shape[1],
            count,
            epsilon=matching.epsilon,
            max_iterations=matching.max_iterations,
            tolerance=matching.tolerance,
        ).plan.flatten(0, 1)
        is_positive = columns % used.shape[1] <= size
        image, place = columns // used.shape[1], columns % used.shape[1]
        for target, mine, first in ((positives, is_positive, 0), (negatives, ~is_positive, 1 + size)):
            heaviest = plan[:, mine].T.contiguous().topk(target.shape[2], dim=1).indices
            target[block][image[mine], place[mine] - first] = heaviest
    return positives, negatives


def _places(queued: Tensor, classes: Tensor, pairs: Tensor) -> Tensor:
    """Return where pairs (B, n, K, m) of the classes (B, n) are in ``queued``, (B, n * K * m); see :class:`_Choice`."""
    _, concepts, total, size, _ = queued.shape
    slots = torch.arange(size, device=queued.device)
    sets = (classes[..., None] * size + slots)[..., None]
    return ((pairs // concepts * (total * size) + sets) * concepts + pairs % concepts).flatten(1)


def _check_shapes(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    filled: Tensor,
    labels: Tensor,
    confusing: Tensor,
    draws: Tensor | None,
) -> None:
    batch, concepts, width = (*queries.shape, 0, 0)[:3]
    classes, size = (*queue.shape, 0)[:2]
    fits = (
        queries.ndim == 3
        and keys.shape == queries.shape
        and queue.shape == (classes, size, concepts, width)
        and min(batch, concepts, width, classes, size) > 0
        and filled.shape == (classes,)
        and labels.shape == (batch,)
        and confusing.ndim == 2
        and len(confusing) == batch
        and (draws is None or draws.shape == (batch, 1 + size))
    )
    if not fits:
        shown = ", ".join(
            "none" if item is None else str(tuple(item.shape))
            for item in (queries, keys, queue, filled, labels, confusing, draws)
        )
        raise ValueError(
            "queries and keys must be (B, P, E), queue (C, K, P, E), filled (C,), labels (B,), confusing (B, n) "
            f"and draws (B, 1 + K) or none, got {shown}."
        )
