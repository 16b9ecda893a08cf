from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from concept_tuning.diagnostics.information import best_levels, class_auc
from concept_tuning.diagnostics.rare_use import (
    PRETRAINED,
    InformationChange,
    RunUse,
    held_out_auc,
    held_out_information,
    information_changes,
    marked_classes,
    rarest_tenth,
    run_uses,
    split_halves,
    split_thirds,
)
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.statistics import wilson


def test_halves_take_half_of_each_class_at_random_for_a_seed() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [10, 7, 5, 1]))
    state = np.random.get_state()[1].copy()
    halves = np.stack([split_halves(labels, seed=seed) for seed in range(300)])
    assert np.array_equal(np.random.get_state()[1], state)
    inside = np.stack([np.bincount(labels[half], minlength=4) for half in halves])
    assert (np.abs(inside - np.array([10, 7, 5, 1]) / 2) <= 0.5).all()
    assert (np.abs(halves.sum(1) - 23 / 2) <= 0.5).all()
    np.testing.assert_array_equal(halves[4], split_halves(labels, seed=4))
    np.testing.assert_allclose(halves[:, labels < 2].mean(0), 0.5, atol=0.15)


def test_thirds_take_a_third_of_each_class_at_random_for_a_seed() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [12, 7, 1]))
    thirds = np.stack([split_thirds(labels, seed=seed) for seed in range(300)])
    for part in range(3):
        inside = np.stack([np.bincount(labels[third == part], minlength=3) for third in thirds])
        assert (np.abs(inside - np.array([12, 7, 1]) / 3) < 1).all()
    np.testing.assert_array_equal(thirds[4], split_thirds(labels, seed=4))
    np.testing.assert_allclose((thirds[:, labels == 0] == 0).mean(0), 1 / 3, atol=0.1)


def test_marked_class_is_the_one_ranked_first_and_an_absent_one_is_never_marked() -> None:
    labels = np.repeat([0, 1, 3], 4)
    activations = np.stack([labels == 1, -1.0 * (labels == 0), labels, np.zeros(12)], axis=1).astype(float)
    assert marked_classes(activations, labels, classes=4)[:3].tolist() == [1, 1, 3]
    assert marked_classes(activations, labels, classes=4)[3] != 2


def test_held_out_auc_of_networks_whose_answer_is_known() -> None:
    labels = np.arange(40) % 2
    rank = np.arange(40.0)
    concept = (rank + 100 * labels)[:, None]
    networks = {PRETRAINED: concept, "same": 3 * concept, "turned": -concept, "silent": np.zeros((40, 1))}
    found = held_out_auc(networks, labels, classes=2, half=split_halves(labels))
    assert {name: values.tolist() for name, values in found.items()} == {
        PRETRAINED: [1],
        "same": [1],
        "turned": [0],
        "silent": [0.5],
    }


def test_held_out_auc_is_the_mean_of_both_ways_round_with_the_class_marked_before_fine_tuning() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    networks = {name: rng.normal(size=(60, 4)) + (labels[:, None] == 2) for name in (PRETRAINED, "run")}
    half = split_halves(labels, seed=1)
    found = held_out_auc(networks, labels, classes=3, half=half)
    for concept in range(4):
        expected = []
        for here in (half, ~half):
            marked = int(class_auc(networks[PRETRAINED][here], labels[here], classes=3)[:, concept].argmax())
            positive, value = labels[~here] == marked, networks["run"][~here, concept]
            pairs = [(x > y) + 0.5 * (x == y) for x in value[positive] for y in value[~positive]]
            expected.append(np.mean(pairs))
        assert found["run"][concept] == pytest.approx(np.mean(expected))


def test_choosing_the_class_gains_nothing_for_useless_concepts_where_it_would_on_the_same_pictures() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(80) % 8
    activations = rng.normal(size=(80, 800))
    found = held_out_auc({PRETRAINED: activations}, labels, classes=8, half=split_halves(labels))[PRETRAINED]
    assert found.mean() == pytest.approx(0.5, abs=4 * found.std() / math.sqrt(800))
    assert class_auc(activations, labels, classes=8).max(0).mean() > 0.6


