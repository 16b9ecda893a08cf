"""The runs that come with the repository open on any machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_OPEN = "import sys; from pathlib import Path; from concept_tuning.engine.loading import load_run; " + (
    "print(len(load_run(Path(sys.argv[1])).data().splits['test']))"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanilla", "concept-tuning"])
def test_their_pictures_are_those_they_were_trained_on(name: str, tmp_path: Path) -> None:
    """Other processors round other bits of drawn pictures: numpy without its widest instructions stands for one."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    if name == "vanilla":
        environment["NPY_DISABLE_CPU_FEATURES"] = _widest_instructions()
    run = str(REPOSITORY / "assets" / "demo" / name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _OPEN, run],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def _widest_instructions() -> str:
    """Return what of this processor numpy can be told to leave aside; empty where that is nothing."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
