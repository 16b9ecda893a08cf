from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from concept_tuning.diagnostics.catalogue import BY_NAME
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.statistics import paired_bootstrap
from concept_tuning.diagnostics.verdict import Comparison, Verdict, compare_methods, sentence_of
from concept_tuning.diagnostics.words import signed

NAMES = ("concept-tuning", "vanilla")


def compared(first: np.ndarray, second: np.ndarray, **changes: object) -> Verdict:
    found = compare_methods(first, second, **({"names": NAMES, "resamples": 600} | changes))
    assert isinstance(found, Verdict)
    return found


def runs(seeds: int, images: int, accuracy: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, images)) < accuracy


@pytest.mark.parametrize("paired", [True, False, None])
def test_a_method_against_itself_shows_no_difference(paired) -> None:
    right = runs(5, 200, 0.8, 0)
    verdict = compared(right, right, paired=paired, cells=np.arange(200) % 4)
    assert isinstance(verdict.worst_group, Comparison)
    for found in (verdict.accuracy, verdict.worst_group):
        assert found.outcome == "no difference shown"
        assert (found.difference.value, found.differing) == (0, 0)
        assert found.sentence.startswith("No difference shown between concept-tuning and vanilla")


@pytest.mark.parametrize(("first", "second", "outcome"), [(0.9, 0.7, "better"), (0.7, 0.9, "worse")])
def test_a_clear_difference_is_named_with_both_counts(tmp_path, first, second, outcome) -> None:
    verdict = compared(runs(5, 300, first, 0), runs(5, 300, second, 1))
    found = verdict.accuracy
    assert found.outcome == outcome
    assert found.sentence.startswith(f"concept-tuning is {outcome} than vanilla in accuracy")
    assert found.sentence.endswith("over 5 seeds each, on 300 pictures.")
    assert isinstance(verdict.worst_group, Unavailable)
    save_result(verdict, tmp_path / "verdict.json")
    assert load_result(Verdict, tmp_path / "verdict.json") == verdict


def test_paired_runs_are_the_paired_bootstrap() -> None:
    first, second = runs(4, 150, 0.8, 0), runs(4, 150, 0.75, 1)
    found = compared(first, second, seed=3, resamples=2000).accuracy.difference
    expected = paired_bootstrap(first.astype(float) - second, 8)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_the_order_of_unpaired_runs_does_not_matter_but_that_of_paired_runs_does() -> None:
    """Runs whose seeds move both methods alike: pairing takes the seeds' effect out."""
    cut = np.array([0.2, 0.4, 0.6, 0.8, 0.9])[:, None]
    draws = np.random.default_rng(0).random(400)
    first, second = draws < cut, draws < cut - 0.05
    paired, mixed = (compared(first, second, paired=paired).accuracy.difference for paired in (True, False))
    assert paired.value == mixed.value
    assert mixed.high - mixed.low > 5 * (paired.high - paired.low)
    assert paired.low > 0 > mixed.low


def test_seeds_that_disagree_are_not_outvoted_by_many_pictures() -> None:
    """Ten thousand pictures, but the method is ahead with some seeds and behind with others."""
    rng = np.random.default_rng(0)
    ahead = np.array([0.05, -0.04, 0.06, -0.05, 0.03])[:, None]
    first, second = rng.random((5, 10_000)) < 0.8 + ahead, rng.random((5, 10_000)) < 0.8
    assert compared(first, second, resamples=200).accuracy.outcome == "no difference shown"
    single = compared(first[:1], second[:1], resamples=200).accuracy
    assert single.outcome == "better"
    assert single.sentence.startswith("This run of concept-tuning is better than this run of vanilla in accuracy: ")
    assert single.sentence.endswith(
        "over 1 seed each, on 10000 pictures; with one seed nothing is shown of the methods."
    )


