from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.ledger import Ledger, negative_transfer
from concept_tuning.diagnostics.results import Interval, Unavailable, load_result, save_result
from concept_tuning.diagnostics.statistics import mcnemar_exact, wilson

KEYS = tuple("abcdefgh")


def right(text: str) -> np.ndarray:
    return np.array([mark == "1" for mark in text])


def entered(**changes: object) -> Ledger:
    values = {
        "keys": KEYS,
        "scratch": {"scratch 0": right("11110000")},
        "tuned": {"vanilla": {"vanilla 0": right("01111110")}},
    }
    found = negative_transfer(**(values | changes))
    assert isinstance(found, Ledger)
    return found


def test_a_pair_is_counted_by_hand(tmp_path) -> None:
    ledger = entered()
    [pair] = ledger.methods[0].pairs
    assert (pair.scratch, pair.tuned) == ("scratch 0", "vanilla 0")
    assert (pair.lost, pair.rescued) == (wilson(1, 8), wilson(3, 8))
    assert (pair.both_right, pair.neither) == (3, 1)
    assert pair.net.value == pytest.approx(2 / 8)
    assert pair.p_value == mcnemar_exact(1, 3) == pytest.approx(10 / 16)
    assert (pair.lost_keys, pair.rescued_keys) == (("a",), ("e", "f", "g"))
    save_result(ledger, tmp_path / "ledger.json")
    again = load_result(Ledger, tmp_path / "ledger.json")
    assert again.methods[0].pairs == ledger.methods[0].pairs
    assert np.array_equal(again.methods[0].lost_counts, ledger.methods[0].lost_counts)


def test_one_scratch_run_has_no_churn_and_says_why() -> None:
    ledger = entered()
    for found in (ledger.churn, ledger.methods[0].beyond_churn):
        assert isinstance(found, Unavailable)
        assert "two or more runs from scratch" in found.reason


def test_churn_is_the_mean_over_ordered_pairs_and_is_subtracted() -> None:
    scratch = {"s0": right("11110000"), "s1": right("11001000"), "s2": right("11110001")}
    pairs = [(a, b) for a in scratch for b in scratch if a != b]
    lost = [int((scratch[a] & ~scratch[b]).sum()) for a, b in pairs]
    assert lost == [2, 0, 1, 1, 1, 3]
    ledger = entered(scratch=scratch)
    assert isinstance(ledger.churn, Interval)
    assert ledger.churn.value == pytest.approx(sum(lost) / 6 / 8)
    method = ledger.methods[0]
    assert method.lost.value == pytest.approx(np.mean([pair.lost.value for pair in method.pairs]))
    assert isinstance(method.beyond_churn, Interval)
    assert method.beyond_churn.value == pytest.approx(method.lost.value - ledger.churn.value)


def test_another_seed_of_scratch_loses_nothing_beyond_churn() -> None:
    """Runs of one population: what "fine-tuning" loses is churn, and the interval holds zero."""
    rng = np.random.default_rng(0)
    ease = rng.beta(2, 1, 800)
    runs = [rng.random(800) < ease for _ in range(6)]
    ledger = entered(
        keys=tuple(str(i) for i in range(800)),
        scratch={f"s{i}": run for i, run in enumerate(runs[:3])},
        tuned={"again": {f"t{i}": run for i, run in enumerate(runs[3:])}},
    )
    method = ledger.methods[0]
    assert method.lost.low > 0.1
    assert isinstance(method.beyond_churn, Interval)
    assert method.beyond_churn.low < 0 < method.beyond_churn.high


def test_every_pair_of_every_method_is_entered_and_counted() -> None:
    ledger = entered(
        scratch={"s0": right("11110000"), "s1": right("10000000")},
        tuned={
            "vanilla": {"v0": right("01111110"), "v1": right("00000000")},
            "tuned": {"t0": right("11111111")},
            "none": {},
        },
    )
    assert [method.method for method in ledger.methods] == ["vanilla", "tuned"]
    vanilla, tuned = ledger.methods
    assert {(pair.scratch, pair.tuned) for pair in vanilla.pairs} == {
        (scratch, run) for scratch in ("s0", "s1") for run in ("v0", "v1")
    }
    assert vanilla.lost_counts.tolist() == [4, 1, 1, 1, 0, 0, 0, 0]
    assert tuned.lost == wilson(0, 8)
    assert tuned.rescued_counts.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
    assert vanilla.net.value == pytest.approx(vanilla.rescued.value - vanilla.lost.value)


