"""A diagnosis of a stranger on the dashboard: its pictures, its record, its log and what is packed of it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from living_processes import living_processes
from PIL import EpsImagePlugin
from streamlit.testing.v1 import AppTest

from app import state
from app.views.compare_runs import run_places
from concept_tuning.diagnostics import background
from concept_tuning.diagnostics.background import (
    FOLDER,
    DiagnosisJob,
    delete_diagnosis,
    list_diagnoses,
    refuse_while_diagnosed,
    stop_diagnosis,
)
from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.engine.processes import born
from concept_tuning.engine.records import RunRecord
from concept_tuning.errors import RunError
from concept_tuning.figures.embedding import embedding_figure
from concept_tuning.figures.embedding_pictures import add_pictures, patch_gallery

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
#: Pixels a side of pictures that Pillow still opens with no more than a warning, and that take 0.5 GB as RGB.
SIDE = 13_312


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def webp_bomb(side: int) -> bytes:
    """Return a WebP of 90 bytes that is so large: a frame of one pixel on a canvas."""
    pixel = chunk(b"VP8L", bytes.fromhex("2f0000000007 1011fd0f4444ff03"))
    canvas = chunk(b"VP8X", b"\x02\0\0\0" + (side - 1).to_bytes(3, "little") * 2)
    frame = chunk(b"ANMF", bytes(12) + b"\x64\0\0\0" + pixel)
    return chunk(b"RIFF", b"WEBP" + canvas + chunk(b"ANIM", bytes(6)) + frame)


def png_bomb(side: int) -> bytes:
    """Return a PNG that is so large, in black and white."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", packed) + part(b"IEND", b"")


#: What a stranger may store in place of a thumbnail, and what is said of it.
PICTURES = {
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
        "is damaged",
    ),
    "large PNG": (png_bomb(SIDE), "is damaged"),
    "large WebP": (webp_bomb(SIDE), "is larger than 2048 pixels"),
    "text": (b"nothing", "is damaged"),
    "nothing": (b"", "is damaged"),
    "broken WebP": (b"RIFF\x24\0\0\0WEBPVP8 nonsense", "is damaged"),
}


def thumbnails(keys: tuple[str, ...], content: bytes) -> Thumbnails:
    """Return thumbnails that all have this content."""
    files = (base64.b64encode(content).decode(),) * len(keys)
    return Thumbnails(keys=keys, files=files, labels=np.zeros(len(keys), np.int64))


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for Ghostscript on the path and return the file that it writes when it is started."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\necho started >> '{folder}/mark'\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what Pillow has found out so far
    return folder / "mark"


def _list_of_pictures(small) -> None:
    from app.errors import shown_errors
    from app.picture_list import show_pictures
    from concept_tuning.report.picture_lists import ListedPicture

    with shown_errors():
        show_pictures([ListedPicture(key=key, text="x") for key in small.keys], small, key="x")


def _gallery(small) -> None:
    from types import SimpleNamespace

    from app.errors import shown_errors
    from app.views.attention_gallery import show_tiles

    with shown_errors():
        overview = SimpleNamespace(class_names=("a",))
        pictures = SimpleNamespace(diagnosis=SimpleNamespace(overview=overview), predictions={})
        show_tiles(pictures, small.keys, small.keys[0], small, name="x", on_click=print)


def shown(render: Callable[..., None], *told: Any) -> str:
    """Return the errors that a part of a page shows; there is nothing else amiss."""
    page = AppTest.from_function(render, default_timeout=120, args=told).run()
    assert not page.exception
    errors = " ".join(error.value for error in page.error).replace("\\", "")
    assert "unexpected" not in errors
    return errors


needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script of a shell")


@needs_shell
@pytest.mark.parametrize("part", [_list_of_pictures, _gallery])
@pytest.mark.parametrize("what", PICTURES)
def test_no_page_opens_a_stored_picture_of_another_kind_or_size(
    what: str, part: Callable[..., None], ghostscript: Path
) -> None:
    content, reason = PICTURES[what]
    assert f"The stored picture a.png {reason}" in shown(part, thumbnails(("a.png", "b.png"), content))
    assert not ghostscript.exists()


