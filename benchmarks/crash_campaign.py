"""Processes killed at random moments and started again: the end is the same to the byte, and nothing is lost.

    python benchmarks/crash_campaign.py training --method vanilla --kills 60
    python benchmarks/crash_campaign.py training --method concept-tuning --kills 60
    python benchmarks/crash_campaign.py bench --kills 60
    python benchmarks/crash_campaign.py queue --kills 60

`training` kills tiny runs, each several times: at moments drawn over the length of a run, and every second time
as soon after such a moment as a file is half written. After each kill every checkpoint is read, and at the end the
files of the run are compared with those of one that nobody disturbed. `bench` kills tiny benches in the same two
ways while their cells train, in turn with all their processes and alone, which leaves the cells at work beside the
next bench; their checkpoints are then read while they are stopped for a moment. At its end each bench is killed once
more, as it writes its tables. `queue` kills, in turn, the process that queues runs and watches them, as the
dashboard's server does, and the process that trains once it has written a checkpoint, both in the same two ways.

The draws come from `--seed`; when a kill hits depends on the machine too. The exit code is 1 where anything differs,
and where too few kills met training or writing for the campaign to show anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from crash_bench_queue import bench, queue
from crash_checks import (
    FAMILY,
    KILLS_OF_A_RUN,
    LIMIT_SECONDS,
    PRELOADED,
    SAME,
    Outcome,
    check_checkpoints,
    compare,
    kind_of,
    tiny,
    toothless,
    writing,
)
from records import RESULTS, command_line, commit, machine

from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder

#: Longest wait for a kill that is aimed, as a share of the length of a run.
_SOON = 0.4


def main() -> int:
    """Run one campaign, print what came of it and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "bench", "queue"))
    parser.add_argument("--method", default="vanilla", choices=("vanilla", "concept-tuning"), help="of `training`")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="print alone")
    options = parser.parse_args()
    name, begun = options.what, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root, chance = Path(folder), random.Random(options.seed)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        if name == "training":
            name += f"_{options.method}"
            found = training(root, tiny(options.method), options.kills, chance)
        else:
            found = (bench if name == "bench" else queue)(root, options.kills, chance)
    found.wrong += toothless(found)
    record = {
        "command": command_line("crash_campaign.py"),
        "commit": commit(),
        "machine": machine(),
        "seed": options.seed,
        "kills": found.kills.total(),
        "kills_by_kind": dict(found.kills),
        "kills_that_left_something_half_written": found.half_written,
        "checkpoints_read_after_kills": found.read,
        "kills_that_met_training": found.met,
        "killed_and_ended_with_the_same_bytes": found.same,
        "wrong": found.wrong,
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if not options.no_record:
        (RESULTS / f"crash_campaign_{name}.json").write_text(text + "\n", encoding="utf-8")
    return int(bool(found.wrong))


def training(root: Path, config: RunConfig, kills: int, chance: random.Random) -> Outcome:
    """Kill runs in one folder after another, each until it has been killed often enough or ends by itself."""
    FAMILY.set_forkserver_preload(PRELOADED)
    whole, seconds = root / "whole", 0.0
    for path in (root / "first", whole):  # the first also draws the pictures, which the cache then has
        seconds = time.monotonic()
        _end(_begin(path, config))
        seconds = time.monotonic() - seconds
    found = Outcome()
    for number in itertools.count():
        before = found.kills.total()
        if before >= kills:
            return found
        path = root / f"run-{number}"
        _kill_often(path, config, min(KILLS_OF_A_RUN, kills - before), seconds, chance, found)
        if found.kills.total() > before:
            compare(whole, path, SAME, found)
    raise AssertionError("not reached")


def _kill_often(
    path: Path, config: RunConfig, kills: int, seconds: float, chance: random.Random, found: Outcome
) -> None:
    newest = 0
    for number in range(kills):
        aimed, written = number % 2 == 1, writing(path)
        process = _begin(path, config)
        process.join(chance.uniform(0, (_SOON if aimed else 1) * seconds))
        while aimed and process.exitcode is None and not written():
            pass
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        left, before = bool(written()), newest
        newest = check_checkpoints(path, newest, found)
        found.note_kill(kind_of("the run", aimed), left=left, newer=newest > before)
    _end(_begin(path, config))


def _begin(path: Path, config: RunConfig) -> Any:
    process = FAMILY.Process(target=_train, args=(str(path), json.dumps(config.to_dict())))
    process.start()
    return process


def _train(path: str, config: str) -> None:
    """Start a run, or go on with it, in this process."""
    from concept_tuning.engine.session import resume_run, start_run
    from concept_tuning.progress import ConsoleWatcher

    watcher = ConsoleWatcher(quiet=True)
    if RunFolder(Path(path)).config_file.exists():
        resume_run(Path(path), watcher)
    else:
        start_run(RunConfig.from_dict(json.loads(config)), Path(path), watcher)


def _end(process: Any) -> None:
    process.join(LIMIT_SECONDS)
    if process.exitcode is None:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
