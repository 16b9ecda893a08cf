"""Keep a bench's results: its rows, runs and trials as one record, and tables of it for the README.

    python benchmarks/bench_record.py keep benchmarks/specs/offline.yaml runs/bench/offline --commit 1234567 \\
        --ran "concept-tuning benchmark benchmarks/specs/offline.yaml --workers 2"
    python benchmarks/bench_record.py table offline --data planted                    # markdown, of the record
    python benchmarks/bench_record.py table offline --data planted --only ct-cheap ct-no-image
    python benchmarks/bench_record.py over offline --data map-90-300 map-90-600 map-97-600    # means over several

`keep` leaves out what has not been run yet and says how much that is. With `--add` what the record has of other
settings stays, so that a bench can be recorded in parts, whichever machine ran them; each part has its command, commits
and caveats. The commit is that of the code that ran it, which may be an older one than the one that records it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from records import RESULTS

from concept_tuning.bench.markdown import over_data_text, percent, points
from concept_tuning.bench.over_data import FEWEST, over_data, pictures_of
from concept_tuning.bench.spec import BenchSpec, Setting, load_spec
from concept_tuning.bench.tables import cell_rows, summary, trial_rows
from concept_tuning.errors import RunError, StudioError

#: What a record has of each setting.
_ROWS = ("summary", "cells", "trials")
_COLUMNS = ("method", "seeds", "accuracy", "worst group", "accuracy against", "worst group against")


def keep(
    spec: BenchSpec,
    folder: Path,
    *,
    command: str,
    commits: Sequence[str],
    caveats: Sequence[str],
    add: bool = False,
    drop: Sequence[str] = (),
) -> Path:
    """Write a bench's finished runs to ``results/bench_<name>.json``; returns the file.

    Args:
        spec: The bench.
        folder: Its folder.
        command: That ran it.
        commits: Of the code that ran it.
        caveats: What to know of the figures.
        add: Whether the settings of an earlier record stay that are not finished in this folder.
        drop: Data of which nothing stays of an earlier record, since it is other data now.

    Raises:
        RunError: if the folder is not there, nothing in it is finished, the record is of another first method, of other
            seeds or of other data or variants under the same names, or a setting was compared with runs of the first
            method that are not those of the record.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder of a bench; run `concept-tuning benchmark` first.")
    rows = summary(spec, folder)
    done = [row for row in rows if row["seeds"]]
    if not done:
        raise RunError(f"No final run in {folder} is finished yet.")
    path = RESULTS / f"bench_{spec.name}.json"
    record: dict[str, Any] = {
        "methods": list(spec.methods),
        "variants": _variants(spec, dict.fromkeys(row["method"] for row in done)),
        "seeds": list(spec.seeds),
        "data": {name: _learnt(spec, name) for name in dict.fromkeys(row["data"] for row in done)},
        "settings": {},
        "parts": [
            {
                "command": command,
                "commits": list(commits),
                "caveats": list(caveats),
                "settings": [_place(row) for row in done],
            }
        ],
        "summary": done,
        "cells": [row for row in cell_rows(spec, folder) if row["state"] != "open"],
        "trials": [row for row in trial_rows(spec, folder) if row["state"] != "open"],
    }
    if add and path.is_file():
        record = _joined(_without(read_record(spec.name), drop), record)
    finished = sum(row["seeds"] == len(spec.seeds) for row in record["summary"])
    record["settings"] = {"finished": finished, "all": len(rows)}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def _place(row: Mapping[str, Any]) -> str:
    """Return which setting a row is of."""
    return Setting(**{field.name: row[field.name] for field in dataclasses.fields(Setting)}).place


def _learnt(spec: BenchSpec, name: str) -> dict[str, Any]:
    """Return what makes the results of some data what they are: where it is from, and what was set."""
    data = spec.data_named(name)
    learnt = {
        "source": data.source,
        "set": {**spec.set, **data.set},
        "preset": spec.preset,
        "tuned_on": data.tuned_on,
        "choices": data.choices,
    }
    plain: dict[str, Any] = json.loads(json.dumps(learnt))  # as the record has it
    return plain


def _variants(spec: BenchSpec, names: Iterable[str]) -> dict[str, Any]:
    """Return what the variants among some methods are."""
    found = {name: dataclasses.asdict(spec.variants[name]) for name in names if name in spec.variants}
    plain: dict[str, Any] = json.loads(json.dumps(found))  # as the record has it
    return plain


def _without(record: Mapping[str, Any], drop: Sequence[str]) -> Mapping[str, Any]:
    """Return a record with nothing of some data."""
    if not drop:
        return record
    _look_for(record, drop)
    gone = {_place(row) for row in record["summary"] if row["data"] in drop}
    return {
        **record,
        "data": {name: learnt for name, learnt in record.get("data", {}).items() if name not in drop},
        "parts": _parts_without(record["parts"], gone),
        **{name: [row for row in record[name] if row["data"] not in drop] for name in _ROWS},
    }


