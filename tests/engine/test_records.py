"""The list of runs is honest about dead processes and damaged folders; curves are read while they are written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from concept_tuning.config import RunConfig
from concept_tuning.engine import curves, records
from concept_tuning.engine.records import check_name, is_alive, list_runs, read_metrics, read_run, working_process
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError
from concept_tuning.figures.training_curves import accuracy_figure, loss_figure
from concept_tuning.settings import build_config


def written(folder: RunFolder, **values: object) -> None:
    """Write a status of now by this process, unless the values say otherwise."""
    stamp = {"pid": os.getpid(), "updated": datetime.now(UTC).isoformat(timespec="seconds")}
    folder.write_json("status.json", stamp | values)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_record_tells_what_the_files_tell(tmp_path: Path) -> None:
    folder = RunFolder.create(
        tmp_path / "demo" / "x", build_config(method="concept-tuning", backbone="test_resnet", overrides={"seed": 7})
    )
    written(folder, state="training", step=3, total_steps=8, seconds_left=12, images_per_second=4.5, message="Training")
    with folder.locked():
        (run,) = list_runs(tmp_path)
        assert run == read_run("demo/x", tmp_path)
    assert (run.name, run.path, run.root) == ("demo/x", tmp_path / "demo" / "x", tmp_path)
    assert (run.method, run.backbone, run.source, run.seed) == ("concept-tuning", "test_resnet", "planted", 7)
    assert (run.state, run.progress, run.seconds_left, run.images_per_second) == ("training", 3 / 8, 12, 4.5)
    assert run.updated is not None
    assert abs(datetime.now(UTC) - run.updated) < timedelta(seconds=30)
    assert run.results is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.state = "finished"


@pytest.mark.parametrize("state", ["queued", "preparing", "training", "evaluating"])
def test_work_is_believed_only_while_its_process_lives(state: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    with folder.locked():
        written(folder, state=state)
        assert read_run("run", tmp_path).state == state
        written(folder, state=state, pid=dead_pid())
        assert read_run("run", tmp_path).state == "interrupted"
        assert state in read_run("run", tmp_path).message
        before_birth = datetime.now(UTC) - timedelta(days=1)
        written(folder, state=state, updated=before_birth.isoformat(timespec="seconds"))  # the id was given away since
        assert read_run("run", tmp_path).state == "interrupted"


#: Training by somebody's own script or notebook, whose command says nothing.
SCRIPT = """
import sys
from pathlib import Path
from concept_tuning.engine.runs import RunFolder, StatusWriter
folder = RunFolder(Path(sys.argv[1]))
with folder.locked():
    StatusWriter(folder).update(state="training")
    print("training", flush=True)
    sys.stdin.readline()
