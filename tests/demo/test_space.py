"""A Space: everything the demo needs lies in one folder, and there it listens to the Space's front."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from demo_server import REPOSITORY

_START_SECONDS = 90


@pytest.fixture(scope="module")
def space():
    spec = importlib.util.spec_from_file_location("space", REPOSITORY / "assets" / "space.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _gather(space, out: Path) -> None:
    demo = REPOSITORY / "assets" / "demo"
    space.gather(out, demo / "vanilla", demo / "concept-tuning")


def test_the_folder_names_its_packages_and_its_application(space, tmp_path: Path) -> None:
    _gather(space, tmp_path / "out")
    packages = (tmp_path / "out" / "requirements.txt").read_text()
    assert "torch>=" in packages
    assert "gradio>=" in packages
    assert "-e ." not in packages
    assert "app_file: app/gradio_demo.py" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(SystemExit, match="exists already"):
        _gather(space, tmp_path / "out")
    with pytest.raises(SystemExit, match="no finished run"):
        space.gather(tmp_path / "other", tmp_path, tmp_path)


@pytest.mark.slow
def test_what_was_gathered_runs_by_itself_and_listens_to_the_front(space, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _gather(space, out)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "SPACE_ID": "someone/space", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "app/gradio_demo.py", "--port", port], cwd=out, env=environment, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/"):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == ["0.0.0.0"]
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