@needs_shell
@pytest.mark.parametrize("what", PICTURES)
def test_no_figure_opens_a_stored_picture_of_another_kind_or_size(what: str, ghostscript: Path) -> None:
    content, reason = PICTURES[what]
    results = load_diagnosis(DEMO / "diagnosis").results
    for kind in ("embedding", "concept-embedding"):
        result = results[kind, None]
        small = thumbnails(result.keys, content)
        with pytest.raises(RunError, match=f"The stored picture .* {reason}"):
            add_pictures(embedding_figure(result), result, small, most=1)
    with pytest.raises(RunError, match=f"The stored picture .* {reason}"):
        patch_gallery(result, [0], small)
    assert not ghostscript.exists()


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the demo's diagnosis in the folder of runs, to be made hostile."""
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    shutil.copytree(DEMO / "diagnosis", tmp_path / "runs" / "seen")
    return tmp_path / "runs" / "seen"


def _page(name: str, values: dict) -> None:
    import importlib

    import streamlit as st

    from app.errors import shown_errors

    with shown_errors():
        for key, value in values.items():
            st.session_state.setdefault(key, value)
        importlib.import_module(f"app.views.{name}").render()


@needs_shell
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("attention", {}),
        ("embedding", {"embedding-pictures": True}),
        ("embedding", {"embedding-pictures": True, "embedding-kind": "concept-embedding"}),
        ("embedding", {"embedding-chosen-embedding": "first"}),
    ],
)
@pytest.mark.parametrize("what", PICTURES)
def test_hostile_pictures_of_a_diagnosis_are_a_sentence_on_its_pages(
    what: str, name: str, values: dict[str, Any], foreign: Path, ghostscript: Path
) -> None:
    content, reason = PICTURES[what]
    file = foreign / "results" / "thumbnails.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"files": [base64.b64encode(content).decode()] * len(stored["files"])}))
    if "embedding-chosen-embedding" in values:
        values = {"embedding-chosen-embedding": stored["keys"][:1]}
    errors = shown(_page, name, values)
    assert reason in errors or "do not fit its pictures" in errors  # told by the file's first bytes
    assert not ghostscript.exists()


