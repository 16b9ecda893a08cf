"""What the crash campaigns share: the runs they kill, and how they see whether anything was lost."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concept_tuning.config import RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError
from concept_tuning.settings import build_config

SMALL: Mapping[str, Any] = {
    "weights": "random", "image_size": 64, "batch_size": 8, "epochs": 6, "images": 32, "validation_images": 16,
    "test_images": 16, "draw_size": 64, "threads": 1, "device": "cpu", "checkpoint_seconds": 0,
}  # fmt: skip
_CONCEPT: Mapping[str, Any] = {"queue_size": 4, "concept_channels": 6}
KILLS_OF_A_RUN, LIMIT_SECONDS = 6, 1200.0
#: Names of what is being written: checkpoints, files put in place of others, safetensors' own, runs being queued.
_HALF_WRITTEN = re.compile(r"\.writing-.+|\..+\.tmp|\.tmp.{6}|\.starting-.+")
SAME = ("metrics.jsonl", "results.json", "best/model.safetensors", "predictions/*.safetensors")
FAMILY = multiprocessing.get_context("forkserver")  # each run in a process of its own, libraries loaded once
PRELOADED = ["__main__", "concept_tuning.engine.session", "torch._dynamo"]


@dataclass
class Outcome:
    """What a campaign found.

    Attributes:
        kills: Processes killed while they worked, by kind.
        of_training: Those of them that were to meet training.
        read: Checkpoints read after the kills.
        half_written: Kills that left something half written.
        met: Kills of what trains that left something half written, or a newer checkpoint than the kill before.
        wrong: What is not as it should be, in words.
        same: Runs or benches that were killed and whose files all ended with the same bytes.
    """

    kills: Counter[str] = field(default_factory=Counter)
    of_training: int = 0
    read: int = 0
    half_written: int = 0
    met: int = 0
    wrong: list[str] = field(default_factory=list)
    same: int = 0

    def note_kill(self, kind: str, *, left: bool, newer: bool = False, of_training: bool = True) -> None:
        """Count a kill, and whether it left something half written and a newer checkpoint."""
        self.kills[kind] += 1
        self.half_written += left
        if of_training:
            self.of_training += 1
            self.met += left or newer


def kind_of(whom: str, aimed: bool) -> str:
    """Return the kind of a kill in words."""
    return f"{whom}, {'aimed at writing' if aimed else 'at a random moment'}"


def toothless(found: Outcome) -> list[str]:
    """Return in words why a campaign shows nothing: its kills met no training, or no writing.

    For three kills of what trains a checkpoint must be read and one of them have met training, and for ten of them one
    kill have left something half written.
    """
    asked = {
        "checkpoints read": (found.read, found.of_training // 3),
        "kills that met training": (found.met, found.of_training // 3),
        "kills that left something half written": (found.half_written, found.of_training // 10),
    }
    return [
        f"toothless: {what}: {number}; with {found.of_training} kills of what trains, {least} are the least"
        for what, (number, least) in asked.items()
        if number < least
    ]


def tiny(method: str) -> RunConfig:
    """Return the settings of a run of seconds, with a checkpoint at every step."""
    extra = _CONCEPT if method == "concept-tuning" else {}
    return build_config(method=method, backbone="test_resnet", overrides={**SMALL, **extra})


def half_written(path: Path) -> list[Path]:
    """Return what a process is writing anywhere below a folder, or has left half written."""
    return [
        Path(folder, name)
        for folder, folders, files in os.walk(path)  # which bears that something vanishes meanwhile
        for name in (*folders, *files)
        if _HALF_WRITTEN.fullmatch(name)
    ]


def writing(path: Path) -> Callable[[], list[Path]]:
    """Return what tells the files that are half written below a folder, without those that are so now."""
    before = set(half_written(path))
    return lambda: [file for file in half_written(path) if file not in before]


def check_checkpoints(path: Path, newest: int, found: Outcome) -> int:
    """Read all checkpoints of a run and return the step of the newest, which must not fall below what it was."""
    from concept_tuning.engine.checkpoint import list_checkpoints, load_checkpoint

    steps = [0]
    for checkpoint in list_checkpoints(RunFolder(path).checkpoints):
        try:
            _, state = load_checkpoint(checkpoint)
        except RunError as error:
            found.wrong.append(str(error))
            continue
        steps.append(state["step"])
        found.read += 1
    if max(steps) < newest:
        found.wrong.append(f"{path.name}: the newest checkpoint was of step {newest} and now is of {max(steps)}")
    return max(steps)


def compare(whole: Path, path: Path, patterns: tuple[str, ...], found: Outcome) -> None:
    """Note every file that is not the same in two folders, and whatever a killed process has left over."""
    names = [file.relative_to(whole) for pattern in patterns for file in sorted(whole.glob(pattern))]
    assert names, f"nothing to compare in {whole}"
    wrong = [str(name) for name in names if not _same(whole / name, path / name)]
    wrong += [f"left over: {file.relative_to(path)}" for file in half_written(path)]
    wrong += [f"half a checkpoint: {step.name}" for step in path.rglob("checkpoints/step-*") if len(_names(step)) != 2]
    found.wrong += [f"{path.name}: {each}" for each in wrong]
    found.same += not wrong


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and _timeless(one) == _timeless(other)


def _timeless(file: Path) -> bytes | list[dict[str, str]]:
    """Return a file's bytes, and of a table its rows without the column of a clock."""
    if file.suffix != ".csv":
        return file.read_bytes()
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [{name: cell for name, cell in row.items() if name != "images_per_second"} for row in rows]


def _names(folder: Path) -> list[str]:
    return os.listdir(folder)
