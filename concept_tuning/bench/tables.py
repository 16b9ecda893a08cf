"""What a bench found: a row for each run, and for each setting the mean, the spread and the verdict."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import operator
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from concept_tuning.bench.cells import Cell, chosen, final_cells, trial_cells
from concept_tuning.bench.markdown import markdown
from concept_tuning.bench.published import published
from concept_tuning.bench.spec import BenchSpec, Setting, chosen_before, config_of, settings_of, tuned_as
from concept_tuning.bench.verdicts import Against, against, learnt_from
from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder, write_atomically
from concept_tuning.engine.turns import run_error
from concept_tuning.errors import RunError
from concept_tuning.report.predictions_csv import safe_cell
from concept_tuning.settings import resolve_key

#: The files that :func:`write_tables` writes.
FILES = ("cells.csv", "trials.csv", "summary.json", "summary.md")
#: What is told of the versions that learnt, and its key in a run's ``versions.json``.
_VERSIONS = {"Concept-Tuning Studio": "concept-tuning-studio", "torch": "torch"}
_PLACE = ("data", "backbone", "sample_rate", "method")
COLUMNS = (*_PLACE, "seed", "state", "n", "accuracy", "worst_group", "validation", "images_per_second", "failure")
TRIAL_COLUMNS = (*_PLACE, "trial", "state", "chosen", "accuracy", "loss", "step", "failure")


def cell_rows(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return a row for each final run, finished or not; shares are 0..1.

    ``accuracy`` and ``worst_group`` are of the test, ``validation`` is validation accuracy. ``images_per_second`` is
    the speed of training since the run was last begun, beside whatever else its machine did then. ``learnt_from`` tells
    its pictures and splits from others (:func:`~concept_tuning.bench.verdicts.learnt_from`).
    """
    rows = []
    for cell in final_cells(spec, out):
        found = _results(cell)
        test, val = found.get("test", {}), found.get("val", {})
        rows.append(
            {
                **dataclasses.asdict(cell.setting),
                "seed": cell.number,
                "state": cell.state,
                "n": test.get("n"),
                "accuracy": test.get("accuracy"),
                "worst_group": test.get("worst_group_accuracy"),
                "validation": val.get("accuracy"),
                "images_per_second": _file(cell, "status.json", "state").get("images_per_second"),
                "failure": _one_line(cell.failure),
                "learnt_from": learnt_from(cell) if cell.state == "finished" else None,
            }
        )
    return rows


