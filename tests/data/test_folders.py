from __future__ import annotations

import os
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.folders import folder_table, key_text, natural_key
from concept_tuning.data.table import SPLITS
from concept_tuning.errors import DataError

CONFIG = DataConfig()


@pytest.fixture
def put(tmp_path):
    """Write pictures of one colour each; returns the folder they are in."""
    root = tmp_path / "birds"
    root.mkdir()

    def write(*names: str):
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                Image.new("RGB", (3, 2), (number, 0, 9)).save(stream, "PNG")
        return root

    return write


def listed(table) -> dict[str, tuple[str, str | None]]:
    """Key to class name and split."""
    splits = [None] * len(table) if table.splits is None else [SPLITS[code] for code in table.splits]
    return {
        key: (table.class_names[label], split)
        for key, label, split in zip(table.keys, table.labels, splits, strict=True)
    }


def left_out(table) -> dict[str, str]:
    return {problem.key: problem.reason for problem in table.problems}


def test_each_folder_is_a_class_and_pictures_may_lie_deeper(put):
    root = put("wren/b.png", "owl/a.png", "owl/2019/may/c.JPG", "wren/x.y.TIFF")
    table = folder_table(root, CONFIG)
    assert listed(table) == {
        "owl/a.png": ("owl", None),
        "owl/2019/may/c.JPG": ("owl", None),
        "wren/b.png": ("wren", None),
        "wren/x.y.TIFF": ("wren", None),
    }
    assert table.class_names == ("owl", "wren")
    assert table.keys == tuple(sorted(table.keys))
    assert (table.source, table.validation_note, table.groups, table.problems) == (str(root), "like training", None, ())
    assert [table.read(row)[0, 0].tolist() for row in range(4)] == [[2, 0, 9], [1, 0, 9], [0, 0, 9], [3, 0, 9]]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "valid", "testing"), ("TRAIN", "validation", "Test")],
)
def test_split_folders_under_any_of_their_names(put, train, val, test):
    root = put(f"{train}/owl/1.png", f"{train}/wren/1.png", f"{val}/owl/1.png", f"{test}/wren/deep/1.png")
    table = folder_table(root, CONFIG)
    assert listed(table) == {
        f"{train}/owl/1.png": ("owl", "train"),
        f"{train}/wren/1.png": ("wren", "train"),
        f"{val}/owl/1.png": ("owl", "val"),
        f"{test}/wren/deep/1.png": ("wren", "test"),
    }
    assert table.splits.dtype == np.int8
    assert table.validation_note == "given with the data"


@pytest.mark.parametrize(("lacking", "note"), [("val", "like training"), ("test", "given with the data")])
def test_a_lacking_split_is_left_to_be_cut_from_training(put, lacking, note):
    other = {"val": "test", "test": "val"}[lacking]
    table = folder_table(put("train/owl/1.png", "train/wren/1.png", f"{other}/owl/1.png"), CONFIG)
    assert {SPLITS[code] for code in table.splits} == {"train", other}
    assert table.validation_note == note


def test_a_class_may_be_called_train(put):
    table = folder_table(put("train/1.png", "bus/1.png", "bus/2.png"), CONFIG)
    assert table.class_names == ("bus", "train")
    assert table.splits is None


def test_classes_are_sorted_naturally_and_by_case(put):
    names = ["10", "9", "b", "B", "a10", "a9", "a09", "\u00e9", "z"]
    table = folder_table(put(*(f"{name}/1.png" for name in names)), CONFIG)
    assert table.class_names == ("9", "10", "B", "a09", "a9", "a10", "b", "z", "\u00e9")


@given(st.lists(st.text(alphabet="aB01 9é-", max_size=6)))
def test_natural_order_is_total_and_agrees_with_numbers(names):
    ordered = sorted(names, key=natural_key)
    backwards = names[::-1]
    assert ordered == sorted(backwards, key=natural_key)
    assert sorted(ordered) == sorted(names)
    numbers = [name for name in ordered if name.isdigit()]
    assert [int(name) for name in numbers] == sorted(int(name) for name in numbers)


