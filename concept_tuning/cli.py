"""The command line: listings, train, resume, evaluate, export; what analyses runs is in :mod:`.cli_diagnose`."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_tuning import __version__
from concept_tuning.cli_bench import add_bench_commands
from concept_tuning.cli_diagnose import add_diagnose_commands, analysis_rows
from concept_tuning.data.printable import printable, printable_lines
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    from concept_tuning.engine.evaluation import Evaluation

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # names of classes may not exist in the code page of a file
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    _hear_interrupts()
    try:
        code = command(options)
        print(end="", flush=True)  # a reader that has gone away is noticed here, and not at the end of the process
        return code
    except StudioError as error:
        print(f"Error: {printable_lines(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is written at the end of the process
        return 1
    except Exception as error:
        log = Path("concept-tuning-error.log")
        try:
            log.write_text(traceback.format_exc(), encoding="utf-8")
            where = f" The details are in {log}."
        except OSError:
            where = ""
        print(f"Unexpected error: {type(error).__name__}: {error}.{where}", file=sys.stderr)
        return 1


def _hear_interrupts() -> None:
    """Take an interrupt again where it is ignored, in a process that has a session of its own.

    What a shell starts in the background ignores interrupts, and so does what that starts: runs and diagnoses of a
    dashboard, which are stopped by one. No terminal can send one to a session of its own.
    """
    alone = hasattr(os, "getsid") and os.getsid(0) == os.getpid()
    if alone and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="concept-tuning", description="Fine-tune image classifiers with Concept-Tuning and its rivals."
    )
    parser.add_argument("--version", action="version", version=f"concept-tuning {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("datasets", _datasets, "list the data that can be used"),
        ("backbones", _backbones, "list backbones, and which work offline on this machine"),
        ("methods", _methods, "list the fine-tuning methods"),
        ("settings", _settings, "list every setting with its default"),
        ("analyses", _analyses, "list the analyses of a diagnosis, and what each needs"),
    ):
        listing = commands.add_parser(name, help=text, description=text)
        listing.add_argument("--json", action="store_true", help="print JSON")
        listing.set_defaults(command=command)
    _add_train(commands)
    _add_run_commands(commands)
    add_diagnose_commands(commands)
    add_bench_commands(commands)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="fine-tune a backbone", description="Fine-tune a backbone on data with a method."
    )
    train.add_argument(
        "--data", help="`planted` (default), a name of `concept-tuning datasets`, or a folder, zip, tar or CSV file"
    )
    train.add_argument("--backbone", help="timm model name (default: tf_efficientnet_lite0)")
    train.add_argument("--method", default="vanilla", help="default: vanilla; see `concept-tuning methods`")
    train.add_argument("--preset", help="smoke, quick, small or paper")
    train.add_argument("--seed", type=int, help="seed of the run (default 0)")
    train.add_argument("--run-dir", type=Path, help="folder of the run (default: a new one below runs/)")
    train.add_argument("--root", help="folder of a known data set's files")
    train.add_argument("--sample-rate", type=float, help="percent of each class's training images to use")
    train.add_argument("--per-class", type=int, help="at most this many training images of each class")
    train.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        nargs="+",
        default=[],
        help="any setting of `concept-tuning settings`, e.g. --set rho=0.95 lr=0.03",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(command=_train)


def _add_run_commands(commands: Any) -> None:
    resume = commands.add_parser("resume", help="go on with a run", description="Go on from a run's last checkpoint.")
    resume.add_argument("run", type=Path)
    resume.add_argument("--quiet", action="store_true", help="no progress bar")
    resume.set_defaults(command=_resume)
    work = commands.add_parser("work", description="Wait in the queue of a root folder, then go on with a run of it.")
    work.add_argument("run", type=Path)
    work.add_argument("--root", type=Path, required=True, help="folder of the runs, whose queue it is")
    work.set_defaults(command=_work, quiet=False)
    evaluate = commands.add_parser(
        "evaluate", help="measure a trained run", description="Measure a run's best epoch on a split."
    )
    evaluate.add_argument("run", type=Path)
    evaluate.add_argument("--split", choices=("val", "test"), default="test")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(command=_evaluate)
    export = commands.add_parser("export", help="write a run's model to a file")
    export.add_argument("run", type=Path)
    export.add_argument("--format", choices=("safetensors", "onnx"), required=True)
    export.add_argument("--out", type=Path, required=True, help="file to write")
    export.set_defaults(command=_export)


def _datasets(options: argparse.Namespace) -> int:
    from concept_tuning.data.registry import DATASETS

    rows = [dataclasses.asdict(entry) | {"available": entry.available} for entry in DATASETS]
    if not options.json:
        rows = [{key: row[key] for key in row if key not in ("package", "layout")} for row in rows]
    _print_table(options, "Data", rows)
    if not options.json:
        print(
            "`known` data sets: --root names the folder of their files (--json shows the layout), --set download=true "
            "fetches them."
        )
    return 0


def _backbones(options: argparse.Namespace) -> int:
    from concept_tuning.models.weights import list_backbones

    _print_table(options, "Backbones", [dataclasses.asdict(entry) for entry in list_backbones()])
    if not options.json:
        print("Any other timm model with a spatial feature map works too.")
    return 0


def _methods(options: argparse.Namespace) -> int:
    from concept_tuning.methods.registry import METHODS

    rows = [
        {"name": method.name, "summary": method.summary, "reference": method.reference, "offline": True}
        for method in METHODS.values()
    ]
    _print_table(options, "Methods", rows)
    return 0


def _settings(options: argparse.Namespace) -> int:
    from concept_tuning.settings import settings

    rows = [{"name": s.key, "default": s.default, "type": s.type, "help": s.help} for s in settings()]
    _print_table(options, "Settings", rows)
    return 0


def _analyses(options: argparse.Namespace) -> int:
    _print_table(options, "Analyses", analysis_rows())
    return 0


def _train(options: argparse.Namespace) -> int:
    from concept_tuning.settings import build_config

    flags = {
        "engine.seed": options.seed,
        "data.root": options.root,
        "data.sample_rate": options.sample_rate,
        "data.per_class": options.per_class,
    }
    overrides = [item for group in options.overrides for item in group]
    overrides += [f"{key}={value}" for key, value in flags.items() if value is not None]
    config = build_config(
        data=options.data,
        backbone=options.backbone,
        method=options.method,
        preset=options.preset,
        overrides=overrides,
    )
    from concept_tuning.engine.session import start_run

    return _finish_training(options, lambda watcher: start_run(config, options.run_dir, watcher))


def _resume(options: argparse.Namespace) -> int:
    from concept_tuning.engine.session import resume_run

    return _finish_training(options, lambda watcher: resume_run(options.run, watcher))


def _work(options: argparse.Namespace) -> int:
    from concept_tuning.engine.turns import turn

    with turn(options.run, options.root):
        return _resume(options)


def _finish_training(options: argparse.Namespace, work: Callable[[Any], Any]) -> int:
    from concept_tuning.engine.allocator import keep_freed_memory
    from concept_tuning.engine.trainer import Stopped
    from concept_tuning.progress import ConsoleWatcher

    keep_freed_memory()
    watcher = ConsoleWatcher(quiet=options.quiet)
    try:
        folder = work(watcher)
    except Stopped as stop:
        watcher.close()
        print(f"Stopped; go on with: concept-tuning resume {stop.path}", file=sys.stderr)
        return INTERRUPTED
    finally:
        watcher.close()
    if watcher.is_main:
        results = folder.read_json("results.json", "splits", "validation_note")
        for result in results["splits"].values():  # a trial of a bench has none
            print(_sentence(result, results["validation_note"]))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from concept_tuning.engine.loading import evaluate_run, load_run

    run = load_run(options.run)
    data = run.data()
    result = evaluate_run(run, options.split, data=data)
    found = result.to_dict() | {"validation_note": data.validation_note, "method": run.config.method}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print(_sentence(found, data.validation_note))
    _print_groups(result)
    return 0


def _export(options: argparse.Namespace) -> int:
    from concept_tuning.engine.export import export_run
    from concept_tuning.engine.loading import load_run

    out = export_run(load_run(options.run), options.format, options.out)
    print(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _sentence(result: dict[str, Any], validation_note: str) -> str:
    worst = ""
    if result["worst_group_accuracy"] is not None:
        cell = next(cell for cell in result["groups"] if cell["name"] == result["worst_group"])
        worst = f"; worst group {100 * cell['accuracy']:.1f} % ({printable(cell['name'])}, n = {cell['n']})"
    units = f" of {result['units']} units" if result.get("units") is not None else ""
    note = f" (validation drawn {validation_note})" if result["split"] == "val" else ""
    return (
        f"{result['split']}: accuracy {100 * result['accuracy']:.1f} % "
        f"[{100 * result['low']:.1f}, {100 * result['high']:.1f}], n = {result['n']}{units}{worst}{note}"
    )


def _print_groups(result: Evaluation) -> None:
    rows = [
        {
            "name": printable(r.name),
            "n": r.n,
            "accuracy": f"{100 * r.accuracy:.1f} %",
            "95 %": f"{100 * r.low:.1f}-{100 * r.high:.1f}",
        }
        for r in (*result.classes, *result.groups)
    ]
    _rich_table("Classes and groups", rows)


def _print_table(options: argparse.Namespace, title: str, rows: list[dict[str, Any]]) -> None:
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        _rich_table(title, rows)


def _rich_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    Console().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
