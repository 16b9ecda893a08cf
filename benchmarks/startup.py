"""How long the package takes to import and the command line to show its help: each in a process of its own, in turn.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 20 --record

The bare interpreter is started in turn with them; the import is the difference to it of the same round. Files are
read once beforehand, so that the disk is not measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from records import RESULTS, keep, machine

_BARE, _IMPORT, _HELP = "python", "import concept_tuning", "concept-tuning --help"
COMMANDS: Mapping[str, Sequence[str]] = {
    _BARE: ["-c", ""],
    _IMPORT: ["-c", _IMPORT],
    _HELP: ["-m", "concept_tuning", "--help"],
}


def seconds(arguments: Sequence[str]) -> float:
    """Return how long the interpreter takes with some arguments, from its start to its end."""
    since = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - since


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return median and slowest seconds: of the import over the bare interpreter, and of the help."""
    for arguments in COMMANDS.values():
        seconds(arguments)
    taken = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(rounds)]
    found = {
        _BARE: [one[_BARE] for one in taken],
        _IMPORT: [one[_IMPORT] - one[_BARE] for one in taken],
        _HELP: [one[_HELP] for one in taken],
    }
    return {
        name: {"median": round(max(0.0, median(all_)), 3), "slowest": round(max(all_), 3)}
        for name, all_ in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds, and record them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="starts of each")
    parser.add_argument("--record", action="store_true", help="write them to results/startup.json")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = measure(options.rounds)
    for name, values in found.items():
        print(f"{name}: {values['median']:.2f} s, at worst {values['slowest']:.2f} s")
    if options.record:
        path = RESULTS / "startup.json"
        keep(path, "startup.py", arguments, machine=machine(), rounds=options.rounds, seconds=found)


if __name__ == "__main__":
    main()
