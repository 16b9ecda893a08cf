"""Runs on pictures of plants are drawn as told, and the record says what the text of results says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import unit_coverage

ROOT = Path(__file__).parents[2]


def test_methods_are_alike_in_the_mean_and_pictures_of_a_unit_are_alike() -> None:
    right, unit = unit_coverage.drawn_runs(np.random.default_rng(0), 4000)
    assert right.shape == (2, len(unit))
    assert right.mean(1) == pytest.approx([unit_coverage.ACCURACY] * 2, abs=0.01)
    of_unit = [np.bincount(unit, weights=side) / np.bincount(unit) for side in right]
    alone = np.random.default_rng(1).permutation(right[0])
    assert of_unit[0].std() > 1.3 * (np.bincount(unit, weights=alone) / np.bincount(unit)).std()
    sizes = np.bincount(unit)
    assert (sizes.min(), sizes.max()) == unit_coverage.PICTURES


def test_intervals_over_pictures_say_more_than_those_over_units() -> None:
    found = unit_coverage.rates(np.random.default_rng(0), 20, 60)
    assert found["alarms_pictures"] > found["alarms_units"]
    assert found["held_pictures"] < found["held_units"]


def test_the_table_of_results_is_the_record() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "unit_coverage.json").read_text())
    lines = (ROOT / "benchmarks" / "RESULTS.md").read_text().splitlines()
    for row in record["rows"]:
        shares = (row[name] for name in ("alarms_pictures", "alarms_units", "held_pictures", "held_units"))
        assert f"| {row['units']} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |" in lines