def trial_rows(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return a row for each trial of the search, finished or not.

    Each has the values that were searched, by the full name of the setting (the first trial's are the defaults), and
    validation accuracy (0..1) and loss (nats) at its best epoch, by which the search chose, and the accuracy of the
    worst group where that chose. ``chosen`` is false for all until the search has ended.
    """
    cells = trial_cells(spec, out)
    best = {setting: _best(spec, out, setting, cells) for setting in {cell.setting for cell in cells}}
    rows = []
    for cell in cells:
        reached = _file(cell, "results.json", "best").get("best", {})
        names = [resolve_key(key, cell.config.method) for key in spec.space(cell.setting.method)]
        drawn = best[cell.setting]
        rows.append(
            {
                **dataclasses.asdict(cell.setting),
                "trial": cell.number,
                "state": cell.state,
                "chosen": drawn is not None and _config(spec, cell.setting, drawn) == cell.config,
                **{name: reached.get(name) for name in ("accuracy", "loss", "step")},
                "failure": _one_line(cell.failure),
                **{name: value for name, value in reached.items() if name == "worst_group_accuracy"},
                **{name: operator.attrgetter(name)(cell.config) for name in names},
            }
        )
    return rows


def picture_rows(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return how many pictures of each split the finished runs had, by data and sample rate.

    ``problems`` are what is wrong with its files, such as those that were left out, each with a name and the reason;
    ``copies`` counts validation and test pictures that are copies of training pictures, ``conflicts`` pictures that are
    also in another class.
    """
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for cell in final_cells(spec, out):
        place = (cell.setting.data, cell.setting.sample_rate)
        if place not in rows and cell.state == "finished" and (cell.path / "data.json").is_file():
            known = _file(cell, "data.json", "counts", "problems", "copies")
            rows[place] = {
                "data": place[0],
                "sample_rate": place[1],
                "counts": known["counts"],
                "problems": known["problems"],
                "copies": len(known["copies"]),
                "conflicts": len(known.get("conflicts", ())),
            }
    return list(rows.values())


def versions_of(spec: BenchSpec, out: Path) -> list[dict[str, str]]:
    """Return by which versions of the program and of torch the finished runs were begun; one where all are alike."""
    found: dict[str, dict[str, str]] = {}
    for cell in (*trial_cells(spec, out), *final_cells(spec, out)):
        if cell.state == "finished" and (cell.path / "versions.json").is_file():
            known = _file(cell, "versions.json")
            one = {name: str(known[key]) for name, key in _VERSIONS.items() if key in known}
            found.setdefault(json.dumps(one), one)
    return [found[key] for key in sorted(found)]


def summary(spec: BenchSpec, out: Path) -> list[dict[str, Any]]:
    """Return for each setting what was chosen, mean and deviation over seeds, and the verdict on the first method.

    ``tuned_as`` is the setting whose choice was taken, None where it is its own; ``trials`` are that one's, 0 where the
    bench's file has what was chosen before. ``chosen`` has what was searched as the setting's final runs have it.
    ``difference`` and ``worst_group_difference`` are against the first method, paired by picture and by the
    ``paired_seeds`` that both have finished, each with its interval; ``published`` is what others measured on the same
    data with the same network and sample rate, and what was otherwise there. All are None where there is none.
    ``outcome`` and ``worst_group_outcome`` are the verdict's, in a word. ``fitted_to_validation`` is whether
    ``validation`` is of pictures that the method was fitted to in the end. ``caution`` is what its runs warned of, if
    anything.
    """
    cells, trials = final_cells(spec, out), trial_cells(spec, out)
    ended: dict[Setting, list[Cell]] = {setting: [] for setting in settings_of(spec)}
    for cell in cells:
        if cell.state != "open":
            ended[cell.setting].append(cell)
    return [
        _summary_row(spec, out, setting, ended, [cell for cell in trials if cell.setting == tuned_as(spec, setting)])
        for setting in settings_of(spec)
    ]


def write_tables(spec: BenchSpec, out: Path) -> str:
    """Write the tables, :data:`FILES`, into a bench's folder; returns the text of the last.

    Raises:
        RunError: if they cannot be written.
    """
    trials = trial_rows(spec, out)
    searched = dict.fromkeys(key for row in trials for key in row if key not in TRIAL_COLUMNS)
    rows = summary(spec, out)
    text = markdown(spec, rows, picture_rows(spec, out), versions_of(spec, out))
    texts = {
        "cells.csv": _csv(cell_rows(spec, out), COLUMNS),
        "trials.csv": _csv(trials, (*TRIAL_COLUMNS, *searched)),
        "summary.json": json.dumps(rows, indent=1) + "\n",
        "summary.md": text,
    }
    try:
        for name, content in texts.items():
            write_atomically(out / name, content)
    except OSError as error:
        raise run_error(f"The tables in {out} cannot be written", error) from error
    return text


def summary_against(spec: BenchSpec, out: Path, method: str) -> str:
    """Return the summary's text with the differences to any one of the methods, of the data that it learnt.

    Args:
        spec: The bench.
        out: Its folder, in which nothing is written.
        method: A method or variant of the bench.
    """
    other = dataclasses.replace(spec, methods=(method, *(name for name in spec.methods if name != method)))
    known = {setting.data for setting in settings_of(spec) if setting.method == method}
    rows, pictures = (
        [row for row in found if row["data"] in known] for found in (summary(other, out), picture_rows(other, out))
    )
    return markdown(other, rows, pictures, versions_of(other, out))


def _summary_row(
    spec: BenchSpec, out: Path, setting: Setting, ended: Mapping[Setting, list[Cell]], trials: list[Cell]
) -> dict[str, Any]:
    base = dataclasses.replace(setting, method=spec.methods[0])
    own, others = ([cell for cell in ended.get(one, ()) if cell.state == "finished"] for one in (setting, base))
    failed = [cell for cell in ended[setting] if cell.state == "failed"]
    tests = [_results(cell)["test"] for cell in own]
    drawn = _best(spec, out, setting, trials)
    known = None if drawn is None else published(setting, _config(spec, setting, drawn))
    first = setting == base
    found = Against(sentence="") if first else against(own, others, (setting.method, base.method))
    states = [cell.state for cell in trials]
    trouble = _trouble(setting, failed, [cell for cell in trials if cell.state == "failed"], len(trials))
    searched = tuned_as(spec, setting)
    return {
        **dataclasses.asdict(setting),
        "tuned_as": None if searched == setting else dataclasses.asdict(searched),
        "seeds": len(own),
        "failed_seeds": len(failed),
        "trials": 0 if chosen_before(spec, searched) is not None else max(1, len(trials)),
        "failed_trials": states.count("failed"),
        "open_trials": states.count("open"),
        "chosen": _chosen_values(spec, setting, drawn),
        "validation": _spread([_results(cell).get("val", {}).get("accuracy") for cell in own]),
        "accuracy": _spread([test["accuracy"] for test in tests]),
        "worst_group": _spread([test.get("worst_group_accuracy") for test in tests]),
        "difference": _plain(found.difference),
        "worst_group_difference": _plain(found.worst_group_difference),
        "outcome": found.outcome,
        "worst_group_outcome": found.worst_group_outcome,
        "fitted_to_validation": drawn is not None and _fitted_to_validation(_config(spec, setting, drawn)),
        "paired_seeds": found.seeds,
        "verdict": " ".join(text for text in ("" if trouble and not own else found.sentence, trouble) if text),
        "worst_group_verdict": found.worst_group,
        "worst_group_caveat": found.caveat,
        "published": _plain(known),
        "caution": next((said for cell in own if (said := _file(cell, "results.json").get("caution"))), ""),
    }


def _trouble(setting: Setting, failed: Sequence[Cell], trials: Sequence[Cell], count: int) -> str:
    """Say what failed, which the figures of the others leave out; empty if nothing did."""
    if trials and len(trials) == count:
        return f"All {count} trials of {setting.method} failed; the first: {trials[0].failure}"
    waited = [cell for cell in trials if cell.troubled]
    if waited:
        return (
            f"The final runs of {setting.method} wait for trial {waited[0].number}, which the next run of the bench "
            f"tries again: {waited[0].failure}"
        )
    if not failed:
        return ""
    seeds = "seed" if len(failed) == 1 else "seeds"
    numbers = ", ".join(str(cell.number) for cell in failed)
    return f"{setting.method} failed with {seeds} {numbers}, which no figure counts: {failed[0].failure}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _best(spec: BenchSpec, out: Path, setting: Setting, trials: Iterable[Cell]) -> dict[str, Any] | None:
    """Return what the search chose for a setting; None while it has not ended, or if all its trials failed."""
    searched = tuned_as(spec, setting)
    if any(cell.state == "open" for cell in trials if cell.setting == searched):
        return None
    return chosen(spec, out, setting)


def _chosen_values(spec: BenchSpec, setting: Setting, drawn: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what was searched as a setting's runs have it: a default that won, or a variant's own value, too."""
    if drawn is None:
        return None
    config = _config(spec, setting, drawn)
    searched = spec.space(tuned_as(spec, setting).method)
    return {key: operator.attrgetter(resolve_key(key, config.method))(config) for key in searched}


def _config(spec: BenchSpec, setting: Setting, drawn: Mapping[str, Any]) -> RunConfig:
    return config_of(spec, setting, seed=spec.search_seed, drawn=drawn)


def _fitted_to_validation(config: RunConfig) -> bool:
    return config.method == "dfr" and config.dfr.data == "validation"


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for row in rows:
        # A carriage return would not be quoted here, and begin a row of its own.
        texts = {name: safe_cell(value.replace("\r", " ")) for name, value in row.items() if isinstance(value, str)}
        table.writerow({**row, **texts})
    return text.getvalue()


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "deviation": statistics.stdev(known) if len(known) > 1 else None,
        "values": known,
    }


def _results(cell: Cell) -> dict[str, Any]:
    splits = _file(cell, "results.json", "splits").get("splits", {})
    if not isinstance(splits, dict):
        raise RunError(
            f"{cell.path / 'results.json'} does not hold what it should (splits); the run folder is damaged."
        )
    return splits


def _file(cell: Cell, name: str, *keys: str) -> dict[str, Any]:
    """Return one of the files of a finished cell; empty if it is not finished."""
    return RunFolder.open(cell.path).read_json(name, *keys) if cell.state == "finished" else {}
