"""Bad files by the ten thousand: each is used, or refused in words, and nothing is written but where it may be.

    python benchmarks/fuzz_inputs.py --minutes 10
    python benchmarks/fuzz_inputs.py --minutes 1 --kinds zip tar --no-record
    python benchmarks/fuzz_inputs.py --only 1234 --seed 0

Pictures, archives, CSV files, tensors, settings and checkpoints are damaged at random and given to what takes such
files in; so are pictures that claim to be huge, and archives of odd names or of nothing but headers. A finding is any
exception but those that are written for the user, a process that dies, an input that takes longer or more memory than
the limits, one that is refused only because memory ran out, or a file outside the folder given. Each input follows from
the seed and its number alone, so a finding can be looked at again with `--only`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from fuzz_bombs import hostile_picture
from fuzz_samples import damaged, hostile_archive, samples
from own_memory import begin_again, own_memory
from records import RESULTS, command_line, commit
from safetensors.torch import save_file

from concept_tuning.config import DataConfig, RunConfig
from concept_tuning.data.archives import archive_table
from concept_tuning.data.csv_file import csv_table
from concept_tuning.data.decode import UnreadableImage, decode_image, decode_mask
from concept_tuning.engine.checkpoint import STATE, WEIGHTS, load_checkpoint
from concept_tuning.engine.evaluation import Predictions
from concept_tuning.engine.records import list_runs
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import StudioError
from concept_tuning.models.state import read_state

_PIXELS, _BYTES, SECONDS, _BATCH = 1_000_000, 50_000_000, 20, 250
#: Most memory that an input may take: a picture of a million pixels needs 30 MB, and the files are smaller than that.
MEMORY = 128 << 20
#: Most room that may be asked for, used or not, beyond what the process has: by pictures and archives, and by all.
_ROOM, _MOST_ROOM = 2 << 30, 8 << 30
_LIMITS = {"max_pixels": _PIXELS, "max_archive_bytes": _BYTES, "max_archive_entries": 2000}
PICTURES = ("png", "jpg", "webp", "gif", "tif", "bmp", "ppm")
ARCHIVES = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
HOSTILE = ("hostile.picture", "hostile.zip", "hostile.tar")
KINDS = (*PICTURES, *ARCHIVES, *HOSTILE, "csv", "safetensors", "json", "state.pt")


class TooLong(BaseException):
    """An input takes longer than the limit; no handler of ordinary exceptions may swallow it."""


def main() -> int:
    """Run the campaign, print what came of it and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try the input of this number alone")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    options = parser.parse_args()
    if options.only is not None:
        print(json.dumps(_try_some(options.seed, options.only, options.only + 1, options.kinds), indent=1))
        return 0
    begun, counts, findings = time.monotonic(), Counter[str](), list[str]()
    for first in range(0, sys.maxsize, _BATCH):
        if time.monotonic() - begun >= options.minutes * 60:
            break
        found = _in_a_process(options.seed, first, first + _BATCH, options.kinds)
        counts.update(found["counts"])
        findings += found["findings"]
    record = {
        "command": command_line("fuzz_inputs.py"),
        "commit": commit(),
        "seed": options.seed,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "inputs": sum(counts.values()),
        "used": {kind: counts[f"{kind} used"] for kind in options.kinds},
        "refused": {kind: counts[f"{kind} refused"] for kind in options.kinds},
        "findings": findings[:200],
    }
    text = json.dumps(record, indent=1)
    print(text)
    if not options.no_record:
        (RESULTS / "fuzz_inputs.json").write_text(text + "\n", encoding="utf-8")
    return int(bool(findings))


