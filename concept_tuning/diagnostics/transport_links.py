"""Which concept of a picture is matched with which of another: the transport plan of the concept contrast.

Part on rare features of Concept-Tuning (arXiv 2311.06868).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from concept_tuning.diagnostics.concept_maps import ConceptMaps, concept_sets
from concept_tuning.diagnostics.features import Features
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array
from concept_tuning.losses.sinkhorn import heaviest_pairs, transport_plan

#: Links kept of a transport plan, unless told otherwise.
LINKS = 9


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Link:
    """A pair of concepts that the plan ties together.

    Attributes:
        first: Concept of the first picture, 0..P-1.
        second: Concept of the second picture.
        weight: Mass of the plan on the pair; the plan sums to 1, and a pair cannot have more than 1 / P.
        cost: 1 - cosine of the two patches' embeddings, 0..2.
    """

    first: int
    second: int
    weight: float
    cost: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class TransportLinks:
    """Which concept of one picture the method matches with which of another.

    Attributes:
        run: Name of the run.
        keys: Unique names of the two pictures.
        labels: The classes whose concepts were taken.
        image_size: Side in pixels of the pictures that ``boxes`` refer to.
        boxes: (2, P, 4) float32 patches of the two pictures in pixels.
        costs: (P, P) float64, 1 - cosine.
        plan: (P, P) float64 transport plan, which sums to 1.
        links: The heaviest pairs, heaviest first.
        distance: Sum of plan times cost.
        epsilon: Entropic regularisation of the plan; costs that differ by less are hardly told apart.
    """

    run: str
    keys: tuple[str, str]
    labels: tuple[int, int]
    image_size: int
    boxes: Array
    costs: Array
    plan: Array
    links: tuple[Link, ...]
    distance: float
    epsilon: float


def transport_links(
    subject: Subject,
    pictures: Pictures,
    features: Features,
    concepts: ConceptMaps,
    *,
    pairs: Sequence[tuple[int, int]],
    count: int = LINKS,
) -> tuple[TransportLinks, ...]:
    """Match the concepts of pairs of pictures as the method does; parts 1b.2 and 1b.3.

    Args:
        subject: The run.
        pictures: The pictures.
        features: What its network makes of them.
        concepts: The concepts of all of them, in their order.
        pairs: Places 0..len(pictures)-1 of the pictures to match.
        count: Links kept of each pair.
    """
    if not pairs:
        return ()
    places = sorted({place for pair in pairs for place in pair})
    where = {place: number for number, place in enumerate(places)}
    embeddings = concept_sets(subject, pictures, features, concepts, places=places)
    parts = subject.run.config.concept_tuning
    found = []
    for first, second in pairs:
        costs, plan = match_concepts(
            embeddings[where[first]],
            embeddings[where[second]],
            epsilon=parts.transport_epsilon,
            max_iterations=parts.transport_iterations,
            tolerance=parts.transport_tolerance,
        )
        found.append(
            TransportLinks(
                run=subject.name,
                keys=(concepts.keys[first], concepts.keys[second]),
                labels=(int(concepts.labels[first]), int(concepts.labels[second])),
                image_size=concepts.image_size,
                boxes=concepts.boxes[[first, second]],
                costs=costs.numpy(),
                plan=plan.numpy(),
                links=strongest_links(costs, plan, count=count),
                distance=float((costs * plan).sum()),
                epsilon=parts.transport_epsilon,
            )
        )
    return tuple(found)


@torch.inference_mode()
def match_concepts(
    first: Tensor, second: Tensor, *, epsilon: float = 0.01, max_iterations: int = 200, tolerance: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Return costs 1 - cosine and transport plan, both (P, Q) float64, of two sets of unit vectors.

    Args:
        first: (P, C).
        second: (Q, C).
        epsilon: See :func:`~concept_tuning.losses.sinkhorn.transport_plan`, like what follows.
        max_iterations: Most iterations.
        tolerance: Threshold of the stopping rule.
    """
    costs = 1 - first.double() @ second.double().mT
    plan = transport_plan(costs[None], epsilon=epsilon, max_iterations=max_iterations, tolerance=tolerance)
    return costs, plan[0].double()


def strongest_links(costs: Tensor, plan: Tensor, *, count: int = LINKS) -> tuple[Link, ...]:
    """Return the ``count`` heaviest pairs of a plan (P, Q), heaviest first, with their costs."""
    rows, columns = (part.tolist() for part in heaviest_pairs(plan, count))
    return tuple(
        Link(first=row, second=column, weight=float(plan[row, column]), cost=float(costs[row, column]))
        for row, column in zip(rows, columns, strict=True)
    )
