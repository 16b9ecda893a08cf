"""Runs the cells of a bench, each in its own run folder, so that a bench goes on wherever it was stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from concept_tuning.bench.search import best_trial, draw_trials
from concept_tuning.bench.spec import BenchSpec, Setting, config_of, settings_of
from concept_tuning.config import RunConfig
from concept_tuning.engine.records import working_process
from concept_tuning.engine.runs import RunFolder, write_atomically
from concept_tuning.errors import RunError, StudioError

#: How often a cell is begun whose process died, before it counts as failed.
TRIES = 3
_WAIT_SECONDS = 1.0
_SPEC, _LOCK, _FAILURE = "bench.json", ".lock", "failure.txt"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a bench.

    Attributes:
        setting: What is run.
        kind: ``trial`` or ``final``.
        number: Of the trial, or the seed of the final run.
        config: The run's settings.
        path: Its run folder.
    """

    setting: Setting
    kind: str
    number: int
    config: RunConfig
    path: Path

    @property
    def state(self) -> str:
        """``finished``, ``failed`` (by itself, so that trying again is no use) or ``open``."""
        if (self.path.parent / f"{self.path.name}.{_FAILURE}").is_file():
            return "failed"
        try:
            return "finished" if RunFolder.open(self.path).status().get("state") == "finished" else "open"
        except StudioError:
            return "open"

    @property
    def failure(self) -> str:
        """Why it failed; empty if it did not."""
        file = self.path.parent / f"{self.path.name}.{_FAILURE}"
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def trial_cells(spec: BenchSpec, out: Path) -> list[Cell]:
    """Return the runs of the search; none for what has nothing to search."""
    return [
        Cell(
            setting=setting,
            kind="trial",
            number=number,
            config=config_of(spec, setting, seed=spec.search_seed, drawn=drawn),
            path=out / "search" / setting.place / f"trial-{number}",
        )
        for setting in settings_of(spec)
        if len(trials := draw_trials(spec, setting)) > 1
        for number, drawn in enumerate(trials)
    ]


def final_cells(spec: BenchSpec, out: Path) -> list[Cell]:
    """Return the runs at each setting's best trial; of what was searched in vain there are none."""
    cells = []
    for setting in settings_of(spec):
        drawn = chosen(spec, out, setting)
        if drawn is None:
            continue
        cells += [
            Cell(
                setting=setting,
                kind="final",
                number=seed,
                config=config_of(spec, setting, seed=seed, drawn=drawn),
                path=out / "final" / setting.place / f"seed-{seed}",
            )
            for seed in spec.seeds
        ]
    return cells


def chosen(spec: BenchSpec, out: Path, setting: Setting) -> dict[str, Any] | None:
    """Return what the search chose for a setting, by validation; None while no trial is finished."""
    trials = draw_trials(spec, setting)
    if len(trials) == 1:
        return trials[0]
    found = {}
    for number in range(len(trials)):
        path = out / "search" / setting.place / f"trial-{number}"
        if (path / "results.json").is_file():
            split = RunFolder.open(path).read_json("results.json", "splits")["splits"]["val"]
            found[number] = (float(split["accuracy"]), float(split["loss"]))
    best = best_trial(found)
    return None if best is None else trials[best]


def run_bench(
    spec: BenchSpec, out: Path, *, workers: int = 1, report: Callable[[str, int, int], None] = lambda *_: None
) -> None:
    """Run what is not finished yet: all trials first, then the final runs.

    A cell that fails by itself (diverges, lacks something) is noted and the bench goes on; one whose process dies is
    begun again, up to :data:`TRIES` times.

    Args:
        spec: The bench.
        out: Its folder; one that holds another bench is refused.
        workers: Processes at once.
        report: Given a line of text, and how many of how many cells of this part are done.

    Raises:
        RunError: if the folder holds another bench, or another process works on it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"Another process works on the bench in {out}; wait for its end, or name another folder."
        ) from error
    try:
        _keep_spec(spec, out)
        for cells in (trial_cells, final_cells):
            _run_all(cells(spec, out), workers, report)
    finally:
        lock.release()


def _keep_spec(spec: BenchSpec, out: Path) -> None:
    text = TypeAdapter(BenchSpec).dump_json(spec, indent=1).decode() + "\n"
    file = out / _SPEC
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise RunError(f"{out} holds another bench than {spec.name!r}; name another folder.")
    write_atomically(file, text)


def _run_all(cells: Sequence[Cell], workers: int, report: Callable[[str, int, int], None]) -> None:
    tries = dict.fromkeys((cell.path for cell in cells), 0)
    while left := [cell for cell in cells if cell.state == "open"]:
        for cell in left:
            tries[cell.path] += 1
            if tries[cell.path] > TRIES:
                _note_failure(cell.path, f"Its process died {TRIES} times.")
        left = [cell for cell in left if tries[cell.path] <= TRIES]
        for cell in _finished(left, workers):
            done = sum(one.state != "open" for one in cells)
            report(f"{cell.setting.place} {cell.kind} {cell.number}: {cell.failure or cell.state}", done, len(cells))


def _finished(cells: Sequence[Cell], workers: int) -> Iterator[Cell]:
    """Run cells in a pool and yield each that has ended; ends early if a process of the pool dies."""
    if not cells:
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running: dict[Future[None], Cell] = {
            pool.submit(run_cell, json.dumps(cell.config.to_dict()), str(cell.path), threads): cell for cell in cells
        }
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BrokenProcessPool:
            return
        finally:
            for future in running:
                future.cancel()


def run_cell(config: str, place: str, threads: int) -> None:
    """Start or resume one run in this process; what is wrong with it is noted beside its folder."""
    import torch

    from concept_tuning.engine.session import resume_run, start_run
    from concept_tuning.progress import ConsoleWatcher

    torch.set_num_threads(threads)
    path, watcher = Path(place), ConsoleWatcher(quiet=True)
    try:
        if (path / "config.json").is_file():
            while working_process(RunFolder.open(path).status()) is not None:  # left over from a bench that was killed
                time.sleep(_WAIT_SECONDS)
            resume_run(path, watcher)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            start_run(RunConfig.from_dict(json.loads(config)), path, watcher)
    except StudioError as error:
        _note_failure(path, str(error))


def _note_failure(path: Path, reason: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path.parent / f"{path.name}.{_FAILURE}", reason + "\n")
