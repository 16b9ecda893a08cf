from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_tuning.cli import main
from concept_tuning.config import METHOD_NAMES
from concept_tuning.progress import ConsoleWatcher

QUICK = [
    "--backbone", "test_resnet", "--quiet", "--set", "weights=random", "image_size=64", "batch_size=8",
    "epochs=1", "threads=1",
]  # fmt: skip
PLANTED = ["images=16", "validation_images=16", "test_images=16", "draw_size=64"]


def train(path: Path, *extra: str) -> int:
    return main(["train", *QUICK, *PLANTED, "--run-dir", str(path), *extra])


@pytest.mark.parametrize("command", ["datasets", "backbones", "methods", "settings", "analyses"])
def test_lists_as_json_and_as_table(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) > 0
    assert main([command]) == 0
    assert names[0] in capsys.readouterr().out


def test_lists_hold_what_the_product_offers(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for command in ("datasets", "backbones", "methods"):
        main([command, "--json"])
        found[command] = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"planted", "elpv"} <= set(found["datasets"])
    assert found["datasets"]["planted"]["offline"] is True
    assert set(found["methods"]) == set(METHOD_NAMES)
    assert found["backbones"]["tf_efficientnet_lite0"]["offline"] is True


def test_train_evaluate_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert re.search(r"^val: accuracy [\d.]+ % .*validation drawn like training", out, re.M)
    assert re.search(r"^test: accuracy [\d.]+ % .*worst group", out, re.M)
    for split in ("val", "test"):
        assert main(["evaluate", str(tmp_path / "run"), "--split", split, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert {"n", "accuracy", "worst_group_accuracy", "groups"} <= set(result)
        assert result["n"] == 16
        assert result["worst_group_accuracy"] == min(group["accuracy"] for group in result["groups"])
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "Classes and groups" in capsys.readouterr().out
    out_file = tmp_path / "model.safetensors"
    assert main(["export", str(tmp_path / "run"), "--format", "safetensors", "--out", str(out_file)]) == 0
    assert out_file.stat().st_size > 1000


def test_sample_rate_and_per_class_flags_take_effect(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--sample-rate", "50") == 0
    assert len(json.loads((tmp_path / "run" / "split.json").read_text())["train"]) == 8
    assert train(tmp_path / "few", "--per-class", "2") == 0
    assert len(json.loads((tmp_path / "few" / "split.json").read_text())["train"]) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--set", "rhoo=1"], "Did you mean 'rho'"),
        (["train", "--method", "vanila"], "Did you mean 'vanilla'"),
        (["train", "--preset", "fast"], "Unknown preset 'fast'"),
        (["train", "--data", "no/such/folder"], "no/such/folder"),
        (["train", "--data", "plantd"], "planted"),
        (["train", "--backbone", "resnet5O"], "resnet50"),
        (["train", "--seed", "-1"], "engine.seed"),
        (["train", "--sample-rate", "0"], "data.sample_rate"),
        (["train", "--set", "weights=missing.safetensors"], "missing.safetensors"),
        (["resume", "nowhere"], "not a run folder"),
        (["evaluate", "nowhere"], "not a run folder"),
        (["export", "nowhere", "--format", "onnx", "--out", "x.onnx"], "not a run folder"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = ["--run-dir", str(tmp_path / "run"), "--quiet"] if arguments[0] == "train" else []
    assert main([*arguments, *extra]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def write_folder(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (70, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_folder_with_bad_pictures_trains_and_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "pets")
    (root / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (root / "dog" / "empty.png").write_bytes(b"")
    run = tmp_path / "run"
    arguments = [part for part in QUICK if part != "--quiet"]
    assert main(["train", *arguments, "--data", str(root), "--run-dir", str(run)]) == 0
    captured = capsys.readouterr()
    problems = {problem["key"] for problem in json.loads((run / "data.json").read_text())["problems"]}
    assert problems == {"cat/broken.jpg", "dog/empty.png"}
    assert "cat/broken.jpg" in captured.err
    assert "dog/empty.png" in captured.err
    assert main(["evaluate", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["groups"] == []
    assert result["worst_group_accuracy"] is None


def test_a_class_without_a_readable_picture_stops_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "pets")
    for path in (root / "dog").iterdir():
        path.write_bytes(b"nothing")
    assert main(["train", *QUICK, "--data", str(root), "--run-dir", str(tmp_path / "run")]) == 2
    assert "dog" in capsys.readouterr().err


def test_an_unexpected_error_is_a_sentence_with_the_details_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import concept_tuning.engine.session as session

    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(session, "start_run", broken)
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert "surprise" in error
    assert "Traceback" not in error
    log = tmp_path / "concept-tuning-error.log"
    assert "Traceback" in log.read_text()
    log.unlink()
    log.mkdir()  # as where the current folder cannot be written
    assert train(tmp_path / "run") == 1
    assert capsys.readouterr().err == "Unexpected error: ZeroDivisionError: surprise.\n"


@pytest.mark.parametrize("listing", ["backbones", "settings"], ids=["within a buffer", "longer"])
def test_a_reader_that_goes_away_is_no_error(listing: str, tmp_path: Path) -> None:
    """As in ``concept-tuning settings --json | head -1``."""
    command = [sys.executable, "-m", "concept_tuning", listing, "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vanilla", "concept-tuning"])
def test_the_smoke_preset_is_quick(method: str, tmp_path: Path) -> None:
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    command = [sys.executable, "-m", "concept_tuning", "train", "--preset", "smoke", "--method", method]
    # processor time, which a busy machine hardly stretches while waiting threads sleep: 40 seconds on two cores
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([*command, "--run-dir", str(tmp_path / "run")], check=True, capture_output=True, env=environment)
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 80


@pytest.mark.parametrize("alone", [True, False])
def test_interrupts_are_heard_again_in_a_session_of_its_own_alone(alone: bool) -> None:
    """As what a shell runs in the background, whose starter ignores them, it would be deaf to being stopped."""
    code = (
        "import signal; from concept_tuning.cli import main; main(['settings']);"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], start_new_session=alone, capture_output=True, text=True, check=True
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    assert done.stdout.splitlines()[-1] == str(alone)


def test_names_of_files_do_not_act_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
    (tmp_path / "pictures" / "a" / "\x1b]0;owned\x07.png").write_bytes(b"no picture")
    assert main(["train", "--data", str(tmp_path / "pictures"), "--run-dir", str(tmp_path / "run")]) == 2
    told = capfd.readouterr()
    assert "\x1b]0;" not in told.err + told.out
    ConsoleWatcher().message("Left out \x1b]0;owned\x07.png: no picture\nNext line")
    told = capfd.readouterr()
    assert told.err == "Left out \\x1b]0;owned\\x07.png: no picture\nNext line\n"


def test_signs_that_a_code_page_lacks_are_escaped_in_a_file(tmp_path: Path) -> None:
    """As on Windows, where what is written into a file is in the code page."""
    code = "from concept_tuning.cli import main; import sys; main(['settings', '--json']); print('\\u2212 \\u732b')"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.rstrip().endswith(b"\\u2212 \\u732b")
