"""What intervals over single pictures miss where several pictures show one plant, and what intervals over plants hold.

Runs of two methods are drawn that are equally good in the mean, on pictures of plants (units): how hard a picture is
goes with its plant, and so does which method gets it right. Then the difference in accuracy is taken twice, over single
pictures and over whole units (:func:`~concept_tuning.diagnostics.statistics.paired_bootstrap`), and so is the interval
of one run's accuracy (:func:`~concept_tuning.proportion.share_interval`). A 95 % interval of a difference would leave
zero out in 5 % of the cases, and one of an accuracy would hold the true one in 95 %.

    python benchmarks/unit_coverage.py              # a few minutes on one core
    python benchmarks/unit_coverage.py --record     # writes it to results/, too
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from records import RESULTS, keep
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from concept_tuning.diagnostics.statistics import paired_bootstrap
from concept_tuning.proportion import share_interval

UNITS = (5, 10, 20, 40, 80)
#: Pictures of a unit, drawn evenly.
PICTURES = (2, 14)
ACCURACY, RESAMPLES = 0.85, 1000
#: Share of the variance of what makes a picture hard that all pictures of a unit have in common: some of it for both
#: methods, some for each alone.
COMMON, OWN = 0.25, 0.25


def drawn_runs(rng: np.random.Generator, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (2, N) bool, which pictures the two methods have right, and (N,) the units."""
    unit = np.repeat(np.arange(units), rng.integers(PICTURES[0], PICTURES[1] + 1, units))
    hard = np.sqrt(COMMON) * rng.normal(size=units)[unit] + np.sqrt(OWN) * rng.normal(size=(2, units))[:, unit]
    hard += np.sqrt(1 - COMMON - OWN) * rng.normal(size=hard.shape)
    return hard < ndtri(ACCURACY), unit


def rates(rng: np.random.Generator, units: int, repeats: int) -> dict[str, float]:
    """Return how often intervals over pictures and over units leave zero out, and hold the true accuracy."""
    found = dict.fromkeys(("alarms_pictures", "alarms_units", "held_pictures", "held_units"), 0.0)
    for repeat in range(repeats):
        right, unit = drawn_runs(rng, units)
        for name, column in (("pictures", None), ("units", unit)):
            difference = right[0].astype(float) - right[1]
            if difference.any():
                interval = paired_bootstrap(difference, repeat, resamples=RESAMPLES, units=column)
                found[f"alarms_{name}"] += (interval.low > 0 or interval.high < 0) / repeats
            low, high = share_interval(right[0], units=column)
            found[f"held_{name}"] += (low <= ACCURACY <= high) / repeats
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rates, and record them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="pairs of methods for each number of units")
    parser.add_argument("--record", action="store_true", help="write the rates to results/unit_coverage.json")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    rows = [{"units": units, **rates(rng, units, options.repeats)} for units in UNITS]
    shown = Table(title="intervals where several pictures show one unit")
    for column in ("units", "zero left out: over pictures", "over units", "accuracy held: over pictures", "over units"):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(f"{row['units']:g}", *(f"{100 * row[name]:.1f} %" for name in list(row)[1:]))
    Console().print(shown)
    if options.record:
        keep(RESULTS / "unit_coverage.json", "unit_coverage.py", arguments, repeats=options.repeats, rows=rows)


if __name__ == "__main__":
    main()
