"""The demo's command line: wrong arguments are said in a sentence, and the password comes from a file."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from demo_server import REPOSITORY, DemoServer

from app.gradio_demo import main, read_auth
from concept_tuning.errors import ConfigError


def test_the_password_is_the_first_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "p:w"
    for mark in ("", "\ufeff"):  # as some editors put before the first letter
        file.write_text(f"{mark}  open sesame \nmore\n", encoding="utf-8")
        assert read_auth(f"ali:{file}") == ("ali", "open sesame")


@pytest.mark.parametrize("text", ["ali", ":file", "ali:", ""])
def test_another_form_of_auth_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="USER:FILE"):
        read_auth(text)


@pytest.mark.parametrize("content", [b"", b"\nlate", b"  \n", b"\xff\xfe\xff"])
def test_a_file_without_a_password_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="password file"):
        read_auth(f"ali:{file}")


def test_a_missing_password_file_and_one_run_alone_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--auth", f"ali:{tmp_path / 'none'}"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["--run-a", str(tmp_path)]) == 2
    assert "both --run-a and --run-b" in capsys.readouterr().err


def test_folders_that_are_no_runs_and_a_taken_port_end_with_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["--run-a", str(tmp_path / "a"), "--run-b", str(tmp_path / "b")], "not a run folder"),
            (["--port", "0"], "1 to 65535"),
            (["--port", port], f"port {port}"),
        ):
            done = subprocess.run(
                [sys.executable, "app/gradio_demo.py", *arguments],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 2, done.stderr
            assert done.stderr.splitlines()[-1].startswith("Error: ")
            assert words in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_its_folder_is_private_and_gone_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = DemoServer(tmp_path)
    folders = list(tmp_path.glob("concept-tuning-demo-*"))
    assert len(folders) == 1
    assert folders[0].stat().st_mode & 0o077 == 0
    server.end()
    assert not folders[0].exists()
