"""The commands that analyse trained runs: diagnose, report, analyses."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from concept_tuning.errors import ConfigError


def add_diagnose_commands(commands: Any) -> None:
    """Add the commands to the command line's parser."""
    diagnose = commands.add_parser(
        "diagnose",
        help="analyse trained runs side by side and write a report",
        description="Analyse one or more trained runs on the same pictures: what they look at, which features are "
        "rare, which are shortcuts. Writes results as JSON and one HTML report that opens offline.",
    )
    diagnose.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a trained run")
    diagnose.add_argument("--out", type=Path, required=True, help="folder to write; an earlier diagnosis is replaced")
    diagnose.add_argument("--split", choices=("val", "test"), default="test", help="default: test")
    diagnose.add_argument("--images", type=int, default=500, help="at most this many pictures (default 500); 0: all")
    diagnose.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    diagnose.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these analyses alone; see `concept-tuning analyses`"
    )
    diagnose.add_argument(
        "--source-folder",
        type=Path,
        help="folder of pictures like those of pre-training, for source frequencies where there is no batch norm",
    )
    diagnose.add_argument("--quiet", action="store_true", help="print the findings alone")
    diagnose.set_defaults(command=_diagnose)
    report = commands.add_parser(
        "report", help="write the report of a diagnosis again", description="Draw the report anew from saved results."
    )
    report.add_argument("diagnosis", type=Path, help="folder that `concept-tuning diagnose` wrote")
    report.set_defaults(command=_report)


def analysis_rows() -> list[dict[str, Any]]:
    """Return the analyses with what they need, for a listing."""
    from concept_tuning.diagnostics.catalogue import ANALYSES

    return [{"name": one.name, "title": one.title, "needs": one.needs or "nothing"} for one in ANALYSES]


def _diagnose(options: argparse.Namespace) -> int:
    if options.images < 0 or options.seed < 0:
        raise ConfigError("--images and --seed must be 0 or more.")
    if options.source_folder is not None and not options.source_folder.is_dir():
        raise ConfigError(f"--source-folder {options.source_folder} is not a folder.")
    from concept_tuning.diagnostics.diagnose import choose_analyses, diagnose, load_subjects
    from concept_tuning.diagnostics.workbench import Workbench
    from concept_tuning.engine.allocator import keep_freed_memory
    from concept_tuning.report.page import write_report

    keep_freed_memory()
    if threading.current_thread() is threading.main_thread():
        # Whoever was started in the background of a shell is asked to stop in vain otherwise.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    choose_analyses(options.only)
    subjects = load_subjects(options.runs)
    bench = Workbench(
        subjects=subjects,
        bundle=subjects[0].run.data(),
        split=options.split,
        count=options.images or None,
        seed=options.seed,
        source_folder=options.source_folder,
    )
    started = time.monotonic()

    def tell(text: str) -> None:
        if not options.quiet:
            print(f"{time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True)

    found = diagnose(bench, options.out, only=options.only, report=tell)
    tell("Report")
    _print_findings(found, write_report(found, options.out))
    return 0


def _report(options: argparse.Namespace) -> int:
    from concept_tuning.diagnostics.diagnose import load_diagnosis
    from concept_tuning.report.page import write_report

    found = load_diagnosis(options.diagnosis)
    _print_findings(found, write_report(found, options.diagnosis))
    return 0


def _print_findings(found: Any, path: Path) -> None:
    from concept_tuning.report.blocks import Source
    from concept_tuning.report.findings import findings

    for finding in findings(Source(found)):
        print(f"- {finding.text}")
    print(f"Report: {path}")