@pytest.fixture
def bystanders(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Return living processes that a record may name, by what they are."""
    here = str(tmp_path.resolve() / FOLDER / "seen")
    words = {
        "any": [],
        "an editor": ["diagnose", "--out", here],
        "a training": ["-m", "concept_tuning", "work", here],
        "a diagnosis elsewhere": ["-m", "concept_tuning", "diagnose", "x", "--out", f"{tmp_path}/elsewhere/seen"],
        "a diagnosis that reads this one": ["-m", "concept_tuning", "diagnose", here, "--out", f"{here}-2"],
        "a bench": ["-m", "concept_tuning", "benchmark", "x", "--out", here],
    }
    with living_processes(words) as children:
        yield children


def put_record(root: Path, **values: Any) -> Path:
    """Write the record of a diagnosis ``seen`` below a root and return its file."""
    (root / FOLDER).mkdir(exist_ok=True)
    file = root / FOLDER / "seen.job.json"
    file.write_text(json.dumps({"runs": ["a"], "total": 3, "started": time.time()} | values))
    return file


def only(root: Path) -> DiagnosisJob:
    (job,) = list_diagnoses(root)
    return job


@pytest.mark.parametrize(
    "what",
    ["any", "an editor", "a training", "a diagnosis elsewhere", "a diagnosis that reads this one", "a bench"],
)
def test_a_record_cannot_make_a_stop_hit_a_process_that_does_not_make_the_diagnosis(
    what: str, bystanders: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    victim = bystanders[what]
    for birth in (born(victim.pid), psutil.Process(victim.pid).create_time()):
        file = put_record(tmp_path, pid=victim.pid, born=birth)
        before = file.read_text()
        job = only(tmp_path)
        assert job.state == "failed"
        with pytest.raises(RunError, match="cannot be stopped: it does not work"):
            stop_diagnosis(job)
        assert victim.poll() is None
        assert file.read_text() == before
        refuse_while_diagnosed(RunRecord("a", tmp_path, tmp_path / "a", "finished"))  # nor keep a run for ever
        delete_diagnosis(job)
    assert victim.poll() is None


def test_a_record_without_a_birth_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["-m", "concept_tuning", "diagnose", "x", "--out", str(tmp_path.resolve() / FOLDER / "seen")]
    with living_processes({"this diagnosis": words}) as children:
        (child,) = children.values()
        put_record(tmp_path, pid=child.pid, born=born(child.pid))
        assert only(tmp_path).state == "working"
        monkeypatch.setattr(background, "born", lambda pid: None)  # as of a process that may not be asked
        put_record(tmp_path, pid=child.pid, born=None)
        assert only(tmp_path).state == "failed"
        with pytest.raises(RunError, match="does not work"):
            stop_diagnosis(only(tmp_path))
        assert child.poll() is None


@pytest.mark.parametrize("pid", ["x", None, [1], -1, 1 << 70, 1e400])
def test_a_record_of_no_process_id_is_that_of_an_ended_diagnosis(pid: Any, tmp_path: Path) -> None:
    put_record(tmp_path, pid=pid, born=1.0)
    job = only(tmp_path)
    assert job.state == "failed"
    delete_diagnosis(job)
    assert list_diagnoses(tmp_path) == []


@pytest.mark.parametrize(
    "values",
    [{"started": float("nan")}, {"started": 1e400}, {"total": 10**4000}, {"total": -1}, {"runs": ["a" * (1 << 21)]}],
)
def test_a_record_of_numbers_or_texts_of_any_size_is_passed_over(values: dict[str, Any], tmp_path: Path) -> None:
    put_record(tmp_path, **values)
    assert list_diagnoses(tmp_path) == []


def test_a_log_that_is_a_link_or_a_pipe_shows_nothing(tmp_path: Path) -> None:
    log = put_record(tmp_path, pid=1, born=1.0).with_name("seen.log")
    (tmp_path / "secret").write_text("    1 s  Predictions\nError: password=1234\n")
    log.symlink_to(tmp_path / "secret")
    job = only(tmp_path)
    assert (job.state, job.begun, job.seconds) == ("failed", 0, 0)
    assert "password" not in job.message
    log.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(log)
        assert only(tmp_path) == job


def test_of_a_log_of_any_length_the_end_is_read(tmp_path: Path) -> None:
    log = put_record(tmp_path, pid=1, born=1.0).with_name("seen.log")
    with log.open("wb") as stream:
        stream.truncate(1 << 40)  # a file with a hole takes no room
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n    7 s  Maps\n\xff\nError: " + b"x" * 9000)
    job = only(tmp_path)
    assert (job.begun, job.seconds) == (1, 7)
    assert job.message == "x" * 1999 + "…"
    log.write_text("    1 s  Predictions\n    7 s  Maps\n")
    assert only(tmp_path).begun == 2


@pytest.mark.parametrize("named", ["a\0b", "\ud800", "x" * 300, "../x" * 2000])
def test_runs_that_no_file_can_be_called_are_not_looked_for(named: str, foreign: Path) -> None:
    record = {"runs": [named], "total": 3, "started": 1.0}
    (state.ROOT / FOLDER).mkdir()
    foreign.rename(state.ROOT / FOLDER / "seen")
    (state.ROOT / FOLDER / "seen.job.json").write_text(json.dumps(record))
    overview = json.loads((state.ROOT / FOLDER / "seen" / "diagnosis.json").read_text())
    overview["runs"][0]["name"] = named.encode(errors="replace").decode()
    (state.ROOT / FOLDER / "seen" / "diagnosis.json").write_text(json.dumps(overview))
    card = load_diagnosis(state.ROOT / FOLDER / "seen").overview.runs[0]
    assert run_places(state.ROOT / FOLDER / "seen", card) == []
