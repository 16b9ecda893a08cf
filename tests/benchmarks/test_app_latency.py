"""The arithmetic of `benchmarks/app_latency.py`, and the scripts that it gives the browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import app_latency
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_summary_is_the_median_the_worst_and_the_number() -> None:
    assert app_latency.summary({"a": [0.3, 0.1, 0.2004], "b": [0.4, 0.1], "none": []}) == {
        "a": {"median": 0.2, "worst": 0.3, "n": 3},
        "b": {"median": 0.25, "worst": 0.4, "n": 2},
    }


def test_every_gap_of_a_script_is_filled() -> None:
    condition = app_latency._images("where this cell attends")
    script = app_latency._fill(app_latency._FROM_PRESS, before="[]", condition=f"{condition}.length >= 2")
    assert "includes('where this cell attends')" in script
    assert not any(gap in script for gap in ("{before}", "{condition}", "{words}"))


@pytest.mark.parametrize("script", ["app_latency.py", "demo_load.py"])
def test_a_script_that_takes_helpers_of_the_tests_finds_them_by_itself(script: str) -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--help"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "--rounds" in told.stdout
