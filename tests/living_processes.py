"""Processes that do nothing but live, with commands of one's choice, such as a stranger's record may name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_CODE = "import time; print(flush=True); time.sleep(100)"


@contextmanager
def living_processes(words: Mapping[str, Sequence[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start a process for each name, with these words in its command; all are ended with the block."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for what, word in words.items():
            children[what] = subprocess.Popen([sys.executable, "-c", _CODE, *word], stdout=subprocess.PIPE)
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()
        yield children
    finally:
        for child in children.values():
            child.kill()
            child.communicate()
