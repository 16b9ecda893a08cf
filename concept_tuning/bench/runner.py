"""Runs the cells of a bench, each in its own run folder, so that a bench goes on wherever it was stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from concept_tuning.bench.cells import (
    FINAL,
    SEARCH,
    Cell,
    final_cells,
    finals_for,
    forget_trouble,
    note_failure,
    remove_unneeded,
    trial_cells,
    trials_for,
)
from concept_tuning.bench.spec import BenchSpec, config_of, settings_of
from concept_tuning.bench.workers import in_processes
from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder, write_atomically
from concept_tuning.engine.turns import run_error
from concept_tuning.errors import ConfigError, RunError, StudioError

#: How often a cell is begun whose process died, before it counts as failed.
TRIES = 3
_SPEC, _LOCK = "bench.json", ".lock"
#: The name that a file has while it is written, with the writer's process id (:func:`write_atomically`).
_HALF_WRITTEN = re.compile(r"\..+\.(\d{1,9})\.tmp")

#: Runs cells and yields each that has ended, whether it finished or its process died.
Workers = Callable[[Sequence[Cell]], Iterator[Cell]]


def run_bench(
    spec: BenchSpec,
    out: Path,
    *,
    only: Sequence[str] | None = None,
    workers: Workers | None = None,
    report: Callable[[Cell], None] = lambda _: None,
) -> None:
    """Run what is not finished yet: for one data after another all trials that choose for it, then its final runs.

    A cell that fails by itself is noted and the bench goes on; one whose process dies is begun again, up to
    :data:`TRIES` times. What diverged or cannot be configured has failed for good, until its run folder is removed;
    what failed for another reason (missing data, a full disk, a dying process) is tried again when the bench is next
    begun, and the final runs that a trial of these would choose for wait for it.

    Args:
        spec: The bench.
        out: Its folder; one that holds another bench is refused (:func:`check_folder`).
        only: Names of the data that are learnt this time; None: all.
        workers: Where cells are run; None: one at a time on this machine.
        report: Given each cell that has ended.

    Raises:
        RunError: if the folder holds another bench or other files than a bench's, lies among pictures, or another
            process works on it.
    """
    _refuse_other_files(out)
    _refuse_inside_source(spec, out)
    lock = FileLock(out / _LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:  # which is an OSError too
        raise RunError(
            f"Another process works on the bench in {out}; wait for its end, or name another folder."
        ) from error
    except OSError as error:
        raise RunError(f"The bench's folder {out} cannot be written ({error.strerror}); name another --out.") from error
    try:
        _remove_leftovers(out)
        _keep_spec(spec, out)
        asked = [data.name for data in spec.data] if only is None else list(only)
        for cells_of in (trials_for, finals_for):
            for cell in cells_of(spec, out, asked):
                forget_trouble(cell.path)
                if cell.state == "finished":  # and perhaps killed right then
                    remove_unneeded(cell.path, cell.splits)
        for name in asked:
            for cells_of in (trials_for, finals_for):
                _run_all(cells_of(spec, out, [name]), workers or (lambda left: in_processes(left, 1)), report)
    finally:
        lock.release()


def check_out(spec: BenchSpec, out: Path) -> None:
    """Refuse a folder in which a bench can neither begin nor go on.

    Raises:
        RunError: if the path is no folder, holds other files than a bench's, lies among pictures, or
            :func:`check_folder` refuses it.
    """
    _refuse_other_files(out)
    _refuse_inside_source(spec, out)
    if (out / _SPEC).is_file():
        check_folder(spec, out)


def check_folder(spec: BenchSpec, out: Path) -> None:
    """Refuse a folder that does not hold this bench, begun or finished.

    A bench may have grown since: more data, methods and seeds change nothing of what has been run, and more trials
    nothing but what the search chooses, with which the final runs must then be made again.

    Raises:
        RunError: if the folder holds no bench, or a run with other settings than the bench now gives it.
    """
    file = out / _SPEC
    try:
        begun = file.is_file()
    except OSError as error:  # of a name that is too long, or for lack of rights
        raise RunError(f"The bench's folder {out} cannot be read ({error.strerror}); name another --out.") from error
    if not begun:
        raise RunError(f"{out} holds no bench yet; run it first, or name its folder.")
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        name, tuned_on = before["name"], {data["name"]: data.get("tuned_on") for data in before["data"]}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}, the bench's own copy of its spec, is damaged. If the bench is {spec.name!r}, remove that file "
            "and run it again: it goes on with the runs that are there. If not, name another folder."
        ) from error
    if name != spec.name:
        raise RunError(f"{out} holds another bench than {spec.name!r}; name another folder.")
    for data in spec.data:
        if data.tuned_on != tuned_on.get(data.name, data.tuned_on) and (out / FINAL / data.name).is_dir():
            was, now = tuned_on[data.name] or "itself", data.tuned_on or "itself"
            raise RunError(
                f"The final runs of {data.name} in {out} were tuned on {was}, and the bench now says {now}. Name "
                "another folder for the bench, or remove these runs."
            )
    _check_cells([*trial_cells(spec, out), *final_cells(spec, out)])


def _check_cells(cells: Sequence[Cell]) -> None:
    """Refuse cells that were run with other settings than they now have: the bench's, or what the search chose."""
    begun = [cell for cell in cells if (cell.path / "config.json").is_file()]
    if not begun:
        return
    from concept_tuning.engine.session import with_absolute_paths  # loads torch

    for cell in begun:
        before, now = _settings_of(cell.path), with_absolute_paths(cell.config)
        if before != now:  # perhaps the pictures have been moved away since, which leaves the results as they are
            now = with_absolute_paths(cell.config, missing=True)
        if before != now:
            raise RunError(
                f"The run {cell.path} was made with other settings than the bench or its search's choice gives it now: "
                f"{_difference(before.to_dict(), now.to_dict())}. Name another folder for the bench, or remove that "
                "run's to make it anew."
            )


