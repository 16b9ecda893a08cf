"""Lists of known data sets that name pictures of the machine: none of them is listed or read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniatures import opened, picture, text

from concept_tuning.config import DataConfig
from concept_tuning.data.known.catalogue import BY_NAME
from concept_tuning.data.known.files import Listed, picture_table
from concept_tuning.errors import DataError

OUT = "listed, but it leads out of the data folder; put a copy inside"


def waterbirds_names(root: Path, names: list[str]) -> None:
    path = root / "waterbird_complete95_forest2water2" / "metadata.csv"
    lines = path.read_text().splitlines()
    text(path, lines + [f"{100 + n},{name},{n % 2},0,0,x" for n, name in enumerate(names)])


def cub_names(root: Path, names: list[str]) -> None:
    base = root / "CUB_200_2011"
    for file, line in (
        ("images.txt", "{name}"), ("image_class_labels.txt", "1"), ("train_test_split.txt", "1"),
        ("bounding_boxes.txt", "1.0 1.0 2.0 2.0"),
    ):  # fmt: skip
        lines = (base / file).read_text().splitlines()
        text(base / file, lines + [f"{100 + n} {line.format(name=name)}" for n, name in enumerate(names)])


def food_names(root: Path, names: list[str]) -> None:
    path = root / "food-101" / "meta" / "train.json"
    found = json.loads(path.read_text())
    found["waffles"] += [name.removesuffix(".jpg") for name in names]
    path.write_text(json.dumps(found))


#: What adds pictures to the lists of a data set, and how many folders below its root names begin.
NAMED: dict[str, tuple[Callable[[Path, list[str]], None], int]] = {
    "waterbirds": (waterbirds_names, 1),
    "cub200": (cub_names, 2),
    "food101": (food_names, 2),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_list_cannot_name_pictures_that_lie_elsewhere(name: str, laid_out, tmp_path: Path) -> None:
    root = laid_out(name)
    whole = opened(name, root)
    add, depth = NAMED[name]
    picture(tmp_path / "beside" / "secret.jpg")
    add(root, ["../" * (depth + 1) + f"beside/{what}.jpg" for what in ("secret", "none")])
    table = opened(name, root)
    assert table.keys == whole.keys
    assert [problem.reason for problem in table.problems] == [OUT, OUT]


def test_an_absolute_name_in_a_list_is_no_way_out(laid_out, tmp_path: Path) -> None:
    root = laid_out("waterbirds")
    secret = picture(tmp_path / "secret.jpg")
    waterbirds_names(root, [str(secret), str(tmp_path / "none.jpg")])
    assert [(problem.key, problem.reason) for problem in opened("waterbirds", root).problems] == [
        (str(secret), OUT),
        (str(tmp_path / "none.jpg"), OUT),
    ]
    root = root.rename(tmp_path / "other")
    text(root / "waterbird_complete95_forest2water2" / "metadata.csv", ["img_filename,y,split,place", "a\0.jpg,0,0,0"])
    with pytest.raises(DataError, match="no picture of classes 'landbird', 'waterbird' is there"):
        opened("waterbirds", root)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("waterbirds", "waterbird_complete95_forest2water2/000.Bird"),
        ("cub200", "CUB_200_2011/images/001.Black_footed_Albatross"),
        ("dtd", "dtd/dtd/images/banded"),
        ("eurosat", "eurosat/2750/River"),
        ("imagenet-folder", "train/n01443537"),
    ],
)
def test_a_link_within_a_data_set_leads_nowhere_else_as_in_a_folder_of_ones_own(
    name: str, inner: str, laid_out, tmp_path: Path
) -> None:
    root = laid_out(name)
    whole = opened(name, root)
    for target in (root.parent / "elsewhere", root / Path(inner).parent / "beside"):
        place = root / inner
        real = place.resolve()
        place.unlink() if place.is_symlink() else None
        real.rename(target)
        place.symlink_to(target)
        if target.is_relative_to(root):
            assert len(opened(name, root)) >= len(whole)  # a link to a place within is followed
        else:
            with pytest.raises(DataError):  # since a class has no pictures
                opened(name, root)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("waterbirds", "waterbird_complete95_forest2water2"),
        ("cub200", "CUB_200_2011"),
        ("dtd", "dtd"),
        ("eurosat", "eurosat"),
        ("eurosat", "eurosat/2750"),
        ("caltech101", "caltech101/101_ObjectCategories"),
        ("imagenet-folder", "train"),
        ("imagenet-folder", "val"),
        ("isic", ""),
    ],
)
def test_the_folder_of_a_data_set_may_be_a_link(name: str, inner: str, laid_out, tmp_path: Path) -> None:
    root = laid_out(name)
    whole = opened(name, root)
    (root / inner).rename(tmp_path / "disk")
    (root / inner).symlink_to(tmp_path / "disk")
    table = opened(name, root)
    assert (table.keys, table.problems) == (whole.keys, whole.problems)
    np.testing.assert_array_equal(table.read(0), whole.read(0))


def test_a_pipe_in_place_of_a_picture_is_left_out(laid_out) -> None:
    root = laid_out("dtd")
    place = root / "dtd" / "dtd" / "images" / "woven" / "woven_0000.jpg"
    place.unlink()
    os.mkfifo(place)
    assert [problem.reason for problem in opened("dtd", root).problems] == ["listed, but not a regular file"]


def test_a_hundred_thousand_pictures_are_looked_at_quickly(tmp_path: Path) -> None:
    known = BY_NAME["waterbirds"]
    listed = []
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(500):
            os.close(os.open(tmp_path / str(folder) / f"{number}.jpg", os.O_CREAT))
            listed.append(Listed(path=f"{folder}/{number}.jpg", class_name=str(folder % 2)))
    listed += [Listed(path=f"{folder}/x{number}.jpg", class_name="0") for folder in range(20) for number in range(4500)]
    start = time.process_time()
    table = picture_table(known, tmp_path, listed, ["0", "1"], DataConfig())
    assert time.process_time() - start < 8
    assert len(table) == 10_000
    assert len(table.problems) == 90_000


def test_names_in_messages_do_not_act_on_a_terminal(laid_out) -> None:
    root = laid_out("cub200")
    base = root / "CUB_200_2011"
    text(base / "images.txt", [*(base / "images.txt").read_text().splitlines(), "9\x1b[2J a.jpg"])
    with pytest.raises(DataError) as caught:
        opened("cub200", root)
    assert "picture 9\\x1b[2J." in str(caught.value)
    assert "\x1b" not in str(caught.value)
