"""What a bench shows while it runs, from made run folders and a clock of its own."""

from __future__ import annotations

import io
import json
import os
import re
import time
from pathlib import Path

import made_runs
import numpy as np
import pytest
from rich.console import Console

from concept_tuning.bench.cells import Cell, final_cells, final_path, forget_trouble, note_failure, trial_cells
from concept_tuning.bench.live import LiveReport, Progress, in_words
from concept_tuning.bench.spec import BenchSpec, check_spec, settings_of

SPEC = {
    "name": "made",
    "data": [{"name": "birds", "source": "planted"}, {"name": "others", "source": "planted"}],
    "methods": ["vanilla", "lp-ft"],
    "backbones": ["test_resnet"],
    "seeds": [1, 2],
    "trials": 2,
    "search": {"all": {"lr": {"low": 0.01, "high": 0.1}}},
}
BEGAN = 1_000_000.0


class Clock:
    """Time that passes only when it is told to; no file of these tests is older."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def finish(cell: Cell, clock: Clock, *, born: float, end: float) -> None:
    """Let a cell be begun and finished at these seconds after the beginning."""
    if cell.kind == "trial":
        made_runs.write_run(cell.path, accuracy=0.5 + 0.1 * cell.number)
    else:
        made_runs.write_final(cell.path.parents[5], cell.setting, cell.number, np.arange(10) < 6 + cell.number)
    os.utime(cell.path / "config.json", (BEGAN + born, BEGAN + born))
    clock.now = BEGAN + end


def trials_of(spec: BenchSpec, out: Path, data: str = "birds") -> list[Cell]:
    return [cell for cell in trial_cells(spec, out) if cell.setting.data == data]


def test_the_time_left_is_unknown_until_a_cell_has_ended_and_counts_all_data(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, clock=clock)
    assert progress.seconds_left() is None
    assert progress.seconds_used == 0
    first = trials_of(spec, tmp_path)[0]
    finish(first, clock, born=5, end=20)
    progress.ended(first)
    assert progress.seconds_left() == pytest.approx(15 * 20)  # 8 trials and 8 final runs in all, 20 s each
    clock.now += 7
    assert progress.seconds_left() == pytest.approx(15 * 20 - 7)
    assert progress.seconds_used == 27


def test_each_method_has_its_own_mean_over_the_runs_at_once(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, workers=2, clock=clock)
    a, b, c, d = trials_of(spec, tmp_path)  # two of vanilla, two of lp-ft
    for cell, born, end in ((a, 3, 10), (b, 3, 12), (c, 11, 40), (d, 13, 42)):
        finish(cell, clock, born=born, end=end)
        progress.ended(cell)
    # vanilla took 10 and 12 s; lp-ft 30 s each, from when its worker was free at 10 and at 12
    assert progress.seconds_left() == pytest.approx((6 * 11 + 6 * 30) / 2)


def work_on(cell: Cell, *, born: float) -> None:
    """Let a cell be at work since this second after the beginning."""
    cell.path.mkdir(parents=True)
    for name, text in (("config.json", "{}"), ("status.json", '{"state": "training"}')):
        (cell.path / name).write_text(text)
        os.utime(cell.path / name, (BEGAN + born, BEGAN + born))


def test_what_is_at_work_takes_the_rest_of_its_own_time_however_many_workers_there_are(
    tmp_path: Path, clock: Clock
) -> None:
    spec = check_spec(SPEC | {"data": SPEC["data"][:1]})  # four trials and four final runs
    progress = Progress(spec, tmp_path, workers=4, clock=clock)
    for cell in trials_of(spec, tmp_path):
        finish(cell, clock, born=0, end=3600)
        progress.ended(cell)
    (last, *others) = final_cells(spec, tmp_path)
    for cell in others:
        finish(cell, clock, born=3600, end=7200)
        progress.ended(cell)
    work_on(last, born=7200)
    clock.now = BEGAN + 7200 + 600
    assert progress.seconds_left() == pytest.approx(3000)
    clock.now = BEGAN + 7200 + 6000  # longer than any before: not known, and not none
    assert progress.seconds_left() == pytest.approx(600)


def test_where_runs_at_once_are_not_known_they_are_counted(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, workers=None, clock=clock)
    for cell in trials_of(spec, tmp_path):  # all begin at once
        finish(cell, clock, born=1, end=20)
        progress.ended(cell)
    assert progress.seconds_left() == pytest.approx(12 * 20 / 4)


def test_what_was_begun_before_or_failed_tells_no_duration(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, clock=clock)
    resumed, failed, whole, _ = trials_of(spec, tmp_path)
    finish(resumed, clock, born=-100, end=2)
    progress.ended(resumed)
    note_failure(failed.path, "It diverged.")
    clock.now = BEGAN + 4
    progress.ended(failed)
    assert progress.seconds_left() is None
    finish(whole, clock, born=6, end=34)
    progress.ended(whole)
    assert progress.seconds_left() == pytest.approx(13 * 30)


def test_only_what_is_run_this_time_is_counted_and_nothing_left_is_no_time(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    first, *rest = trials_of(spec, tmp_path)
    progress = Progress(spec, tmp_path, only=["birds"], clock=clock)
    finish(first, clock, born=1, end=10)
    progress.ended(first)
    assert progress.seconds_left() == pytest.approx(7 * 10)
    assert {row.setting.data for row in progress.rows()} == {"birds"}
    for cell in rest:
        finish(cell, clock, born=20, end=30)
    for cell in final_cells(spec, tmp_path):
        if cell.setting.data == "birds":
            finish(cell, clock, born=40, end=50)
    assert Progress(spec, tmp_path, only=["birds"], clock=clock).seconds_left() == 0


def test_a_row_tells_what_is_done_and_reached(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    for cell in trials_of(spec, tmp_path):
        finish(cell, clock, born=1, end=2)
    for seed in (1, 2):
        made_runs.write_final(tmp_path, settings_of(spec)[0], seed, np.arange(10) < 6 + seed)
    diverged = final_path(tmp_path, settings_of(spec)[1], 2)
    diverged.mkdir(parents=True)
    (diverged / "config.json").write_text("{}")
    note_failure(diverged, "It diverged.")
    vanilla, other, *_ = Progress(spec, tmp_path, clock=clock).rows()
    assert (vanilla.trials, vanilla.finals, vanilla.failed) == ((2, 2), (2, 2), 0)
    assert (vanilla.validation, vanilla.test) == pytest.approx((0.6, 0.75))
    assert (other.finals, other.failed, other.test) == ((1, 2), 1, None)
    assert (vanilla.open, other.open) == (False, True)


@pytest.mark.parametrize("damaged", ["{", '{"best": {}, "splits": {}}'])
def test_a_run_with_damaged_results_is_a_gap_in_its_row(damaged: str, tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    first, second, *_ = trials_of(spec, tmp_path)
    for cell in (first, second):
        finish(cell, clock, born=1, end=2)
    made_runs.write_final(tmp_path, first.setting, 1, np.arange(10) < 7)
    (second.path / "results.json").write_text(damaged)
    (final_path(tmp_path, first.setting, 1) / "results.json").write_text(damaged)
    row = Progress(spec, tmp_path, clock=clock).rows()[0]
    assert (row.trials, row.validation) == ((2, 2), 0.5)
    assert (row.finals, row.test) == ((1, 2), None)


def test_what_was_searched_in_vain_has_no_final_runs_to_come(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, clock=clock)
    plain, other = trials_of(spec, tmp_path)[:2], trials_of(spec, tmp_path)[2:]
    for cell in other:
        note_failure(cell.path, "It diverged.")
    finish(plain[0], clock, born=1, end=10)
    progress.ended(plain[0])
    assert progress.seconds_left() == pytest.approx((1 + 2 + 4 + 4) * 10)
    row = progress.rows()[1]
    assert (row.finals, row.failed, row.open) == ((0, 0), 2, False)


def test_an_ablation_shows_no_trials_of_its_own(tmp_path: Path, clock: Clock) -> None:
    half = {"method": "lp-ft", "set": {"probe_share": 0.2}, "tuned_as": "lp-ft"}
    spec = check_spec(SPEC | {"methods": ["vanilla", "lp-ft", "half"], "variants": {"half": half}})
    assert [row.trials[1] for row in Progress(spec, tmp_path, clock=clock).rows()] == [2, 2, 0] * 2


def test_a_terminal_gets_a_table_that_fits_it(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC | {"sample_rates": list(range(10, 90, 10))})
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=20)
    cells = trials_of(spec, tmp_path)
    with LiveReport(Progress(spec, tmp_path, clock=clock), console) as live:
        finish(cells[0], clock, born=1, end=90)
        live.report(cells[0])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    last = text[text.rindex("┏") :]
    assert len(last.splitlines()) < 20
    assert "│    1/2 │  50.0 │    0/2 │      – │" in last
    assert "Settings 1 to 12 of 32. Time used by this command: 2 min; time left: " in last.replace("\n", " ")
    assert "not known before a first run has ended" in text[: text.rindex("┏")]
    assert "backbone" not in last  # the same for all
    assert "rate" in last


def test_a_narrow_terminal_cuts_no_number(tmp_path: Path, clock: Clock) -> None:
    names = [{"name": f"birds-of-{number}", "source": "planted"} for number in range(3)]
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40)
    with LiveReport(Progress(check_spec(SPEC | {"data": names}), tmp_path, clock=clock), console):
        pass
    text = console.file.getvalue()
    assert "…" not in text
    assert "birds-of-2" in text


def test_trials_on_other_data_that_choose_for_these_are_shown(tmp_path: Path, clock: Clock) -> None:
    others = {"name": "others", "source": "planted", "tuned_on": "birds"}
    spec = check_spec(SPEC | {"data": [SPEC["data"][0], others]})
    rows = Progress(spec, tmp_path, clock=clock, only=["others"]).rows()
    assert [(row.setting.data, row.trials[1], row.finals[1]) for row in rows] == [
        ("birds", 2, 0),
        ("birds", 2, 0),
        ("others", 0, 2),
        ("others", 0, 2),
    ]


def test_what_is_being_learnt_is_shown_with_its_steps(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress = Progress(spec, tmp_path, clock=clock)
    assert progress.running() == []
    first, second, third, fourth = trials_of(spec, tmp_path)
    final = final_path(tmp_path, first.setting, 2)
    begin(first.path, state="training", message="Training", step=40, total_steps=144)
    begin(second.path, state="failed", message="The loss is not a number")
    begin(third.path, state="training", message="Training")  # of another day: its process was killed
    os.utime(third.path / "status.json", (BEGAN - 1, BEGAN - 1))
    (fourth.path).mkdir(parents=True)  # begun, and nothing written yet
    begin(final, state="preparing", message="Reading the data")
    said = ["birds vanilla, trial 0: training, step 40 of 144", "birds vanilla, seed 2: reading the data"]
    places = ("data", "method")
    assert [one.text(places) for one in progress.running()] == said
    assert progress.running()[0].text(("data", "rate", "method")).startswith("birds 100 vanilla, trial 0")
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20)
    with LiveReport(progress, console) as live:
        finish(first, clock, born=1, end=90)
        live.report(first)
        assert [one.text(places) for one in progress.running()] == said[1:]
    assert said[0] in console.file.getvalue()


def test_a_cell_whose_process_died_is_not_being_learnt_until_it_is_begun_again(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    progress, cell = Progress(spec, tmp_path, clock=clock), trials_of(spec, tmp_path)[0]
    begin(cell.path, state="training", message="Training", step=3, total_steps=144)
    os.utime(cell.path / "status.json", (BEGAN + 10, BEGAN + 10))
    clock.now = BEGAN + 11
    assert len(progress.running()) == 1
    progress.ended(cell)
    assert progress.running() == []
    os.utime(cell.path / "status.json", (BEGAN + 30, BEGAN + 30))
    assert len(progress.running()) == 1


def test_of_many_that_are_being_learnt_some_are_counted(tmp_path: Path, clock: Clock) -> None:
    spec, console = check_spec(SPEC), Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    cells = trial_cells(spec, tmp_path)
    for cell in cells:
        begin(cell.path, state="training", message="Training", step=3, total_steps=144)
    with LiveReport(Progress(spec, tmp_path, clock=clock), console):
        pass
    text = console.file.getvalue()
    assert text.count("step 3 of 144") == 4 * text.count(f"and {len(cells) - 4} more") > 0


def begin(path: Path, **status: object) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "status.json").write_text(json.dumps(status))


def test_elsewhere_a_line_is_written_for_each_cell(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    console = Console(file=io.StringIO(), force_terminal=False)
    cells = trials_of(spec, tmp_path)
    with LiveReport(Progress(spec, tmp_path, clock=clock), console) as live:
        finish(cells[0], clock, born=1, end=90)
        live.report(cells[0])
        note_failure(cells[1].path, "It diverged.")
        live.report(cells[1])
    assert console.file.getvalue().splitlines() == [
        "    1.5 min  1/16  birds/test_resnet/100/vanilla trial 0: finished; time left: 22 min",
        "    1.5 min  2/16  birds/test_resnet/100/vanilla trial 1: It diverged.; time left: 21 min",
    ]


def test_five_hundred_cells_are_followed_at_no_cost(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC | {"seeds": list(range(1, 126)), "trials": 0, "search": {}})
    for setting in settings_of(spec):
        for seed in spec.seeds[:60]:
            made_runs.write_run(final_path(tmp_path, setting, seed), splits={"test": {"accuracy": 0.5}})
    progress = Progress(spec, tmp_path, clock=clock)
    cell = final_cells(spec, tmp_path)[70]
    finish(cell, clock, born=1, end=2)
    began = time.perf_counter()
    progress.ended(cell)
    rows = progress.rows()
    assert time.perf_counter() - began < 0.5
    assert sum(row.finals[0] for row in rows) == 241


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not known before a first run has ended"),
        (0, "none"),
        (1, "under a minute"),
        (60, "1 min"),
        (3599, "1 h 0 min"),
        (8000, "2 h 13 min"),
    ],
)
def test_times_are_said_in_words(seconds: float | None, text: str) -> None:
    assert in_words(seconds) == text


def test_what_is_tried_again_has_not_ended(tmp_path: Path, clock: Clock) -> None:
    spec = check_spec(SPEC)
    first, second, *_ = trials_of(spec, tmp_path)
    note_failure(first.path, "The pictures are gone.", for_good=False)
    second.path.mkdir(parents=True)
    (second.path / "config.json").write_text("{}")
    note_failure(second.path, "It diverged.")
    progress = Progress(spec, tmp_path, clock=clock)
    assert (progress.rows()[0].trials, progress.rows()[0].failed) == ((1, 2), 1)
    forget_trouble(first.path)
    finish(first, clock, born=1, end=2)
    progress.ended(first)
    row = progress.rows()[0]
    assert (row.trials, row.failed) == ((2, 2), 1)
    assert row.finals == (0, 2)
