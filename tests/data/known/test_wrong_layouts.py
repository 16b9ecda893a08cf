"""Files that are not as they should be: each is a sentence that names the place."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from miniatures import cifar10, cub, fashion, isic, opened, picture, text
from torchvision.datasets import CIFAR10

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.known.arrays import ArrayPictures
from concept_tuning.data.known.cub import PART_RADIUS
from concept_tuning.data.known.opening import known_table
from concept_tuning.data.splits import split_table, splits_to_json
from concept_tuning.errors import DataError

#: Of each data set with lists: a picture that they name, and all pictures of one class.
PICTURES = {
    "cub200": ("CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0001.jpg", "*/images/002*/*"),
    "stanford-cars": ("stanford_cars/cars_train/00002.jpg", "*/cars_*/0000[24].jpg"),
    "aircraft": ("fgvc-aircraft-2013b/data/images/1001.jpg", "*/data/images/???[13].jpg"),
    "dtd": ("dtd/dtd/images/woven/woven_0000.jpg", "dtd/dtd/images/woven/*"),
    "flowers102": ("flowers-102/jpg/image_00206.jpg", ""),
    "oxford-pets": ("oxford-iiit-pet/images/great_pyrenees_1.jpg", "*/images/great*"),
    "food101": ("food-101/images/waffles/1.jpg", "*/images/waffles/*"),
    "waterbirds": ("waterbird_complete95_forest2water2/001.Bird/bird_010.jpg", "*/001.Bird/*"),
    "isic": ("ISIC_2019_Training_Input/ISIC_T1000.jpg", "*_Input/ISIC_T1*"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_listed_picture_that_is_missing_is_left_out_and_told(name: str, laid_out) -> None:
    root = laid_out(name)
    whole = opened(name, root)
    gone = root / PICTURES[name][0]
    gone.unlink()
    table = opened(name, root)
    assert len(table) == len(whole) - 1
    (problem,) = table.problems
    assert gone.as_posix().endswith(problem.key)
    assert problem.reason == "listed, but there is no such file"


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "flowers102"])
def test_a_class_without_pictures_is_refused_by_name(name: str, laid_out) -> None:
    root = laid_out(name)
    class_name = opened(name, root).class_names[1 if name != "dtd" else -1]
    gone = sorted(root.glob(PICTURES[name][1]))
    assert gone
    for file in gone:
        file.unlink()
    with pytest.raises(DataError, match=f"no picture of class '{class_name}' is there") as caught:
        opened(name, root)
    assert "Left out:" in str(caught.value)
    assert "Expected below data.root" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("caltech101", "caltech101/101_ObjectCategories/Faces"),
        ("eurosat", "eurosat/2750/River"),
        ("imagenet-folder", "val/n01443537"),
    ],
)
def test_an_empty_class_folder_is_refused_by_name(name: str, folder: str, laid_out) -> None:
    root = laid_out(name)
    for file in (root / folder).iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"the class folder {Path(folder).name} holds no pictures"):
        opened(name, root)


def test_pictures_beside_the_class_folders_are_told(laid_out) -> None:
    root = laid_out("imagenet-folder")
    picture(root / "val" / "ILSVRC2012_val_1.JPEG")
    (problem,) = opened("imagenet-folder", root).problems
    assert (problem.key, problem.reason) == ("val/ILSVRC2012_val_1.JPEG", "lies outside any class folder")
    for folder in ("n01440764", "n01443537"):
        for file in (root / "val" / folder).iterdir():
            file.unlink()
        (root / "val" / folder).rmdir()
    with pytest.raises(DataError, match="there are no class folders"):
        opened("imagenet-folder", root)


def test_a_class_that_training_lacks_is_refused(laid_out) -> None:
    root = laid_out("imagenet-folder")
    picture(root / "val" / "n09999999" / "1.JPEG")
    with pytest.raises(DataError, match="the test split has class 'n09999999', which the train split lacks"):
        opened("imagenet-folder", root)


def test_a_data_set_of_one_class_is_refused(laid_out) -> None:
    root = laid_out("eurosat")
    shutil.rmtree(root / "eurosat" / "2750" / "River")
    with pytest.raises(DataError, match="there is one class; at least two are needed") as caught:
        opened("eurosat", root)
    assert "Expected below data.root" in str(caught.value)


def test_imagenets_names_are_taken_from_torchvisions_file(laid_out) -> None:
    import torch

    root = laid_out("imagenet-folder")
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    torch.save((names, []), root / "meta.bin")
    assert opened("imagenet-folder", root).class_names == ("tench (n01440764)", "goldfish (n01443537)")
    (root / "meta.bin").write_bytes(b"no file of torch")
    with pytest.raises(DataError, match="damaged or laid out in another way"):
        opened("imagenet-folder", root)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt", "1021 Zeppelin"),
        ("dtd", "dtd/dtd/labels/val1.txt", "banded_0001.jpg"),
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_10 one 1 1"),
        ("food101", "food-101/meta/train.json", "{"),
        ("stanford-cars", "stanford_cars/devkit/cars_meta.mat", "no MATLAB file"),
        ("cifar10", "cifar-10-batches-py/data_batch_2", "no pickle"),
    ],
)
def test_damaged_lists_are_refused_with_the_layout(name: str, file: str, content: str, laid_out) -> None:
    root = laid_out(name)
    text(root / file, [content])
    with pytest.raises(DataError, match=r"damaged or laid out in another way \(\w+.*\)\. Expected below data.root:"):
        opened(name, root)


def test_cars_with_a_label_too_many_are_refused(laid_out) -> None:
    from scipy.io import savemat

    root = laid_out("stanford-cars")
    rows = np.array([(1, "00001.jpg"), (3, "00002.jpg")], dtype=[("class", object), ("fname", object)])
    savemat(root / "stanford_cars/devkit/cars_train_annos.mat", {"annotations": rows})
    with pytest.raises(DataError, match=r"damaged or laid out .*label 2 is outside 0\.\.1"):
        opened("stanford-cars", root)


def test_a_picture_that_is_listed_twice_is_refused(laid_out) -> None:
    root = laid_out("oxford-pets")
    text(root / "oxford-iiit-pet/annotations/test.txt", ["Abyssinian_0 1 1 1", "great_pyrenees_0 3 1 1"])
    with pytest.raises(DataError, match=r"name the picture 'images/Abyssinian_0.jpg' twice"):
        opened("oxford-pets", root)


class TestCub:
    def test_masks_are_the_box_and_discs_within_it(self, laid_out) -> None:
        table = opened("cub200", laid_out("cub200"))
        masks = table.masks(0)
        assert list(masks) == ["object", "part:beak", "part:left eye"]
        expected = np.zeros((40, 60), dtype=bool)
        expected[5:35, 10:50] = True
        np.testing.assert_array_equal(masks["object"], expected)
        radius = PART_RADIUS * 40
        rows, columns = np.nonzero(masks["part:left eye"])
        assert (rows.mean(), columns.mean()) == (20, 30)
        assert np.hypot(rows - 20, columns - 30).max() <= radius
        assert masks["part:left eye"].sum() == 13  # a disc of radius 2 around the middle of a pixel
        beak = masks["part:beak"]
        assert beak.any()
        assert not beak[:, :10].any()
        assert not table.masks(1)["part:beak"].any()
        assert table.class_names == ("Black footed Albatross", "Laysan Albatross")

    def test_boxes_end_at_the_picture(self, tmp_path: Path) -> None:
        cub(tmp_path)
        numbers = range(1, 9)
        text(tmp_path / "CUB_200_2011/bounding_boxes.txt", [f"{n} -5.0 -5.0 500.0 500.0" for n in numbers])
        assert opened("cub200", tmp_path).masks(3)["object"].all()

    def test_a_copy_without_truth_says_so(self, tmp_path: Path) -> None:
        cub(tmp_path)
        (tmp_path / "CUB_200_2011/parts/part_locs.txt").unlink()
        table = opened("cub200", tmp_path)
        assert list(table.masks(0)) == ["object"]
        assert [problem.key for problem in table.problems] == ["parts/part_locs.txt"]
        (tmp_path / "CUB_200_2011/bounding_boxes.txt").unlink()
        table = opened("cub200", tmp_path)
        assert table.masks is None
        assert [problem.key for problem in table.problems] == ["bounding_boxes.txt"]

    def test_masks_follow_the_pictures_that_are_left(self, tmp_path: Path) -> None:
        cub(tmp_path)
        (tmp_path / "CUB_200_2011/images/001.Black_footed_Albatross/Black_footed_Albatross_0000.jpg").unlink()
        assert not opened("cub200", tmp_path).masks(0)["part:beak"].any()

    @pytest.mark.parametrize(
        ("file", "lines", "told"),
        [
            ("images.txt", ["1 a.jpg", "nonsense"], "images.txt, line 2"),
            ("image_class_labels.txt", ["1 1"], "image_class_labels.txt: there is no line for picture 2"),
            ("train_test_split.txt", [f"{n} 1" for n in range(1, 10)], "picture 9 is not in images.txt"),
            ("train_test_split.txt", [f"{n} 2" for n in range(1, 9)], "damaged or laid out in another way"),
            ("image_class_labels.txt", [f"{n} 7" for n in range(1, 9)], "damaged or laid out in another way"),
            ("bounding_boxes.txt", [f"{n} 1 2 3" for n in range(1, 9)], "bounding_boxes.txt, line 1"),
            ("parts/part_locs.txt", ["1 9 0.0 0.0 1"], "part_locs.txt, line 1"),
        ],
    )
    def test_lists_that_do_not_fit_are_refused(self, file: str, lines: list[str], told: str, tmp_path: Path) -> None:
        cub(tmp_path)
        text(tmp_path / "CUB_200_2011" / file, lines)
        with pytest.raises(DataError, match=told):
            opened("cub200", tmp_path)


class TestWaterbirds:
    def test_groups_are_the_backgrounds(self, laid_out) -> None:
        table = opened("waterbirds", laid_out("waterbirds"))
        assert (table.class_names, table.group_names) == (("landbird", "waterbird"), ("land", "water"))
        for key, label, group, split in zip(table.keys, table.labels, table.groups, table.splits, strict=True):
            assert key.endswith(f"bird_{split}{label}{group}.jpg")

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            (["img_id,img_filename,y,split"], "there is no column 'place'"),
            (["img_filename,y,split,place", "a.jpg,2,0,0"], "line 2: y is '2'"),
            (["img_filename,y,split,place", "a.jpg,0,,0"], "line 2: split is ''"),
        ],
    )
    def test_other_lists_are_refused(self, lines: list[str], told: str, laid_out) -> None:
        root = laid_out("waterbirds")
        text(root / "waterbird_complete95_forest2water2/metadata.csv", lines)
        with pytest.raises(DataError, match=told):
            opened("waterbirds", root)


def isic_splits(root: Path, **settings) -> dict[str, list[str]]:
    """Return the keys of each split of a miniature."""
    config = DataConfig(source="isic", root=str(root), **settings)
    table = known_table(config)
    parts = split_table(
        table.labels, table.groups, table.splits, config, class_names=table.class_names, units=table.units
    )
    return splits_to_json(parts, table.keys)


class TestIsic:
    def test_groups_are_the_places_and_no_lesion_is_on_two_sides(self, tmp_path: Path) -> None:
        isic(tmp_path)
        table = opened("isic", tmp_path)
        assert table.group_names == ("anterior torso", "head/neck", "not recorded")
        assert table.class_names[:2] == ("melanoma", "melanocytic nevus")
        assert len(table.units.names) == len(table) // 2
        parts = isic_splits(tmp_path)
        sides: dict[str, set[str]] = {}
        for name, keys in parts.items():
            for key in keys:
                sides.setdefault(key[:-5], set()).add(name)
        assert all(len(found) == 1 for found in sides.values())
        assert {name: len(keys) for name, keys in parts.items()} == {"train": 96, "val": 32, "test": 32}
        assert isic_splits(tmp_path, data_seed=1) != parts

    def test_the_official_test_is_used_where_it_is_there(self, tmp_path: Path) -> None:
        isic(tmp_path)
        isic(tmp_path, part="Test", lesions=2, unknown=True)
        table = opened("isic", tmp_path)
        parts = isic_splits(tmp_path)
        assert set(parts["test"]) == {key for key in table.keys if key.startswith("ISIC_2019_Test_Input/")}
        assert len(parts["test"]) == len(parts["val"]) == 32
        (problem,) = table.problems
        assert problem.reason == "4 pictures of the class UNK, which training lacks, are left out"

    @pytest.mark.parametrize(
        ("row", "told"),
        [
            ("ISIC_T0000,0,0,0,0,0,0,0,0,0", "must have a 1 for exactly one of"),
            ("ISIC_T0000,1,1,0,0,0,0,0,0,0", "must have a 1 for exactly one of"),
            ("ISIC_T0000,0,0,0,0,0,0,0,0,1", "must have a 1 for exactly one of"),
            ("ISIC_new,1,0,0,0,0,0,0,0,0", "ISIC_new is not in ISIC_2019_Training_Metadata.csv"),
            ("ISIC_T0000,yes,0,0,0,0,0,0,0,0", "damaged or laid out in another way"),
        ],
    )
    def test_other_truths_are_refused(self, row: str, told: str, tmp_path: Path) -> None:
        isic(tmp_path)
        file = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
        text(file, [file.read_text().splitlines()[0], row])
        with pytest.raises(DataError, match=told):
            opened("isic", tmp_path)


class TestArrays:
    def test_cifars_pictures_are_torchvisions(self, laid_out) -> None:
        root = laid_out("cifar10")
        table = opened("cifar10", root)
        for train, first in ((True, 0), (False, 50)):
            theirs = CIFAR10(root, train=train)
            for place in (0, len(theirs) - 1):
                image, label = theirs[place]
                np.testing.assert_array_equal(table.read(first + place), np.asarray(image))
                assert table.labels[first + place] == label

    def test_a_stamp_follows_its_own_file(self, laid_out) -> None:
        root = laid_out("cifar10")
        before = opened("cifar10", root)
        os.utime(root / "cifar-10-batches-py/test_batch", (1, 1))
        after = opened("cifar10", root)
        assert after.stamp(0) == before.stamp(0)
        assert after.stamp(55) != before.stamp(55)

    def test_files_that_change_after_they_were_opened_are_unreadable(self, tmp_path: Path) -> None:
        fashion(tmp_path)
        table = opened("fashion-mnist", tmp_path)
        file = tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte"
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(UnreadableImage, match="should hold 15680 bytes of values and holds 15675"):
            table.read(0)

    def test_a_file_with_other_pictures_than_when_it_was_opened_is_unreadable(self, tmp_path: Path) -> None:
        fashion(tmp_path)
        table = opened("fashion-mnist", tmp_path)
        file = tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte"
        old = file.read_bytes()
        file.write_bytes(old[:4] + bytes([0, 0, 0, 19]) + old[8:-784])
        with pytest.raises(UnreadableImage, match="another number of pictures than when it was opened"):
            table.read(20)

    def test_files_that_cannot_be_read_are_not_loaded_again_for_each_picture(self) -> None:
        loaded: list[str] = []

        def load() -> list[np.ndarray]:
            loaded.append("damaged")
            raise DataError("cut off or damaged")

        pictures = ArrayPictures(load, ["a", "b"], [2], ["stamp"])
        for row in range(2):
            with pytest.raises(UnreadableImage, match="cut off or damaged"):
                pictures.read(row)
        assert len(loaded) == 1

    def test_a_missing_class_is_refused(self, tmp_path: Path, unchecked) -> None:
        cifar10(tmp_path)
        file = tmp_path / "cifar-10-batches-py/test_batch"
        entry = pickle.loads(file.read_bytes())
        file.write_bytes(pickle.dumps(entry | {"labels": [0] * 10}))
        with pytest.raises(DataError, match="The test split of `cifar10` has no picture of classes 'class 1'"):
            opened("cifar10", tmp_path)

    @pytest.mark.parametrize(
        ("name", "change", "told"),
        [
            ("train-labels-idx1-ubyte", lambda old: old[:-1], "should hold 20 bytes of values and holds 19"),
            ("t10k-labels-idx1-ubyte", lambda old: old[:-1] + bytes([10]), r"lie in 0\.\.10, but there are 10"),
            ("t10k-images-idx3-ubyte", lambda old: b"P6" + old, "t10k-images-idx3-ubyte.gz is no idx file"),
            ("train-images-idx3-ubyte", lambda old: old[:4] + bytes([0, 0, 0, 9]) + old[8:], "holds 9 pictures"),
        ],
    )
    def test_damaged_idx_files_are_refused(self, name: str, change, told: str, tmp_path: Path) -> None:
        fashion(tmp_path, folder="", zipped=True)
        file = tmp_path / f"{name}.gz"
        file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes()))))
        with pytest.raises(DataError, match=told):
            opened("fashion-mnist", tmp_path)

    def test_a_cut_off_archive_and_a_missing_file_are_refused(self, tmp_path: Path) -> None:
        fashion(tmp_path, folder="", zipped=True)
        file = tmp_path / "t10k-labels-idx1-ubyte.gz"
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz is cut off or damaged"):
            opened("fashion-mnist", tmp_path)
        file.unlink()
        with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
            opened("fashion-mnist", tmp_path)
