"""Intervals of shares, over pictures and over the plants that they show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, t
from statsmodels.stats.proportion import proportion_confint

from concept_tuning.proportion import effective_number, share_interval


@pytest.mark.parametrize(("count", "n"), [(0, 5), (3, 5), (5, 5), (90, 400)])
def test_without_units_it_is_wilsons(count: int, n: int) -> None:
    marks = np.arange(n) < count
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert share_interval(marks) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_with_units_it_is_wilsons_of_the_effective_number() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(30), rng.integers(2, 9, 30))
    marks = rng.random(len(units)) < rng.beta(4, 2, 30)[units]
    number = effective_number(marks, units)
    assert number < len(units)
    expected = proportion_confint(marks.mean() * number, number, method="wilson")
    assert share_interval(marks, units=units) == pytest.approx(expected)
    wider = share_interval(marks, units=units, level=0.99)
    assert wider[0] < expected[0]
    assert expected[1] < wider[1]


def test_the_effective_number_in_closed_form() -> None:
    # Ten units of four pictures that are all alike, six of them right: ten draws, less for few degrees of freedom.
    units = np.repeat(np.arange(10), 4)
    marks = units < 6
    variance = 10 / 9 * 10 * (4 * 0.4 * 4 * 0.6) / 40**2
    few = (t.ppf(0.975, 39) / t.ppf(0.975, 9)) ** 2
    assert effective_number(marks, units) == pytest.approx(0.24 / variance * few)
    assert effective_number(marks, units) < 10


def test_pictures_of_a_unit_that_differ_more_than_chance_count_no_more_than_there_are() -> None:
    units = np.repeat(np.arange(20), 2)
    few = (t.ppf(0.975, 39) / t.ppf(0.975, 19)) ** 2
    assert effective_number(np.arange(40) % 2 == 0, units) == pytest.approx(40 * few)


@pytest.mark.parametrize("pictures", [10, 100])
def test_two_units_that_agree_are_no_surer_than_two_that_nearly_do(pictures: int) -> None:
    units = np.repeat([0, 1], pictures)
    place = np.arange(2 * pictures) % pictures
    agree, nearly = (
        share_interval(place < np.where(units == 1, pictures // 2 + more, pictures // 2), units=units)
        for more in (0, 1)
    )
    assert agree[1] - agree[0] > 0.9 * (nearly[1] - nearly[0])
    assert agree[1] - agree[0] > 0.6, "two units say little"


@pytest.mark.parametrize("marks", [np.zeros(12, bool), np.ones(12, bool)])
def test_where_all_are_alike_a_unit_counts_as_one(marks: np.ndarray) -> None:
    units = np.repeat(np.arange(4), 3)
    assert effective_number(marks, units) == 4
    expected = proportion_confint(4 * marks.mean(), 4, method="wilson")
    assert share_interval(marks, units=units) == pytest.approx(expected)
    assert effective_number(np.arange(12) < 5, np.zeros(12, int)) == 1


def test_units_one_by_one_lose_nothing_but_rounding() -> None:
    marks = np.random.default_rng(1).random(500) < 0.8
    assert share_interval(marks, units=np.arange(500)) == pytest.approx(share_interval(marks), abs=2e-4)


def test_intervals_over_units_hold_the_share_and_those_over_pictures_do_not() -> None:
    rng = np.random.default_rng(2)
    held = {"units": 0, "pictures": 0}
    for _ in range(400):
        units = np.repeat(np.arange(25), rng.integers(2, 12, 25))
        marks = rng.random(len(units)) < rng.beta(4, 1, 25)[units]
        for name, column in (("units", units), ("pictures", None)):
            low, high = share_interval(marks, units=column)
            held[name] += low <= 0.8 <= high
    assert held["units"] / 400 > 0.91
    assert held["pictures"] / 400 < 0.85


def test_a_share_of_all_reaches_1_and_one_of_nothing_is_refused() -> None:
    units = np.repeat(np.arange(12), 3)
    assert share_interval(np.ones(36, bool), units=units)[1] == 1
    assert share_interval(np.zeros(36, bool), units=units)[0] == 0
    for column in (None, np.zeros(0, int)):
        with pytest.raises(ValueError, match="no pictures"):
            share_interval(np.zeros(0, bool), units=column)
