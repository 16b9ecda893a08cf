"""A bench from its file to its tables: it goes on where it was killed, and one bad cell does not end it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image
from process_family import descendants
from tiny_bench import TINY_BENCH as SPEC

from concept_tuning.bench.cells import Cell, chosen, final_cells, note_failure, trial_cells
from concept_tuning.bench.runner import run_bench
from concept_tuning.bench.spec import BenchSpec, Setting, check_spec, load_spec, settings_of
from concept_tuning.bench.tables import summary, write_tables
from concept_tuning.bench.verdicts import NOT_FINISHED
from concept_tuning.bench.workers import in_processes
from concept_tuning.cli import main
from concept_tuning.cli_bench import FAILED
from concept_tuning.errors import RunError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bench that ran undisturbed."""
    out = tmp_path_factory.mktemp("bench") / "out"
    run_bench(check_spec(SPEC), out, workers=lambda cells: in_processes(cells, 2))
    write_tables(check_spec(SPEC), out)
    return out


def _trials(spec: BenchSpec, out: Path, setting: Setting) -> list[Cell]:
    return [cell for cell in trial_cells(spec, out) if cell.setting == setting]


def _without_speed(out: Path) -> list[dict[str, str]]:
    """Return the rows of a bench but for their speed, which is another each time."""
    rows = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    assert all(float(row.pop("images_per_second")) > 0 for row in rows)
    return rows


def test_it_tunes_every_method_alike_and_runs_every_seed(whole: Path) -> None:
    spec = check_spec(SPEC)
    assert [cell.state for cell in trial_cells(spec, whole)] == ["finished"] * 4
    assert [cell.state for cell in final_cells(spec, whole)] == ["finished"] * 4
    for setting in settings_of(spec):
        found = [json.loads((cell.path / "results.json").read_text()) for cell in _trials(spec, whole, setting)]
        values = [(-result["best"]["accuracy"], result["best"]["loss"]) for result in found]
        assert (chosen(spec, whole, setting) == {}) is (values[0] <= values[1])


def test_a_trial_never_reads_the_test_and_keeps_no_weights(whole: Path) -> None:
    for cell in trial_cells(check_spec(SPEC), whole):
        assert json.loads((cell.path / "results.json").read_text())["splits"] == {}
        assert list(cell.path.rglob("*.safetensors")) == []
    for cell in final_cells(check_spec(SPEC), whole):
        kept = {file.relative_to(cell.path).as_posix() for file in cell.path.rglob("*.safetensors")}
        assert kept == {"best/model.safetensors", "predictions/val.safetensors", "predictions/test.safetensors"}


def test_the_tables_hold_every_run_and_a_verdict_on_the_first_method(whole: Path) -> None:
    rows = list(csv.DictReader((whole / "cells.csv").read_text().splitlines()))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("vanilla", "1"),
        ("vanilla", "2"),
        ("linear-probe", "1"),
        ("linear-probe", "2"),
    ]
    assert all(row["state"] == "finished" and 0 <= float(row["accuracy"]) <= 1 for row in rows)
    first, second = summary(check_spec(SPEC), whole)
    assert first["verdict"] == ""
    assert "vanilla" in second["verdict"]
    assert first["trials"] == second["trials"] == 2
    values = [float(row["accuracy"]) for row in rows[:2]]
    assert first["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    text = (whole / "summary.md").read_text()
    assert "| birds | test_resnet | 100 | `linear-probe` | 2 | 2 |" in text


def test_run_again_it_does_nothing_and_another_bench_is_refused(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("results.json")}
    said: list[Cell] = []
    run_bench(check_spec(SPEC), whole, report=lambda cell: said.append(cell))
    assert said == []
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("results.json")} == before
    with pytest.raises(RunError, match="another bench"):
        run_bench(check_spec(SPEC | {"name": "other"}), whole)
    with pytest.raises(RunError, match=r"trial-0 was made with other settings .*: optim.epochs was 2 and is 3\."):
        run_bench(check_spec(SPEC | {"set": SPEC["set"] | {"epochs": 3}}), whole)


