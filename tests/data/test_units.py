"""Pictures of one plant or patient: how they are told, and splits that do not part them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data.archives import archive_table
from concept_tuning.data.csv_file import csv_table
from concept_tuning.data.folders import folder_table
from concept_tuning.data.registry import load_data
from concept_tuning.data.splits import split_table
from concept_tuning.data.survey import survey
from concept_tuning.data.table import ImageTable
from concept_tuning.data.units import Units, partition, units_by_rule
from concept_tuning.errors import ConfigError, DataError
from concept_tuning.settings import build_config


def split(labels: np.ndarray, units: np.ndarray, config: DataConfig | None = None, **columns) -> dict[str, np.ndarray]:
    """Split pictures whose units have numbers."""
    return split_table(
        labels,
        columns.get("groups"),
        columns.get("given"),
        config or DataConfig(),
        class_names=[f"class{n}" for n in range(int(labels.max()) + 1)],
        units=Units(units, tuple(f"unit{n}" for n in range(int(units.max()) + 1))),
    )


def sides_of(parts: dict[str, np.ndarray], units: np.ndarray) -> dict[int, set[str]]:
    """Return the splits that each unit's pictures are in."""
    found: dict[int, set[str]] = {}
    for name, rows in parts.items():
        for unit in units[rows].tolist():
            found.setdefault(unit, set()).add(name)
    return found