def test_natural_order_of_numbers_too_long_for_an_integer():
    assert natural_key("a" + "9" * 5000) < natural_key("a1" + "0" * 5000)


def test_accents_stored_in_two_ways_are_one_class(put):
    composed, apart = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")
    root = put(f"train/{composed}/1.png", "train/bar/1.png", f"test/{apart}/1.png")
    table = folder_table(root, CONFIG)
    assert table.class_names == ("bar", composed)
    assert f"test/{composed}/1.png" in table.keys
    assert table.read(table.keys.index(f"test/{composed}/1.png"))[0, 0, 0] == 2
    (root / "train" / apart).mkdir()
    (root / "train" / apart / "1.png").write_bytes(b"")
    assert "accents" in left_out(folder_table(root, CONFIG))[f"train/{composed}/1.png"]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_names_that_are_no_text_are_read_and_printable(put):
    root = put("owl/1.png", "wren/1.png", "\u9e1f \U0001f426/a,b;'\"\n\t.png")
    os.rename(os.fsencode(root / "owl" / "1.png"), os.fsencode(root / "owl") + b"/caf\xe9.png")
    table = folder_table(root, CONFIG)
    assert "owl/caf\\udce9.png" in table.keys
    assert "\u9e1f \U0001f426" in table.class_names
    for row, key in enumerate(table.keys):
        key.encode()
        assert table.read(row).shape == (2, 3, 3)
        assert table.stamp(row).startswith(f"{key}|")


def test_key_text_keeps_plain_names():
    assert key_text("a b/c.png") == "a b/c.png"


def test_the_stamp_follows_size_and_time(put):
    root = put("owl/1.png", "wren/1.png")
    table = folder_table(root, CONFIG)
    path = root / "owl" / "1.png"
    status = path.stat()
    before = table.stamp(0)
    assert before == table.stamp(0)
    assert before.startswith(f"owl/1.png|{status.st_size}|{status.st_mtime_ns}|")
    os.utime(path, ns=(1, 123456789))
    assert table.stamp(0).startswith(f"owl/1.png|{status.st_size}|123456789|")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert table.stamp(0) != before, "the old time of modification does not hide a change"
    path.write_bytes(b"abc")
    assert table.stamp(0).startswith("owl/1.png|3|")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        table.stamp(0)
    with pytest.raises(UnreadableImage, match="there is no such file"):
        table.read(0)


def test_hidden_files_and_files_that_are_no_pictures_are_passed_over(put):
    root = put(
        "owl/1.png",
        "wren/1.png",
        ".git/x.png",
        "owl/.thumb.png",
        "owl/._1.png",
        "__MACOSX/owl/1.png",
        "@eaDir/1.png",
        "@EADIR/1.png",
        "#recycle/1.png",
        "$RECYCLE.BIN/1.png",
        "System Volume Information/1.png",
        "lost+found/1.png",
        "owl/System volume information/1.png",
        "owl/notes.txt",
        "owl/Thumbs.db",
        "README.md",
        "owl/a.png.bak",
    )
    (root / "owl" / "LICENSE").write_text("RIFF, GIF and BM are letters")
    (root / "owl" / "empty").write_bytes(b"")
    table = folder_table(root, CONFIG)
    assert table.keys == ("owl/1.png", "wren/1.png")
    assert table.problems == ()


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("BMP", ".bmp")],
)
def test_pictures_without_a_suffix_are_listed_as_problems(put, kind, suffix):
    root = put("owl/1.png", "wren/1.png")
    Image.new("RGB", (3, 2)).save(root / "owl" / "IMG_0001", kind)
    table = folder_table(root, CONFIG)
    assert table.keys == ("owl/1.png", "wren/1.png")
    assert left_out(table) == {"owl/IMG_0001": f"a picture whose name has no suffix; name it {suffix}"}


