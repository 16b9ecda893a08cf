from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.groups import GroupTable, group_table
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.statistics import wilson
from concept_tuning.engine.evaluation import PREDICTION, Predictions, evaluate

CLASSES, GROUPS = ("owl", "tern", "wren"), ("land", "sea")


def counted(cells: dict[tuple[int, int], tuple[int, int]], order: np.random.Generator | None = None) -> GroupTable:
    """Table of cells (class, group) with (right, count) pictures, in any order."""
    rows = np.array([(c, g, c if i < hits else c - 1) for (c, g), (hits, n) in cells.items() for i in range(n)])
    if order is not None:
        rows = order.permutation(rows)
    found = group_table(
        labels=rows[:, 0], predictions=rows[:, 2], groups=rows[:, 1], class_names=CLASSES, group_names=GROUPS
    )
    assert isinstance(found, GroupTable)
    return found


CELLS = {(0, 0): (9, 10), (0, 1): (3, 5), (1, 0): (1, 4), (1, 1): (6, 6)}


def test_every_number_is_counted_by_hand(tmp_path) -> None:
    found = counted(CELLS)
    assert found.average == wilson(19, 25)
    assert (found.worst.class_name, found.worst.group, found.worst.accuracy) == ("tern", "land", wilson(1, 4))
    assert found.gap == pytest.approx(19 / 25 - 1 / 4)
    assert {(cell.class_name, cell.group): cell.accuracy for cell in found.cells} == {
        (CLASSES[c], GROUPS[g]): wilson(hits, n) for (c, g), (hits, n) in CELLS.items()
    }
    assert {rate.name: rate.accuracy for rate in found.classes} == {"owl": wilson(12, 15), "tern": wilson(7, 10)}
    assert {rate.name: rate.accuracy for rate in found.groups} == {"land": wilson(10, 14), "sea": wilson(9, 11)}
    assert found.counts.tolist() == [[10, 5], [4, 6], [0, 0]]
    assert found.right.tolist() == [[9, 3], [1, 6], [0, 0]]
    assert "4 cells rests on 4 pictures" in found.caveat
    assert "biased low" in found.caveat
    save_result(found, tmp_path / "groups.json")
    again = load_result(GroupTable, tmp_path / "groups.json")
    assert again.cells == found.cells
    assert np.array_equal(again.counts, found.counts)


def test_the_order_of_the_pictures_does_not_matter() -> None:
    found, mixed = counted(CELLS), counted(CELLS, np.random.default_rng(0))
    assert mixed.cells == found.cells
    assert (mixed.worst, mixed.p_even) == (found.worst, found.p_even)


def test_chance_explains_the_worst_of_even_small_cells_but_not_a_broken_one() -> None:
    even = counted({(c, g): (6, 8) for c in range(3) for g in range(2)})
    assert even.worst_if_even < 0.6
    assert even.p_even > 0.99
    broken = counted({(c, g): (40, 40) for c in range(3) for g in range(2)} | {(2, 1): (8, 40)})
    assert broken.worst_if_even > 0.7
    assert broken.p_even < 0.001


def test_the_minimum_by_chance_of_two_cells_is_the_closed_form() -> None:
    """Two cells of one picture each, right with 1/2: the smaller is 1 with chance 1/4."""
    found = counted({(0, 0): (1, 1), (1, 0): (0, 1)})
    assert found.worst_if_even == pytest.approx(0.25, abs=0.03)
    assert "1 picture," in found.caveat


def test_the_table_agrees_with_the_evaluation_of_the_run(subjects, pictures) -> None:
    features = compute_features(subjects[0], pictures)
    names = pictures.bundle.class_names, pictures.bundle.group_names
    found = group_table(
        labels=pictures.labels,
        predictions=features.predicted,
        groups=pictures.groups,
        class_names=names[0],
        group_names=names[1],
    )
    expected = evaluate(
        Predictions({PREDICTION: features.probabilities}, pictures.labels, pictures.groups),
        split="test",
        class_names=names[0],
        group_names=names[1],
    )
    assert isinstance(found, GroupTable)
    assert found.average.value == expected.accuracy
    assert found.worst.accuracy.value == expected.worst_group_accuracy
    assert f"{found.worst.class_name} | {found.worst.group}" == expected.worst_group


def test_of_one_cell_alone_no_bias_is_told() -> None:
    assert counted({(0, 1): (3, 5)}).caveat == "There is only one cell, of 5 pictures, so it is also the average."


def test_without_groups_it_says_what_is_missing() -> None:
    labels = np.zeros(3, int)
    common = {"labels": labels, "predictions": labels, "class_names": CLASSES}
    for groups, names in ((None, ()), (labels, ())):
        found = group_table(**common, groups=groups, group_names=names)
        assert isinstance(found, Unavailable)
        assert "no groups" in found.reason
    none = labels[:0]
    found = group_table(labels=none, predictions=none, groups=none, class_names=CLASSES, group_names=GROUPS)
    assert isinstance(found, Unavailable)
    assert found.reason == "There are no pictures."
    with pytest.raises(ValueError, match=r"groups must be in 0\.\.1"):
        group_table(**common, groups=labels + 2, group_names=GROUPS)
    with pytest.raises(ValueError, match=r"must be \(n,\)"):
        group_table(**common, groups=labels[:2], group_names=GROUPS)


