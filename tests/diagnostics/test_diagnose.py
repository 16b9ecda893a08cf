from __future__ import annotations

import base64
import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from concept_tuning.diagnostics import diagnose as module
from concept_tuning.diagnostics.catalogue import ANALYSES
from concept_tuning.diagnostics.diagnose import choose_analyses, diagnose, load_diagnosis, load_subjects
from concept_tuning.diagnostics.workbench import SHOWN, Workbench
from concept_tuning.errors import ConfigError, RunError

#: Quick analyses, some of which draw at random, without those that add up gradients: the first pass back through a
#: network in a process may round otherwise than the next.
REPEATABLE = ("predictions", "groups", "verdict", "concept-maps", "counterfactuals", "properties", "embedding")
NEEDS_SCRATCH, NEEDS_HEAD = {"ledger"}, {"position-attention", "channel-attention", "switches"}


@pytest.fixture(scope="module")
def bench(subjects) -> Workbench:
    return Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None)


def assert_alike(first, second) -> None:
    """The same but for rounding: random weights and ranks amplify the last bit of a sum."""
    if isinstance(first, dict) and "base64" in first:
        assert (first["dtype"], first["shape"]) == (second["dtype"], second["shape"])
        one, other = (np.frombuffer(base64.b64decode(found["base64"]), found["dtype"]) for found in (first, second))
        near = {"rtol": 2e-3, "atol": 2e-3} if one.dtype.kind == "f" else {"rtol": 0}
        np.testing.assert_allclose(one, other, **near)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_alike(value, second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_alike(one, other)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=2e-3, abs=2e-3, nan_ok=True)
    else:
        assert first == second


