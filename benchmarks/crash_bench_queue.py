"""Kills of a bench and its cells, and of the queue of the dashboard, for ``crash_campaign.py``."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import yaml
from crash_checks import (
    FAMILY,
    KILLS_OF_A_RUN,
    LIMIT_SECONDS,
    SAME,
    SMALL,
    Outcome,
    check_checkpoints,
    compare,
    half_written,
    tiny,
)

from concept_tuning.bench.cells import state_of
from concept_tuning.config import RunConfig
from concept_tuning.engine.jobs import resume, start
from concept_tuning.engine.records import list_runs, working_process
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

#: The table, and the files of every final run.
_OF_A_BENCH = ("cells.csv", *(f"final/**/{name}" for name in SAME))


def bench(root: Path, kills: int, chance: random.Random) -> Outcome:
    """Kill benches of two methods, two trials and one seed, in turn with all their processes and alone."""
    values = {key: value for key, value in SMALL.items() if key != "epochs"} | {"epochs": 2}
    spec = {
        "name": "tiny", "data": [{"name": "birds", "source": "planted"}], "methods": ["vanilla", "linear-probe"],
        "backbones": ["test_resnet"], "seeds": [1], "trials": 2, "set": values,
        "search": {"all": {"lr": {"low": 0.01, "high": 0.1, "log": True}}},
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")

    def begin(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "concept_tuning", "benchmark", str(root / "tiny.yaml"), "--out", str(out)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    since = time.monotonic()
    begin(root / "whole").wait(LIMIT_SECONDS)
    seconds, found, number = time.monotonic() - since, Outcome(), 0
    while sum(found.kills.values()) < kills:
        out, number = root / f"bench-{number}", number + 1
        since = time.monotonic()
        orphans: list[psutil.Process] = []
        newest: dict[Path, int] = {}
        for _ in range(min(KILLS_OF_A_RUN, kills - sum(found.kills.values()))):
            process = begin(out)
            try:
                process.wait(chance.uniform(0.1, 0.6) * seconds)
                break
            except subprocess.TimeoutExpired:
                alone = sum(found.kills.values()) % 2 == 1
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.wait()
                orphans += family
                if not alone:
                    _kill_all(orphans)
                    _look(out, newest, found)
                found.kills["the bench alone" if alone else "the bench and its cells"] += 1
        begin(out).wait(LIMIT_SECONDS)
        compare(root / "whole", out, _OF_A_BENCH, found)
        seconds = min(seconds, time.monotonic() - since)  # a machine that was busy at first would see few kills
        print(f"{sum(found.kills.values())} of {kills} kills", file=sys.stderr, flush=True)
    return found


def _kill_all(processes: list[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(processes)
    processes.clear()


def _look(out: Path, newest: dict[Path, int], found: Outcome) -> None:
    """Read the checkpoints of all cells that have not ended; nobody works on them now."""
    begun = [file.parent for file in sorted(out.rglob("config.json")) if state_of(file.parent) == "open"]
    found.half_written += any(half_written(path) for path in begun)
    for path in begun:
        newest[path] = check_checkpoints(path, newest.get(path, 0), found)


def queue(root: Path, kills: int, chance: random.Random) -> Outcome:
    """Kill a server that queues two runs, and then a process that trains, and see that both runs are found and end."""
    configs = {"one": tiny("vanilla"), "two": tiny("concept-tuning")}
    for name, config in configs.items():
        start(config, root / "whole", name)
    _settle(root / "whole", lambda: _all_finished(root / "whole", configs))
    found, number = Outcome(), 0
    while sum(found.kills.values()) < kills:
        runs, number = root / f"runs-{number}", number + 1
        runs.mkdir()
        server = FAMILY.Process(
            target=_serve, args=(str(runs), {n: json.dumps(c.to_dict()) for n, c in configs.items()})
        )
        server.start()
        server.join(chance.uniform(0, 8))
        server.kill()
        server.join()
        found.kills["the server"] += 1
        _go_on(runs, configs, found)
        time.sleep(chance.uniform(0, 12))
        found.kills["the training process"] += _kill_worker(runs, found)
        _settle(runs, lambda runs=runs: _go_on(runs, configs, found) or _all_finished(runs, configs))
        for name in configs:
            compare(root / "whole" / name, runs / name, SAME, found)
    return found


def _serve(root: str, configs: Mapping[str, str]) -> None:
    """Queue runs and watch them, as the dashboard does, until the end."""
    for name, config in configs.items():
        start(RunConfig.from_dict(json.loads(config)), Path(root), name)
    while True:
        list_runs(Path(root))
        time.sleep(0.2)


def _go_on(root: Path, configs: Mapping[str, RunConfig], found: Outcome) -> None:
    """Do what a user does after a crash: begin what was not begun and resume what is marked as interrupted."""
    runs = {run.name: run for run in list_runs(root)}
    for name, config in configs.items():
        try:
            if name not in runs:
                start(config, root, name)
            elif runs[name].state == "interrupted":
                resume(runs[name])
        except RunError as error:  # its process has not told of itself yet
            if "Another process is working" not in str(error):
                found.wrong.append(f"{root.name}/{name}: {error}")
    found.wrong += [
        f"{root.name}/{run.name} is {run.state}: {run.message}"
        for run in runs.values()
        if run.state in ("broken", "failed")
    ]


def _kill_worker(root: Path, found: Outcome) -> int:
    """Kill a process that trains, if there is one, and read its checkpoints; returns how many were killed."""
    for run in list_runs(root):
        folder = RunFolder(run.path)
        process = working_process(folder.status(), folder)
        if process is not None and run.state != "queued":
            process.kill()
            psutil.wait_procs([process])
            found.half_written += bool(half_written(run.path))
            check_checkpoints(run.path, 0, found)
            return 1
    return 0


def _all_finished(root: Path, configs: Mapping[str, RunConfig]) -> bool:
    return [run.state for run in list_runs(root)] == ["finished"] * len(configs)


def _settle(root: Path, done: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not done() and time.monotonic() < until:
        time.sleep(0.5)
