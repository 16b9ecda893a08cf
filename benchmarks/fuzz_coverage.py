"""Coverage-guided fuzzing of what opens pictures and archives, with atheris (`pip install -e '.[audit]'`).

    python benchmarks/fuzz_coverage.py --minutes 10

Beginning with the sound samples of ``fuzz_samples.py`` and with small files that ask for much (``fuzz_bombs.py``),
libFuzzer keeps whatever reaches new code of this package, of Pillow, ``zipfile`` or ``tarfile`` and changes it further.
What counts as a finding is as in ``fuzz_inputs.py``. Which inputs are tried depends on how fast the machine is, too; a
finding is written out, so that it can be kept as a test. The exit code is 1 where there is one.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from records import RESULTS, command_line, commit

TARGETS = ("pictures", "archives")
_LONGEST = 65536
#: So many files that ask for much are among the first inputs, archives of each of the kinds.
_HOSTILE, _KINDS = 200, ("zip", "tar")
_INSTRUMENTED = ["concept_tuning.data", "PIL", "zipfile", "tarfile"]


def main() -> int:
    """Fuzz both targets, print what came of it and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each of pictures and archives; default: 10")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer; not 0, which would be the clock's")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    parser.add_argument("--inside", nargs=2, metavar=("TARGET", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.inside[0], Path(options.inside[1]), round(options.minutes * 60), options.seed)
        return 0
    found = {target: _campaign(target, options.minutes, options.seed) for target in options.targets}
    record = {
        "command": command_line("fuzz_coverage.py"),
        "commit": commit(),
        "minutes_each": options.minutes,
        "seed": options.seed,
        "targets": found,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if not options.no_record:
        (RESULTS / "fuzz_coverage.json").write_text(text + "\n", encoding="utf-8")
    return int(any(each["findings"] for each in found.values()))


def _campaign(target: str, minutes: float, seed: int) -> dict[str, object]:
    """Fuzz a target in a process of its own, which libFuzzer ends, and return what it said."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("corpus", "findings", "work"):
            (Path(folder) / name).mkdir()
        command = [sys.executable, __file__, "--inside", target, folder, "--minutes", str(minutes), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        told = re.findall(r"#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)", done.stderr)
        files = sorted((Path(folder) / "findings").iterdir())
        findings = [f"{file.name}: {base64.b64encode(file.read_bytes()).decode()}" for file in files]
        if done.returncode and not findings:
            findings = [f"ended with {done.returncode}: {done.stderr[-2000:]}"]
        runs, edges, corpus = map(int, told[-1]) if told else (0, 0, 0)
        reasons = re.findall(r"Uncaught Python exception: ===\s*(.*)", done.stdout + done.stderr)
    return {"inputs": runs, "edges": edges, "kept": corpus, "findings": findings, "reasons": reasons}


def _fuzz(target: str, folder: Path, seconds: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz_bombs import hostile_headers, hostile_picture
        from fuzz_inputs import ARCHIVES, PICTURES, SECONDS, attempt, deep, limit_memory, outside
        from fuzz_samples import samples

    warnings.simplefilter("ignore")
    sound, chances = samples(), [random.Random(number) for number in range(_HOSTILE)]
    if target == "archives":  # the first byte says which kind it is called
        seeds = [bytes([place]) + each for place, kind in enumerate(ARCHIVES) for each in sound[kind]]
        seeds += [
            bytes([ARCHIVES.index(kind)]) + hostile_headers(kind, chance) for chance in chances for kind in _KINDS
        ]
    else:
        seeds = [each for kind in PICTURES for each in sound[kind]]
        seeds += [hostile_picture(chance) for chance in chances]
    for number, data in enumerate(seed for seed in seeds if len(seed) <= _LONGEST):
        (folder / "corpus" / str(number)).write_bytes(data)
    base = deep(folder / "work")
    limit_memory()

    def one(data: bytes) -> None:
        kind = "png"
        if target == "archives":
            kind, data = ARCHIVES[data[0] % len(ARCHIVES)] if data else ARCHIVES[0], data[1:]
        with tempfile.TemporaryDirectory(dir=base) as place:
            outcome = attempt(kind, data, Path(place), seconds=SECONDS)
            written = outside(folder / "work", Path(place))
        if outcome not in ("used", "refused") or written:
            raise RuntimeError(f"{outcome} {written}")

    flags = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={_LONGEST}"]
    flags += ["-timeout=0", "-report_slow_units=86400", "-rss_limit_mb=0"]  # ``attempt`` judges time and memory
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder / 'findings'}{os.sep}", str(folder / "corpus")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