@pytest.mark.slow
def test_every_analysis_gives_a_result_or_says_why_not(bench, subjects, tmp_path) -> None:
    before = [{name: value.clone() for name, value in s.method.state_dict().items()} for s in subjects]
    made = diagnose(bench, tmp_path / "first")
    missing = {(entry.analysis, entry.run) for entry in made.overview.entries if entry.file is None}
    assert {(name, None) for name in NEEDS_SCRATCH} <= missing
    assert {(name, "vanilla") for name in NEEDS_HEAD} <= missing
    assert not {name for name, run in missing if run == "concept-tuning"} & NEEDS_HEAD
    assert all(entry.reason for entry in made.overview.entries if entry.file is None)
    assert {entry.analysis for entry in made.overview.entries} == {analysis.name for analysis in ANALYSES}
    for subject, state in zip(subjects, before, strict=True):
        assert all((value == state[name]).all() for name, value in subject.method.state_dict().items())
    read = load_diagnosis(tmp_path / "first")
    assert read.overview == made.overview
    assert set(read.results) == set(made.results)
    again = dataclasses.replace(bench, _features={}, _concepts={})
    diagnose(again, tmp_path / "second")
    names = sorted(str(path.relative_to(tmp_path / "first")) for path in (tmp_path / "first").rglob("*.json"))
    assert len(names) == len(made.results) + 3
    for name in set(names) - {"timings.json"}:
        one, other = (json.loads((tmp_path / folder / name).read_text()) for folder in ("first", "second"))
        assert_alike(one, other)


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a diagnosis but for its timings, by name."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in ("timings.json", ".lock"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_two_diagnoses_of_the_same_runs_have_the_same_bytes(bench, tmp_path) -> None:
    found = []
    for name in ("first", "second"):
        made = diagnose(dataclasses.replace(bench, _features={}, _concepts={}), tmp_path / name, only=REPEATABLE)
        assert {entry.analysis for entry in made.overview.entries if entry.file is not None} == set(REPEATABLE)
        found.append(contents(tmp_path / name))
    assert {"diagnosis.json", "results/thumbnails.json"} < set(found[0])
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_whatever_the_order_of_their_sets(bench, tmp_path) -> None:
    runs = [str(subject.run.folder.path) for subject in bench.subjects]
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "concept_tuning", "diagnose", *runs, "--out", str(tmp_path / seed)]
        done = subprocess.run(
            [*command, "--only", *REPEATABLE],
            env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert "report.html" in first
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_chosen_analyses_alone_are_made(bench, tmp_path) -> None:
    made = diagnose(bench, tmp_path, only=["groups", "verdict"])
    assert [(entry.analysis, entry.run) for entry in made.overview.entries] == [
        ("groups", "vanilla"),
        ("groups", "concept-tuning"),
        ("verdict", None),
    ]
    right = bench.right(bench.subjects[0])
    assert made.results["groups", "vanilla"].average.value == pytest.approx(right.mean())
    (verdict,) = made.results["verdict", None].verdicts
    assert verdict.names == ("vanilla", "concept-tuning")


def test_an_unknown_analysis_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no analysis 'group'; there are predictions, groups, "):
        choose_analyses(["group"])


def test_a_folder_of_other_things_is_left_alone(bench, tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not empty"):
        diagnose(bench, tmp_path, only=["groups"])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_results_of_something_else_are_left_alone(bench, tmp_path) -> None:
    other = tmp_path / "results" / "accuracy.json"
    other.parent.mkdir()
    other.write_text("{}")
    with pytest.raises(RunError, match="holds no diagnosis"):
        diagnose(bench, tmp_path, only=["groups"])
    assert other.read_text() == "{}"
    (tmp_path / "diagnosis.json").write_text("{}")
    diagnose(bench, tmp_path, only=["groups"])
    assert other.read_text() == "{}"


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_earlier_diagnosis_is_replaced(bench, tmp_path, interrupted: bool) -> None:
    diagnose(bench, tmp_path, only=["predictions", "groups"])
    if interrupted:
        (tmp_path / "diagnosis.json").unlink()
        (tmp_path / "results" / ".thumbnails.json.1.tmp").touch()
    diagnose(bench, tmp_path, only=["verdict"])
    assert {path.name for path in tmp_path.glob("results/*.json")} == {"00_verdict.json", "thumbnails.json"}
    assert set(load_diagnosis(tmp_path).results) == {("verdict", None)}


#: Holds the lock of the folder until its input ends, or dies with it.
HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1] + "/.lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("begun", ["nothing", "results", "whole"])
def test_of_two_that_work_in_one_folder_the_second_is_refused(bench, tmp_path, begun: str) -> None:
    if begun == "whole":
        diagnose(bench, tmp_path, only=["groups"])
    elif begun == "results":
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "00_groups.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="Another process makes a diagnosis in"):
            diagnose(bench, tmp_path, only=["verdict"])
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    finally:
        holder.kill()  # the lock falls with its holder
        holder.communicate()
    assert (tmp_path / ".lock").exists()
    diagnose(bench, tmp_path, only=["verdict"])
    assert set(load_diagnosis(tmp_path).results) == {("verdict", None)}


def test_a_diagnosis_holds_its_folder_while_it_works_and_no_longer(bench, tmp_path) -> None:
    def again(text: str) -> None:
        with pytest.raises(RunError, match="Another process makes a diagnosis in"):
            diagnose(bench, tmp_path, only=["groups"])

    diagnose(bench, tmp_path, only=["verdict"], report=again)
    diagnose(bench, tmp_path, only=["groups"])
    assert set(load_diagnosis(tmp_path).results) == {("groups", "vanilla"), ("groups", "concept-tuning")}


def test_a_read_only_diagnosis_is_read_without_a_lock(bench, tmp_path) -> None:
    diagnose(bench, tmp_path / "seen", only=["groups"])
    (tmp_path / "seen" / ".lock").unlink()
    (tmp_path / "seen").chmod(0o500)
    try:
        load_diagnosis(tmp_path / "seen")
        assert not (tmp_path / "seen" / ".lock").exists()
    finally:
        (tmp_path / "seen").chmod(0o700)


def test_a_diagnosis_that_links_to_another_is_refused(bench, tmp_path) -> None:
    diagnose(bench, tmp_path / "seen", only=["groups"])
    (tmp_path / "seen" / "results").rename(tmp_path / "private")
    (tmp_path / "seen" / "results").symlink_to(tmp_path / "private")
    with pytest.raises(RunError, match="names a file outside its folder"):
        load_diagnosis(tmp_path / "seen")
    (tmp_path / "seen" / "diagnosis.json").rename(tmp_path / "private.json")
    (tmp_path / "seen" / "diagnosis.json").symlink_to(tmp_path / "private.json")
    with pytest.raises(RunError, match="is a link to another"):
        load_diagnosis(tmp_path / "seen")


@pytest.mark.parametrize("name", ["results", "results/00_groups.json", ".lock", "report.html"])
def test_links_in_a_diagnosis_have_nothing_elsewhere_removed_or_written(bench, tmp_path, name: str) -> None:
    diagnose(bench, tmp_path / "seen", only=["groups"])
    private, link = tmp_path / "private", tmp_path / "seen" / name
    link.rename(private) if link.exists() else private.write_text("mine")
    link.symlink_to(private)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="is a link, which can lead out of the folder; remove it"):
        diagnose(bench, tmp_path / "seen", only=["groups"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_result_is_a_sentence(bench, tmp_path) -> None:
    diagnose(bench, tmp_path / "seen", only=["groups"])
    (tmp_path / "seen" / "diagnosis.json").unlink()
    os.mkfifo(tmp_path / "seen" / "diagnosis.json")
    with pytest.raises(RunError, match="is no plain file"):
        load_diagnosis(tmp_path / "seen")


def test_a_place_where_nothing_can_be_written_is_named(bench, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file cannot be written \(Not a directory\); name another --out"):
        diagnose(bench, tmp_path / "file", only=["groups"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space and diagnose again"),
        (errno.EIO, "Input/output error; name another folder and diagnose again"),
    ],
)
def test_results_that_cannot_be_written_are_told(bench, tmp_path, monkeypatch, code: int, words: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "save_result", fail)
    with pytest.raises(RunError, match=words):
        diagnose(bench, tmp_path, only=["groups"])


@torch.no_grad()
def test_a_run_gone_wrong_is_entered_with_its_reason_and_the_other_is_looked_at(bench, subjects, tmp_path) -> None:
    weight = subjects[0].method.classifier.weight
    kept = weight.clone()
    try:
        weight.fill_(float("nan"))
        made = diagnose(dataclasses.replace(bench, _features={}), tmp_path, only=["predictions"])
    finally:
        weight.copy_(kept)
    reasons = {entry.run: entry.reason for entry in made.overview.entries}
    assert reasons == {
        "vanilla": "The network of vanilla gives values that are not finite; train it again.",
        "concept-tuning": None,
    }
    assert set(made.results) == {("predictions", "concept-tuning")}


def test_an_analysis_of_another_version_is_named(bench, tmp_path) -> None:
    diagnose(bench, tmp_path, only=["groups"])
    overview = json.loads((tmp_path / "diagnosis.json").read_text())
    overview["entries"][0]["analysis"] = "auras"
    (tmp_path / "diagnosis.json").write_text(json.dumps(overview))
    with pytest.raises(RunError, match="unknown analysis 'auras'; make it again"):
        load_diagnosis(tmp_path)


def test_a_run_given_twice_is_refused(subjects) -> None:
    path = subjects[0].run.folder.path
    with pytest.raises(RunError, match="given twice"):
        load_subjects([path, path / ".." / path.name])
    assert [subject.name for subject in load_subjects([path])] == ["vanilla"]


def test_shown_pictures_are_few_distinct_and_partly_disputed(bench) -> None:
    right = np.stack([bench.right(subject) for subject in bench.subjects])
    assert len(bench.shown) == len(set(bench.shown)) == SHOWN
    disputed = np.flatnonzero(right.any(0) & ~right.all(0))
    first = bench.shown[: min(SHOWN // 2, len(disputed))]
    assert set(first) <= set(disputed.tolist())