def test_a_bench_may_grow_and_only_what_is_new_is_run(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    spec = check_spec(SPEC | {"seeds": [1, 2, 3], "methods": ["vanilla", "linear-probe"]})
    ended: list[Cell] = []
    run_bench(spec, out, report=lambda cell: ended.append(cell))
    assert [(cell.setting.method, cell.kind, cell.number) for cell in ended] == [
        ("vanilla", "final", 3),
        ("linear-probe", "final", 3),
    ]


def test_final_runs_of_data_tuned_elsewhere_are_refused_before_anything_runs(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    other = {"name": "others", "source": "planted"}
    birds = SPEC["data"][0] | {"tuned_on": "others"}
    with pytest.raises(RunError, match=r"final runs of birds in .* tuned on itself, and the bench now says others"):
        run_bench(check_spec(SPEC | {"data": [other, birds]}), out)
    assert not (out / "search" / "others").exists()


def test_after_more_trials_final_runs_of_another_choice_are_refused(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    first = trial_cells(check_spec(SPEC), out)[0]
    results = json.loads((first.path / "results.json").read_text())
    best = (out / "search" / first.setting.place).glob("trial-*/results.json")
    worst = {"best": {"step": 1, "accuracy": 0.0, "loss": 9.0}, "splits": {}}
    now = chosen(check_spec(SPEC), out, first.setting)
    for file in best:  # the other trial is now the better one
        was_best = (file.parent.name == "trial-0") is (now == {})
        file.write_text(
            json.dumps(results | (worst if was_best else {"best": {"step": 1, "accuracy": 1.0, "loss": 0.0}}))
        )
    with pytest.raises(RunError, match=r"seed-1 was made with other settings .* its search's choice .*: optim.lr was "):
        run_bench(check_spec(SPEC), out)


def test_what_failed_for_a_reason_that_may_go_is_tried_again(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    values = SPEC | {"methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]}
    values |= {"data": [{"name": "own", "source": str(pictures)}]}
    values["set"] = {key: value for key, value in SPEC["set"].items() if "images" not in key and key != "draw_size"}
    spec = check_spec(values)
    run_bench(spec, tmp_path / "out")
    (cell,) = final_cells(spec, tmp_path / "out")
    assert cell.state == "failed"
    assert "pictures" in cell.failure
    text = write_tables(spec, tmp_path / "out")
    assert "vanilla failed with seed 1, which no figure counts" in text
    for number in range(24):
        place = pictures / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number * 9, 99, 99)).save(place)
    run_bench(spec, tmp_path / "out")
    assert final_cells(spec, tmp_path / "out")[0].state == "finished"


def test_killed_at_any_moment_it_goes_on_to_the_same_results(whole: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(SPEC))
    command = [sys.executable, "-m", "concept_tuning", "benchmark", str(file), "--out", str(out)]
    for alone in (False, True):  # all of it, then the bench alone
        begun = len(list(out.rglob("metrics.jsonl")))
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(out.rglob("metrics.jsonl"))) == begun:
            assert process.poll() is None
            time.sleep(0.02)
        family = descendants(process.pid)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for each in () if alone else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "`linear-probe`" in done.stdout
    assert _without_speed(out) == _without_speed(whole)
    assert (out / "trials.csv").read_text() == (whole / "trials.csv").read_text()


def test_only_some_of_its_data_may_be_learnt_at_a_time(tmp_path: Path) -> None:
    other = {"name": "others", "source": "planted"}
    values = SPEC | {"data": [*SPEC["data"], other], "methods": ["vanilla"], "trials": 0, "search": {}, "seeds": [1]}
    spec = check_spec(values)
    run_bench(spec, tmp_path / "out", only=["others"])
    assert [cell.state for cell in final_cells(spec, tmp_path / "out")] == ["open", "finished"]


def test_data_tuned_on_others_begin_with_the_trials_of_those(tmp_path: Path) -> None:
    other = {"name": "others", "source": "planted", "tuned_on": SPEC["data"][0]["name"]}
    search = {"all": {"lr": {"low": 0.001, "high": 0.1, "log": True}}}
    values = SPEC | {"methods": ["vanilla"], "trials": 2, "search": search, "seeds": [1]}
    spec = check_spec(values | {"data": [*SPEC["data"], other]})
    run_bench(spec, tmp_path / "out", only=["others"])
    assert [cell.state for cell in trial_cells(spec, tmp_path / "out")] == ["finished"] * 2
    own, taken = final_cells(spec, tmp_path / "out")
    assert (own.state, taken.state) == ("open", "finished")
    assert taken.config.optim.lr == own.config.optim.lr


def test_a_cell_that_cannot_run_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    values = SPEC | {"methods": ["vanilla", "l2-sp"], "trials": 0, "search": {}, "seeds": [1]}
    spec = check_spec(values)  # l2-sp cannot begin with random weights, which is known only when it runs
    run_bench(spec, tmp_path / "out")
    first, second = final_cells(spec, tmp_path / "out")
    assert (first.state, second.state) == ("finished", "failed")
    assert "pre-trained" in second.failure
    text = write_tables(spec, tmp_path / "out")
    assert "| `l2-sp` | 1 | 0, 1 failed | – | – | – | – | – |" in text
    assert "l2-sp failed with seed 1, which no figure counts: l2-sp keeps to" in text
    assert NOT_FINISHED not in text


def test_a_bench_with_failed_runs_says_how_many_and_does_not_end_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file, values = tmp_path / "out", tmp_path / "tiny.yaml", dict(SPEC) | {"seeds": [1], "trials": 0}
    file.write_text(yaml.safe_dump({name: value for name, value in values.items() if name != "search"}))
    for cell in final_cells(load_spec(file), out):
        note_failure(cell.path, "It diverged.")
        cell.path.mkdir()  # without its folder it would be made anew
        (cell.path / "config.json").write_text(json.dumps(cell.config.to_dict()))
    assert main(["benchmark", str(file), "--out", str(out)]) == FAILED != 0
    assert "2 of 2 runs failed; the first: It diverged." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        run_bench(check_spec(SPEC), tmp_path / "file" / "out")


def test_the_command_says_what_it_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    assert main(["benchmark", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 settings, 4 trials, 4 final runs" in said
    assert "birds, test_resnet, 100 %, 2 seeds each: vanilla (2 trials), linear-probe (2 trials)" in said
    assert not (tmp_path / "out").exists()
    other = {"name": "others", "source": "planted", "tuned_on": "birds"}
    file.write_text(yaml.safe_dump(SPEC | {"data": [*SPEC["data"], other]}))
    assert main(["benchmark", str(file), "--only", "others", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 settings, 4 trials, 4 final runs" in said
    assert "vanilla (as birds/test_resnet/100/vanilla)" in said
    other["choices"] = {"vanilla": {"lr": 0.02}, "linear-probe": {}}
    file.write_text(yaml.safe_dump(SPEC | {"data": [*SPEC["data"], other]}))
    assert main(["benchmark", str(file), "--only", "others", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 settings, 0 trials, 4 final runs" in said
    assert "vanilla (chosen before), linear-probe (chosen before)" in said
    assert main(["benchmark", str(file), "--workers", "0"]) == 2
    assert main(["benchmark", str(file), "--only", "fish"]) == 2
    assert "'fish'" in capsys.readouterr().err