def test_an_animated_png_is_a_picture_of_its_first_frame(put):
    root = put("owl/1.png", "wren/1.png")
    frames = [Image.new("RGB", (3, 2), (value, 0, 0)) for value in (200, 100)]
    frames[0].save(root / "owl" / "wing.apng", "PNG", save_all=True, append_images=frames[1:])
    table = folder_table(root, CONFIG)
    assert "owl/wing.apng" in table.keys
    assert table.read(table.keys.index("owl/wing.apng"))[0, 0].tolist() == [200, 0, 0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_link_without_a_suffix_is_not_opened(put, tmp_path):
    root = put("owl/1.png", "wren/1.png")
    os.mkfifo(root / "owl" / "pipe")
    Image.new("RGB", (3, 2)).save(tmp_path / "secret", "PNG")
    (root / "owl" / "link").symlink_to(tmp_path / "secret")
    assert folder_table(root, CONFIG).problems == ()


def test_loose_pictures_and_unread_formats_are_listed_as_problems(put):
    root = put("owl/1.png", "wren/1.png", "cover.png", "owl/phone.HEIC")
    assert left_out(folder_table(root, CONFIG)) == {
        "cover.png": "lies outside any class folder",
        "owl/phone.HEIC": ".heic files are not decoded; store the picture as PNG or JPEG",
    }
    root = put("train/a/1.png", "x")
    for name in ("owl", "wren"):
        (root / name).rename(root / "train" / name)
    put("train/loose.png")
    assert left_out(folder_table(root, CONFIG))["train/loose.png"] == "lies outside any class folder"


def test_broken_pictures_are_listed_and_fail_only_when_read(put):
    root = put("owl/1.png", "wren/1.png")
    (root / "owl" / "0.png").write_bytes(b"")
    (root / "owl" / "2.png").write_bytes(b"\x89PNG\r\n")
    table = folder_table(root, DataConfig(max_pixels=6))
    assert table.keys[:3] == ("owl/0.png", "owl/1.png", "owl/2.png")
    assert table.read(1).shape == (2, 3, 3)
    for row, reason in ((0, "empty"), (2, "not a picture|damaged")):
        with pytest.raises(UnreadableImage, match=reason):
            table.read(row)
    with pytest.raises(UnreadableImage, match="at most 5"):
        folder_table(root, DataConfig(max_pixels=5)).read(1)


def test_links_that_leave_the_folder_are_refused(put, tmp_path):
    root = put("owl/1.png", "wren/1.png")
    outside = tmp_path / "birds-private"  # starts like the root's name
    outside.mkdir()
    (root / "owl" / "1.png").rename(outside / "secret.png")
    put("owl/1.png")
    (root / "owl" / "file.png").symlink_to(outside / "secret.png")
    (root / "owl" / "relative.png").symlink_to("../../birds-private/secret.png")
    (root / "owl" / "chain.png").symlink_to("file.png")
    (root / "jay").symlink_to(outside)
    (root / "owl" / "up").symlink_to("../..")
    (root / "owl" / "notes.txt").symlink_to("/etc/hostname")
    table = folder_table(root, CONFIG)
    assert table.keys == ("owl/1.png", "wren/1.png")
    reasons = left_out(table)
    assert set(reasons) == {"owl/file.png", "owl/relative.png", "owl/chain.png", "jay", "owl/up"}
    assert all("leads out of the data folder" in reason for reason in reasons.values())


def test_links_within_the_folder_are_followed_but_not_in_circles(put, tmp_path):
    root = put("owl/1.png", "wren/1.png")
    (root / "owl" / "2.png").symlink_to("1.png")
    (root / "jay").symlink_to("wren")
    (root / "owl" / "round").symlink_to("..")
    (root / "owl" / "here").symlink_to(".")
    (root / "wren" / "to-owl").symlink_to("../owl")
    (root / "owl" / "to-wren").symlink_to("../wren")
    (root / "owl" / "gone.png").symlink_to("nothing.png")
    (root / "owl" / "self.png").symlink_to("self.png")
    table = folder_table(root, CONFIG)
    assert {"owl/1.png", "owl/2.png", "jay/1.png", "wren/1.png", "owl/to-wren/1.png"} <= set(table.keys)
    assert all(table.read(row).shape == (2, 3, 3) for row in range(len(table)))
    reasons = left_out(table)
    assert reasons["owl/round"] == reasons["owl/here"] == "a link to a folder that it lies in"
    assert reasons["owl/gone.png"] == "a link to nothing"
    assert "owl/self.png" in reasons
    through_a_link = tmp_path / "link"
    through_a_link.symlink_to(root)
    assert folder_table(through_a_link, CONFIG).keys == table.keys


def test_links_from_each_folder_to_the_next_do_not_double_the_work(put, tmp_path):
    root = put("owl/d0/1.png", "wren/1.png")
    depth = 40
    for level in range(depth):
        place = root / "owl" / f"d{level}"
        place.mkdir(exist_ok=True)
        for name in ("a", "b"):
            (place / name).symlink_to(f"../d{level + 1}")
    (root / "owl" / f"d{depth}").mkdir()
    put(f"owl/d{depth}/2.png")
    start = time.process_time()
    table = folder_table(root, CONFIG)
    assert time.process_time() - start < 3
    assert {"owl/d0/1.png", f"owl/d{depth}/2.png", "wren/1.png"} <= set(table.keys)
    assert len(table) == 3 + 8  # each folder in its own place and by at most eight ways through links
    reasons = left_out(table)
    assert len(reasons) < 20 * depth
    assert set(reasons.values()) == {"links lead to this folder by more than 8 ways; put copies in their place"}


def test_of_many_ways_to_a_folder_the_first_by_name_count(put):
    root = put("owl/1.png", "wren/1.png")
    for number in range(1, 12):
        (root / f"to-{number:02d}").symlink_to("wren")
    table = folder_table(root, CONFIG)
    assert table.class_names == ("owl", *(f"to-{number:02d}" for number in range(1, 9)), "wren")
    assert sorted(left_out(table)) == ["to-09", "to-10", "to-11"]


def test_one_split_may_be_a_link_to_another(put):
    root = put("train/owl/1.png", "train/wren/1.png", "test/owl/2.png", "test/wren/2.png")
    (root / "val").symlink_to("test")
    table = folder_table(root, CONFIG)
    assert table.problems == ()
    assert listed(table)["val/owl/2.png"] == ("owl", "val")


def test_names_in_messages_do_not_act_on_a_terminal(put):
    evil = "a\x1b]0;pwn\x07\u202e"
    told = "a\\x1b]0;pwn\\x07\\u202e"
    root = put("owl/1.png", "wren/1.png", f"{evil}/x.txt", f"{evil}.heic")
    with pytest.raises(DataError) as caught:
        folder_table(root, CONFIG)
    assert f"the class folder {told} holds no pictures" in str(caught.value)
    assert f"  {told}.heic: .heic files are not decoded" in str(caught.value)
    assert evil not in str(caught.value)
    put(f"{evil}/1.png")
    assert f"{evil}/1.png" in folder_table(root, CONFIG).keys  # what is stored stays as it is
    root = put(f"train/{evil}/1.png", f"{evil}.x/y/1.png")
    with pytest.raises(DataError) as caught:
        folder_table(root, CONFIG)
    assert told in str(caught.value)
    assert evil not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_opened(put):
    root = put("owl/1.png", "wren/1.png")
    os.mkfifo(root / "owl" / "pipe.png")
    assert left_out(folder_table(root, CONFIG)) == {"owl/pipe.png": "not a regular file"}


def test_an_unreadable_folder_is_a_problem(put, monkeypatch):
    root = put("owl/1.png", "wren/1.png", "owl/locked/1.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith(("locked", "sealed")):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out(folder_table(root, CONFIG)) == {"owl/locked": "the folder cannot be read: Permission denied"}
    root.rename(root.with_name("sealed"))
    with pytest.raises(DataError, match=r"sealed cannot be read \(Permission denied\)"):
        folder_table(root.with_name("sealed"), CONFIG)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no pictures here; put the pictures of each class into a folder"),
        (("notes/a.txt",), "no pictures here"),
        (("1.png", "2.png"), "there are pictures but no class folders; put the pictures of each class"),
        (("owl/1.png",), "there is only the class 'owl'; at least two classes.*give the path of that folder"),
        (("birds/owl/1.png", "birds/wren/1.png"), "only the class 'birds'.*its own folders are the classes"),
        (("owl/1.png", "wren/1.png", "jay/x.txt"), "class folder jay holds no pictures that can be used; fill it"),
        (("train/owl/1.png", "train/wren/1.png", "train/jay/x.txt"), "class folder train/jay holds no pictures"),
        (("train/owl/1.png",), "only the class 'owl'"),
        (("val/owl/1.png", "test/owl/1.png"), "there are val and test pictures but no training pictures"),
        (("test/owl/1.png", "test/wren/1.png"), "there are test pictures but no training pictures; add a train split"),
        (
            ("train/owl/1.png", "train/wren/1.png", "test/Owl/1.png", "test/tit/1.png"),
            "the test split has classes 'Owl', 'tit', which the train split lacks; classes must be spelt alike",
        ),
        (("train/a/1.png", "train/b/1.png", "val/c/1.png"), "val split has class 'c', which the train split lacks"),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "pictures but no class folders in test; put"),
        (("train/1.png", "test/1.png"), "no class folders in test and train; put"),
        (("train/a/1.png", "train/b/1.png", "owl/1.png"), "train look like splits and owl like classes"),
        (("train/a/1.png", "Train/b/1.png"), "two folders stand for the same split among Train and train"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"), "two folders.*val and valid"),
        (("train/a/1.png", "train/b/1.png", "val/a/x.txt"), "the split folder val holds no pictures; fill it or"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(put, names, message):
    root = put(*names)
    with pytest.raises(DataError, match=message) as caught:
        folder_table(root, CONFIG)
    assert str(caught.value).startswith(f"{root}: ")


def test_an_error_names_what_was_left_out(put, tmp_path):
    root = put("owl/1.png", "wren/1.heic", *(f"{number}.png" for number in range(9)))
    with pytest.raises(DataError) as caught:
        folder_table(root, CONFIG)
    lines = str(caught.value).splitlines()
    assert "class folder wren holds no pictures" in lines[0]
    assert "  wren/1.heic: .heic files are not decoded; store the picture as PNG or JPEG" in lines
    assert lines[-1] == "  and 5 more"


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name in ("none", "file"):
        with pytest.raises(DataError, match=f"There is no folder .*{name}; give the path of a folder that exists"):
            folder_table(tmp_path / name, CONFIG)


def test_ten_thousand_files_are_listed_quickly_without_looking_into_them(tmp_path):
    for name in ("owl", "wren"):
        (tmp_path / name).mkdir()
        for number in range(5000):
            os.close(os.open(tmp_path / name / f"{number}.jpg", os.O_CREAT))
    start = time.process_time()
    table = folder_table(tmp_path, CONFIG)
    assert time.process_time() - start < 3
    assert len(table) == 10_000
    assert np.bincount(table.labels).tolist() == [5000, 5000]


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\\"), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
        unique_by=key_text,
    )
)
def test_any_names_give_unique_keys_and_readable_files(names, tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    expected = set()
    for folder in ("owl", "wren"):
        (root / folder).mkdir()
        Image.new("L", (1, 1)).save(root / folder / "plain.png")
        for name in names:
            Image.new("L", (1, 1)).save(root / folder / f"x{name}.png")
            expected.add(key_text(f"{folder}/x{name}.png"))
    table = folder_table(root, CONFIG)
    assert expected <= set(table.keys)
    assert len(set(table.keys)) == len(table.keys) == len(expected) + 2
    assert all(table.read(row).shape == (1, 1, 3) for row in range(len(table)))
