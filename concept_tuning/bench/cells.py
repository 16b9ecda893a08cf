"""The cells of a bench: which runs there are, where they lie, and what the search chose."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from concept_tuning.bench.search import best_trial, draw_trials
from concept_tuning.bench.spec import BenchSpec, Setting, config_of, settings_of, tuned_as
from concept_tuning.config import RunConfig
from concept_tuning.engine.curves import is_number
from concept_tuning.engine.runs import RunFolder, write_atomically
from concept_tuning.engine.turns import run_error
from concept_tuning.errors import RunError, StudioError

#: Folders of the trials and of the final runs in a bench's folder.
SEARCH, FINAL = "search", "final"


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
    kind: Literal["trial", "final"]
    number: int
    config: RunConfig
    path: Path

    @property
    def state(self) -> str:
        """``finished``, ``failed`` or ``open``."""
        return state_of(self.path)

    @property
    def failure(self) -> str:
        """Why it failed; empty if it did not."""
        return next(
            (
                file.read_text(encoding="utf-8", errors="replace").strip()
                for file in _notes(self.path)
                if file.is_file()
            ),
            "",
        )

    @property
    def troubled(self) -> bool:
        """Whether it failed for a reason that may go, and so has not ended yet."""
        return _notes(self.path)[1].is_file()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that it predicts when it is trained; a trial none, so that the search never reads the test."""
        return () if self.kind == "trial" else ("val", "test")


def state_of(path: Path) -> str:
    """Return the state of the cell of a run folder, there or not; see :attr:`Cell.state`."""
    if any(file.is_file() for file in _notes(path)):
        return "failed"
    try:
        return "finished" if RunFolder.open(path).status().get("state") == "finished" else "open"
    except StudioError:
        return "open"


def note_failure(path: Path, reason: str, *, for_good: bool = True) -> None:
    """Write beside a cell's folder why it failed, which ends it.

    Args:
        path: Its run folder, there or not.
        reason: In words.
        for_good: Whether it would fail again, as long as its run folder is there; else it is tried again when the
            bench is next begun.

    Raises:
        RunError: if that cannot be written.
    """
    failed, troubled = _notes(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(failed if for_good else troubled, reason + "\n")
    except OSError as error:
        raise run_error(f"{path} failed ({reason}), and that cannot be noted", error) from error


def forget_trouble(path: Path) -> None:
    """Let a cell be tried again that failed for a reason that may have gone, or whose run folder was removed.

    Such as missing data, a full disk, or a weights file that was put in place of a wrong one before any run began.
    """
    failed, troubled = _notes(path)
    troubled.unlink(missing_ok=True)
    if not (path / "config.json").is_file():
        failed.unlink(missing_ok=True)


def is_tried_again(path: Path) -> bool:
    """Whether a cell that failed is one that :func:`forget_trouble` lets be tried again."""
    failed, troubled = _notes(path)
    return troubled.is_file() or (failed.is_file() and not (path / "config.json").is_file())


def remove_unneeded(path: Path, splits: Sequence[str]) -> None:
    """Remove what nothing reads again of a finished run: its checkpoints, and the weights of one that predicts nothing.

    Nothing is removed while another process works on it, which does so itself, nor where that cannot be done.

    Args:
        path: Its run folder.
        splits: What it predicted; a trial nothing.
    """
    folder = RunFolder.open(path)
    weights = folder.best_weights
    if not folder.checkpoints.exists() and (splits or not weights.exists()):
        return
    with contextlib.suppress(RunError, OSError):
        folder.refuse_links()
        with folder.locked():
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            if not splits:
                weights.unlink(missing_ok=True)


def trial_cells(spec: BenchSpec, out: Path) -> list[Cell]:
    """Return the runs of the search; none for what has nothing to search."""
    return [
        Cell(
            setting=setting,
            kind="trial",
            number=number,
            config=config_of(spec, setting, seed=spec.search_seed, drawn=drawn),
            path=_trial_path(out, setting, number),
        )
        for setting in dict.fromkeys(tuned_as(spec, setting) for setting in settings_of(spec))
        if len(trials := draw_trials(spec, setting)) > 1
        for number, drawn in enumerate(trials)
    ]


def trials_for(spec: BenchSpec, out: Path, data: Collection[str]) -> list[Cell]:
    """Return the trials that choose for some data, be they on others."""
    wanted = {tuned_as(spec, setting) for setting in settings_of(spec) if setting.data in data}
    return [cell for cell in trial_cells(spec, out) if cell.setting in wanted]


def final_cells(spec: BenchSpec, out: Path) -> list[Cell]:
    """Return the runs at each setting's best trial; there are none where nothing is :func:`chosen`."""
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
                path=final_path(out, setting, seed),
            )
            for seed in spec.seeds
        ]
    return cells


def finals_for(spec: BenchSpec, out: Path, data: Collection[str]) -> list[Cell]:
    """Return the final runs of some data."""
    return [cell for cell in final_cells(spec, out) if cell.setting.data in data]


def chosen(spec: BenchSpec, out: Path, setting: Setting) -> dict[str, Any] | None:
    """Return what the search chose for a setting; None while no trial is finished, or one is to be tried again.

    All methods have the same number of trials, so that nothing is chosen without one that a full disk stopped.

    By validation as it was at the trial's best epoch: before anything is fitted to validation itself, as
    ``dfr`` does in the end.
    """
    searched = tuned_as(spec, setting)
    trials = draw_trials(spec, searched)
    if len(trials) == 1:
        return trials[0]
    found = {}
    for number in range(len(trials)):
        path = _trial_path(out, searched, number)
        if _notes(path)[1].is_file():
            return None
        if (path / "results.json").is_file() or state_of(path) == "finished":
            found[number] = _reached(path)
    best = best_trial(found)
    return None if best is None else trials[best]


def _reached(path: Path) -> dict[str, Any]:
    """Return what a trial reached at its best epoch; raises :class:`RunError` where its results do not tell."""
    best: dict[str, Any] = RunFolder.open(path).read_json("results.json", "best")["best"]
    if not isinstance(best, dict) or not all(is_number(best.get(name)) for name in ("accuracy", "loss")):
        raise RunError(
            f"{path / 'results.json'} does not tell what the trial reached; the run folder is damaged. Remove it to "
            "run the trial again."
        )
    return best


def final_path(out: Path, setting: Setting, seed: int) -> Path:
    """Return the run folder of a final run, which is known before the search has chosen."""
    return out / FINAL / setting.place / f"seed-{seed}"


def _trial_path(out: Path, setting: Setting, number: int) -> Path:
    return out / SEARCH / setting.place / f"trial-{number}"


def _notes(path: Path) -> tuple[Path, Path]:
    """Return where it is noted that a cell failed for good, and that it failed this time."""
    return path.parent / f"{path.name}.failure.txt", path.parent / f"{path.name}.trouble.txt"