def test_held_out_auc_is_nan_where_there_is_one_class_and_one_half_serves_where_the_other_lacks_it() -> None:
    half = np.arange(12) % 2 == 0
    values = np.arange(12.0)[:, None]
    assert np.isnan(held_out_auc({PRETRAINED: values}, np.zeros(12, int), classes=2, half=half)[PRETRAINED]).all()
    # Class 1 is the last picture alone, in the second half: the first half knows class 0 only and marks it.
    labels = (np.arange(12) == 11).astype(int)
    found = held_out_auc({PRETRAINED: -values}, labels, classes=2, half=half)[PRETRAINED]
    assert found.tolist() == [1]


def slow_information(activations, labels, classes, parts, concepts) -> tuple[np.ndarray, np.ndarray]:
    """Written picture by picture from the docstring: log q(label | presence) / q(label), learnt on another third."""
    each = []
    for chosen, learnt, measured in ((concepts[0], 1, 2), (concepts[1], 2, 0), (concepts[2], 0, 1)):
        learnt, measured = parts == learnt, parts == measured
        known = np.flatnonzero(learnt)
        prior = [(np.sum(labels[known] == c) + 0.5) / (len(known) + classes / 2) for c in range(classes)]
        for concept in np.flatnonzero(chosen):
            level = best_levels(activations[learnt][:, [concept]], labels[learnt])[0]
            for picture in np.flatnonzero(measured):
                alike = [
                    i for i in known if (activations[i, concept] > level) == (activations[picture, concept] > level)
                ]
                label = labels[picture]
                joint = sum(labels[i] == label for i in alike) + classes / 2 * prior[label]
                ratio = joint / (len(alike) + classes / 2) / prior[label]
                each.append((picture, math.log(ratio), chosen.sum()))
    mean, total = np.zeros(len(labels)), np.zeros(len(labels))
    for picture, value, count in each:
        mean[picture] += value / count
        total[picture] += value
    return mean, total


def test_held_out_information_agrees_with_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 50)
    activations = np.maximum(rng.normal(size=(50, 6)) + (labels[:, None] == 1), 0)
    parts = split_thirds(labels)
    concepts = [np.array(row, bool) for row in ([1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0])]
    found = held_out_information(activations, labels, classes=4, parts=parts, concepts=concepts)
    for value, expected in zip(found, slow_information(activations, labels, 4, parts, concepts), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-12)


def test_a_concept_that_is_the_label_has_all_its_information_less_the_smoothing() -> None:
    labels = np.arange(120) % 2
    activations = np.stack([labels, 1 - labels], axis=1).astype(float)
    every = [np.ones(2, bool)] * 3
    found = held_out_information(activations, labels, classes=2, parts=split_thirds(labels), concepts=every)
    # Each third has 20 pictures of each class: q(label | presence) = 20.5 / 21.
    np.testing.assert_allclose(found[0], math.log(2 * 20.5 / 21), rtol=1e-12)
    np.testing.assert_allclose(found[1], 2 * math.log(2 * 20.5 / 21), rtol=1e-12)


def test_chance_cannot_raise_the_information_of_useless_concepts() -> None:
    rng = np.random.default_rng(4)
    every, means = [np.ones(60, bool)] * 3, []
    for seed in range(20):
        labels = rng.permutation(np.arange(120) % 4)
        parts = split_thirds(labels, seed=seed)
        found = held_out_information(rng.normal(size=(120, 60)), labels, classes=4, parts=parts, concepts=every)
        means.append(found[0].mean())
    assert np.mean(means) < 0
    assert np.mean(means) > -0.1


def test_a_constant_concept_says_nothing() -> None:
    labels, one = np.arange(24) % 2, np.ones(1, bool)
    found = held_out_information(
        np.full((24, 1), 2.0), labels, classes=2, parts=split_thirds(labels), concepts=[one] * 3
    )
    np.testing.assert_allclose(found[0], 0, atol=1e-12)


