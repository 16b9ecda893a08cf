"""What Linux tells of the memory of this process, for scripts and tests that hold an input to a limit."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
#: Whether the most of memory can be told for a piece of work alone.
TOLD = _RESET.exists()


def own_memory(name: str) -> int:
    """Return a number of bytes: VmSize, VmRSS, or VmHWM, the most of VmRSS."""
    told = Path("/proc/self/status").read_text(encoding="ascii")
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB", told, re.MULTILINE)
    return int(found) * 1024


def begin_again() -> None:
    """Let VmHWM begin again, with what was freed given back, whose reuse would show no rise.

    Raises OSError where that is not allowed.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    _RESET.write_text("5", encoding="ascii")
