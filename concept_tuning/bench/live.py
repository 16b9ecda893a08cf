"""How far a bench is while it runs: what is done, what was reached, and how long the rest will take."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from concept_tuning.bench.cells import Cell, final_path, is_tried_again, state_of, trial_cells
from concept_tuning.bench.spec import BenchSpec, Setting, settings_of, tuned_as
from concept_tuning.engine.records import WORKING_STATES
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import StudioError

_NONE = "–"
#: Lines of the screen that are not rows of the table: its title, head and frame, the times below and the prompt.
_FRAME = 8
#: Runs shown at most of those that are being learnt.
_RUNNING = 4
#: Share of its time that a cell is taken to need still when it has lasted longer than others of its method.
_OVERDUE = 0.1


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far one setting is.

    Attributes:
        setting: Which.
        trials: Done and in all; none in all for a setting that takes another's choice.
        finals: Done and in all; none in all for other data whose search chooses for those that are learnt this time.
        failed: How many of both failed.
        validation: Best validation accuracy of a trial so far, 0..1; None before one is finished.
        test: Mean test accuracy of the finished final runs, 0..1; None before one is finished.
    """

    setting: Setting
    trials: tuple[int, int]
    finals: tuple[int, int]
    failed: int
    validation: float | None
    test: float | None

    @property
    def open(self) -> bool:
        """Whether anything of it is still to come."""
        return self.trials[0] < self.trials[1] or self.finals[0] < self.finals[1]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A cell that is being learnt.

    Attributes:
        setting: Whose.
        name: Which of the setting's: ``trial N`` or ``seed N``.
        message: What it does, as its status says.
        step: Steps done.
        steps: In all; 0 while that is not known.
    """

    setting: Setting
    name: str
    message: str
    step: int
    steps: int

    def text(self, places: Sequence[str]) -> str:
        """Return it in words; ``places`` says by what settings are told apart, see :func:`progress_table`."""
        where = _place(self.setting)
        far = f", step {self.step} of {self.steps}" if self.steps else ""
        return f"{' '.join(where[name] for name in places)}, {self.name}: {self.message.lower()}{far}"


@dataclass(frozen=True)
class _End:
    """A cell that has ended: its state, and what it reached on validation or, a final run, on the test."""

    state: str
    reached: float | None


class Progress:
    """Follows a bench by its run folders; what has ended is read once.

    A cell is taken to last as long as those of its method that ended since this was made, or as all where the method
    has none yet; the time left is that until the last one ends, each worker taking the next when it is free. A cell
    that was begun before, and so only partly run since, or that failed, tells no duration; one that lasts longer than
    that is taken to need a tenth of its time still.
    """

    def __init__(
        self,
        spec: BenchSpec,
        out: Path,
        *,
        workers: int | None = 1,
        only: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read how far a bench is.

        Args:
            spec: The bench.
            out: Its folder.
            workers: Runs at once; None: as many as have run at once so far.
            only: Names of the data that are learnt this time; None: all.
            clock: Seconds since 1970, as file times are.
        """
        self._workers, self._clock = workers, clock
        self._began = clock()
        settings = [one for one in settings_of(spec) if only is None or one.data in only]
        self._trials: dict[Setting, list[Path]] = {}
        for cell in trial_cells(spec, out):
            self._trials.setdefault(cell.setting, []).append(cell.path)
        self._finals = {one: [final_path(out, one, seed) for seed in spec.seeds] for one in settings}
        self._tuned = {one: tuned_as(spec, one) for one in settings}
        others = [one for one in dict.fromkeys(self._tuned.values()) if one not in self._finals]
        searched = [one for one in others if one in self._trials]
        self._tuned |= {one: one for one in searched}
        self._finals = {one: [] for one in searched} | self._finals
        self._ended: dict[Path, _End] = {}
        self._left: dict[Path, float] = {}
        self._ends: list[float] = []
        self._seconds: dict[str, list[float]] = {}
        self._refresh(begun=False)

    @property
    def seconds_used(self) -> float:
        """Since it was made."""
        return self._clock() - self._began

    def ended(self, cell: Cell) -> None:
        """Take note of a cell whose process has ended."""
        now = self._left[cell.path] = self._clock()
        self._refresh()
        end = self._ended.get(cell.path)
        seconds = self._duration(cell.path, now) if end is not None and end.state == "finished" else None
        if seconds is not None:
            self._seconds.setdefault(cell.setting.method, []).append(seconds)
        self._ends.append(now)

    def seconds_left(self) -> float | None:
        """Return how long the rest will take; None before any cell has told its duration, unless nothing is left."""
        left = list(self._to_come())
        if not left:
            return 0.0
        if not self._seconds:
            return None
        overall = fmean(value for values in self._seconds.values() for value in values)
        means = {method: fmean(values) for method, values in self._seconds.items()}
        workers, now = self._workers or self._at_once(), self._clock()
        free, waiting = [], []
        for method, path in left:
            seconds = means.get(method, overall)
            if self._status(path).get("state") in WORKING_STATES:
                free.append(_rest(seconds, now - (self._free_since(path) or self._began)))
            else:
                waiting.append(seconds)
        begun = max(0, workers - len(free))  # or about to be, and without a status yet
        free += [_rest(seconds, now - self._ends[-1]) for seconds in waiting[:begun]]
        heapq.heapify(free)
        for seconds in waiting[begun:]:
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)

    def _at_once(self) -> int:
        """Return how many runs there were at once, up to the last end."""
        done = sum(value for values in self._seconds.values() for value in values)
        return max(1, round(done / (self._ends[-1] - self._began)))

    def rows(self) -> list[Row]:
        """Return how far each setting is."""
        return [self._row(setting) for setting in self._finals]

    def running(self) -> list[Running]:
        """Return what is being learnt: with a status written since this was made, and since its last process ended."""
        found = []
        for setting, path, _ in self._cells():
            status = {} if path in self._ended else self._status(path)
            if status.get("state") in WORKING_STATES:
                found.append(
                    Running(
                        setting=setting,
                        name=path.name.replace("-", " "),
                        message=str(status.get("message", "")),
                        step=int(status.get("step", 0)),
                        steps=int(status.get("total_steps", 0)),
                    )
                )
        return found

    def _status(self, path: Path) -> Mapping[str, Any]:
        """Return a run's status; empty if it has none of a process that is at work, or one that cannot be read.

        That is told by times: the process may be another machine's, so its number says nothing here.
        """
        try:
            if (path / "status.json").stat().st_mtime >= self._left.get(path, self._began):
                return RunFolder.open(path).status()
        except (OSError, StudioError):
            pass
        return {}

    def _cells(self) -> Iterator[tuple[Setting, Path, bool]]:
        """Yield whose each run folder is, and whether of a final run."""
        for setting in dict.fromkeys(self._tuned.values()):
            yield from ((setting, path, False) for path in self._trials.get(setting, ()))
        for setting, paths in self._finals.items():
            yield from ((setting, path, True) for path in paths)

    def _row(self, setting: Setting) -> Row:
        trials = self._trials.get(setting, []) if self._tuned[setting] == setting else []
        finals = self._finals[setting]
        tried, run = ([self._ended[path] for path in paths if path in self._ended] for paths in (trials, finals))
        best = [end.reached for end in tried if end.reached is not None]
        tests = [end.reached for end in run if end.reached is not None]
        return Row(
            setting=setting,
            trials=(len(tried), len(trials)),
            finals=(len(run), 0 if self._in_vain(setting) else len(finals)),
            failed=sum(end.state == "failed" for end in (*tried, *run)),
            validation=max(best, default=None),
            test=fmean(tests) if tests else None,
        )

    def _to_come(self) -> Iterable[tuple[str, Path]]:
        """Yield method and run folder of each cell that has not ended."""
        for setting in dict.fromkeys(self._tuned.values()):
            yield from ((setting.method, path) for path in self._trials.get(setting, ()) if path not in self._ended)
        for setting, paths in self._finals.items():
            if not self._in_vain(setting):
                yield from ((setting.method, path) for path in paths if path not in self._ended)

    def _in_vain(self, setting: Setting) -> bool:
        """Whether all trials of a setting failed, so that it has no final runs."""
        ends = [self._ended.get(path) for path in self._trials.get(self._tuned[setting], ())]
        return bool(ends) and all(end is not None and end.state == "failed" for end in ends)

    def _refresh(self, *, begun: bool = True) -> None:
        """Read what has ended; what failed before the bench began, and is tried again then, has not."""
        for _, path, is_final in self._cells():
            if path not in self._ended and (state := state_of(path)) != "open" and (begun or not is_tried_again(path)):
                self._ended[path] = _End(state, _reached(path, is_final) if state == "finished" else None)

    def _duration(self, path: Path, now: float) -> float | None:
        """Return the seconds since the cell's worker was free for it; None if the run was begun before."""
        since = self._free_since(path)
        return None if since is None else now - since

    def _free_since(self, path: Path) -> float | None:
        """Return when a cell's worker was free for it, in seconds since 1970; None if the run was begun before."""
        try:
            born = (path / "config.json").stat().st_mtime
        except OSError:
            return None
        if born < self._began:
            return None
        return max(moment for moment in (self._began, *self._ends) if moment <= born)


