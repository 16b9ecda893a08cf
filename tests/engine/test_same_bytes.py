"""The same seed, machine and number of threads give the same bytes; the loader's workers change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concept_tuning.engine.session import start_run
from concept_tuning.progress import ConsoleWatcher

FILES = ("metrics.jsonl", "results.json", "best/model.safetensors", "predictions/test.safetensors")


def differing(one: Path, other: Path) -> list[str]:
    """Names of the files that are not the same in two runs."""
    return [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()]


def steps_of(run: Path) -> list[dict[str, float]]:
    """Return what a run measured at each step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "kind"} for row in rows if row["kind"] == "step"]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two threads wait for each other where other work takes the cores
@pytest.mark.parametrize("method", ["vanilla", "concept-tuning"])
def test_workers_change_no_byte_and_threads_only_the_last_digits(method: str, tiny, tmp_path: Path) -> None:
    def run(name: str, threads: int, workers: int = 0) -> Path:
        # both epochs: over eight steps a difference in a last digit would grow
        config = tiny(method, device="cpu", threads=threads, workers=workers, checkpoint_seconds=600)
        return start_run(config, tmp_path / name, ConsoleWatcher(quiet=True)).path

    one, two = run("one thread", 1), run("two threads", 2)
    assert len(steps_of(one)) == len(steps_of(two)) == 8
    assert differing(one, run("one thread, two workers", 1, 2)) == []
    assert differing(two, run("two threads, two workers", 2, 2)) == []
    assert differing(two, run("two threads again", 2)) == []
    # another number of threads adds up in another order
    first, other = (steps_of(path)[0] for path in (one, two))
    assert first == pytest.approx(other, rel=1e-4)
