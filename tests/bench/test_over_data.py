"""A method over several data: the mean, Student's interval and the signed-rank test, of what is finished alone."""

from __future__ import annotations

from typing import Any

import pytest

from concept_tuning.bench.markdown import over_data_text
from concept_tuning.bench.over_data import over_data, pictures_of

SIX = (0.01, 0.02, 0.03, 0.04, 0.05, 0.09)


def row(data: str, method: str, difference: float | None, *, seeds: int = 3, rate: float = 100) -> dict[str, Any]:
    """Return what over_data reads of a row of a summary."""
    found = None if difference is None else {"value": difference, "low": -1.0, "high": 1.0}
    place = {"data": data, "backbone": "net", "sample_rate": rate}
    return {**place, "method": method, "seeds": seeds, "difference": found, "worst_group_difference": None}


def rows_of(values: tuple[float, ...], method: str = "ours") -> list[dict[str, Any]]:
    """Return rows of the first method and of another on as many data as there are differences."""
    pairs = [(row(str(at), "vanilla", None), row(str(at), method, value)) for at, value in enumerate(values)]
    return [one for pair in pairs for one in pair]


def test_mean_interval_and_p_are_those_of_students_and_wilcoxons_tables() -> None:
    (found,) = over_data(rows_of(SIX), "vanilla", 3)
    assert (found.method, found.above, found.difference.n) == ("ours", 6, 6)
    assert found.difference.value == pytest.approx(0.04)
    reach = 2.5706 * 0.0282843 / 6**0.5  # t of 5 degrees of freedom, and the deviation by hand
    assert found.difference.low == pytest.approx(0.04 - reach, abs=1e-5)
    assert found.difference.high == pytest.approx(0.04 + reach, abs=1e-5)
    assert found.p_value == pytest.approx(2 / 2**6)  # all six ranks on one side, of 64 ways


@pytest.mark.parametrize("values", [(0.01,) * 5, (0.01, 0.01, 0.02, 0.03, 0.03), (0.0, 0.0, 0.01, 0.02, 0.03)])
def test_ties_and_equal_results_make_no_small_p_of_few_settings(values: tuple[float, ...]) -> None:
    (found,) = over_data(rows_of(values), "vanilla", 3)
    assert found.p_value >= 0.0625  # 2 of 32 ways at least


def test_what_is_not_finished_on_both_sides_does_not_count() -> None:
    rows = rows_of(SIX)
    rows[1]["seeds"] = 2  # the method's own
    rows[2]["seeds"] = 2  # the first method's
    (found,) = over_data(rows, "vanilla", 3)
    assert [block[0] for block in found.blocks] == ["2", "3", "4", "5"]
    assert over_data(rows_of(SIX[:2]), "vanilla", 3) == []


def test_rates_and_data_of_the_same_pictures_count_once_with_their_mean() -> None:
    rows = [row("birds", name, value, rate=at) for at in (15, 30, 50) for name, value in (("a", None), ("b", at / 1e3))]
    assert over_data(rows, "a", 3) == []  # one set of pictures
    for data, value in (("more", 0.07), ("other", 0.05), ("third", 0.06)):
        rows += [row(data, "a", None), row(data, "b", value)]
    (found,) = over_data(rows, "a", 3, {"birds": "planted", "more": "planted", "other": "folder"})
    assert found.blocks[:3] == [("birds", "net", 15), ("birds", "net", 30), ("birds", "net", 50)]
    assert (found.difference.n, found.above) == (3, 3)
    assert found.difference.value == pytest.approx(((0.015 + 0.03 + 0.05 + 0.07) / 4 + 0.05 + 0.06) / 3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("planted", {"rho": 0.9}), ("planted", {"rho": 0.8, "images": 300, "data_seed": 0}), True),
        (("planted", {}), ("planted", {"data_seed": 1}), False),
        (("planted", {"data_seed": 1}), ("planted", {"data.data_seed": 1, "rho": 0.97}), True),
        (("elpv", {}), ("elpv", {"data_seed": 1}), True),
        (("cifar10", {"root": "a"}), ("cifar10", {"data.root": "a", "sample_rate": 50}), True),
        (("cifar10", {}), ("cifar100", {}), False),
    ],
)
def test_pictures_are_the_same_where_they_may_be_shared(one: Any, other: Any, same: bool) -> None:
    assert (pictures_of(*one) == pictures_of(*other)) is same


def test_the_worst_group_counts_where_there_are_groups() -> None:
    rows = rows_of((0.0, 0.01, 0.02, 0.03))
    for one, value in zip(rows[1::2], (0.1, 0.2, 0.3, None), strict=True):
        one["worst_group_difference"] = None if value is None else {"value": value}
    (found,) = over_data(rows, "vanilla", 3)
    assert found.worst_group is not None
    assert (found.worst_group.value, found.worst_group.n, found.difference.n) == (pytest.approx(0.2), 3, 4)
    assert found.worst_group.low == pytest.approx(0.2 - 4.30265 * 0.1 / 3**0.5, abs=1e-5)
    assert "| +20.0 (−4.8 to +44.8) |" in over_data_text([found], "vanilla")
    rows[1]["worst_group_difference"] = None
    assert over_data(rows, "vanilla", 3)[0].worst_group is None


def test_equal_methods_are_above_in_half_and_p_is_one() -> None:
    (found,) = over_data(rows_of((0.0, 0.0, 1e-17)), "vanilla", 3)
    assert (found.above, found.p_value) == (1.5, 1.0)
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)


def test_the_best_mean_comes_first_in_the_table_which_says_how_to_read_it() -> None:
    rows = rows_of(tuple(-one for one in SIX), "worse") + [one for one in rows_of(SIX) if one["method"] == "ours"]
    text = over_data_text(over_data(rows, "vanilla", 3), "vanilla")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert lines == [
        "| `ours` | 6 | +4.0 (+1.0 to +7.0) | in 6 | 0.031 | – |",
        "| `worse` | 6 | −4.0 (−7.0 to −1.0) | in 0 | 0.031 | – |",
    ]
    assert "above 0.05 with fewer than six" in text
    assert over_data_text([], "vanilla") == ""
