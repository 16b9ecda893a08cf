"""Time and memory of the concept loss alone, forward and backward, against the slow reference's.

Both get the same embeddings, full queues, labels, confusing classes and draws, on the CPU. They are timed in turn,
round after round, and a ratio is the median over the rounds. The reference is the concept loss of
``naive_reference.py``: image by image, its queued sets copied together, autograd through every Sinkhorn iteration.

    python benchmarks/concept_loss_cost.py
    python benchmarks/concept_loss_cost.py --threads 1 --record    # writes results/concept_loss_200.json

How much there is to win depends on the embeddings: the more their cosines vary, the more iterations Sinkhorn takes.
Random unit vectors in as many dimensions as there are classes, as ``step_cost.py`` fills queues with, are nearly
orthogonal and soon matched. Logits of a network span fewer directions, so there are rows for random vectors of a
lower rank, too. None of them are a trained network's.

Memory is the peak of the bytes that a call makes, read from torch's profiler in a call that is not timed. The
embeddings and queues that both are given are not in it; ``with queue`` in the record adds the queue's bytes to both.
The two losses of a row are not equal to the last digit: the reference solves in float32, as published, and where
costs differ much which of a plan's pairs are the heaviest is a matter of rounding.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from naive_reference import ImageConcepts, NaiveConceptTuning
from records import RESULTS, keep, machine
from rich.console import Console
from rich.table import Table
from step_cost import _spread, ratios, timed, traced_peak
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses import rare_concept
from concept_tuning.losses.rare_concept import concept_contrast
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.models.backbone import build_backbone
from concept_tuning.settings import build_config

RECORD = RESULTS / "concept_loss_200.json"
#: Ranks of the embeddings measured by default; none: all dimensions, nearly orthogonal.
RANKS: Sequence[int | None] = (None, 32, 16, 8)


@dataclass(frozen=True, kw_only=True)
class LossCase:
    """What is measured. ``rank`` is the number of directions that the embeddings span; none: all."""

    batch_size: int = 8
    classes: int = 200
    queue_size: int = 40
    rank: int | None = None


class ConceptLoss:
    """The concept loss and its backward pass on one fixed batch, ours and the slow reference's."""

    def __init__(self, case: LossCase, *, transport_dtype: torch.dtype = torch.float32) -> None:
        overrides = {"weights": "random", "image_size": 64, "queue_size": case.queue_size, "device": "cpu"}
        config = build_config(method="concept-tuning", backbone="test_resnet", overrides=overrides)
        self.parts = config.concept_tuning
        generator = torch.Generator().manual_seed(0)
        basis = None if case.rank is None else torch.randn(case.rank, case.classes, generator=generator)

        def embeddings(*shape: int) -> Tensor:
            width = case.classes if basis is None else len(basis)
            drawn = torch.randn(*shape, self.parts.concepts, width, generator=generator)
            return F.normalize(drawn if basis is None else drawn @ basis, dim=-1)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            method = ConceptTuning(config, build_backbone(config.backbone, image_size=64), case.classes)
        self.queue = method.concept_queue
        for label in range(case.classes):
            self.queue.enqueue(embeddings(case.queue_size), torch.full((case.queue_size,), label))
        self.queries = embeddings(case.batch_size).requires_grad_()
        self.keys = embeddings(case.batch_size)
        self.labels = torch.arange(case.batch_size) % case.classes
        others = torch.rand(case.batch_size, case.classes - 1, generator=generator).argsort(1)
        self.confusing = others + (others >= self.labels[:, None])
        self.draws = torch.rand(case.batch_size, 1 + case.queue_size, generator=generator)
        self.naive = NaiveConceptTuning(method, transport_dtype=transport_dtype)
        nowhere = torch.empty(0, 4)
        self.naive_concepts = [ImageConcepts(row.tolist(), nowhere) for row in self.confusing]

    def ours(self) -> float:
        """Return the package's loss after its backward pass."""
        parts = self.parts
        loss = concept_contrast(
            self.queries,
            self.keys,
            self.queue.keys,
            self.queue.filled,
            self.labels,
            self.confusing[:, : parts.confusing_for_negatives],
            temperature=parts.temperature,
            positive_pairs=parts.positive_pairs,
            negative_pairs=parts.negative_pairs,
            epsilon=parts.transport_epsilon,
            max_iterations=parts.transport_iterations,
            tolerance=parts.transport_tolerance,
            draws=self.draws,
        )
        return self._backward(loss)

    def reference(self) -> float:
        """Return the slow reference's loss after its backward pass."""
        return self._backward(
            self.naive._concept_contrast(self.queries, self.keys, self.labels, self.naive_concepts, self.draws)
        )

    def iterations(self) -> list[int]:
        """Return the Sinkhorn iterations of each image in the package's loss."""
        found: list[int] = []
        solve = rare_concept.solve_transport

        def counted(*args: Any, **kwargs: Any) -> Any:
            solved = solve(*args, **kwargs)
            found.extend(solved.iterations.tolist())
            return solved

        with mock.patch.object(rare_concept, "solve_transport", counted):
            self.ours()
        return found

    def _backward(self, loss: Tensor) -> float:
        self.queries.grad = None
        loss.backward()
        return loss.item()


