from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concept_tuning.config import DataConfig
from concept_tuning.data.splits import check_coverage, split_table, splits_from_keys, splits_to_json
from concept_tuning.errors import DataError


def named(count: int) -> list[str]:
    return [f"class{number}" for number in range(count)]


def split(labels, config=None, *, groups=None, given_splits=None, usable=None):
    labels = np.asarray(labels, dtype=np.int64)
    return split_table(
        labels,
        None if groups is None else np.asarray(groups, dtype=np.int64),
        None if given_splits is None else np.asarray(given_splits, dtype=np.int8),
        config or DataConfig(),
        class_names=named(int(labels.max()) + 1),
        usable=usable,
    )


def counts(rows, labels):
    return np.bincount(np.asarray(labels)[rows], minlength=max(labels) + 1).tolist()


def test_counts_of_each_class_follow_the_closed_form():
    labels = [0] * 10 + [1] * 23 + [2] * 3
    parts = split(labels, DataConfig(validation_fraction=0.2, test_fraction=0.3))
    # round half up of 0.3 n and 0.2 n, at least one each, the rest is for training
    assert counts(parts["test"], labels) == [3, 7, 1]
    assert counts(parts["val"], labels) == [2, 5, 1]
    assert counts(parts["train"], labels) == [5, 11, 1]


def test_a_training_picture_is_left_even_where_rounding_would_take_all():
    parts = split([0] * 4 + [1] * 4, DataConfig(validation_fraction=0.49, test_fraction=0.49))
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 2, "val": 2, "test": 4}


@given(
    sizes=st.lists(st.integers(3, 40), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    fractions=st.tuples(st.floats(0.01, 0.49), st.floats(0.01, 0.49)),
)
def test_the_splits_are_a_sorted_partition_with_every_class_in_each(sizes, seed, fractions):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    config = DataConfig(data_seed=seed, validation_fraction=fractions[0], test_fraction=fractions[1])
    parts = split(labels, config)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
    for rows in parts.values():
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert min(counts(rows, labels)) >= 1


def test_the_seed_decides_and_nothing_else():
    labels = [0, 1] * 50
    np.random.seed(1)
    first = split(labels, DataConfig(data_seed=4))
    np.random.seed(2)
    again = split(labels, DataConfig(data_seed=4))
    other = split(labels, DataConfig(data_seed=5))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test"], other["test"])


def test_every_group_of_a_class_gets_its_share_to_within_one():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    groups = rng.choice(3, size=400, p=[0.7, 0.25, 0.05])
    for seed in range(5):
        parts = split(labels, DataConfig(data_seed=seed, test_fraction=0.25), groups=groups)
        for label in (0, 1):
            for group in range(3):
                cell = np.flatnonzero((labels == label) & (groups == group))
                assert abs(np.isin(cell, parts["test"]).sum() - 0.25 * len(cell)) <= 1.0


def test_a_lone_picture_of_a_group_is_tested_as_often_as_any_other():
    labels = np.zeros(20, dtype=np.int64)
    groups = np.array([1] + [0] * 19)
    chosen = sum(
        0 in split(labels, DataConfig(data_seed=seed, test_fraction=0.25), groups=groups)["test"] for seed in range(800)
    )
    # binomial(800, 0.25): deviation 12.2; four of them either side
    assert 150 < chosen < 250


def test_training_shares_are_nested_and_counted():
    labels = [0] * 50 + [1] * 130
    groups = [0, 1] * 90
    whole = split(labels, groups=groups)
    parts = {rate: split(labels, DataConfig(sample_rate=rate), groups=groups) for rate in (0.1, 15, 30, 50, 100)}
    # training holds 30 and 78; round half up of the share, at least one
    assert counts(parts[0.1]["train"], labels) == [1, 1]
    assert counts(parts[15]["train"], labels) == [5, 12]
    assert counts(parts[30]["train"], labels) == [9, 23]
    assert counts(parts[50]["train"], labels) == [15, 39]
    for small, large in ((0.1, 15), (15, 30), (30, 50), (50, 100)):
        assert set(parts[small]["train"]) < set(parts[large]["train"])
    for rate in parts:
        assert np.array_equal(parts[rate]["test"], whole["test"])
        assert np.array_equal(parts[rate]["val"], whole["val"])


def test_per_class_is_a_ceiling_and_nested_too():
    labels = [0] * 10 + [1] * 100
    few = split(labels, DataConfig(per_class=4))
    more = split(labels, DataConfig(per_class=9))
    both = split(labels, DataConfig(per_class=9, sample_rate=10))
    assert counts(few["train"], labels) == [4, 4]
    assert counts(more["train"], labels) == [6, 9]
    assert counts(both["train"], labels) == [1, 6]
    assert set(few["train"]) < set(more["train"])


def test_given_splits_are_kept():
    codes = [0, 0, 1, 2] * 5
    labels = [0] * 8 + [1] * 12
    parts = split(labels, given_splits=codes)
    for code, name in enumerate(("train", "val", "test")):
        assert parts[name].tolist() == np.flatnonzero(np.array(codes) == code).tolist()


@pytest.mark.parametrize(("present", "cut", "fraction"), [(2, "val", 0.25), (1, "test", 0.4)])
def test_a_missing_split_is_cut_from_training(present, cut, fraction):
    labels = np.repeat([0, 1], 30)
    codes = np.where(np.arange(60) % 3 == 0, present, 0)
    parts = split(labels, DataConfig(validation_fraction=0.25, test_fraction=0.4), given_splits=codes)
    assert parts[("train", "val", "test")[present]].tolist() == np.flatnonzero(codes == present).tolist()
    assert counts(parts[cut], labels) == [round(fraction * 20)] * 2
    assert set(parts[cut]).isdisjoint(parts["train"])
    assert len(parts["train"]) == 40 - 2 * round(fraction * 20)


def test_training_alone_given_is_the_same_as_nothing_given():
    labels = [0] * 9 + [1] * 11
    free, given_train = split(labels), split(labels, given_splits=[0] * 20)
    assert all(np.array_equal(free[name], given_train[name]) for name in free)


def test_unusable_rows_take_no_part():
    usable = np.ones(20, dtype=bool)
    usable[[0, 13]] = False
    parts = split([0] * 10 + [1] * 10, usable=usable)
    assert sorted(np.concatenate(list(parts.values()))) == np.flatnonzero(usable).tolist()


def test_a_class_that_is_too_small_is_named_with_its_count():
    with pytest.raises(DataError, match=r"'class1' \(2 usable\): at least 3 .* training, testing and validation"):
        split([0] * 5 + [1] * 2)
    usable = np.array([True] * 5 + [False] * 3)
    with pytest.raises(DataError, match=r"'class1' \(0 usable\)"):
        split([0] * 5 + [1] * 3, usable=usable)
    with pytest.raises(DataError, match=r"'class1' \(1 usable\): at least 2 are needed for training and validation"):
        split([0, 0, 0, 1, 0, 1], given_splits=[0, 0, 0, 0, 2, 2])


def test_many_small_classes_are_not_all_listed():
    with pytest.raises(DataError, match=r"'class4' \(1 usable\) and 3 more"):
        split(list(range(8)))


def test_a_given_split_without_one_class_is_refused():
    with pytest.raises(DataError, match=r"No picture in the test split for class 'class0'"):
        split([0, 0, 0, 1, 1, 1], given_splits=[0, 0, 1, 0, 1, 2])
    with pytest.raises(DataError, match=r"gives a val and a test split but no training split"):
        split([0, 0, 1, 1], given_splits=[1, 2, 1, 2])


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"groups has shape \(2,\), labels \(6,\)"):
        split([0, 0, 0, 1, 1, 1], groups=[0, 1])
    with pytest.raises(ValueError, match=r"split codes lie in 0\.\.3"):
        split([0, 0, 0, 1, 1, 1], given_splits=[0, 0, 0, 0, 0, 3])
    with pytest.raises(ValueError, match=r"labels lie in 0\.\.2, but there are 2"):
        split_table(np.array([0, 2]), None, None, DataConfig(), class_names=named(2))


