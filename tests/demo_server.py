"""A Gradio demo of its own for tests: a process that is started, asked and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
_START_SECONDS = 90.0


class DemoServer:
    """``python app/gradio_demo.py`` on a free port of this machine.

    Attributes:
        url: Address without a slash at its end.
        pid: Of its process.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder / "demo.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "app/gradio_demo.py", "--port", str(port), *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
            )
        self.pid = self._process.pid
        until = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.end()
                raise RuntimeError(f"The demo did not start:\n{self.output()}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Return whether its page, or its log-in, is there."""
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def output(self) -> str:
        """Return what it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """End it and wait."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