def _parts_without(parts: Iterable[Mapping[str, Any]], places: Collection[str]) -> list[dict[str, Any]]:
    """Return the parts of a record that have other settings, with these alone."""
    left = [{**part, "settings": [one for one in part["settings"] if one not in places]} for part in parts]
    return [part for part in left if part["settings"]]


def _joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with what an earlier one has of other settings, and of those of which it has more seeds."""
    base = now["methods"][0]
    if before["methods"][0] != base:
        raise RunError(f"The record compares with {before['methods'][0]}, and this bench with {base}.")
    if before["seeds"] != now["seeds"]:
        raise RunError(f"The record is of the seeds {before['seeds']}, and this bench of {now['seeds']}.")
    known = before.get("data", {})
    if changed := [name for name, learnt in now["data"].items() if known.get(name, learnt) != learnt]:
        raise RunError(
            f"{changed[0]} is not what it is in the record ({now['data'][changed[0]]}, and there "
            f"{known[changed[0]]}). Name it otherwise, or let go of what the record has: --drop {changed[0]}."
        )
    variants = before.get("variants", {})
    if changed := [name for name, one in now["variants"].items() if variants.get(name, one) != one]:
        raise RunError(
            f"The variant {changed[0]} is not what it is in the record ({now['variants'][changed[0]]}, and there "
            f"{variants[changed[0]]}). Name it otherwise."
        )
    more = {_place(row) for row in before["summary"] for new in now["summary"] if _fewer(new, row)}
    now = {**now, **{name: [row for row in now[name] if _place(row) not in more] for name in _ROWS}}
    now["parts"] = _parts_without(now["parts"], more)
    for row in now["summary"]:
        if row["difference"] is not None and (place := _place({**row, "method": base})) in more:
            raise RunError(
                f"{_place(row)} was compared with fewer seeds of {base} than the record has. Finish {place} first."
            )
    was, reached = ({_place(row): row["accuracy"]["values"] for row in record["summary"]} for record in (before, now))
    stay = [row for row in before["summary"] if _place(row) not in reached]
    for place in (_place({**row, "method": base}) for row in stay):
        if place in reached and reached[place] != was.get(place):
            raise RunError(
                f"{place} reached other accuracies ({reached[place]}) than in the record ({was.get(place)}), with "
                "which its other methods were compared. Keep the bench without --add, or run the others again too."
            )
    parts = _parts_without(before["parts"], reached) + now["parts"]
    joined = {**now, "data": {**known, **now["data"]}, "variants": {**variants, **now["variants"]}}
    joined |= {"parts": parts, "summary": stay + now["summary"]}
    for name in ("cells", "trials"):
        left = [row for row in before[name] if _place(row) not in reached]
        theirs = {_place(row) for row in left}  # begun anew, but not finished: the earlier runs are the setting's
        joined[name] = left + [row for row in now[name] if _place(row) not in theirs]
    return joined


def _fewer(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether a row has fewer finished seeds than an earlier one of the same setting."""
    same: bool = _place(new) == _place(old) and new["seeds"] < old["seeds"]
    return same


def table(record: Mapping[str, Any], data: str, *, only: Sequence[str] = ()) -> str:
    """Return a record's rows of some data as markdown, the best first but for the method compared with.

    A difference that the verdict takes to be shown is bold. Rows of several backbones or sample rates are named apart.

    Raises:
        RunError: if the record has no such data or method.
    """
    _look_for(record, [data])
    rows = [row for row in record["summary"] if row["data"] == data]
    missing = [name for name in only if name not in {row["method"] for row in rows}]
    if missing:
        raise RunError(f"The record has no {missing[0]!r} on {data}.")
    base = record["methods"][0]
    wanted = [row for row in rows if not only or row["method"] in (base, *only)]
    places = list(dict.fromkeys((row["backbone"], row["sample_rate"]) for row in wanted))
    lines = []
    for place in places:
        here = [row for row in wanted if (row["backbone"], row["sample_rate"]) == place]
        here.sort(key=lambda row: (row["method"] != base, -row["accuracy"]["mean"]))
        suffix = "" if len(places) == 1 else f", {place[0]}, {place[1]:g} %"
        lines += [_line(row, suffix) for row in here]
    head = [f"{name} `{base}`" if name.endswith("against") else name for name in _COLUMNS]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def over(record: Mapping[str, Any], data: Sequence[str], *, only: Sequence[str] = ()) -> str:
    """Return how methods compare with the first one over some of a record's data (all, if none is named), as markdown.

    Raises:
        RunError: if the record has no such data, or no method is finished on enough of it.
    """
    _look_for(record, data)
    base = record["methods"][0]
    rows = [row for row in record["summary"] if not data or row["data"] in data]
    sets = {name: pictures_of(learnt["source"], learnt["set"]) for name, learnt in record.get("data", {}).items()}
    found = [one for one in over_data(rows, base, len(record["seeds"]), sets) if not only or one.method in only]
    if not found:
        raise RunError(
            f"The record has no such method that is finished with every seed on {FEWEST} or more sets of "
            "pictures among these data."
        )
    blocks = {(one.method, *block) for one in found for block in one.blocks}
    shown = [row for row in rows if (row["method"], row["data"], row["backbone"], row["sample_rate"]) in blocks]
    return "\n\n".join([over_data_text(found, base), *_caveats(record, shown)])