def test_saved_splits_are_found_again_in_another_order_of_rows():
    labels = [0] * 9 + [1] * 11
    keys = [f"folder/{number:03d}.png" for number in range(20)]
    parts = split(labels)
    saved = json.loads(json.dumps(splits_to_json(parts, keys)))
    shuffled = [keys[row] for row in np.random.default_rng(0).permutation(20)] + ["folder/new.png"]
    found = splits_from_keys(saved, shuffled)
    assert {name: [shuffled[row] for row in rows] for name, rows in found.items()} == saved
    same = splits_from_keys(saved, keys)
    assert all(np.array_equal(same[name], parts[name]) for name in parts)


def test_saved_splits_that_no_longer_fit_are_refused():
    saved = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    with pytest.raises(DataError, match=r"data changed since the split was saved: b, d cannot be found"):
        splits_from_keys(saved, ["a", "c"])
    with pytest.raises(DataError, match=r"e0, e1, e2, e3, e4 and 4 more"):
        splits_from_keys(saved | {"train": [f"e{number}" for number in range(9)]}, ["c", "d"])
    with pytest.raises(DataError, match=re.escape("damaged: a listed more than once")):
        splits_from_keys(saved | {"val": ["a"]}, ["a", "b", "d"])
    with pytest.raises(DataError, match=r"exactly train, val, test; it names train, val"):
        splits_from_keys({"train": ["a"], "val": ["b"]}, ["a", "b"])


def test_coverage_names_class_and_split():
    rows = {"train": np.array([0, 1]), "val": np.array([0])}
    with pytest.raises(DataError, match=r"in the val split for class 'wren'"):
        check_coverage(rows, np.array([0, 1]), ["owl", "wren"])
