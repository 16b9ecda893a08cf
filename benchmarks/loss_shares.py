"""What of Concept-Tuning's loss each term makes as training goes on: means over the finished runs of a bench, in nats.

    python benchmarks/loss_shares.py benchmarks/specs/offline.yaml runs/bench/offline --data elpv fashion-mnist
    python benchmarks/loss_shares.py SPEC FOLDER --data elpv --method ct-no-noise --record

Terms are weighted as in the loss (``term_weights`` of the method), so that a row adds up to it. A term that outweighs
the cross-entropies decides where the steps of that time lead.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from records import RESULTS, keep
from rich.console import Console
from rich.table import Table

from concept_tuning.bench.cells import final_cells
from concept_tuning.bench.spec import load_spec
from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

#: First and last step of each span.
SPANS = ((1, 10), (11, 20), (21, 40), (41, 80), (81, 144))
#: Terms in the order of the table, by their names in ``metrics.jsonl``, and what the table calls them.
TERMS = {
    "cross_entropy": "cross-entropy",
    "front_door_cross_entropy": "that of the head",
    "bottleneck_kl": "KL",
    "image_contrast": "images",
    "concept_contrast": "concepts",
}


def weighted(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each step of a run and its terms in nats, weighted as in the loss; a term that it has not is 0."""
    weights = _weights(RunFolder.open(path).config())
    for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "step":
            yield row["step"], {name: weights[name] * row.get(name, 0.0) for name in TERMS}


def _weights(config: RunConfig) -> dict[str, float]:
    parts = config.concept_tuning
    return {
        "cross_entropy": 1.0,
        "front_door_cross_entropy": 1.0,
        "bottleneck_kl": parts.beta,
        "image_contrast": parts.image_weight,
        "concept_contrast": parts.concept_weight,
    }


def shares(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return for each span of steps the mean of every term over its steps and the runs."""
    found: dict[tuple[int, int], list[dict[str, float]]] = defaultdict(list)
    for path in runs:
        for step, terms in weighted(path):
            for span in SPANS:
                if span[0] <= step <= span[1]:
                    found[span].append(terms)
    return [
        {"steps": list(span), **{name: round(fmean(terms[name] for terms in rows), 3) for name in TERMS}}
        for span, rows in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each data, and record them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("folder", type=Path, help="of the bench")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--method", default="ct-cheap")
    parser.add_argument("--record", action="store_true", help="write them to results/loss_shares.json")
    options = parser.parse_args(arguments)
    cells = final_cells(load_spec(options.spec), options.folder)
    record: dict[str, Any] = {}
    for data in options.data:
        own = [one for one in cells if (one.setting.data, one.setting.method) == (data, options.method)]
        runs = [cell.path for cell in own if cell.state == "finished"]
        if not runs:
            raise RunError(f"No final run of {options.method} on {data} in {options.folder} is finished.")
        record[data] = {"runs": len(runs), "spans": shares(runs)}
        shown = Table("steps", *TERMS.values(), title=f"{data}, {options.method}, {len(runs)} runs")
        for row in record[data]["spans"]:
            shown.add_row("{} to {}".format(*row["steps"]), *(f"{row[name]:.2f}" for name in TERMS))
        Console().print(shown)
    if options.record:
        keep(RESULTS / "loss_shares.json", "loss_shares.py", arguments, method=options.method, data=record)


if __name__ == "__main__":
    main()
