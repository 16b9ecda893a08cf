"""Where recorded results lie, and what each says of how it was made."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def commit(folders: Sequence[str] = ("concept_tuning", "benchmarks/*.py")) -> str:
    """Return the commit the figures were made at, marked where the code in some folders was not that of the commit."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", *folders)
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def command_line(script: str, arguments: Sequence[str] | None = None) -> str:
    """Return the command that runs a script of this folder; ``arguments`` None: those of this process."""
    return shlex.join(["python", f"benchmarks/{script}", *(sys.argv[1:] if arguments is None else arguments)])


def machine() -> str:
    """Return what the measuring machine is and how busy it was in the last minute."""
    return f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end"


def keep(path: Path, script: str, arguments: Sequence[str] | None, **found: Any) -> None:
    """Write what a script found, with its command (:func:`command_line`) and commit."""
    record = {"command": command_line(script, arguments), "commit": commit(), **found}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