class LiveReport:
    """Shows a bench that runs: in a terminal a table that renews itself, elsewhere a line for each cell that ended."""

    def __init__(self, progress: Progress, console: Console | None = None) -> None:
        """Prepare the report.

        Args:
            progress: Of the bench.
            console: Where it is written; None: standard error.
        """
        self._progress = progress
        self._console = console or Console(stderr=True)
        self._rows = progress.rows()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=1)

    def __enter__(self) -> Self:
        """Begin to show the table."""
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table as it stands."""
        self._live.stop()

    def report(self, cell: Cell) -> None:
        """Take note of a cell that has ended."""
        self._progress.ended(cell)
        self._rows = self._progress.rows()
        if not self._console.is_terminal:
            done, every = (sum(row.trials[place] + row.finals[place] for row in self._rows) for place in (0, 1))
            minutes, left = self._progress.seconds_used / 60, in_words(self._progress.seconds_left())
            text = f"{cell.setting.place} {cell.kind} {cell.number}: {cell.failure or cell.state}"
            print(f"{minutes:7.1f} min  {done}/{every}  {text}; time left: {left}", file=self._console.file)
            self._console.file.flush()

    def _render(self) -> Group:
        places, at_work = _places(self._rows), self._progress.running()
        running = [Text(one.text(places), no_wrap=True, overflow="ellipsis") for one in at_work[:_RUNNING]]
        if len(at_work) > _RUNNING:
            running.append(Text(f"and {len(at_work) - _RUNNING} more"))
        shown, note = _window(self._rows, max(1, self._console.height - _FRAME - len(running)))
        used, left = in_words(self._progress.seconds_used), in_words(self._progress.seconds_left())
        table = progress_table(shown, places=places)
        return Group(table, *running, f"{note}Time used by this command: {used}; time left: {left}")


def progress_table(rows: Iterable[Row], *, places: Sequence[str] = ("data", "backbone", "rate", "method")) -> Table:
    """Return the table of how far settings are, accuracies in percent; ``places`` says which setting it is."""
    table = Table()
    for name in places:
        table.add_column(name, no_wrap=True)
    for name in ("trials", "val %", "finals", "test %", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(escape(_place(row.setting)[name]) for name in places),
            *(_of(row.trials), _percent(row.validation), _of(row.finals), _percent(row.test), str(row.failed or "")),
        )
    return table


def _place(one: Setting) -> dict[str, str]:
    return {"data": one.data, "backbone": one.backbone, "rate": f"{one.sample_rate:g}", "method": one.method}


def _places(rows: Sequence[Row]) -> list[str]:
    """Return what tells settings apart, leaving out a backbone or rate that all have; screens are narrow."""
    values = {name: {_place(row.setting)[name] for row in rows} for name in ("data", "backbone", "rate", "method")}
    return [name for name, found in values.items() if name in ("data", "method") or len(found) > 1]


def in_words(seconds: float | None) -> str:
    """Return a time in words, to the minute; for None, that it is not known yet."""
    if seconds is None:
        return "not known before a first run has ended"
    if seconds == 0:
        return "none"
    if seconds < 60:
        return "under a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _window(rows: Sequence[Row], fit: int) -> tuple[Sequence[Row], str]:
    """Return the rows that fit on the screen, around the first that is not done, and a word on the others."""
    if len(rows) <= fit:
        return rows, ""
    first = next((place for place, row in enumerate(rows) if row.open), len(rows))
    begin = max(0, min(first - fit // 3, len(rows) - fit))
    return rows[begin : begin + fit], f"Settings {begin + 1} to {begin + fit} of {len(rows)}. "


def _rest(seconds: float, passed: float) -> float:
    """Return how long a cell still takes that was begun some seconds ago and is taken to last so many."""
    return max(seconds - passed, _OVERDUE * passed)


def _reached(path: Path, is_final: bool) -> float | None:
    try:
        found = RunFolder.open(path).read_json("results.json", "best", "splits")
        part: Mapping[str, float] = found["splits"]["test"] if is_final else found["best"]
        return float(part["accuracy"])
    except (StudioError, KeyError, TypeError, ValueError):  # shown as a gap; the tables will say what is wrong
        return None


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]}/{counts[1]}" if counts[1] else _NONE


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f}"