def measure(case: LossCase, *, rounds: int) -> dict[str, Any]:
    """Measure a case in so many rounds and return its row."""
    loss = ConceptLoss(case)
    sides: dict[str, Callable[[], float]] = {"ours": loss.ours, "reference": loss.reference}
    values = {name: side() for name, side in sides.items()}
    peaks = {name: traced_peak(side) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    slower = ratios(seconds["reference"], seconds["ours"])
    queue = loss.queue.keys.nbytes
    return {
        **asdict(case),
        "concepts": loss.parts.concepts,
        "confusing": min(loss.parts.confusing_for_negatives, case.classes - 1),
        "iterations": statistics.median(loss.iterations()),
        "loss": values,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": rounds,
        "seconds": {name: _spread(times) for name, times in seconds.items()},
        "reference_over_time": statistics.median(slower),
        "reference_over_time_spread": _spread(slower),
        "peak_bytes": peaks,
        "queue_bytes": queue,
        "memory_over_reference": peaks["ours"] / peaks["reference"],
        "memory_over_reference_with_queue": (peaks["ours"] + queue) / (peaks["reference"] + queue),
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows for the eye."""
    first = rows[0]
    shown = Table(
        caption="ref.: the slow reference; share: peak memory over the reference's",
        title=f"Concept loss, {first['classes']} classes, K = {first['queue_size']}, batch {first['batch_size']}, "
        f"{first['threads']} thread(s)",
    )
    for name in ("rank", "iterations", "s", "ref. s", "ref. s / s", "MB", "ref. MB", "share"):
        shown.add_column(name, justify="right")
    for row in rows:
        seconds, peaks, spread = row["seconds"], row["peak_bytes"], row["reference_over_time_spread"]
        shown.add_row(
            "all" if row["rank"] is None else str(row["rank"]),
            f"{row['iterations']:.0f}",
            f"{seconds['ours']['median']:.3f}",
            f"{seconds['reference']['median']:.3f}",
            f"{row['reference_over_time']:.1f} ({spread['min']:.1f}-{spread['max']:.1f})",
            f"{peaks['ours'] / 1e6:.0f}",
            f"{peaks['reference'] / 1e6:.0f}",
            f"{row['memory_over_reference']:.2f}",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every rank asked for."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sizes = {"batch_size": options.batch_size, "classes": options.classes, "queue_size": options.queue_size}
    rows = [measure(LossCase(**sizes, rank=rank), rounds=options.rounds) for rank in options.rank or RANKS]
    Console().print(table(rows))
    if options.record:
        keep(RECORD, "concept_loss_cost.py", arguments, machine=machine(), rows=rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time and memory of the concept loss, against a slow reference.")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--queue-size", type=int, default=40, help="keys of each class")
    parser.add_argument(
        "--rank", action="append", type=int, help="directions that embeddings span; may be repeated (all, 32, 16, 8)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed calls of each")
    parser.add_argument("--threads", type=int, help="computing threads")
    parser.add_argument("--record", action="store_true", help=f"write the rows to results/{RECORD.name}")
    return parser


if __name__ == "__main__":
    main()
