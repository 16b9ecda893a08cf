"""The command ``benchmark``: a bench from its file to its tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_tuning.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from concept_tuning.bench.cells import Cell
    from concept_tuning.bench.spec import BenchSpec

_DEFAULT_OUT = Path("runs") / "bench"
#: Exit code of a bench that has ended with runs that failed.
FAILED = 1


def add_bench_commands(commands: Any) -> None:
    """Add the command to a parser's commands."""
    text = "compare methods by data, backbones, sample rates and seeds, each tuned with the same budget"
    bench = commands.add_parser("benchmark", help=text, description=text)
    bench.add_argument("spec", type=Path, help="the bench, a YAML file; see benchmarks/specs")
    bench.add_argument("--out", type=Path, help=f"its folder; default: {_DEFAULT_OUT}/NAME")
    bench.add_argument("--only", nargs="+", metavar="DATA", help="learn only these of its data now; default: all")
    bench.add_argument("--workers", type=int, default=1, help="runs at once; default: 1")
    bench.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="run on a Ray cluster instead: auto or HOST:PORT; all its machines must see --out and the data",
    )
    instead = bench.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    instead.add_argument(
        "--tables-only",
        action="store_true",
        help="run nothing, and write tables and figures of what is finished so far, also while the bench runs",
    )
    bench.add_argument(
        "--against",
        metavar="METHOD",
        help="with --tables-only: print the summary with the differences to this method in place of the first, "
        "without writing any file",
    )
    bench.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise ConfigError("--workers must be 1 or more.")
    if options.only and options.tables_only:
        raise ConfigError("--tables-only writes the tables of the whole bench; leave out --only.")
    if options.against and not options.tables_only:
        raise ConfigError("--against compares what is finished; add --tables-only.")
    if options.ray_address and options.workers > 1:
        raise ConfigError("--workers is of this machine; a Ray cluster has as many as it has processors. Leave it out.")
    from concept_tuning.bench.preflight import check_sources
    from concept_tuning.bench.runner import check_folder, check_out
    from concept_tuning.bench.spec import load_spec
    from concept_tuning.cli import INTERRUPTED

    spec = load_spec(options.spec)
    known = [data.name for data in spec.data]
    unknown = set(options.only or ()) - set(known)
    if unknown:
        raise ConfigError(f"--only names {min(unknown)!r}, which is none of the bench's data: {', '.join(known)}.")
    if options.against and options.against not in spec.methods:
        methods = ", ".join(spec.methods)
        raise ConfigError(f"--against names {options.against!r}, which is none of the bench's methods: {methods}.")
    out = options.out or _DEFAULT_OUT / spec.name
    asked = options.only or known
    if not (options.tables_only or options.dry_run):
        check_sources(spec, only=options.only)
    if options.dry_run:
        check_out(spec, out)
        print("\n".join(_planned(spec, out, asked)))
    if not options.against:
        print(_counted(spec, out, asked))
    if options.dry_run:
        check_sources(spec, only=options.only)  # after the plan, which may be of another machine
        return 0
    try:
        if options.tables_only:
            check_folder(spec, out)
            if options.against:
                return _compare(spec, out, options.against)
        else:
            _run(options, spec, out)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    _write(spec, out)
    return _said_failures(spec, out, asked)


def _counted(spec: BenchSpec, out: Path, asked: Sequence[str]) -> str:
    from concept_tuning.bench.cells import finals_for, trials_for
    from concept_tuning.bench.spec import settings_of

    settings = sum(setting.data in asked for setting in settings_of(spec))
    trials, finals = trials_for(spec, out, asked), finals_for(spec, out, asked)
    counts = (settings, "setting"), (len(trials), "trial"), (settings * len(spec.seeds), "final run")
    text = f"{spec.name}: {', '.join(_number(*one) for one in counts)}, in {out}"
    ended = [sum(cell.state == "finished" for cell in cells) for cells in (trials, finals)]
    return f"{text}; {ended[0]} of the trials and {ended[1]} of the final runs are finished" if any(ended) else text


def _number(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _planned(spec: BenchSpec, out: Path, asked: Sequence[str]) -> Iterator[str]:
    """Yield a line for each data, backbone and sample rate: its methods, each with its trials."""
    from itertools import groupby

    from concept_tuning.bench.cells import trial_cells
    from concept_tuning.bench.spec import chosen_before, settings_of, tuned_as

    trials = [cell.setting for cell in trial_cells(spec, out)]
    settings = [setting for setting in settings_of(spec) if setting.data in asked]
    for place, group in groupby(settings, lambda one: (one.data, one.backbone, one.sample_rate)):
        methods = []
        for setting in group:
            searched = tuned_as(spec, setting)
            count = trials.count(searched)
            choice = _number(count, "trial") if searched == setting else f"as {searched.place}"
            if chosen_before(spec, searched) is not None:
                choice, count = "chosen before", 1
            methods.append(f"{setting.method} ({choice})" if count else setting.method)
        yield f"{place[0]}, {place[1]}, {place[2]:g} %, {_number(len(spec.seeds), 'seed')} each: {', '.join(methods)}"


def _said_failures(spec: BenchSpec, out: Path, asked: Sequence[str]) -> int:
    """Say on standard error how many runs failed, if any; returns the exit code."""
    from concept_tuning.bench.cells import finals_for, trials_for

    cells = [*trials_for(spec, out, asked), *finals_for(spec, out, asked)]
    failed = [cell for cell in cells if cell.state == "failed"]
    if not failed:
        return 0
    print(f"{len(failed)} of {len(cells)} runs failed; the first: {failed[0].failure}", file=sys.stderr)
    return FAILED


def _run(options: argparse.Namespace, spec: BenchSpec, out: Path) -> None:
    from concept_tuning.bench.live import LiveReport, Progress
    from concept_tuning.bench.runner import run_bench
    from concept_tuning.bench.workers import in_processes

    if options.ray_address:
        from concept_tuning.bench.ray_jobs import ray_workers

        workers = ray_workers(options.ray_address, out)
    else:

        def workers(cells: Sequence[Cell]) -> Iterator[Cell]:
            return in_processes(cells, options.workers)

    progress = Progress(spec, out, workers=None if options.ray_address else options.workers, only=options.only)
    with LiveReport(progress) as live:
        run_bench(spec, out, only=options.only, workers=workers, report=live.report)


def _compare(spec: BenchSpec, out: Path, method: str) -> int:
    from concept_tuning.bench.tables import summary_against

    print(summary_against(spec, out, method), end="")
    return 0


def _write(spec: BenchSpec, out: Path) -> None:
    from concept_tuning.bench.figures import write_figures
    from concept_tuning.bench.tables import FILES, write_tables

    print(write_tables(spec, out), end="")
    written = [*(out / name for name in FILES), *write_figures(spec, out)]
    print("Written:", *(f"  {path}" for path in written), sep="\n")
