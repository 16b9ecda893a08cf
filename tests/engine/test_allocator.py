from __future__ import annotations

import platform
import subprocess
import sys

CODE = """
import resource, sys
from concept_tuning.engine.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
import numpy as np
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> tuple[list[str], int]:
    lines = subprocess.run(
        [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
    ).stdout.split()
    return lines[:-1], int(lines[-1])


def test_freed_blocks_are_reused_where_glibc_is() -> None:
    said, kept = page_faults("keep")
    _, usual = page_faults("usual")
    if platform.libc_ver()[0] == "glibc":
        assert said == ["True"]
        assert kept < usual / 10
    else:
        assert said == ["False"]