def _settings_of(path: Path) -> RunConfig:
    """Return the settings of a run; raises RunError where they are none of this version's."""
    try:
        return RunFolder.open(path).config()
    except ConfigError as error:
        raise RunError(
            f"The settings of the run {path} are of another version of the program or damaged: {error} Go on with "
            "the version that began the bench, name another folder, or remove that run's to make it anew."
        ) from error


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> str:
    """Return in words the first setting that differs; that one does is taken for granted."""
    for name, value in before.items():
        other = now.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found = _difference(value, other, f"{place}{name}.")
            if found:
                return found
        elif value != other:
            return f"{place}{name} was {value!r} and is {other!r}"
    return ""


def _refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds something, and no bench: somebody's pictures, say."""
    try:
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is no folder; name another --out.")
        names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    except OSError as error:
        raise RunError(f"The bench's folder {out} cannot be read ({error.strerror}); name another --out.") from error
    if _SPEC in names or not names:
        return
    from concept_tuning.bench.figures import PAGE
    from concept_tuning.bench.tables import FILES

    if any(not name.startswith(".") for name in names - {SEARCH, FINAL, PAGE, *FILES}):
        raise RunError(f"{out} is not empty and holds no bench; name another --out.")


def _refuse_inside_source(spec: BenchSpec, out: Path) -> None:
    """Refuse a folder that lies among the pictures of some data, and would be taken for a class."""
    folders = [data for data in spec.data if Path(data.source).expanduser().is_dir()]
    if not folders:
        return
    from concept_tuning.engine.session import refuse_inside_source, with_absolute_paths  # loads torch

    for data in folders:
        setting = next(one for one in settings_of(spec) if one.data == data.name)
        config = with_absolute_paths(config_of(spec, setting, seed=spec.search_seed, drawn={}))
        refuse_inside_source(config, out.absolute(), option="--out")


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed process left half written of the bench's own files; one may print tables meanwhile."""
    for left in out.glob(".*.tmp"):
        found = _HALF_WRITTEN.fullmatch(left.name)
        if found and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)


def _keep_spec(spec: BenchSpec, out: Path) -> None:
    if (out / _SPEC).is_file():
        check_folder(spec, out)
    try:
        write_atomically(out / _SPEC, _text(spec))
    except OSError as error:
        raise run_error(f"The bench's folder {out} cannot be written", error) from error


def _text(spec: BenchSpec) -> str:
    return TypeAdapter(BenchSpec).dump_json(spec, indent=1).decode() + "\n"


def _run_all(cells: Sequence[Cell], workers: Workers, report: Callable[[Cell], None]) -> None:
    _check_cells(cells)
    tries = dict.fromkeys((cell.path for cell in cells), 0)
    while left := [cell for cell in cells if cell.state == "open"]:
        for cell in workers(left):
            tries[cell.path] += 1
            if tries[cell.path] == TRIES and cell.state == "open":
                note_failure(cell.path, died(cell), for_good=False)
            report(cell)


def died(cell: Cell) -> str:
    """Say that a cell's process died again and again, and what it said of it, if anything."""
    try:
        status = RunFolder.open(cell.path).status()
    except StudioError:
        status = {}
    said = f" {status.get('message', '')}" if status.get("state") == "failed" else ""
    return f"Its process died {TRIES} times.{said}"