def made_informative(seed: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three useful concepts of two classes; the run's first says the label, before it hardly helped."""
    rng = np.random.default_rng(seed)
    labels = np.arange(120) % 2
    before = rng.normal(size=(120, 3)) + labels[:, None] * [0.8, 2, 2]
    after = before.copy()
    after[:, 0] = rng.normal(size=120) + 6 * labels
    return {PRETRAINED: before, "run": after, "copy": after.copy()}, labels


def changes_of(networks, labels, *, others=(False, True, True), seed: int = 0) -> tuple[InformationChange, ...]:
    rare = [np.array([True, False, False])] * 3
    return information_changes(
        networks,
        labels,
        classes=2,
        parts=split_thirds(labels),
        rare=rare,
        others=[np.array(others)] * 3,
        resamples=500,
        seed=seed,
    )


def test_a_rare_concept_made_informative_is_raised_and_the_way_back_lowered() -> None:
    networks, labels = made_informative()
    raised, also, same = changes_of(networks, labels)
    assert [(c.before, c.after) for c in (raised, also, same)] == [
        (PRETRAINED, "run"),
        (PRETRAINED, "copy"),
        ("run", "copy"),
    ]
    assert raised.verdict == also.verdict == "raised"
    assert raised.total.low > 0.2
    assert raised.total == raised.per_concept  # of one rare concept
    assert raised.after_value - raised.before_value == pytest.approx(raised.per_concept.value)
    assert 0.5 < raised.after_value < math.log(2)
    assert (raised.others.value, raised.others.low, raised.others.high) == (0, 0, 0)
    assert raised.concepts == (1, 1, 1)
    assert raised.total.n == 120
    turned = {PRETRAINED: networks["run"], "run": networks[PRETRAINED]}
    (lowered,) = changes_of(turned, labels)
    assert lowered.verdict == "lowered"
    assert lowered.total.value == pytest.approx(-raised.total.value)
    assert changes_of(networks, labels) == (raised, also, same)


def test_a_network_against_itself_shows_exactly_no_change() -> None:
    networks, labels = made_informative()
    for other in (networks["run"], 7 * networks["run"] + 3):  # another scale has the same presence
        (change,) = changes_of({PRETRAINED: networks["run"], "again": other}, labels, others=(False, False, False))
        assert (change.total.value, change.total.low, change.total.high) == (0, 0, 0)
        assert change.verdict == "no change shown"
        assert change.others is None


def test_other_noise_without_information_shows_no_change_as_a_rule() -> None:
    rng = np.random.default_rng(6)
    labels, verdicts = np.arange(100) % 2, []
    for _ in range(30):
        networks = {PRETRAINED: rng.normal(size=(100, 3)), "run": rng.normal(size=(100, 3))}
        verdicts.append(changes_of(networks, labels)[0].verdict)
    assert verdicts.count("no change shown") >= 24


def test_total_sums_what_per_concept_averages() -> None:
    networks, labels = made_informative()
    rare = [np.array([True, True, False])] * 3
    changes = information_changes(
        networks, labels, classes=2, parts=split_thirds(labels), rare=rare, others=[np.zeros(3, bool)] * 3, resamples=50
    )
    assert changes[0].total.value == pytest.approx(2 * changes[0].per_concept.value)
    assert changes[0].concepts == (2, 2, 2)


def test_what_is_still_no_information_is_not_raised() -> None:
    networks, labels = made_informative()
    (raised, *_) = changes_of(networks, labels)
    assert raised.verdict == "raised"
    assert replace(raised, after_value=0.0).verdict == "no change shown"


def test_rarest_tenth_of_a_table_worked_out_by_hand() -> None:
    # Frequencies 0.1, 0.01 and 0.5: means of their logarithms, by the concepts that a picture has.
    frequency = np.array([0.1, 0.01, 0.5])
    present = np.zeros((20, 3), bool)
    present[3] = [True, True, False]  # -3.45
    present[7] = [False, True, False]  # -4.61, the rarest
    present[9] = [False, True, True]  # -2.65
    present[11] = [True, False, False]  # -2.30
    assert np.flatnonzero(rarest_tenth(present, frequency)).tolist() == [3, 7]
    assert np.flatnonzero(rarest_tenth(present[:9], frequency)).tolist() == [7]
    assert np.flatnonzero(rarest_tenth(present[8:12], frequency)).tolist() == [1]


def test_rarest_tenth_with_concepts_never_seen_before_and_with_none_at_all() -> None:
    found = rarest_tenth(np.array([[True, True], [True, False], [False, False]]), np.array([0.0, 1.0]))
    assert found.tolist() == [False, True, False]
    assert rarest_tenth(np.zeros((30, 2), bool), np.array([0.1, 0.2])).sum() == 3


def uses_of(orders, right, *, top: int = 2) -> dict[str, RunUse]:
    present = np.zeros((10, 5), bool)
    present[4, 3] = present[5, 1] = True
    found = run_uses(
        (PRETRAINED, "a", "b"),
        orders,
        right,
        present=present,
        frequency=np.array([0.3, 0.2, 0.3, 0.01, 0.001]),
        rare=np.array([False, True, False, True, False]),
        useful=np.array([True, True, True, True, False]),
        top=top,
    )
    return {use.name: use for use in found}


def test_coverage_and_accuracy_counted_by_hand() -> None:
    order = np.tile([5.0, 1, 4, 3, 2], (10, 1))  # first concepts 0 and 2
    order[:3, 3] = 9
    right = np.arange(10) != 4
    found = uses_of({"a": order, PRETRAINED: -order}, {"a": right, "b": ~right})
    assert found["a"].coverage == wilson(3, 10)
    assert found[PRETRAINED].coverage == wilson(10, 10)  # first concepts 1 and 4, or 1 first of all
    assert found["b"].coverage is None
    assert (found["a"].rarest_tenth, found["a"].others) == (wilson(0, 1), wilson(9, 9))
    assert (found["b"].rarest_tenth, found["b"].others) == (wilson(1, 1), wilson(0, 9))
    assert found[PRETRAINED].rarest_tenth is None
    assert found[PRETRAINED].others is None
    assert {use.top for use in found.values()} == {2}


@pytest.mark.parametrize("top", [1, 2, 3, 4, 9])
def test_chance_of_coverage_is_that_of_all_draws_counted_out(top: int) -> None:
    draws = list(combinations(range(5), min(top, 5)))
    expected = np.mean([bool({1, 3} & set(draw)) for draw in draws])
    found = uses_of({}, {}, top=top)["a"]
    assert found.chance == pytest.approx(expected)
    assert found.top == min(top, 5)


def test_coverage_of_random_orders_is_at_chance() -> None:
    rng = np.random.default_rng(7)
    rare = np.arange(40) < 3
    found = run_uses(
        ("run",),
        {"run": rng.random((2000, 40))},
        {},
        present=np.zeros((2000, 40), bool),
        frequency=np.full(40, 0.1),
        rare=rare,
        useful=rare,
        top=10,
    )[0]
    assert found.coverage.low < found.chance < found.coverage.high


def test_without_useful_concepts_no_picture_is_rarest() -> None:
    found = run_uses(
        ("run",),
        {},
        {"run": np.ones(4, bool)},
        present=np.ones((4, 3), bool),
        frequency=np.full(3, 0.1),
        rare=np.zeros(3, bool),
        useful=np.zeros(3, bool),
        top=2,
    )[0]
    assert found.rarest_tenth is None
    assert found.others is None
    assert found.chance == 0


def test_results_survive_saving(tmp_path) -> None:
    networks, labels = made_informative()
    change = changes_of(networks, labels)[0]
    use = uses_of({"a": np.eye(10, 5)}, {"a": np.ones(10, bool)})["a"]
    for result in (change, use):
        save_result(result, tmp_path / "result.json")
        assert load_result(type(result), tmp_path / "result.json") == result