def test_unequal_numbers_of_runs_are_unpaired() -> None:
    verdict = compared(runs(3, 200, 0.9, 0), runs(5, 200, 0.6, 1))
    assert (verdict.seeds, verdict.seeds_paired) == ((3, 5), False)
    assert verdict.accuracy.outcome == "better"
    assert "over 3 and 5 seeds, on 200 pictures. So few seeds" in verdict.accuracy.sentence


@pytest.mark.parametrize(
    ("seeds", "beginning"),
    [
        ((1, 5), "This run of concept-tuning is better than these 5 runs of vanilla in accuracy"),
        ((5, 1), "These 5 runs of concept-tuning are better than this run of vanilla in accuracy"),
    ],
)
def test_with_one_seed_of_either_method_the_runs_are_compared(seeds, beginning) -> None:
    one = compared(runs(seeds[0], 200, 0.9, 0), runs(seeds[1], 200, 0.6, 1)).accuracy
    assert one.outcome == "better"
    assert one.sentence.startswith(beginning)
    assert one.sentence.endswith("; with one seed nothing is shown of the methods.")


def test_one_run_against_itself_shows_no_difference() -> None:
    right = runs(1, 200, 0.8, 0)
    sentence = compared(right, right).accuracy.sentence
    assert sentence.startswith("No difference shown between this run of concept-tuning and this run of vanilla")
    assert sentence.endswith("; with one seed nothing is shown of the methods.")


def test_a_difference_is_in_favour_of_one_and_its_interval_has_that_ones_signs() -> None:
    first, second = np.ones((1, 100), bool), np.ones((1, 100), bool)
    first[:, :10], second[:, 8:12] = False, False
    found = compared(first, second)
    low, high = (signed(-100 * end) for end in (found.accuracy.difference.high, found.accuracy.difference.low))
    assert f": 6.0 points in favour of vanilla, 95 % interval {low} to {high} for vanilla" in found.accuracy.sentence
    turned = compared(second, first).accuracy.sentence
    assert ": 6.0 points in favour of concept-tuning, 95 % interval " in turned


def test_few_pictures_and_an_interval_without_width_are_no_certainty() -> None:
    right = runs(1, 6, 0.7, 0)
    verdict = compared(right, right)
    assert verdict.accuracy.sentence.startswith("Too few pictures (6) to say anything. No difference shown")
    assert "0.0 points, the same in every resample of these pictures, which is no certainty" in sentence_of(
        verdict, verdict.accuracy
    )
    assert "Too few" not in compared(runs(1, 30, 0.7, 0), runs(1, 30, 0.7, 0)).accuracy.sentence


@pytest.mark.parametrize("swapped", [False, True])
def test_a_worst_group_whose_interval_misses_the_difference_is_not_judged(swapped) -> None:
    """The first method has 8 of 10 right in each of 30 small cells, the second 300 of 400 in a large one."""
    cells = np.concatenate([np.repeat(np.arange(30), 10), np.full(400, 30)])
    first = np.concatenate([np.tile(np.arange(10) < 8, 30), np.ones(400, bool)])
    second = np.concatenate([np.ones(300, bool), np.arange(400) < 300])
    sides = [np.repeat(side[None], 5, 0) for side in (first, second)]
    found = compared(*(sides[::-1] if swapped else sides), cells=cells).worst_group
    assert isinstance(found, Comparison)
    sign = -1 if swapped else 1
    assert found.difference.value == pytest.approx(0.05 * sign)
    assert max(found.difference.low * sign, found.difference.high * sign) < -0.05
    assert found.outcome == "no difference shown"
    assert found.sentence.startswith("No difference shown between")
    assert "lies outside its own interval" in found.sentence


def test_equal_means_from_unequal_numbers_of_runs_are_not_told_apart_by_rounding() -> None:
    right = runs(1, 90, 0.7, 0)
    found = compared(np.repeat(right, 2, 0), np.repeat(right, 7, 0)).accuracy
    assert (found.outcome, found.differing) == ("no difference shown", 0)