print("left", flush=True)
sys.stdin.readline()
"""


def test_work_of_a_script_is_believed_while_it_holds_the_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert script.stdin is not None
    assert script.stdout is not None
    assert script.stdout.readline() == "training\n"
    assert read_run("run", tmp_path).state == "training"
    script.stdin.write("\n")
    script.stdin.flush()
    assert script.stdout.readline() == "left\n"
    assert read_run("run", tmp_path).state == "interrupted"
    script.communicate("\n")


def test_a_dead_child_that_nobody_asked_after_is_dead(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    job = ["-m", "concept_tuning", "work", "run"]
    child = subprocess.Popen(
        [sys.executable, "-c", "print(); input()", *job], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    status = {"state": "training", "pid": child.pid, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
    found = working_process(status, folder)
    assert found is not None
    assert found.pid == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # wait until it is dead, and leave it a zombie
    assert working_process(status, folder) is None
    child.communicate()


def test_a_process_that_ends_between_two_questions_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    child.communicate()
    monkeypatch.setattr(psutil.Process, "is_running", lambda self: True)
    assert not is_alive(process)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_at_rest_needs_no_process(state: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    folder.write_json("results.json", {"splits": {"test": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 80}}})
    written(folder, state=state, pid=dead_pid(), step=2, total_steps=8, seconds_left=3)
    run = read_run("run", tmp_path)
    assert (run.state, run.seconds_left, run.working) == (state, None, False)
    assert run.progress == (1 if state == "finished" else 0.25)
    assert (run.results is not None) == (state == "finished")


def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    RunFolder.create(tmp_path / "b", RunConfig())
    RunFolder.create(tmp_path / "demo" / "a", RunConfig())
    RunFolder.create(tmp_path / "demo" / "deeper" / "c", RunConfig())
    RunFolder.create(tmp_path / ".hidden", RunConfig())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert [run.name for run in list_runs(tmp_path)] == ["b", "demo/a"]
    with pytest.raises(RunError, match="cannot be listed"):
        list_runs(tmp_path / "notes.txt")
    for name in (".hidden", "demo/deeper/c", "demo/../b", "./b", f"../{tmp_path.name}/b", str(tmp_path / "b"), "demo"):
        with pytest.raises(RunError, match="There is no run"):
            read_run(name, tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.create(tmp_path / "mine", RunConfig())
    (tmp_path / "theirs").mkdir()
    for name in ("is_file", "iterdir"):
        real = getattr(Path, name)

        def refused(self: Path, real=real):
            if "theirs" in self.relative_to(tmp_path).parts:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(self)

        monkeypatch.setattr(Path, name, refused)
    assert [run.name for run in list_runs(tmp_path)] == ["mine"]


def test_a_run_that_vanishes_while_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = records._read_whole

    def too_late(name: str, root: Path, path: Path) -> records.RunRecord:
        if name == "gone":
            shutil.rmtree(path)
        return read(name, root, path)

    monkeypatch.setattr(records, "_read_whole", too_late)
    for name in ("gone", "kept"):
        RunFolder.create(tmp_path / name, RunConfig())
    assert [run.name for run in list_runs(tmp_path)] == ["kept"]
    RunFolder.create(tmp_path / "gone", RunConfig())
    with pytest.raises(RunError, match="There is no run 'gone'"):
        read_run("gone", tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[" * 100_000),
        ("config.json", '{"method": "vanilla", "colour": "red"}'),
        ("config.json", None),
        ("status.json", "\x00"),
        ("status.json", "[]"),
        ("status.json", '{"state": "dreaming"}'),
        ("status.json", '{"state": "stopped", "step": "many"}'),
        ("status.json", '{"state": "stopped", "step": 1e999}'),
        ("status.json", '{"state": "stopped", "updated": "yesterday"}'),
        ("status.json", '{"state": "stopped", "updated": "0001-01-01T00:00:00"}'),
        ("status.json", '{"state": "finished"}'),
    ],
)
def test_a_damaged_run_is_listed_as_broken_with_the_reason(file: str, content, tmp_path: Path) -> None:
    written(RunFolder.create(tmp_path / "bad", RunConfig()), state="stopped")
    RunFolder.create(tmp_path / "good", RunConfig())
    if content is None:
        (tmp_path / "bad" / file).unlink()
    else:
        (tmp_path / "bad" / file).write_text(content)
    bad, good = list_runs(tmp_path)
    assert (bad.state, good.state) == ("broken", "interrupted")
    assert len(bad.message) > 20
    assert not bad.working


@pytest.mark.parametrize(
    "splits",
    [
        [],
        {"test": None},
        {"test": {}},
        {"test": {"accuracy": "x", "low": 0, "high": 1, "n": 3}},
        {"test": {"accuracy": 0.5, "low": 0, "high": 1, "n": 3, "worst_group_accuracy": "none"}},
        {"test": {"accuracy": "0" * 9999, "low": 0, "high": 1, "n": 3}},
        {"test": {"accuracy": 0.5, "low": 0, "high": 1, "n": " " * 9999 + "3"}},
        {"test": {"accuracy": 0.5, "low": 0, "high": 1, "n": 3, "worst_group": "a" * 2001}},
        {"test": {"accuracy": 0.5, "low": 0, "high": 1, "n": 3, "worst_group": 5}},
        {
            "test": {"accuracy": 0.5, "low": 0, "high": 1, "n": 3}
            | {"groups": [{"name": "a", "n": 3, "accuracy": 0.5, "low": "0" * 9999, "high": 1}]}
        },
    ],
)
def test_a_finished_run_with_odd_results_is_broken_and_the_others_are_not(splits: object, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "bad", RunConfig())
    written(folder, state="finished")
    folder.write_json("results.json", {"splits": splits})
    RunFolder.create(tmp_path / "good", RunConfig())
    bad, good = list_runs(tmp_path)
    assert (bad.state, good.state) == ("broken", "interrupted")
    assert "results.json" in bad.message


@pytest.mark.parametrize(
    "row",
    [
        '{"kind": "evaluation", "accuracy": 1}',
        '{"kind": "step", "step": "x"}',
        '{"kind": "step", "step": "1"}',
        '{"kind": "step", "step": NaN}',
        '{"kind": "step", "step": null}',
    ],
)
def test_curves_without_steps_are_damaged(row: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    folder.metrics_file.write_text(f"{row}\n")
    with pytest.raises(RunError, match="Line 1 of"):
        read_metrics(read_run("run", tmp_path))


ODD_VALUES = ['"0.5"', '"' + "9" * 60_000 + '"', "[0.5]", "true", "1" + "0" * 30, '{"a": "x"}', "[" * 900 + "]" * 900]


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("kind", ["step", "evaluation"])
def test_a_curve_of_anything_but_numbers_is_damaged(kind: str, value: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    good = f'{{"kind": "{kind}", "step": 1, "accuracy": 0.5}}\n'
    folder.metrics_file.write_text(good + f'{{"kind": "{kind}", "step": 2, "accuracy": {value}}}\n')
    with pytest.raises(RunError, match=r"Line 2 of .* is damaged; the curves cannot be drawn"):
        read_metrics(read_run("run", tmp_path))


def test_numbers_that_are_not_finite_are_drawn_as_gaps(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    rows = [
        '{"kind": "step", "step": 1, "loss": NaN, "kl": Infinity, "a": 1e999, "b": null, "c": 9007199254740992}',
        '{"kind": "evaluation", "step": 1, "split": "val", "accuracy": NaN}',
    ]
    folder.metrics_file.write_text("\n".join(rows) + "\n")
    metrics = read_metrics(read_run("run", tmp_path))
    assert list(metrics.evaluations) == ["step", "accuracy"]
    assert "NaN" not in loss_figure(metrics).to_json() + accuracy_figure({"run": metrics}).to_json()


def test_curves_of_more_columns_than_a_run_writes_are_damaged(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    rows = [{"kind": "step", "step": number, f"term-{number}": 0.5} for number in range(1, 201)]
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows[:199]))
    metrics = read_metrics(read_run("run", tmp_path))
    assert len(metrics.steps) == 200
    assert {len(column) for column in metrics.steps.values()} == {199}
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RunError, match="Line 200 of"):
        read_metrics(read_run("run", tmp_path))


@pytest.mark.parametrize(
    "row", ['"step": 2, "' + "x" * 101 + '": 1', '"step": 2, "a": {"' + "x" * 99 + '": 1}', '"step": 2' + " " * 65_536]
)
def test_a_line_or_a_name_longer_than_a_run_writes_is_damaged(row: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    folder.metrics_file.write_text(f'{{"kind": "step", "step": 1}}\n{{"kind": "step", {row}}}\n')
    with pytest.raises(RunError, match="Line 2 of"):
        read_metrics(read_run("run", tmp_path))


def test_many_short_lines_below_a_wide_one_do_not_fill_the_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(curves, "_VALUES", 1000)
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    wide = {"kind": "step", "step": 0} | {f"term-{number}": 0.5 for number in range(99)}
    short = '{"kind": "step", "step": 1}\n'
    folder.metrics_file.write_text(json.dumps(wide) + "\n" + 9 * short)
    assert len(read_metrics(read_run("run", tmp_path)).steps) == 100
    folder.metrics_file.write_text(json.dumps(wide) + "\n" + 10 * short)
    with pytest.raises(RunError, match="Line 11 of"):
        read_metrics(read_run("run", tmp_path))
    folder.metrics_file.write_text(11 * short + json.dumps(wide) + "\n")
    with pytest.raises(RunError, match="Line 12 of"):
        read_metrics(read_run("run", tmp_path))


LONG = "a" * 100_000


def test_texts_of_any_length_are_cut_before_every_watcher_gets_them(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "one", RunConfig())
    written(folder, state="stopped", message=LONG)
    values = RunConfig().to_dict()
    values["backbone"]["architecture"] = values["data"]["source"] = LONG
    folder.write_json("config.json", values)
    run = read_run("one", tmp_path)
    assert (len(run.message), run.message[-2:]) == (2000, "a…")
    assert (len(run.source), len(run.backbone)) == (4096, 200)
    written(folder, state="stopped", message="b" * 2000)
    assert read_run("one", tmp_path).message == "b" * 2000


def test_what_is_no_unicode_is_shown_with_escapes_or_passed_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "one", RunConfig())
    (folder.path / "status.json").write_text('{"state": "stopped", "message": "half \\ud800 of a character"}')
    (tmp_path / os.fsdecode(b"other\xff")).mkdir()
    RunFolder.create(tmp_path / os.fsdecode(b"other\xff") / "inner", RunConfig())
    (run,) = list_runs(tmp_path)
    assert run.message == "half \\ud800 of a character"
    folder.metrics_file.write_text('{"kind": "step", "step": 1, "\\ud800": 0.5}\n')
    with pytest.raises(RunError, match=r"Line 1 of .* is damaged"):
        read_metrics(run)


@pytest.mark.parametrize(
    "values", [{"method": LONG}, {LONG: 1}, {str(number): 1 for number in range(10_000)}, {"optim": {"lr": [LONG]}}]
)
def test_a_broken_run_says_why_in_a_few_words(values: dict[str, object], tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "one", RunConfig())
    folder.write_json("config.json", values)
    run = read_run("one", tmp_path)
    assert run.state == "broken"
    assert len(run.message) <= 2000
    folder.write_json("config.json", RunConfig().to_dict())
    written(folder, state=LONG)
    assert len(read_run("one", tmp_path).message) <= 2000


@pytest.mark.parametrize("name", ["config.json", "status.json"])
def test_what_every_list_reads_is_small(name: str, tmp_path: Path) -> None:
    """Many empty lists take some twenty times their text in memory, with every look at the runs."""
    folder = RunFolder.create(tmp_path / "one", RunConfig())
    written(folder, state="stopped")
    values = folder.read_json(name)
    (folder.path / name).write_text(json.dumps(values | {"odd": [[]] * 2_000_000}))
    run = read_run("one", tmp_path)
    assert run.state == "broken"
    assert "has more than 4 MiB" in run.message


@pytest.mark.parametrize("name", ["step", "total_steps"])
def test_a_count_that_cannot_be_reckoned_with_is_damaged(name: str, tmp_path: Path) -> None:
    written(RunFolder.create(tmp_path / "one", RunConfig()), state="stopped", **{name: 10**400})
    run = read_run("one", tmp_path)
    assert (run.state, run.progress) == ("broken", 0)


def test_names_are_counted_in_bytes_too() -> None:
    for name in ("x" * 100, "é" * 100, "鳥" * 66):
        assert check_name(name) == name
    with pytest.raises(RunError, match="takes 201 bytes of UTF-8, and at most 200 are allowed"):
        check_name("鳥" * 67)


def test_curves_come_by_term_and_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig())
    run = read_run("run", tmp_path)
    assert read_metrics(run).steps == {}
    rows = [
        {"kind": "step", "step": 1, "epoch": 0, "cross_entropy": 2.0, "loss": 2.5},
        {"kind": "step", "step": 2, "epoch": 0, "loss": 1.5},
        {"kind": "evaluation", "step": 2, "accuracy": 0.5, "worst_group_accuracy": None, "heads": {"a": 3}},
    ]
    whole = "".join(json.dumps(row) + "\n" for row in rows)
    for half in ("", '{"kind": "step", "st', '{"kind": "step", "step": 3, "loss": 1.0}', "é"[:1]):
        folder.metrics_file.write_text(whole + half)
        metrics = read_metrics(run)
        assert metrics.steps == {"step": [1, 2], "epoch": [0, 0], "cross_entropy": [2.0, None], "loss": [2.5, 1.5]}
        assert metrics.evaluations == {
            "step": [2],
            "accuracy": [0.5],
            "worst_group_accuracy": [None],
            "heads.a": [3],
        }
    folder.metrics_file.write_text("nonsense\n" + whole)
    with pytest.raises(RunError, match="Line 1"):
        read_metrics(run)
    folder.metrics_file.unlink()
    folder.metrics_file.mkdir()
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read: it is no plain file"):
        read_metrics(run)
