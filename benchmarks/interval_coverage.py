"""How often the interval of a difference leaves zero out where two methods do not differ, by the number of seeds.

Runs of two methods are drawn that have the same accuracy in the mean: each run's own accuracy varies by some points
from seed to seed, and a picture is as hard for one method as for the other. They are as many pictures as a test split
has, or as its worst group has, whose accuracy varies by tens of points. Then the difference is taken as a bench
takes it, paired by seed and picture (:func:`~concept_tuning.diagnostics.statistics.paired_bootstrap`). An interval of
95 % would leave zero out in 5 % of the cases.

    python benchmarks/interval_coverage.py              # a quarter of an hour on one core
    python benchmarks/interval_coverage.py --record     # writes it to results/, too
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from records import RESULTS, keep
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from concept_tuning.diagnostics.statistics import paired_bootstrap

SEEDS = (1, 2, 3, 5, 10)
#: Standard deviations of a run's accuracy over seeds.
SPREADS = (0.01, 0.03, 0.06, 0.15, 0.3)
#: Of a test split and of a worst group.
PICTURES = (500, 50)
ACCURACY, RESAMPLES = 0.9, 1000
#: Share of a picture's difficulty that all runs have in common.
SHARED = 0.5


def differences(rng: np.random.Generator, *, seeds: int, spread: float, pictures: int) -> np.ndarray:
    """Return (S, N) differences in {-1, 0, 1} between runs of two methods that are equally good in the mean."""
    accuracy = np.clip(rng.normal(ACCURACY, spread, (2, seeds, 1)), 0.01, 0.99)
    difficulty = np.sqrt(SHARED) * rng.normal(size=(1, 1, pictures))
    right = difficulty + np.sqrt(1 - SHARED) * rng.normal(size=(2, seeds, pictures)) < ndtri(accuracy)
    return right[0].astype(float) - right[1]


def false_alarms(rng: np.random.Generator, *, seeds: int, spread: float, pictures: int, repeats: int) -> float:
    """Return the share of intervals that leave zero out."""
    found = 0
    for repeat in range(repeats):
        drawn = differences(rng, seeds=seeds, spread=spread, pictures=pictures)
        interval = paired_bootstrap(drawn, repeat, resamples=RESAMPLES)
        found += interval.low > 0 or interval.high < 0
    return found / repeats


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares, and record them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400, help="pairs of methods of each number of seeds and spread")
    parser.add_argument("--record", action="store_true", help="write the shares to results/interval_coverage.json")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    rows = [
        {
            "seeds": seeds,
            "spread": spread,
            "pictures": pictures,
            "false_alarms": false_alarms(rng, seeds=seeds, spread=spread, pictures=pictures, repeats=options.repeats),
        }
        for seeds in SEEDS
        for pictures in PICTURES
        for spread in SPREADS
    ]
    shown = Table(title="intervals that leave zero out though methods do not differ")
    shown.add_column("seeds")
    shown.add_column("pictures")
    for spread in SPREADS:
        shown.add_column(f"spread {100 * spread:g} points", justify="right")
    for place, group in groupby(rows, key=lambda row: (row["seeds"], row["pictures"])):
        shown.add_row(*map(str, place), *(f"{100 * row['false_alarms']:.1f} %" for row in group))
    Console().print(shown)
    if options.record:
        keep(RESULTS / "interval_coverage.json", "interval_coverage.py", arguments, repeats=options.repeats, rows=rows)


if __name__ == "__main__":
    main()