@pytest.mark.parametrize(("differing", "outcome"), [(5, "no difference shown"), (6, "better")])
def test_a_handful_of_pictures_decides_nothing(differing, outcome) -> None:
    """All five differing pictures on one side: the bootstrap leaves zero, an exact test (p = 0.06) would not."""
    first = np.ones((3, 40), bool)
    second = first.copy()
    second[:, :differing] = False
    found = compared(first, second).accuracy
    assert found.difference.low > 0
    assert found.outcome == outcome
    assert ("Only 5 pictures differ" in found.sentence) == (differing == 5)


def test_equal_methods_are_seldom_told_apart() -> None:
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ease = rng.beta(3, 1, 200)
        first, second = rng.random((2, 3, 200)) < ease
        wrong += compared(first, second, seed=seed, resamples=200).accuracy.outcome != "no difference shown"
    assert wrong <= 6


def test_the_worst_group_is_that_of_each_run_averaged_over_seeds() -> None:
    """Cells 3 and 7 hold the pictures; unsorted."""
    cells = np.array([7, 3, 7, 3, 7, 3, 7, 3])
    first = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 0, 1, 0, 1]], bool)  # worst: 3/4 either cell; 1/4 in 7
    second = np.array([[0, 1, 0, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 0, 1, 0]], bool)  # worst: 1/4 in 7; 1/4 in 3
    names = tuple(f"cell {i}" for i in range(8))
    verdict = compared(first, second, cells=cells, cell_names=names)
    assert isinstance(verdict.worst_group, Comparison)
    assert verdict.worst_group.first == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert verdict.worst_group.second == pytest.approx(1 / 4)
    assert verdict.worst_cells == ("cell 7", "cell 3")
    assert "smallest of 2 accuracies is biased low" in verdict.caveat
    assert "has 4 pictures" in verdict.caveat


def test_a_worst_group_that_recovers_is_found_where_the_average_hides_it() -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation(np.repeat([0, 1], [950, 50]))
    first = rng.random((5, 1000)) < np.where(cells == 0, 0.8, 0.8)
    second = rng.random((5, 1000)) < np.where(cells == 0, 0.84, 0.2)
    verdict = compared(first, second, cells=cells, cell_names=("common", "rare"))
    assert isinstance(verdict.worst_group, Comparison)
    assert verdict.worst_group.outcome == "better"
    assert verdict.worst_cells[1] == "rare"
    assert verdict.accuracy.outcome == "no difference shown"


def test_the_worst_group_bootstrap_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(4)
    cells = np.repeat([0, 1, 2], [10, 15, 20])
    first, second = rng.random((3, 45)) < 0.8, rng.random((2, 45)) < 0.6
    verdict = compared(first, second, cells=cells, resamples=4000)
    slow = []
    for _ in range(4000):
        drawn = np.concatenate([rng.choice(np.flatnonzero(cells == k), (cells == k).sum()) for k in range(3)])
        ends = []
        for side in (first, second):
            chosen = side[rng.integers(len(side), size=len(side) - 1)][:, drawn]
            ends.append(np.min([chosen[:, cells == k].mean(1) for k in range(3)], axis=0).mean())
        slow.append(ends[0] - ends[1])
    assert isinstance(verdict.worst_group, Comparison)
    found = verdict.worst_group.difference
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=0.03)


def test_what_cannot_be_compared() -> None:
    assert isinstance(compare_methods(np.ones((2, 1)), np.ones((2, 1)), names=NAMES), Unavailable)
    with pytest.raises(ValueError, match="as many"):
        compared(np.ones((2, 9)), np.ones((3, 9)), paired=True)
    with pytest.raises(ValueError, match="expected"):
        compared(np.ones((2, 9)), np.ones((2, 8)))
    with pytest.raises(ValueError, match="cells must be"):
        compared(np.ones((2, 9)), np.ones((2, 9)), cells=np.zeros(8, int))


