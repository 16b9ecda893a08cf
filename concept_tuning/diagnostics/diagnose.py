"""A diagnosis: every analysis of some runs on the same pictures, written to a folder as it is made.

The folder holds ``diagnosis.json`` (what was looked at, and what each analysis gave or why it gave nothing),
``results/*.json`` (one frozen result a file) and ``timings.json``; one process at a time works in it. All but the
timings is the same for the same runs, settings and machine, up to rounding in the last digits of what goes through a
network.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic.dataclasses import dataclass as result_dataclass

from concept_tuning.diagnostics.catalogue import ANALYSES, BY_NAME, Analysis
from concept_tuning.diagnostics.checks import check_pictures
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.results import RESULT, Unavailable, load_result, save_result
from concept_tuning.diagnostics.thumbnails import Thumbnails, make_thumbnails
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.engine.checkpoint import is_disk_full
from concept_tuning.engine.loading import load_run
from concept_tuning.engine.runs import write_atomically
from concept_tuning.errors import ConfigError, RunError, StudioError
from concept_tuning.proportion import number_of

Report = Callable[[str], None]
#: Thumbnails kept, of all that there are; more where results show more.
_KEPT = 1000
_OVERVIEW, _RESULTS, _THUMBNAILS, _LOCK = "diagnosis.json", "results", "thumbnails", ".lock"
#: Files of results, also of a version that had other analyses.
_RESULT_FILE = re.compile(rf"\d\d+_[a-z-]+\.json|{_THUMBNAILS}\.json")


@result_dataclass(frozen=True, kw_only=True, config=RESULT)
class RunCard:
    """A run in a diagnosis.

    Attributes:
        name: Its name here.
        method: How it was fine-tuned.
        backbone: timm's name.
        source: Its data, as the run was given them.
        seed: Of the run.
        validation_note: How its validation split was drawn.
    """

    name: str
    method: str
    backbone: str
    source: str
    seed: int
    validation_note: str


@result_dataclass(frozen=True, kw_only=True, config=RESULT)
class Entry:
    """What one analysis gave.

    Attributes:
        analysis: Its name.
        run: The run it is of; None for all together.
        file: The result's file in the folder; None where there is none.
        reason: Why there is none; None where there is one.
    """

    analysis: str
    run: str | None
    file: str | None
    reason: str | None


@result_dataclass(frozen=True, kw_only=True, config=RESULT)
class Overview:
    """What a diagnosis looked at, and what it found.

    Attributes:
        runs: The runs.
        class_names: The C classes.
        split: The split looked at.
        pictures: How many of its pictures.
        total: How many there are.
        limit: Most pictures asked for; None: all.
        only: The analyses asked for; empty: all.
        source_folder: Whether source-like pictures were given.
        seed: Of every random choice.
        entries: One for each analysis, or for each analysis and run.
        units: How many plants or patients the pictures show; None where each is by itself.
    """

    runs: tuple[RunCard, ...]
    class_names: tuple[str, ...]
    split: str
    pictures: int
    total: int
    limit: int | None
    only: tuple[str, ...]
    source_folder: bool
    seed: int
    entries: tuple[Entry, ...]
    units: int | None = None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A diagnosis read from its folder.

    Attributes:
        overview: What was looked at.
        results: Result by analysis and run (None: all together).
        thumbnails: The pictures that results show.
    """

    overview: Overview
    results: dict[tuple[str, str | None], Any]
    thumbnails: Thumbnails


def load_subjects(runs: Sequence[Path]) -> tuple[Subject, ...]:
    """Load runs; each is called like its folder, with the folder above where two are called alike.

    Raises:
        RunError: if one is no trained run, or is given twice.
    """
    paths = [Path(run).resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise RunError("The same run is given twice; name each once.")
    names = [path.name for path in paths]
    return tuple(
        Subject(
            name=path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}", run=load_run(path)
        )
        for path in paths
    )


def choose_analyses(only: Sequence[str] = ()) -> tuple[Analysis, ...]:
    """Return the analyses of these names, or all; raises ConfigError for an unknown name."""
    unknown = [name for name in only if name not in BY_NAME]
    if unknown:
        raise ConfigError(f"There is no analysis {unknown[0]!r}; there are {', '.join(BY_NAME)}.")
    return tuple(analysis for analysis in ANALYSES if not only or analysis.name in only)


