"""A dashboard of its own for a journey: started, killed and started again, with everything it leaves ended at last."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 60.0
_ROOT_VARIABLE = "CONCEPT_TUNING_RUNS"


class Server:
    """``streamlit run app/main.py`` on a free port of this machine, on a folder of runs of its own.

    Attributes:
        runs: Folder of the runs.
        url: Address without a slash at its end; the same after a restart.
    """

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        self.runs.mkdir(parents=True)
        self._log = folder / "server.log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server and wait until it answers; raises RuntimeError with its output if it does not."""
        command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.headless=true"]
        command += ["--server.address=127.0.0.1", f"--server.port={self._port}"]
        environment = os.environ | {_ROOT_VARIABLE: str(self.runs), "CONCEPT_TUNING_DATA": str(self.runs)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"The dashboard did not start:\n{self.output()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the server and all in its group, as a power cut would; training runs are in groups of their own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """Kill the server, and the training runs and diagnoses that it started."""
        self.kill()
        processes = started_on(self.runs)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def output(self) -> str:
        """Return what the server has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def started_on(runs: Path) -> list[psutil.Process]:
    """Return the processes that have a folder of runs in their environment: a dashboard's, and all that it started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_ROOT_VARIABLE) == str(runs):
                found.append(process)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
