"""Kills of a bench and its cells, and of the queue of the dashboard, for ``crash_campaign.py``."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import psutil
import yaml
from crash_checks import (
    FAMILY,
    KILLS_OF_A_RUN,
    LIMIT_SECONDS,
    PRELOADED,
    SAME,
    SMALL,
    Outcome,
    check_checkpoints,
    compare,
    half_written,
    kind_of,
    tiny,
    writing,
)

from concept_tuning.bench.cells import state_of
from concept_tuning.bench.tables import FILES
from concept_tuning.config import RunConfig
from concept_tuning.engine.checkpoint import list_checkpoints
from concept_tuning.engine.jobs import resume, start
from concept_tuning.engine.records import list_runs, read_run, working_process
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError

#: Two trials and the final run of one method, the final run of another; each trains for longer than it takes to load.
_SPEC = {
    "name": "tiny", "data": [{"name": "birds", "source": "planted"}], "methods": ["vanilla", "probe"],
    "variants": {"probe": {"method": "linear-probe", "tuned_as": "vanilla"}}, "backbones": ["test_resnet"],
    "seeds": [1], "trials": 2, "set": {**SMALL, "epochs": 80},
    "search": {"vanilla": {"lr": {"low": 0.01, "high": 0.1, "log": True}}},
}  # fmt: skip
#: Tables, and the files of every final run.
_OF_A_BENCH = ("cells.csv", "trials.csv", *(f"final/**/{name}" for name in SAME))
#: Longest wait before a bench is killed, as a share of the length of an undisturbed one.
_SHARE = 0.2
#: Longest wait, in seconds, before a server is killed, and before that if the kill is aimed.
_SERVER_SECONDS, _SERVER_SOON = 8.0, 0.5
#: First and last step of the 24 of a run after which its process is killed.
_STEPS = (1, 16)


def bench(root: Path, kills: int, chance: random.Random) -> Outcome:
    """Kill benches of two methods: five times while their cells train, once as they write their tables."""
    spec = root / "tiny.yaml"
    spec.write_text(yaml.safe_dump(_SPEC), encoding="utf-8")
    since = time.monotonic()
    if code := _Bench(spec, root / "whole").begin().wait(LIMIT_SECONDS):
        raise RuntimeError(f"the bench that nobody disturbed ended with exit code {code}")
    seconds, found = time.monotonic() - since, Outcome()
    for number in itertools.count():
        before, since = found.kills.total(), time.monotonic()
        if before >= kills:
            return found
        one = _Bench(spec, root / f"bench-{number}")
        _kill_often(one, min(KILLS_OF_A_RUN, kills - before), seconds, chance, found)
        if code := one.begin().wait(LIMIT_SECONDS):
            found.wrong.append(f"{one.out.name}: it ended with exit code {code}")
        psutil.wait_procs(one.orphans, LIMIT_SECONDS)
        if found.kills.total() > before:
            compare(root / "whole", one.out, _OF_A_BENCH, found)
        seconds = min(seconds, time.monotonic() - since)  # a machine that was busy at first would see few kills
        print(f"{found.kills.total()} of {kills} kills", file=sys.stderr, flush=True)
    raise AssertionError("not reached")


@dataclass
class _Bench:
    """A bench that is killed again and again.

    Attributes:
        spec: Its file.
        out: Its folder.
        orphans: Processes of cells that work on after their bench was killed.
        newest: Step of the newest checkpoint that was found, by run folder.
    """

    spec: Path
    out: Path
    orphans: list[psutil.Process] = field(default_factory=list)
    newest: dict[Path, int] = field(default_factory=dict)

    def begin(self) -> psutil.Popen:
        command = [sys.executable, "-m", "concept_tuning", "benchmark", str(self.spec), "--out", str(self.out)]
        return psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(
        self, kind: str, seconds: float, found: Outcome, *, aim: str = "", alone: bool = False, of_training: bool = True
    ) -> bool:
        """Kill it after some seconds and, with an aim, as soon as a file of such a name is half written; count that.

        The checkpoints of its cells are read while these are dead or, if it is killed alone, stand still.

        Args:
            kind: Of the kill.
            seconds: From its beginning or, where a cell had begun before, from the first step.
            found: What the campaign found.
            aim: Pattern of the file's name; empty: the kill is not aimed.
            alone: Leave the processes of its cells alive.
            of_training: Whether the kill is to meet training.

        Returns:
            False if it ended before.
        """
        written = writing(self.out)
        process, least = self.begin(), self._length()
        while of_training and self.newest and process.poll() is None and self._length() <= least:
            least = min(least, self._length())  # a run that goes on drops what it did after its checkpoint
            time.sleep(0.05)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            self.orphans += process.children(recursive=True)
            while aim and process.poll() is None and not any(fnmatch(file.name, aim) for file in written()):
                pass
        if process.poll() is not None:
            return False
        _tell(psutil.Process.suspend, [process, *self.orphans])
        self.orphans += process.children(recursive=True)  # one may have been begun meanwhile
        self.orphans = [each for each in dict.fromkeys(self.orphans) if each.is_running()]
        _tell(psutil.Process.suspend, self.orphans)
        process.kill()
        process.wait()
        if not alone:
            _tell(psutil.Process.kill, self.orphans)
            psutil.wait_procs(self.orphans)
            self.orphans.clear()
        left = written()
        if self.orphans:  # which stand still, and go on with what they write
            left = [file for file in left if file.parent == self.out]
        found.note_kill(kind, left=bool(left), newer=self._look(found), of_training=of_training)
        _tell(psutil.Process.resume, self.orphans)
        return True

    def _length(self) -> int:
        """Return how long the curves of all cells are, in bytes."""
        curves = [Path(folder, "metrics.jsonl") for folder, _, files in os.walk(self.out) if "metrics.jsonl" in files]
        return sum(file.stat().st_size for file in curves)

    def _look(self, found: Outcome) -> bool:
        """Read the checkpoints of all cells that have not ended; returns whether there are newer ones than before."""
        before = dict(self.newest)
        for path in [file.parent for file in sorted(self.out.rglob("config.json"))]:
            if state_of(path) == "open":
                self.newest[path] = check_checkpoints(path, before.get(path, 0), found)
        return any(step > before.get(path, 0) for path, step in self.newest.items())


def _kill_often(one: _Bench, kills: int, seconds: float, chance: random.Random, found: Outcome) -> None:
    """Kill a bench while its cells train, in turn at random and aimed, with them and alone, and then at its end."""
    for _ in range(min(kills, KILLS_OF_A_RUN - 1)):
        aimed, alone = found.of_training % 2 == 1, found.of_training // 2 % 2 == 1
        kind = kind_of("the bench alone" if alone else "the bench and its cells", aimed)
        moment, aim = chance.uniform(0, _SHARE) * seconds, "*" if aimed else ""
        if not one.kill(kind, moment, found, aim=aim, alone=alone):
            break
    if kills == KILLS_OF_A_RUN:
        aim = f".{chance.choice(FILES)}.*.tmp"
        one.kill("the bench as it writes its tables", 0, found, aim=aim, of_training=False)


def _tell(what: Callable[[psutil.Process], None], processes: Sequence[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            what(each)


def queue(root: Path, kills: int, chance: random.Random) -> Outcome:
    """Kill a server that queues two runs, and then a process that trains, and see that both runs are found and end."""
    FAMILY.set_forkserver_preload(PRELOADED)
    configs = {"one": tiny("vanilla"), "two": tiny("concept-tuning")}
    for name, config in configs.items():
        start(config, root / "whole", name)
    _settle(root / "whole", configs, Outcome())
    found = Outcome()
    for number in itertools.count():
        if found.kills.total() >= kills:
            return found
        runs, aimed = root / f"runs-{number}", number % 2 == 1
        _kill_server(runs, configs, aimed, chance, found)
        _go_on(runs, configs, found)
        if found.kills.total() < kills:
            _kill_worker(runs, configs, aimed, chance, found)
        _settle(runs, configs, found)
        for name in configs:
            compare(root / "whole" / name, runs / name, SAME, found)
        found.wrong += [f"left over: {left}" for left in runs.glob(".starting-*")]
        print(f"{found.kills.total()} of {kills} kills", file=sys.stderr, flush=True)
    raise AssertionError("not reached")


def _kill_server(
    runs: Path, configs: Mapping[str, RunConfig], aimed: bool, chance: random.Random, found: Outcome
) -> None:
    """Kill a server at a moment after it began to queue runs or, aimed, when something is half written."""
    runs.mkdir()
    server = FAMILY.Process(target=_serve, args=(str(runs), {n: json.dumps(c.to_dict()) for n, c in configs.items()}))
    server.start()
    server.join(chance.uniform(0, _SERVER_SOON if aimed else _SERVER_SECONDS))
    while aimed and server.exitcode is None and not half_written(runs):
        pass
    server.kill()
    server.join()
    found.note_kill(kind_of("the server", aimed), left=any(runs.glob(".starting-*")), of_training=False)


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


def _kill_worker(
    root: Path, configs: Mapping[str, RunConfig], aimed: bool, chance: random.Random, found: Outcome
) -> None:
    """Kill the process that trains one of the runs, at a step after its first, unless the run ends before.

    Its checkpoints are read then, and it must be seen that it was interrupted.
    """
    name = chance.choice([run.name for run in list_runs(root) if run.state != "finished"] or list(configs))
    folder = RunFolder(root / name)
    step, until = chance.randint(*_STEPS), time.monotonic() + LIMIT_SECONDS
    while read_run(name, root).state != "finished" and time.monotonic() < until:
        if any(int(path.name.removeprefix("step-")) >= step for path in list_checkpoints(folder.checkpoints)):
            break
        _go_on(root, configs, found)
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 0.2))
    process = working_process(folder.status(), folder)
    while aimed and process is not None and process.is_running() and not half_written(folder.path):
        pass
    if process is None or not process.is_running():
        return
    process.kill()
    psutil.wait_procs([process])
    left = bool(half_written(folder.path))
    newest = check_checkpoints(folder.path, 0, found)
    found.note_kill(kind_of("the training process", aimed), left=left, newer=newest > 0)
    if (state := read_run(name, root).state) not in ("interrupted", "finished"):
        found.wrong.append(f"{root.name}/{name} is {state} when its process was killed")


def _settle(root: Path, configs: Mapping[str, RunConfig], found: Outcome) -> None:
    """Go on until all runs are finished."""
    until = time.monotonic() + LIMIT_SECONDS
    while [run.state for run in list_runs(root)] != ["finished"] * len(configs) and time.monotonic() < until:
        _go_on(root, configs, found)
        time.sleep(0.5)