@pytest.mark.parametrize(
    ("layout", "concentration", "alarms"),
    [
        ([(10, 8)] * 4, 2, 10),
        ([(60, 2)] * 3 + [(4, 40)], 2, 15),
        ([(40, 20)] * 3 + [(8, 1)], None, 0),  # a rare cell of small units
    ],
)
def test_cells_that_are_equally_hard_are_seldom_told_apart_where_plants_differ(layout, concentration, alarms) -> None:
    """Over pictures they are told apart often, unless units are as good as none."""
    rng = np.random.default_rng(0)
    told = {"units": 0, "pictures": 0}
    sizes = np.concatenate([np.full(several, pictures) for several, pictures in layout])
    units = np.repeat(np.arange(len(sizes)), sizes)
    cells = np.repeat(np.repeat(np.arange(4), [several for several, _ in layout]), sizes)
    labels, groups = cells // 2, cells % 2
    for _ in range(100):
        hard = np.full(len(sizes), 0.8)
        if concentration is not None:
            hard = rng.beta(0.8 * concentration, 0.2 * concentration, len(sizes))
        right = rng.random(len(units)) < hard[units]
        for name, column in (("units", units), ("pictures", None)):
            table = group_table(
                labels=labels,
                predictions=np.where(right, labels, 1 - labels),
                groups=groups,
                class_names=("a", "b"),
                group_names=("g", "h"),
                units=column,
            )
            assert isinstance(table, GroupTable)
            assert table.p_even is not None
            told[name] += table.p_even < 0.05
    assert told["units"] <= 8
    assert told["pictures"] >= alarms


def test_a_cell_that_is_harder_is_told_of_over_units_too() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(80), 5)
    cells = units // 20
    right = rng.random(400) < np.where(cells == 3, 0.4, 0.9) + rng.uniform(-0.1, 0.1, 80)[units]
    labels = cells // 2
    table = group_table(
        labels=labels,
        predictions=np.where(right, labels, 1 - labels),
        groups=cells % 2,
        class_names=("a", "b"),
        group_names=("g", "h"),
        units=units,
    )
    assert isinstance(table, GroupTable)
    assert table.p_even < 0.01
    assert (table.worst.class_name, table.worst.group) == ("b", "h")


@pytest.mark.parametrize("per_cell", [[1] * 4, [2, 1, 1, 1]])
def test_where_too_few_cells_have_two_units_chance_has_no_part_that_is_known(per_cell: list[int]) -> None:
    """With one unit in a cell, how hard the cell is and how hard the unit is cannot be told apart."""
    cells = np.repeat(np.arange(4), np.array(per_cell) * 20)
    units = np.arange(len(cells)) // 20
    labels = cells // 2
    right = np.arange(len(cells)) % 20 < np.where(cells == 3, 8, 19)
    values = {
        "labels": labels,
        "predictions": np.where(right, labels, 1 - labels),
        "groups": cells % 2,
        "class_names": ("a", "b"),
        "group_names": ("g", "h"),
    }
    found, alone = group_table(**values, units=units), group_table(**values, units=np.arange(len(cells)))
    assert isinstance(found, GroupTable)
    assert isinstance(alone, GroupTable)
    assert (found.p_even, found.worst_if_even) == (None, None)
    assert "cannot be told, since too few cells have two units" in found.caveat
    assert alone.p_even is not None
    assert alone.p_even < 0.01, "a unit of one picture has no likeness"


def test_intervals_of_cells_are_over_units() -> None:
    units = np.repeat(np.arange(30), 4)
    labels, groups = np.repeat(np.arange(30) % 2, 4), np.repeat(np.arange(30) % 3, 4)
    predictions = np.where(units % 5 == 0, 1 - labels, labels)
    names = {"class_names": ("a", "b"), "group_names": ("g", "h", "i")}
    values = {"labels": labels, "predictions": predictions, "groups": groups, **names}
    plain, found = group_table(**values), group_table(**values, units=units)
    assert isinstance(plain, GroupTable)
    assert isinstance(found, GroupTable)
    pairs = [(plain.average, found.average)]
    pairs += [(one.accuracy, other.accuracy) for one, other in zip(plain.classes, found.classes, strict=True)]
    pairs += [(one.accuracy, other.accuracy) for one, other in zip(plain.cells, found.cells, strict=True)]
    for narrow, wide in pairs:
        assert (wide.value, wide.n) == (narrow.value, narrow.n)
        assert wide.high - wide.low > narrow.high - narrow.low
