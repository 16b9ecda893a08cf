"""The command ``benchmark``: a bench from its file to its tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from concept_tuning.errors import ConfigError

_DEFAULT_OUT = Path("runs") / "bench"


def add_bench_commands(commands: Any) -> None:
    """Add the command to a parser's commands."""
    text = "compare methods by data, backbones, sample rates and seeds, each tuned with the same budget"
    bench = commands.add_parser("benchmark", help=text, description=text)
    bench.add_argument("spec", type=Path, help="the bench, a YAML file; see benchmarks/specs")
    bench.add_argument("--out", type=Path, help=f"its folder; default: {_DEFAULT_OUT}/NAME")
    bench.add_argument("--only", nargs="+", metavar="DATA", help="learn only these of its data now; default: all")
    bench.add_argument("--workers", type=int, default=1, help="runs at once; default: 1")
    bench.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    bench.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise ConfigError("--workers must be 1 or more.")
    from concept_tuning.bench.cells import Cell, trial_cells
    from concept_tuning.bench.runner import run_bench
    from concept_tuning.bench.spec import load_spec, settings_of
    from concept_tuning.bench.workers import in_processes

    spec = load_spec(options.spec)
    unknown = set(options.only or ()) - {data.name for data in spec.data}
    if unknown:
        raise ConfigError(f"--only names {min(unknown)!r}, which is none of the bench's data.")
    out = options.out or _DEFAULT_OUT / spec.name
    trials, settings = len(trial_cells(spec, out)), len(settings_of(spec))
    print(f"{spec.name}: {settings} settings, {trials} trials, {settings * len(spec.seeds)} final runs, in {out}")
    if options.dry_run:
        return 0
    began = time.monotonic()

    def tell(cell: Cell, cells: Sequence[Cell]) -> None:
        minutes, done = (time.monotonic() - began) / 60, sum(one.state != "open" for one in cells)
        text = f"{cell.setting.place} {cell.kind} {cell.number}: {cell.failure or cell.state}"
        print(f"{minutes:7.1f} min  {done}/{len(cells)}  {text}", file=sys.stderr, flush=True)

    run_bench(spec, out, only=options.only, workers=lambda cells: in_processes(cells, options.workers), report=tell)
    from concept_tuning.bench.tables import write_tables

    print(write_tables(spec, out), end="")
    return 0