def write(root: Path, *names: str) -> Path:
    """Write small pictures, each of another colour."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 7 % 256, number * 3 % 256, 99)).save(path)
    return root


def together(table: ImageTable) -> set[frozenset[str]]:
    """Return the units of several pictures as sets of keys."""
    assert table.units is not None
    found: dict[int, set[str]] = {}
    for key, code in zip(table.keys, table.units.codes.tolist(), strict=True):
        found.setdefault(code, set()).add(key)
    return {frozenset(keys) for keys in found.values() if len(keys) > 1}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=12, max_size=60),
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45)),
)
@settings(max_examples=60)
def test_no_unit_is_on_two_sides_and_all_pictures_are_used(sizes, seed, fractions) -> None:
    sizes = [(size, number % 3) for number, (size, _) in enumerate(sizes)]
    units = np.repeat(np.arange(len(sizes)), [size for size, _ in sizes])
    labels = np.array([label for size, label in sizes for _ in range(size)])
    shuffled = np.random.default_rng(0).permutation(len(units))
    config = DataConfig(data_seed=seed, validation_fraction=fractions[0], test_fraction=fractions[1])
    parts = split(labels[shuffled], units[shuffled], config)
    assert all(len(sides) == 1 for sides in sides_of(parts, units[shuffled]).values())
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(units)))
    for name, rows in parts.items():
        assert np.bincount(labels[shuffled][rows], minlength=3).min() >= 1, name


def test_shares_are_kept_to_within_half_a_unit_for_many_units() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, 300)
    units = np.repeat(np.arange(300), sizes)
    labels = np.repeat(rng.integers(0, 3, 300), sizes)
    parts = split(labels, units, DataConfig(validation_fraction=0.1, test_fraction=0.2))
    for label in range(3):
        of_class = np.sum(labels == label)
        assert abs(np.sum(labels[parts["test"]] == label) - 0.2 * of_class) <= 6
        assert abs(np.sum(labels[parts["val"]] == label) - 0.1 * of_class) <= 6


def test_a_large_unit_is_left_to_training() -> None:
    units = np.array([0] * 30 + [1, 2] + [3] * 30 + [4, 5])
    labels = np.repeat([0, 1], 32)
    for seed in range(5):
        parts = split(labels, units, DataConfig(data_seed=seed))
        assert sorted(units[parts["train"]]) == [0] * 30 + [3] * 30


def test_groups_keep_their_share_as_well_as_units_allow() -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(200), 3)
    labels = np.repeat(np.arange(200) % 2, 3)
    groups = np.repeat(rng.permutation(np.arange(200) % 10 == 0).astype(np.int64), 3)
    for seed in range(10):
        parts = split(labels, units, DataConfig(data_seed=seed), groups=groups)
        # 60 of the 600 pictures are of the rare group: 12 of them for the test, in units of three
        assert 6 <= np.sum(groups[parts["test"]]) <= 18


def test_units_of_several_classes_stay_whole() -> None:
    units = np.repeat(np.arange(12), 6)
    labels = np.tile([0, 0, 1, 1, 1, 2], 12)
    parts = split(labels, units)
    assert {len(sides) for sides in sides_of(parts, units).values()} == {1}
    assert {name: len(np.unique(units[rows])) for name, rows in parts.items()} == {"train": 8, "val": 2, "test": 2}


def test_rare_classes_of_patients_who_have_several_are_on_every_side() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        common = [(patient, label) for patient in range(40) for label in rng.choice(4, 3, replace=False)]
        rare = [(patient, 4 + label) for label in range(4) for patient in rng.choice(40, 4, replace=False)]
        units, labels = np.array([pair for pair in (*common, *rare) for _ in range(2)]).T
        parts = split(labels, units, DataConfig(data_seed=seed))
        assert {len(sides) for sides in sides_of(parts, units).values()} == {1}
        assert all(np.bincount(labels[rows], minlength=8).min() > 0 for rows in parts.values())


def test_many_units_and_classes_are_cut_in_seconds() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20_000), 2)
    labels = np.repeat(rng.integers(0, 300, 20_000), 2)
    before = time.perf_counter()
    parts = split(labels, units)
    assert time.perf_counter() - before < 20  # 2 s on one slow core
    assert len(parts["test"]) == pytest.approx(8000, abs=100)


def test_what_is_of_one_unit_has_a_fingerprint_that_names_do_not_change() -> None:
    keys, rows = ("c", "a", "b", "d"), np.array([0, 1, 2])
    found = partition(Units.of(["p", "q", "p", "r"], keys), rows, keys)
    assert found == partition(Units.of(["x", "p", "x", "p"], keys), rows, keys)
    assert found != partition(Units.of(["p", "q", "q", "r"], keys), rows, keys)
    assert partition(Units.of(["p", "q", "p", "r"], keys), np.array([0, 1]), keys) is None


def test_the_seed_decides() -> None:
    units, labels = np.repeat(np.arange(40), 2), np.repeat([0, 1], 40)
    first, again, other = (split(labels, units, DataConfig(data_seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test"], other["test"])


def test_a_given_test_stays_and_validation_is_cut_by_unit() -> None:
    units, labels = np.repeat(np.arange(20), 3), np.tile(np.repeat([0, 1], 3), 10)
    codes = np.where(units >= 16, 2, 0).astype(np.int8)
    parts = split(labels, units, given=codes)
    assert np.array_equal(parts["test"], np.flatnonzero(codes == 2))
    assert {len(sides) for sides in sides_of(parts, units).values()} == {1}
    assert len(parts["val"]) == 12  # two units of each class: 20 % of 24 pictures are 4.8


def test_training_is_thinned_after_the_units_are_cut() -> None:
    units, labels = np.repeat(np.arange(20), 10), np.repeat(np.arange(20) % 2, 10)
    whole, half = split(labels, units), split(labels, units, DataConfig(sample_rate=50))
    assert np.array_equal(whole["test"], half["test"])
    assert set(half["train"]) < set(whole["train"])
    assert len(half["train"]) * 2 == len(whole["train"])


def test_given_splits_that_part_a_unit_are_refused_by_its_name() -> None:
    units, labels = np.array([0, 0, 1, 2, 3, 4]), np.array([0, 0, 1, 1, 0, 1])
    with pytest.raises(DataError, match=r"'unit0' are in the train and the test split"):
        split(labels, units, given=np.array([0, 2, 0, 2, 1, 1], dtype=np.int8))


def test_too_few_units_are_refused_with_class_count_and_the_largest() -> None:
    units, labels = np.array([0] * 10 + [1, 2, 3, 4]), np.array([0] * 10 + [0, 1, 1, 1])
    with pytest.raises(DataError, match=r"Too few units for class 'class0' \(2\): at least 3.*largest is 'unit0'"):
        split(labels, units)


def test_units_of_several_classes_that_cannot_be_shared_out_are_refused() -> None:
    # Three units of each class, which then are on three sides: so 1 and 3 are on one side for the classes 1 and 2, and
    # are not for class 0.
    labels, units = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), np.array([1, 2, 3, 3, 4, 5, 1, 4, 5])
    with pytest.raises(DataError, match="without parting a unit; some have pictures of several classes"):
        split(labels, units)


@pytest.mark.parametrize(
    ("rule", "paths", "units"),
    [
        ("folder", ["p1/a.jpg", "p1/b.jpg", "p2/a.jpg", "c.jpg", "d.jpg"], [0, 0, 1, 2, 3]),
        ("folder", ["p1/left/a.jpg", "p1/right/a.jpg", "p1/left/b.jpg"], [0, 1, 0]),
        ("prefix", ["leaf7_1.jpg", "leaf7_2.jpg", "leaf8_1.jpg", "lone.jpg"], [0, 0, 1, 2]),
        ("prefix", ["leaf 7 (1).jpg", "leaf 7 (2).jpg", "leaf-7.jpg", "leaf-8.jpg"], [0, 0, 1, 1]),
        ("prefix", ["a_1.jpg", "sub/a_1.jpg", "a_2.jpg", "_1.jpg", "_2.jpg"], [0, 1, 0, 2, 3]),
        ("prefix", ["leaf_7_1.jpg", "leaf_7_2.v2.jpg", "leaf_8_1.jpg"], [0, 0, 1]),
        ("prefix", ["leaf3.jpg", "leaf3 (1).jpg", "leaf4.jpg", "leaf3 (2).jpg"], [0, 0, 1, 0]),
        (
            "prefix",
            ["leaf3.jpg", "leaf3 - Copy.jpg", "leaf4.jpg", "leaf4 copy.jpg", "leaf4 copy 2.jpg"],
            [0, 0, 1, 1, 1],
        ),
        (
            "prefix",
            ["p7_1.jpg", "p7_2.jpg", "p7_1 (1).jpg", "p7_1_crop.jpg", "p7_1_crop_2.jpg", "p8.jpg"],
            [0] * 5 + [1],
        ),
        ("prefix", ["a\nb_1.jpg", "a\nb_2.jpg", "x_y\nz.jpg"], [0, 0, 1]),
    ],
)
def test_paths_tell_units_by_the_rule(rule, paths, units) -> None:
    found = units_by_rule(rule, paths)
    assert found is not None
    assert found.codes.tolist() == units
    assert len(found.names) == max(units) + 1


@pytest.mark.parametrize(("rule", "told"), [("folder", "no class folder has folders"), ("prefix", "no two names")])
def test_a_rule_by_which_no_pictures_are_together_is_refused(rule, told) -> None:
    with pytest.raises(DataError, match=f"{told}.* by which units={rule} tells"):
        units_by_rule(rule, ["a.jpg", "b.jpg", "p/c.jpg"])
    for none in ("listed", "none"):
        assert units_by_rule(none, ["a_1.jpg", "a_2.jpg"]) is None


class TestSources:
    def test_folders_in_class_folders(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{name}/p{n}/{k}.png" for name in ("rust", "well") for n in range(4) for k in (1, 2)))
        write(tmp_path, "rust/lone.png")
        table = folder_table(tmp_path, DataConfig(units="folder"))
        # p0 of both classes is taken for one plant: better too coarse than parted
        assert frozenset({"rust/p0/1.png", "rust/p0/2.png", "well/p0/1.png", "well/p0/2.png"}) in together(table)
        assert len(together(table)) == 4
        assert table.validation_words == "like training, by whole units"
        assert folder_table(tmp_path, DataConfig()).units is None

    def test_names_that_begin_alike_below_split_folders(self, tmp_path: Path) -> None:
        parts = [("train", 8), ("test", 3)]
        write(
            tmp_path / "in",
            *(
                f"{part}/{name}/{part}{n}_{k}.png"
                for part, several in parts
                for name in "ab"
                for n in range(several)
                for k in "12"
            ),
        )
        config = build_config(
            overrides={"data.source": str(tmp_path / "in"), "data.units": "prefix", "data.cache_dir": str(tmp_path)}
        )
        bundle = load_data(config)
        assert {key.split("/")[0] for key in bundle.splits["test"].keys} == {"test"}
        plants = [{key.rsplit("_")[0].split("/")[-1] for key in bundle.splits[name].keys} for name in ("train", "val")]
        assert not plants[0] & plants[1]

    def test_a_column_of_a_list(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{n}.png" for n in range(8)))
        lines = ["path,label,Patient ID", *(f"{n}.png,{'ab'[n // 4]},{('x', 'x', 'y', '')[n % 4]}" for n in range(8))]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        table = csv_table(tmp_path / "list.csv", DataConfig())
        assert together(table) == {frozenset({"0.png", "1.png", "4.png", "5.png"}), frozenset({"2.png", "6.png"})}
        with pytest.raises(DataError, match=r"list.csv: the column of units and data.units=prefix both tell"):
            csv_table(tmp_path / "list.csv", DataConfig(units="prefix"))
        assert csv_table(tmp_path / "list.csv", DataConfig(units="none")).units is None

    @pytest.mark.parametrize("unknown", ["NA", "n/a", "nan", "None", "-"])
    def test_pictures_of_unknown_units_are_not_of_one(self, unknown: str, tmp_path: Path) -> None:
        write(tmp_path, *(f"{n}.png" for n in range(4)))
        lines = ["path,label,patient", *(f"{n}.png,{'ab'[n % 2]},{unknown if n else 'x'}" for n in range(4))]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        assert together(csv_table(tmp_path / "list.csv", DataConfig())) == set()

    def test_two_columns_of_units_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png")
        (tmp_path / "list.csv").write_text("path,label,unit,patient\n1.png,a,1,1\n")
        with pytest.raises(DataError, match=r"'unit' and 'patient' both name the unit"):
            csv_table(tmp_path / "list.csv", DataConfig())

    def test_a_list_without_the_column_goes_by_the_rule(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"p{n}/{k}.png" for n in range(4) for k in "12"))
        (tmp_path / "list.csv").write_text(
            "path,label\n" + "".join(f"p{n}/{k}.png,{'ab'[n % 2]}\n" for n in range(4) for k in "12")
        )
        assert len(together(csv_table(tmp_path / "list.csv", DataConfig(units="folder")))) == 4

    def test_an_archive_has_the_folders_of_its_content(self, tmp_path: Path) -> None:
        write(tmp_path / "in", *(f"{name}/p{n}/{k}.png" for name in "ab" for n in range(3) for k in "12"))
        archive = Path(shutil.make_archive(str(tmp_path / "pictures"), "zip", tmp_path / "in"))
        table = archive_table(archive, DataConfig(units="folder", cache_dir=str(tmp_path / "cache")))
        assert len(together(table)) == 3

    def test_pictures_that_are_not_the_users_own_have_no_rule(self) -> None:
        with pytest.raises(ConfigError, match="pictures of your own"):
            build_config(overrides={"data.source": "planted", "data.units": "folder"})

    def test_the_survey_counts_them(self, tmp_path: Path) -> None:
        pictures = write(
            tmp_path / "in",
            *(f"{name}/{name}{n}_{k}.png" for name in ("rust", "well") for n in range(5) for k in "123"),
        )
        alone = {"data.source": str(pictures), "data.cache_dir": str(tmp_path / "cache")}
        config = build_config(overrides={**alone, "data.units": "prefix"})
        for check in (False, True):
            assert survey(config, check=check).units == {"train": 6, "val": 2, "test": 2}
        assert survey(build_config(overrides=alone)).units is None