def _in_a_process(seed: int, first: int, stop: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Try a batch in a process of its own, whose death is a finding."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_try_some, seed, first, stop, kinds).result()
        except BrokenProcessPool:
            return {"counts": {}, "findings": [f"{first} to {stop - 1}: the process died"]}


def _try_some(seed: int, first: int, stop: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    limit_memory()
    warnings.simplefilter("ignore")
    sound, counts, findings = samples(), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        base = deep(Path(folder))
        for number in range(first, stop):
            kind = kinds[number % len(kinds)]
            place = base / str(number)
            place.mkdir()
            data = _bad_input(kind, sound, folder, random.Random(f"{seed}:{number}"))
            outcome = attempt(kind, data, place, seconds=SECONDS)
            counts[f"{kind} {'used' if outcome == 'used' else 'refused'}"] += 1
            if outcome not in ("used", "refused"):
                findings.append(f"{number} ({kind}): {outcome}")
            findings += [f"{number} ({kind}): written outside: {file}" for file in outside(Path(folder), place)]
            shutil.rmtree(place)
    return {"counts": dict(counts), "findings": findings}


def limit_memory() -> None:
    """Let no input have this process take all of the machine's memory."""
    most = own_memory("VmSize") + _MOST_ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextmanager
def _little_room(kind: str) -> Iterator[None]:
    """Let a picture or archive ask for little; a state's loader may believe a length of up to 4 GB, and reads less."""
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    if kind in (*PICTURES, *ARCHIVES, *HOSTILE):
        resource.setrlimit(resource.RLIMIT_AS, (own_memory("VmSize") + _ROOM, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def deep(folder: Path) -> Path:
    """Make a folder far below another, so that a name that climbs lands where it is seen."""
    base = folder / "1/2/3/4/5/6/7/8/9"
    base.mkdir(parents=True)
    return base


def _bad_input(kind: str, sound: dict[str, list[bytes]], outside: str, chance: random.Random) -> bytes:
    if kind == "hostile.picture":
        return hostile_picture(chance)
    if kind.startswith("hostile"):
        with warnings.catch_warnings():
            return hostile_archive(kind.removeprefix("hostile."), outside, chance)
    others = [each for every in sound.values() for each in every]
    return damaged(kind, chance.choice(sound[kind]), others, chance)


def outside(folder: Path, place: Path) -> list[Path]:
    """Take away and return what lies in a folder and neither leads to a place nor lies in it."""
    found = [file for file in folder.rglob("*") if not (place.is_relative_to(file) or file.is_relative_to(place))]
    for file in found:
        shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink(missing_ok=True)
    return found


def attempt(kind: str, data: bytes, place: Path, *, seconds: int) -> str:
    """Give one input to what takes such files in.

    Args:
        kind: One of :data:`KINDS`.
        data: The file.
        place: An empty folder, in which alone may be written.
        seconds: Longest time it may take.

    Returns:
        ``used``, ``refused`` (in words written for the user, and before memory ran out), or what went wrong.
    """
    with suppress(OSError):
        begin_again()
    before, most_before = own_memory("VmRSS"), own_memory("VmHWM")
    outcome = _outcome(kind, data, place, seconds)
    most = own_memory("VmHWM")
    if outcome in ("used", "refused") and most > most_before and most - before > MEMORY:
        return f"{outcome}, and took {(most - before) >> 20} MB of memory"
    return outcome


def _outcome(kind: str, data: bytes, place: Path, seconds: int) -> str:
    try:
        with _time_limit(seconds), _little_room(kind):
            _ENTRIES[kind](data, place)
        return "used"
    except (StudioError, UnreadableImage) as error:
        if _memory_ran_out(error):
            return f"refused only as memory ran out: {str(error)[:200]}"
        return "refused" if str(error).strip() else f"{type(error).__name__} without words"
    except TooLong:
        return f"took longer than {seconds} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}, line {last.lineno})"


def _memory_ran_out(error: BaseException | None) -> bool:
    """Whether a refusal goes back to a lack of memory; -9 is how Pillow's decoders say so."""
    while error is not None:
        if isinstance(error, MemoryError) or re.search(r"out of memory|decoder error -9\b", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _picture(suffix: str) -> Callable[[bytes, Path], None]:
    def use(data: bytes, place: Path) -> None:
        file = place / f"x.{suffix}"
        file.write_bytes(data)
        pixels = decode_image(file, max_pixels=_PIXELS)
        assert pixels.dtype == "uint8"
        assert pixels.shape[2:] == (3,)
        assert pixels.shape[0] * pixels.shape[1] <= _PIXELS
        assert decode_mask(data, max_pixels=_PIXELS).shape == pixels.shape[:2]
        assert not data.startswith(b"%!"), "a program was taken for a picture"

    return use


def _archive(suffix: str) -> Callable[[bytes, Path], None]:
    def use(data: bytes, place: Path) -> None:
        file, cache = place / f"x.{suffix}", place / "cache"
        file.write_bytes(data)
        try:
            table = archive_table(file, DataConfig(source=str(file), cache_dir=str(cache), **_LIMITS))
            for row in range(len(table.keys)):
                _read(table, row)
        finally:
            written = {each for each in place.rglob("*") if not each.is_relative_to(cache)} - {file}
            assert not written, f"written beside the cache: {written}"
            assert not list(cache.rglob("*.part-*")), "half an archive is left"
            assert not [each for each in cache.rglob("*") if each.is_symlink()], "a link was made"

    return use


def _csv(data: bytes, place: Path) -> None:
    (place / "owl").mkdir()
    (place / "wren").mkdir()
    for key in [f"{name}/{number}.png" for name in ("owl", "wren") for number in range(4)]:
        (place / key).write_bytes(b"x")
    (place / "list.csv").write_bytes(data)
    table = csv_table(place / "list.csv", DataConfig(), allow_absolute=False)
    for row in range(len(table.keys)):
        _read(table, row)


def _read(table: Any, row: int) -> None:
    with suppress(UnreadableImage):  # which is listed as a problem, and the others are used
        table.read(row)


def _tensors(data: bytes, place: Path) -> None:
    file = place / "x.safetensors"
    file.write_bytes(data)
    refusals = []
    for use in (read_state, Predictions.load):
        try:
            use(file)
        except StudioError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def _settings(data: bytes, place: Path) -> None:
    run = place / "run"
    run.mkdir()
    for name in ("config.json", "status.json", "results.json"):
        (run / name).write_bytes(data)
    list_runs(place)
    config = RunFolder.open(run).config()
    assert RunConfig.from_dict(config.to_dict()) == config


def _checkpoint(data: bytes, place: Path) -> None:
    save_file({"weight": torch.ones(3, 2)}, place / WEIGHTS)
    (place / STATE).write_bytes(data)
    load_checkpoint(place, "step", "optimizer")


_ENTRIES: dict[str, Callable[[bytes, Path], None]] = {
    **{kind: _picture(kind) for kind in PICTURES},
    "hostile.picture": _picture("png"),
    **{kind: _archive(kind) for kind in ARCHIVES},
    "hostile.zip": _archive("zip"),
    "hostile.tar": _archive("tar"),
    "csv": _csv,
    "safetensors": _tensors,
    "json": _settings,
    "state.pt": _checkpoint,
}


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