def test_the_demo_tells_its_verdict_in_the_words_of_today() -> None:
    file = Path(__file__).parents[2] / "assets" / "demo" / "diagnosis" / "results" / "04_verdict.json"
    found = load_result(BY_NAME["verdict"].kind, file)
    told = [(verdict, part) for verdict in found.verdicts for part in (verdict.accuracy, verdict.worst_group)]
    assert [part.sentence for _, part in told] == [sentence_of(verdict, part) for verdict, part in told]


def by_units(units: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two methods' (1, N) correctness that goes with (N,) units, alike in the mean."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), each)
    first, second = (rng.random(units)[unit] * 0.8 + rng.random(len(unit)) * 0.2 < 0.75 for _ in range(2))
    return first[None], second[None], unit


def test_whole_units_are_drawn_again() -> None:
    first, second, unit = by_units(40, 6, 0)
    pictures, units = compared(first, second).accuracy, compared(first, second, units=unit).accuracy
    assert units.difference.value == pictures.difference.value
    assert units.difference.high - units.difference.low > 1.5 * (pictures.difference.high - pictures.difference.low)
    assert (pictures.units, units.units) == (None, 40)
    assert "on 240 pictures of 40 units;" in units.sentence
    assert "unit" not in pictures.sentence
    expected = paired_bootstrap((first.astype(float) - second)[0], 8, units=unit)
    found = compared(first, second, units=unit, resamples=2000).accuracy.difference
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_two_equal_methods_are_rarely_told_apart_over_units_and_often_over_pictures() -> None:
    told = {"units": 0, "pictures": 0}
    for seed in range(100):
        first, second, unit = by_units(30, 6, seed)
        for name, column in (("units", unit), ("pictures", None)):
            told[name] += compared(first, second, units=column, resamples=300).accuracy.outcome != "no difference shown"
    assert told["units"] <= 12
    assert told["pictures"] >= 25


def test_it_is_units_that_must_differ() -> None:
    unit = np.repeat(np.arange(40), 10)
    first = np.ones((3, 400), bool)
    second = first & (unit >= 5)
    over_pictures, over_units = compared(first, second).accuracy, compared(first, second, units=unit).accuracy
    assert (over_pictures.outcome, over_pictures.differing) == ("better", 50)
    assert (over_units.outcome, over_units.differing) == ("no difference shown", 5)
    assert "Only 5 units differ, too few to decide." in over_units.sentence


def test_too_few_units_are_told_of_first() -> None:
    first, second, unit = by_units(9, 6, 0)
    verdict = compared(first, second, units=unit)
    assert verdict.accuracy.sentence.startswith("Too few units (9) to say anything. No difference shown")
    assert sentence_of(verdict, verdict.accuracy) == verdict.accuracy.sentence


def test_units_are_drawn_across_cells_for_the_worst_group() -> None:
    first, second, unit = by_units(40, 6, 1)
    cells = (np.arange(240) % 6 == 0).astype(int)
    found = compared(first, second, units=unit, cells=cells).worst_group
    assert isinstance(found, Comparison)
    assert np.isfinite([found.difference.low, found.difference.high]).all()
    assert found.units == 40
    # A cell that lies in two units alone is missing from many draws, which then say nothing of it.
    rare = np.where(unit < 2, 1, 0)
    found = compared(first, second, units=unit, cells=rare).worst_group
    assert isinstance(found, Comparison)
    assert np.isfinite([found.difference.low, found.difference.high]).all()


def test_units_of_another_length_are_refused() -> None:
    first, second, unit = by_units(10, 3, 0)
    with pytest.raises(ValueError, match=r"units must be \(30,\)"):
        compare_methods(first, second, names=NAMES, units=unit[:-1])


def test_pictures_of_one_unit_say_nothing_of_others() -> None:
    first, second = np.ones((3, 40), bool), np.arange(40) % 3 > 0
    found = compared(first, np.stack([second] * 3), units=np.zeros(40, int)).accuracy
    assert (found.difference.low, found.difference.high) == (-1, 1)
    assert found.outcome == "no difference shown"