def diagnose(bench: Workbench, out: Path, *, only: Sequence[str] = (), report: Report = lambda text: None) -> Diagnosis:
    """Make the analyses, each written as soon as it is done.

    An analysis that lacks something, or fails for a reason that can be told, is entered with that reason.

    Args:
        bench: Runs and pictures.
        out: Folder to write; made where it is missing. An earlier diagnosis in it is replaced.
        only: Names of the analyses to make; empty: all.
        report: Given a line of text before each analysis.

    Raises:
        ConfigError: for an unknown analysis.
        RunError: if the folder cannot be written, or another process makes a diagnosis in it.
    """
    analyses = choose_analyses(only)
    cards = _cards(bench)  # first, since a run may be removed meanwhile
    with _explained_storage(out), _alone(out):
        return _diagnose(bench, out, analyses, cards, only=only, report=report)


def _diagnose(
    bench: Workbench,
    out: Path,
    analyses: Sequence[Analysis],
    cards: tuple[RunCard, ...],
    *,
    only: Sequence[str],
    report: Report,
) -> Diagnosis:
    results = _prepare(out)
    entries: list[Entry] = []
    timings: dict[str, float] = {}
    shown: set[str] = set()
    found: dict[tuple[str, str | None], Any] = {}
    try:
        for analysis in analyses:
            report(analysis.title)
            started = time.monotonic()
            for run, result in _make(analysis, bench):
                entry = _write(analysis, run, result, results, place=len(entries))
                entries.append(entry)
                if entry.file is not None:
                    found[analysis.name, run] = result
                    shown.update(analysis.gallery(result))
            timings[analysis.name] = round(time.monotonic() - started, 2)
    finally:  # what is done can be read, also after an interrupt
        thumbnails = make_thumbnails(bench.pictures, _some_of(bench.pictures.keys, shown))
        save_result(thumbnails, results / f"{_THUMBNAILS}.json")
        overview = _overview(bench, cards, tuple(entries), only)
        save_result(overview, out / _OVERVIEW)
        write_atomically(out / "timings.json", json.dumps(timings, indent=1) + "\n")
    return Diagnosis(overview=overview, results=found, thumbnails=thumbnails)


def load_diagnosis(out: Path) -> Diagnosis:
    """Read a diagnosis from its folder; raises :class:`RunError` if it is missing, damaged or in part elsewhere."""
    if (out / _OVERVIEW).is_symlink():
        raise RunError(f"The diagnosis {out.name} is a link to another; name the folder of that, or make it again.")
    overview = load_result(Overview, out / _OVERVIEW)
    results: dict[tuple[str, str | None], Any] = {
        (entry.analysis, entry.run): load_result(_kind(entry), _inside(out, entry.file))
        for entry in overview.entries
        if entry.file is not None
    }
    thumbnails = load_result(Thumbnails, _inside(out, f"{_RESULTS}/{_THUMBNAILS}.json"))
    for result in (*results.values(), thumbnails):
        check_pictures(result, overview.class_names, out.name)
    return Diagnosis(overview=overview, results=results, thumbnails=thumbnails)


def _inside(out: Path, file: str) -> Path:
    """Return the place of a result's file; raises RunError if it is not below the folder of results."""
    path = out / file
    if not path.resolve().is_relative_to(out.resolve() / _RESULTS):
        raise RunError(f"The diagnosis {out.name} names a file outside its folder; make it again.")
    return path


def _some_of(keys: Sequence[str], shown: set[str]) -> set[str]:
    """Return the names that results show, and others until there are :data:`_KEPT`."""
    others = [key for key in keys if key not in shown]
    return shown | set(others[: max(0, _KEPT - len(shown))])


def _kind(entry: Entry) -> type:
    if entry.analysis not in BY_NAME:
        raise RunError(f"The diagnosis holds an unknown analysis {entry.analysis!r}; make it again.")
    return BY_NAME[entry.analysis].kind


