from __future__ import annotations

import importlib.util
from collections import Counter
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from PIL import Image

from concept_tuning.config import ElpvConfig, validate
from concept_tuning.data import elpv
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.elpv import elpv_table
from concept_tuning.data.registry import open_table
from concept_tuning.errors import DataError

PIXELS = 1_000_000
LABELS = """images/cell0001.png  1.0                 mono
images/cell0002.png  0.3333333333333333  poly
images/cell0003.png  0.6666666666666666  mono

images/cell0004.png  0.0                 poly
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small stand-in of the package, laid out alike."""
    data = tmp_path / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data / "labels.csv").write_text(LABELS)
    for number in range(1, 5):
        grey = np.random.default_rng(number).integers(0, 256, (30, 30), dtype=np.uint8)
        Image.fromarray(grey).save(data / "images" / f"cell000{number}.png")
    spec = ModuleSpec("elpv_dataset", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "elpv_dataset")]
    monkeypatch.setattr(elpv, "find_spec", lambda name: spec if name == "elpv_dataset" else None)
    return data


def test_defective_is_a_probability_over_one_half(package):
    table = elpv_table(ElpvConfig(), max_pixels=PIXELS)
    assert [table.class_names[label] for label in table.labels] == [
        "defective",
        "functional",
        "defective",
        "functional",
    ]
    assert [table.group_names[group] for group in table.groups] == ["mono", "poly", "mono", "poly"]
    assert table.keys == tuple(f"images/cell000{number}.png" for number in range(1, 5))
    assert table.splits is None
    assert "no module id" in table.validation_note
    assert table.labels.dtype == table.groups.dtype == np.int64


def test_the_source_elpv_has_the_task_and_the_limit_of_the_settings(package):
    settings = {"data": {"source": "elpv", "max_pixels": 899}, "elpv": {"task": "four-class"}}
    table = open_table(validate(settings))
    assert table.class_names == ("0 %", "33 %", "67 %", "100 %")
    with pytest.raises(UnreadableImage, match="at most 899 are allowed"):
        table.read(0)


def test_four_classes_are_named_by_probability(package):
    table = elpv_table(ElpvConfig(task="four-class"), max_pixels=PIXELS)
    assert [table.class_names[label] for label in table.labels] == ["100 %", "33 %", "67 %", "0 %"]


def test_pictures_are_read_one_at_a_time_as_grey_rgb(package):
    table = elpv_table(ElpvConfig(), max_pixels=PIXELS)
    (package / "images" / "cell0002.png").write_bytes(b"not a picture")
    pixels = table.read(0)
    grey = np.random.default_rng(1).integers(0, 256, (30, 30), dtype=np.uint8)
    assert np.array_equal(pixels, np.repeat(grey[..., None], 3, axis=2))
    with pytest.raises(UnreadableImage):
        table.read(1)
    with pytest.raises(UnreadableImage):
        elpv_table(ElpvConfig(), max_pixels=899).read(0)


def test_stamp_changes_with_the_file(package):
    table = elpv_table(ElpvConfig(), max_pixels=PIXELS)
    before = table.stamp(2)
    assert table.stamp(2) == before != table.stamp(3)
    (package / "images" / "cell0003.png").write_bytes(b"another")
    assert table.stamp(2) != before


def test_missing_package_is_named_with_its_command_and_licence(monkeypatch):
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"`pip install elpv-dataset`.*CC BY-NC-SA 4\.0"):
        elpv_table(ElpvConfig(), max_pixels=PIXELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images/cell0001.png 0.5 mono\n", "none of 0, 1/3, 2/3 and 1"),
        ("images/cell0001.png 1.6666666666 mono\n", "none of 0, 1/3, 2/3 and 1"),
        ("images/cell0001.png much mono\n", "cannot be used.*much"),
        ("images/cell0001.png 1.0 thin\n", "cannot be used"),
        ("images/cell0001.png 1.0\n", "cannot be used"),
        ("images/cell0001.png nan mono\n", "none of 0, 1/3, 2/3 and 1"),
        ("", "cannot be used"),
        (None, "cannot be used"),
    ],
)
def test_damaged_labels_are_refused(package, text, said):
    if text is None:
        (package / "labels.csv").unlink()
    else:
        (package / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=f"{said}.*--force-reinstall elpv-dataset"):
        elpv_table(ElpvConfig(), max_pixels=PIXELS)


@pytest.mark.skipif(importlib.util.find_spec("elpv_dataset") is None, reason="the extra `elpv` is not installed")
def test_the_real_package_has_the_published_counts():
    table = elpv_table(ElpvConfig(), max_pixels=PIXELS)
    # Deitsch et al. 2019, and the data set's own page: 2,624 cells, 1,074 of them monocrystalline
    assert len(table) == 2624
    assert np.bincount(table.groups).tolist() == [1074, 1550]
    assert np.bincount(table.labels).tolist() == [1803, 821]
    four = elpv_table(ElpvConfig(task="four-class"), max_pixels=PIXELS)
    assert Counter(four.class_names[label] for label in four.labels) == {
        "0 %": 1508,
        "33 %": 295,
        "67 %": 106,
        "100 %": 715,
    }
    pixels = table.read(2623)
    assert pixels.shape == (300, 300, 3)
    assert pixels.std() > 5