def test_a_run_against_itself_loses_and_rescues_nothing() -> None:
    run = right("11010000")
    [pair] = entered(scratch={"s": run}, tuned={"same": {"s again": run}}).methods[0].pairs
    assert (pair.lost.value, pair.rescued.value, pair.net.value, pair.p_value) == (0, 0, 0, 1)
    assert pair.lost_keys == pair.rescued_keys == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scratch": {}}, "from scratch"),
        ({"tuned": {}}, "fine-tuned"),
        ({"tuned": {"v": {}}}, "fine-tuned"),
        ({"keys": "a", "scratch": {"s": right("1")}, "tuned": {"v": {"v0": right("0")}}}, "at least two pictures"),
    ],
)
def test_what_is_missing_is_said(changes, words) -> None:
    values = {"keys": KEYS, "scratch": {"s": right("11110000")}, "tuned": {"v": {"v0": right("11110000")}}}
    found = negative_transfer(**(values | changes))
    assert isinstance(found, Unavailable)
    assert words in found.reason


def test_runs_of_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="correctness of v0"):
        entered(tuned={"v": {"v0": right("111")}})


def test_nothing_lost_is_not_certain() -> None:
    right = np.ones(40, bool)
    found = negative_transfer(
        keys=[str(place) for place in range(40)],
        scratch={"a": right, "b": right},
        tuned={"vanilla": {"c": right}},
    )
    bound = wilson(0, 40).high
    (method,) = found.methods
    assert (method.net.low, method.net.value, method.net.high) == (-bound, 0.0, bound)
    assert (found.churn.low, found.churn.high) == (0.0, bound)
    assert method.beyond_churn.low == -bound


@pytest.mark.parametrize("units", [None, np.arange(500) // 2])
def test_one_loss_in_one_of_two_pairs_is_no_surer_than_none(units: np.ndarray | None) -> None:
    right = np.ones(500, bool)
    once = right.copy()
    once[0] = False
    methods = negative_transfer(
        keys=[str(place) for place in range(500)],
        scratch={"s": right},
        tuned={"none": {"a": right, "b": right}, "one": {"a": right, "b": once}},
        units=units,
    ).methods
    none, one = methods
    assert one.lost.value > 0
    assert one.lost.low >= 0
    assert one.lost.high >= none.lost.high
    assert one.net.low <= none.net.low


def test_a_pair_that_differs_nowhere_is_not_sure_of_it() -> None:
    right = np.arange(12) % 2 == 0
    keys = [str(number) for number in range(12)]
    (method,) = negative_transfer(keys=keys, scratch={"scratch": right}, tuned={"m": {"tuned": right}}).methods
    (pair,) = method.pairs
    assert pair.net == method.net
    assert pair.net.low < 0 < pair.net.high


def test_with_units_all_is_over_whole_units() -> None:
    keys, units = tuple(f"p{n}" for n in range(120)), np.repeat(np.arange(20), 6)
    rng = np.random.default_rng(0)
    scratch = {"scratch 0": (rng.random(20) < 0.6)[units], "scratch 1": (rng.random(20) < 0.6)[units]}
    tuned = {"vanilla": {"vanilla 0": (rng.random(20) < 0.8)[units]}}
    plain, found = (
        negative_transfer(keys=keys, scratch=scratch, tuned=tuned, units=column) for column in (None, units)
    )
    for one in (plain, found):
        assert isinstance(one, Ledger)
    (before,), (after,) = plain.methods, found.methods
    for name in ("lost", "rescued", "net", "beyond_churn"):
        narrow, wide = getattr(before, name), getattr(after, name)
        assert wide.value == pytest.approx(narrow.value)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert after.pairs[0].p_value > before.pairs[0].p_value


def test_shares_of_one_unit_stay_shares_and_say_little() -> None:
    scratch = {"scratch 0": right("11110000"), "scratch 1": right("01110001")}
    tuned = {"vanilla": {"vanilla 0": right("01111110")}}
    ledger = entered(scratch=scratch, tuned=tuned, units=np.zeros(8, int))
    (method,) = ledger.methods
    for found in (ledger.churn, method.lost, method.rescued):
        assert isinstance(found, Interval)
        assert 0 <= found.low < found.value < found.high <= 1
        assert found.high - found.low > 0.7
    assert (method.net.low, method.net.high) == (-1, 1)