def _make(analysis: Analysis, bench: Workbench) -> Iterator[tuple[str | None, Any]]:
    """Yield the result for each run, or the one of all together."""
    if analysis.compute is not None:
        yield None, _explained(analysis, lambda: analysis.compute(bench) if analysis.compute else None)
        return
    for subject in bench.subjects:
        made = analysis.compute_one
        yield subject.name, _explained(analysis, lambda: made(bench, subject) if made else None)  # noqa: B023


def _explained(analysis: Analysis, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except StudioError as error:
        return Unavailable(analysis=analysis.name, reason=str(error))


def _write(analysis: Analysis, run: str | None, result: Any, folder: Path, *, place: int) -> Entry:
    if isinstance(result, Unavailable):
        return Entry(analysis=analysis.name, run=run, file=None, reason=result.reason)
    name = f"{place:02d}_{analysis.name}.json"
    save_result(result, folder / name)
    return Entry(analysis=analysis.name, run=run, file=f"{_RESULTS}/{name}", reason=None)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Make the folder and hold it for this process, by a lock of the operating system that falls with its holder.

    Raises:
        RunError: if it holds other things than a diagnosis, or links, cannot be written, or another process works
            in it.
    """
    lock = FileLock(out / _LOCK)
    try:
        _refuse_links(out)
        found = [path.name for path in out.iterdir() if path.name != _LOCK] if out.is_dir() else []
        if found and not ((out / _OVERVIEW).is_file() or _was_interrupted(out / _RESULTS)):
            raise RunError(f"{out} is not empty and holds no diagnosis; name another --out.")
        (out / _RESULTS).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:  # which is an OSError too
        raise RunError(
            f"Another process makes a diagnosis in {out}; wait for its end, or name another --out."
        ) from error
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_links(out: Path) -> None:
    """Refuse a stranger's folder whose links would have files elsewhere removed or overwritten."""
    for folder in (out, out / _RESULTS):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink():
                raise RunError(f"{path} is a link, which can lead out of the folder; remove it, or name another --out.")


def _prepare(out: Path) -> Path:
    """Empty the folder of an earlier diagnosis; return the folder of results, or raise RunError if that cannot be."""
    results = out / _RESULTS
    try:
        (out / _OVERVIEW).unlink(missing_ok=True)
        for old in results.glob("*.json"):
            if _RESULT_FILE.fullmatch(old.name):
                old.unlink()
    except OSError as error:
        raise _unwritable(out, error) from error
    return results


def _unwritable(out: Path, error: OSError) -> RunError:
    return RunError(f"The folder {out} cannot be written ({error.strerror or error}); name another --out.")


def _was_interrupted(results: Path) -> bool:
    """Return whether a folder holds what a diagnosis writes and nothing else, parts of files aside."""
    return results.is_dir() and all(
        path.name.startswith(".") or _RESULT_FILE.fullmatch(path.name) for path in results.iterdir()
    )


@contextmanager
def _explained_storage(out: Path) -> Iterator[None]:
    """Say in words that the disk is full, or whatever else keeps results from being written."""
    try:
        yield
    except OSError as error:
        what = "the disk is full; free some space" if is_disk_full(error) else f"{error.strerror}; name another folder"
        raise RunError(f"The results in {out} cannot be written: {what} and diagnose again.") from error


def _cards(bench: Workbench) -> tuple[RunCard, ...]:
    return tuple(
        RunCard(
            name=subject.name,
            method=subject.run.config.method,
            backbone=subject.run.config.backbone.architecture,
            source=Path(subject.run.config.data.source).name,
            seed=subject.run.config.engine.seed,
            validation_note=subject.run.folder.read_json("results.json").get("validation_note", ""),
        )
        for subject in bench.subjects
    )


def _overview(
    bench: Workbench, cards: tuple[RunCard, ...], entries: tuple[Entry, ...], only: Sequence[str]
) -> Overview:
    return Overview(
        runs=cards,
        class_names=bench.bundle.class_names,
        split=bench.split,
        pictures=len(bench.pictures),
        total=len(bench.bundle.splits[bench.split]),
        limit=bench.count,
        only=tuple(only),
        source_folder=bench.source_folder is not None,
        seed=bench.seed,
        entries=entries,
        units=number_of(bench.pictures.units),
    )