def _look_for(record: Mapping[str, Any], data: Iterable[str]) -> None:
    """Raise RunError if a record lacks some data."""
    known = dict.fromkeys(row["data"] for row in record["summary"])
    for name in data:
        if name not in known:
            raise RunError(f"The record has no data {name!r}; it has {', '.join(known)}.")


def _line(row: Mapping[str, Any], suffix: str) -> str:
    cells = [f"`{row['method']}`{suffix}", str(row["seeds"])]
    cells += ["" if row[name] is None else percent(row[name]) for name in ("accuracy", "worst_group")]
    for name, outcome in (("difference", "outcome"), ("worst_group_difference", "worst_group_outcome")):
        cells.append(_points(row[name], row.get(outcome)))
    return f"| {' | '.join(cells)} |"


def _points(found: Mapping[str, float] | None, outcome: str | None) -> str:
    """Return a difference in points, bold where it is shown; older records tell that by the interval alone."""
    if found is None:
        return ""
    left_out = found["low"] > 0 or found["high"] < 0
    return f"**{points(found)}**" if left_out and outcome in (None, "better", "worse") else points(found)


def read_record(name: str) -> Mapping[str, Any]:
    """Return the record of a bench by its name; raises RunError if there is none, or none that can be read."""
    path = RESULTS / f"bench_{name}.json"
    if not path.is_file():
        raise RunError(f"There is no record {path.name}.")
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path.name} is damaged ({error}); keep the bench again.") from error
    if "parts" not in found:
        raise RunError(f"{path.name} is an older record, which does not tell its parts; keep the bench again.")
    return found


def _texts(record: Mapping[str, Any], data: Iterable[str], only: Sequence[str]) -> str:
    chosen = list(data) or list(dict.fromkeys(row["data"] for row in record["summary"]))
    texts = [f"{name}\n\n{table(record, name, only=only)}" for name in chosen]
    base = record["methods"][0]
    shown = [row for row in record["summary"] if row["data"] in chosen and (not only or row["method"] in (base, *only))]
    return "\n\n".join([*texts, *_caveats(record, shown)])


def _caveats(record: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Return what the record says of the figures in some rows, a line for each part."""
    places = {_place(row) for row in rows}
    for part in record["parts"]:
        if part["caveats"] and not places.isdisjoint(part["settings"]):
            data = dict.fromkeys(place.split("/")[0] for place in part["settings"])
            yield f"On {', '.join(data)}: {' '.join(part['caveats'])}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep a bench or print tables of a record; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="write the record")
    keeping.add_argument("spec", type=Path, help="the bench, a YAML file")
    keeping.add_argument("bench", type=Path, help="its folder")
    keeping.add_argument("--commit", nargs="+", required=True, help="of the code that ran it")
    keeping.add_argument("--ran", required=True, metavar="COMMAND", help="the command that ran it")
    keeping.add_argument("--caveat", nargs="+", default=[], help="what to know of the figures")
    keeping.add_argument("--add", action="store_true", help="let stay what the record has of other settings")
    keeping.add_argument("--drop", nargs="+", default=[], metavar="DATA", help="with --add: but nothing of these data")
    for name, what in (("table", "print tables of a record"), ("over", "print methods over several data of a record")):
        printing = commands.add_parser(name, help=what)
        printing.add_argument("name", help="of the bench")
        printing.add_argument("--data", nargs="+", default=[], help="these data; default: all")
        printing.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="these methods beside the first")
    options = parser.parse_args(arguments)
    try:
        if options.command == "table":
            print(_texts(read_record(options.name), options.data, options.only))
        elif options.command == "over":
            print(over(read_record(options.name), options.data, only=options.only))
        else:
            spec = load_spec(options.spec)
            told = {"command": options.ran, "commits": options.commit, "caveats": options.caveat}
            print(keep(spec, options.bench, **told, add=options.add, drop=options.drop))
    except StudioError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
