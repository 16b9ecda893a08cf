"""A run folder or diagnosis of a stranger: odd files are sentences, odd paths lead nowhere, no process is harmed."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from living_processes import living_processes
from PIL import Image
from safetensors.numpy import save_file

from concept_tuning.config import RunConfig
from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.engine import turns
from concept_tuning.engine.evaluation import Predictions
from concept_tuning.engine.jobs import delete, rename, request_stop, resume
from concept_tuning.engine.loading import load_run
from concept_tuning.engine.pack import pack_run
from concept_tuning.engine.records import list_runs, read_metrics, read_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import resume_run
from concept_tuning.engine.turns import turn, write_status
from concept_tuning.errors import DataError, RunError, StudioError
from concept_tuning.progress import ConsoleWatcher
from concept_tuning.report.bundle import make_bundle

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a copy of the demo's run, to be made hostile."""
    shutil.copytree(DEMO / "vanilla", tmp_path / "runs" / "foreign")
    return tmp_path / "runs" / "foreign"


def put(file: Path, *keys: str, value: Any) -> None:
    """Set one value within a JSON file."""
    whole = found = json.loads(file.read_text())
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    file.write_text(json.dumps(whole))


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize("content", [DEEP, "", "[]", "nonsense", '{"a": ' + "9" * 5000 + "}", "\ud800", "null"])
def test_a_damaged_json_of_a_run_is_a_sentence(foreign: Path, name: str, content: str) -> None:
    (foreign / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(StudioError):
        load_run(foreign)
    assert [run.name for run in list_runs(foreign.parent)] == ["foreign"]


@pytest.mark.parametrize("name", ["status.json", "results.json", "config.json"])
def test_the_list_of_runs_survives_a_foreign_one(foreign: Path, name: str) -> None:
    shutil.copytree(DEMO / "vanilla", foreign.parent / "own")
    for content in (DEEP, "[]", "{}", "null", '{"splits": {"test": {"accuracy": NaN}}, "state": "finished"}'):
        (foreign / name).write_text(content)
        assert {run.name: run.state for run in list_runs(foreign.parent)}["own"] == "finished"


@pytest.mark.parametrize("key", ["class_names", "group_names"])
@pytest.mark.parametrize("value", [5, None, "abcd", [1, 2, 3, 4], [{"a": 1}] * 4, {"a": 1}, [None] * 4])
def test_names_that_are_no_list_of_texts_are_a_sentence(foreign: Path, key: str, value: Any) -> None:
    put(foreign / "data.json", key, value=value)
    with pytest.raises(RunError, match=f"no list of names as {key}"):
        load_run(foreign)


@pytest.mark.parametrize("count", [0, 3, 10_000_000])
def test_a_count_of_classes_that_the_weights_lack_is_told_before_a_network_is_built(foreign: Path, count: int) -> None:
    put(foreign / "data.json", "class_names", value=[""] * count)
    with pytest.raises(RunError, match=f"{count} classes"):
        load_run(foreign)


@pytest.mark.parametrize("name", ["hf-hub:evil/model", "local-dir:/etc", "../../etc/passwd", "hf_hub:x"])
def test_a_network_is_one_of_timms_and_never_fetched_or_read_from_a_path(foreign: Path, name: str) -> None:
    put(foreign / "config.json", "backbone", "architecture", value=name)
    with pytest.raises(StudioError, match="timm has no network"):
        load_run(foreign)


def test_weights_named_in_foreign_settings_are_not_opened(foreign: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trap.pth")  # to open it would wait for ever
    put(foreign / "config.json", "backbone", "weights", value=str(tmp_path / "trap.pth"))
    assert load_run(foreign).class_names


@pytest.mark.parametrize("source", ["/etc/passwd", "/dev/zero", "../../../../etc", "http://127.0.0.1/x.zip", "\0"])
def test_data_named_in_foreign_settings_is_refused_when_it_is_no_data(foreign: Path, source: str) -> None:
    put(foreign / "config.json", "data", "source", value=source)
    with pytest.raises(StudioError):
        load_run(foreign).data()


def test_a_foreign_run_cannot_show_pictures_whose_fingerprint_it_does_not_know(foreign: Path, tmp_path: Path) -> None:
    names = json.loads((foreign / "data.json").read_text())["class_names"]
    for name in names:
        (tmp_path / "private" / name).mkdir(parents=True)
        for place in range(6):
            noise = np.random.default_rng(place).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "private" / name / f"{place}.png")
    put(foreign / "config.json", "data", "source", value=str(tmp_path / "private"))
    (foreign / "split.json").unlink()
    with pytest.raises(DataError, match="are not those that the run foreign began with"):
        load_run(foreign).data()


@pytest.mark.parametrize("keys", [5, [1], None, [["../x"]], "abc"])
def test_a_split_that_holds_no_names_is_a_sentence(foreign: Path, keys: Any) -> None:
    put(foreign / "split.json", "test", value=keys)
    with pytest.raises(RunError, match="holds no lists of names"):
        load_run(foreign).data()


def test_a_split_cannot_name_files_outside(foreign: Path) -> None:
    for name in ("../../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>"):
        put(foreign / "split.json", "test", value=[name])
        with pytest.raises(DataError):
            load_run(foreign).data()


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        "{}",
        "[]",
        '{"kind": "step", "step": "x"}',
        '{"kind": "../x", "step": 1}',
        '{"kind": [], "step": 1}',
        '{"kind": "evaluation", "step": 1, "accuracy": "' + "9" * 60_000 + '"}',  # a hundred times that, in percent
        '{"kind": "step", "step": 1, "loss": [' + "[]," * 100_000 + "[]]}",
        json.dumps({"kind": "step", "step": 1} | {f"term-{number}": 1 for number in range(500)}),
    ],
)
def test_curves_of_a_foreign_run_are_a_sentence(foreign: Path, line: str) -> None:
    (foreign / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match="is damaged"):
        read_metrics(read_run("foreign", foreign.parent))


@pytest.mark.parametrize(
    "tensors",
    [
        {"labels": np.zeros(3, np.int64)},
        {"probabilities.prediction": np.zeros((3, 2), np.float32)},
        {"labels": np.zeros(3, np.int64), "probabilities.prediction": np.zeros((2, 2), np.float32)},
        {"labels": np.zeros((3, 1), np.int64), "probabilities.prediction": np.zeros((3, 2), np.float32)},
        {"labels": np.zeros(3, np.int64), "probabilities.prediction": np.zeros(3, np.float32)},
    ],
)
def test_predictions_that_are_none_are_a_sentence(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(RunError, match="run folder is damaged"):
        Predictions.load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 50)
    with pytest.raises(RunError, match="cannot be read as predictions"):
        Predictions.load(tmp_path / "x.safetensors")


def test_a_status_cannot_make_a_stop_hit_a_process_that_is_not_ours(foreign: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        later = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
        (foreign / "status.json").write_text(json.dumps({"state": "training", "pid": victim.pid, "updated": later}))
        run = read_run("foreign", foreign.parent)
        assert run.state == "interrupted"
        with pytest.raises(RunError, match="no process works on it, it is interrupted"):
            request_stop(run)
        with RunFolder(foreign).locked():  # somebody's script has just begun to train it, and has not told yet
            assert read_run("foreign", foreign.parent).working
            with pytest.raises(RunError, match=f"process {victim.pid}, which is none of Concept-Tuning Studio"):
                request_stop(run)
        assert victim.poll() is None
        assert not (foreign / "stop-requested").exists()
    finally:
        victim.kill()
        victim.wait()


@pytest.fixture
def living(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Return the ids of living processes that a stranger may have guessed, as in a container, by what they are."""
    words = {
        "the dashboard": [f"{tmp_path}/concept-tuning-studio/.venv/bin/streamlit", "run", "app/main.py"],
        "a job of another run": ["-m", "concept_tuning", "work", str(tmp_path / "runs" / "other")],
        "a diagnosis": ["-m", "concept_tuning", "diagnose", str(tmp_path / "runs" / "foreign")],
    }
    with living_processes(words) as children:
        yield {what: child.pid for what, child in children.items()} | {"the first process": 1}


@pytest.mark.parametrize("named", ["the first process", "the dashboard", "a job of another run", "a diagnosis"])
@pytest.mark.parametrize("state", ["queued", "training"])
def test_a_status_that_names_a_living_process_stops_no_queue_and_can_be_removed(
    state: str, named: str, foreign: Path, living: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = {"state": state, "submitted": 0, "pid": living[named], "updated": "2999-01-01T00:00:00+00:00"}
    (foreign / "status.json").write_text(json.dumps(lie))
    (run,) = list_runs(foreign.parent)
    assert (run.state, run.working, run.submitted) == ("interrupted", False, None)
    own = RunFolder.create(foreign.parent / "own", RunConfig())
    write_status(own, state="queued", submitted=1000.0)

    def asleep(seconds: float) -> None:
        raise AssertionError("the job waits")

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(turns.time, "sleep", asleep)
            with turn(own.path, foreign.parent):
                assert own.status()["state"] == "preparing"
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    delete(rename(run, "renamed"))
    assert [run.name for run in list_runs(foreign.parent)] == ["own"]


def at_work(run: Path) -> None:
    with turn(run, run.parent):
        raise AssertionError("it had a turn")


#: All that begins work in a run folder.
WORK = {
    "resume": lambda run: resume_run(run, ConsoleWatcher(quiet=True)),
    "job": lambda run: resume(read_run(run.name, run.parent)),
    "turn": at_work,
    "pack": lambda run: pack_run(run, run.parent.parent / "packed"),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    "name", ["error.log", "metrics.jsonl", "process.log", ".x.1.tmp", "checkpoints", "best/deep/x"]
)
def test_a_link_in_a_run_folder_leads_no_work_out_of_it(work: str, name: str, foreign: Path, tmp_path: Path) -> None:
    (foreign / "status.json").write_text(json.dumps({"state": "finished" if work == "pack" else "stopped"}))
    outside = tmp_path / "photos"
    (outside / "step-1").mkdir(parents=True)
    for file in ("mine", ".mine.tmp", "step-1/mine"):
        (outside / file).write_text("mine")
    (foreign / name).parent.mkdir(exist_ok=True)
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(outside if name == "checkpoints" else outside / "mine")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(RunError, match=rf"{name} is a link, which can lead out of the run folder; nothing was"):
            WORK[work](foreign)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    kept = sorted(file for file in outside.rglob("*") if file.is_file())
    assert [file.read_text() for file in kept] == ["mine"] * 3
    assert not (tmp_path / "packed").exists()
    if work != "pack":
        delete(read_run("foreign", foreign.parent))
        assert sorted(file for file in outside.rglob("*") if file.is_file()) == kept


def test_a_lock_or_a_half_written_file_that_is_a_link_is_not_written_through(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    folder = RunFolder(foreign)
    (foreign / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match=r"\.lock is a link"), folder.locked():
        pass
    (foreign / f".status.json.{os.getpid()}.tmp").symlink_to(tmp_path / "mine")
    write_status(folder, state="stopped")
    assert folder.status()["state"] == "stopped"
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_run_is_reached_through_a_link_to_its_folder(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(foreign.parent)
    RunFolder(tmp_path / "link" / "foreign").refuse_links()
    assert load_run(tmp_path / "link" / "foreign").class_names


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def make_huge(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # a file with a hole takes no room


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices among files are those of POSIX")
@pytest.mark.parametrize("make", [make_pipe, make_endless, make_huge])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "stop-requested", "data.json"])
def test_a_pipe_a_device_or_a_huge_file_in_place_of_a_record_is_a_sentence(
    make: Callable[[Path], None], name: str, foreign: Path
) -> None:
    (foreign / name).unlink(missing_ok=True)
    make(foreign / name)
    write_status(RunFolder(foreign), state="training" if name == "stop-requested" else "finished")
    with RunFolder(foreign).locked():
        (run,) = list_runs(foreign.parent)
    if name == "stop-requested":
        assert (run.state, run.stopping) == ("training", False)
        return
    assert run.state == ("broken" if name == "config.json" else "finished")
    with pytest.raises(RunError, match=r"is no plain file|has more than"):
        read_metrics(run) if name == "metrics.jsonl" else RunFolder(foreign).read_json(name)


def test_a_status_with_any_key_is_resumed(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concept_tuning.engine.jobs._launch", lambda folder, root: None)
    (foreign / "status.json").write_text(json.dumps({"state": "stopped", "folder": "x", "values": 1, "self": 2}))
    resume(read_run("foreign", foreign.parent))
    assert RunFolder(foreign).status()["state"] == "queued"


def test_links_in_a_run_folder_are_not_packed_into_a_bundle(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret words")
    (foreign / "versions.json").symlink_to(tmp_path / "secret")
    packed = make_bundle(DEMO / "diagnosis", {"vanilla": foreign})
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert not [name for name in archive.namelist() if b"secret words" in archive.read(name)]
        assert "runs/1-vanilla/config.json" in archive.namelist()
    shutil.copytree(DEMO / "diagnosis", tmp_path / "diagnosis")
    (tmp_path / "diagnosis" / "diagnosis.json").unlink()
    (tmp_path / "diagnosis" / "diagnosis.json").symlink_to(tmp_path / "secret")
    with pytest.raises(RunError, match="holds no diagnosis"):
        make_bundle(tmp_path / "diagnosis")


@pytest.mark.parametrize("dtype", ["<U400000000", "S2000000000", "V2000000000", "O", "M8[s]", "<f4,<f4", "c8"])
def test_an_array_of_an_odd_type_is_refused_before_it_takes_memory(tmp_path: Path, dtype: str) -> None:
    hostile_result(tmp_path, lambda found: found["labels"].update(dtype=dtype))
    with pytest.raises(RunError, match="is not a saved"):
        load_diagnosis(tmp_path / "seen")


@pytest.mark.parametrize("shape", [[10**12], [-1, -1], [3, 10**18], ["x"], [0] * 70])
def test_an_array_of_another_shape_than_its_values_is_a_sentence(tmp_path: Path, shape: list[Any]) -> None:
    hostile_result(tmp_path, lambda found: found["labels"].update(shape=shape))
    with pytest.raises(RunError, match="is not a saved"):
        load_diagnosis(tmp_path / "seen")


@pytest.mark.parametrize("file", ["../../secret.json", "/etc/passwd", "results/../../secret.json", "diagnosis.json"])
def test_a_diagnosis_cannot_name_files_outside_its_folder(tmp_path: Path, file: str) -> None:
    shutil.copytree(DEMO / "diagnosis", tmp_path / "seen")
    overview = tmp_path / "seen" / "diagnosis.json"
    whole = json.loads(overview.read_text())
    whole["entries"][0]["file"] = file
    overview.write_text(json.dumps(whole))
    with pytest.raises(RunError, match="outside its folder"):
        load_diagnosis(tmp_path / "seen")


def test_a_stored_picture_that_would_unpack_to_gigabytes_is_a_sentence() -> None:
    file = io.BytesIO()
    Image.new("L", (16_000, 4_000)).save(file, format="WEBP")
    bomb = thumbnail(file.getvalue())
    with pytest.raises(RunError, match="larger than 2048 pixels"):
        bomb.image("x")
    for content in (b"RIFF\x24\0\0\0WEBPVP8 nonsense", b"GIF89a", b""):
        with pytest.raises(RunError, match="is damaged"):
            thumbnail(content).image("x")


def thumbnail(content: bytes) -> Thumbnails:
    return Thumbnails(keys=("x",), files=(base64.b64encode(content).decode(),), labels=np.zeros(1, np.int64))


def hostile_result(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Copy the demo's diagnosis with its first result changed."""
    shutil.copytree(DEMO / "diagnosis", tmp_path / "seen")
    file = tmp_path / "seen" / "results" / "00_predictions.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
