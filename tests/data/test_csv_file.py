from __future__ import annotations

import csv
import io
import os
import tracemalloc
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data.csv_file import csv_table, is_listing
from concept_tuning.data.csv_lines import MOST_BYTES, MOST_CHARACTERS
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.table import SPLITS
from concept_tuning.errors import DataError

CONFIG = DataConfig()
PICTURES = ("a.png", "b.png", "c.png", "sub/d.png")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    (place / "sub").mkdir(parents=True)
    for number, name in enumerate(PICTURES):
        Image.new("RGB", (3, 2), (number, 0, 0)).save(place / name)
    return place


@pytest.fixture
def table(folder):
    """Write a CSV file into the folder and open it."""

    def open_text(text: str | bytes, **options):
        path = folder / "list.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return csv_table(path, CONFIG, **options)

    return open_text


def labels(opened) -> dict[str, str]:
    return {key: opened.class_names[label] for key, label in zip(opened.keys, opened.labels, strict=True)}


EXPECTED = {"a.png": "owl", "sub/d.png": "wren"}


def test_pictures_and_labels_are_listed_in_the_files_order(table, folder):
    opened = table("path,label\nsub/d.png,wren\na.png,owl\n")
    assert opened.keys == ("sub/d.png", "a.png")
    assert labels(opened) == EXPECTED
    assert opened.class_names == ("owl", "wren")
    assert [opened.read(row)[0, 0, 0] for row in (0, 1)] == [3, 0]
    assert (opened.source, opened.groups, opened.splits, opened.masks) == (str(folder / "list.csv"), None, None, None)
    assert (opened.group_names, opened.problems, opened.validation_note) == ((), (), "like training")
    status = (folder / "a.png").stat()
    assert opened.stamp(1).startswith(f"a.png|{status.st_size}|{status.st_mtime_ns}|")


@pytest.mark.parametrize(
    "text",
    [
        "label,path\nowl,a.png\nwren,sub/d.png",
        "PATH,Label\r\na.png,owl\r\nsub/d.png,wren\r\n",
        "image;class\na.png;owl\nsub/d.png;wren\n",
        "file\ttarget\tbox\na.png\towl\t1,2;3\nsub/d.png\twren\t4\n",
        "\ufefffile_name, LABEL\n a.png , owl \nsub/d.png, wren\n",
        '"filename","label"\n"a.png","owl"\n"sub/d.png","wren"\n',
        "path,label\ra.png,owl\rsub/d.png,wren\r",
        "\n\npath,label\n\na.png,owl\n,,\n   \nsub/d.png,wren,,\n\n",
        "path,label,note\n./a.png,owl,\nsub/../sub//d.png,wren\n",
        "path,label\na.png,owl\nsub\\d.png,wren\n",
        "\ufeffpath\tlabel\na.png\towl\nsub/d.png\twren\n".encode("utf-16-le"),
        "\ufeffpath;label\na.png;owl\nsub/d.png;wren\n".encode("utf-16-be"),
    ],
)
def test_the_same_list_in_many_spellings(table, text):
    assert labels(table(text)) == EXPECTED


def test_quoted_cells_may_hold_separators_quotes_and_newlines(table, folder):
    (folder / "a.png").rename(folder / "a, b.png")
    opened = table('path,label\n"a, b.png","owl, ""barn""\nor tawny"\nsub/d.png,wren\n')
    assert labels(opened) == {"a, b.png": 'owl, "barn"\nor tawny', "sub/d.png": "wren"}


def test_numbers_are_sorted_as_numbers_and_stay_text(table):
    names = table("path,label\na.png,10\nb.png,-2\nc.png,9.5\nsub/d.png,1e1\n").class_names
    assert names == ("-2", "9.5", "10", "1e1")
    names = table("path,label\na.png,type 10\nb.png,type 9\nc.png,nan\nsub/d.png,3\n").class_names
    assert names == ("3", "nan", "type 9", "type 10")


def test_groups_and_splits(table):
    opened = table(
        "path,label,split,group\na.png,owl,Train,10\nb.png,wren,training,9\nc.png,owl,VALID,9\nsub/d.png,wren,test,10\n"
    )
    assert [SPLITS[code] for code in opened.splits] == ["train", "train", "val", "test"]
    assert opened.splits.dtype == np.int8
    assert opened.group_names == ("9", "10")
    assert opened.groups.tolist() == [1, 0, 0, 1]
    assert opened.groups.dtype == opened.labels.dtype == np.int64
    assert opened.validation_note == "given with the data"


def test_empty_split_and_group_columns_are_none(table):
    opened = table("path,label,split,group\na.png,owl,,\nb.png,wren,,\n")
    assert (opened.splits, opened.groups) == (None, None)


def test_masks_are_read_where_they_are_given(table, folder):
    inside = np.array([[0, 1, 0], [0, 0, 255]], dtype=np.uint8)
    Image.fromarray(inside).save(folder / "sub" / "m.png")
    opened = table("path,label,Mask Path\na.png,owl,sub/m.png\nb.png,wren,\nc.png,owl,gone.png\n")
    assert opened.masks is not None
    assert np.array_equal(opened.masks(0)["object"], inside > 0)
    assert opened.masks(1) == opened.masks(2) == {}
    assert [(problem.key, problem.reason) for problem in opened.problems] == [
        ("c.png", f"its mask {folder / 'gone.png'} is left out: there is no such file (line 4)")
    ]
    (folder / "sub" / "m.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match="empty"):
        opened.masks(0)


def test_missing_files_are_problems_with_their_lines(table):
    opened = table("path,label\na.png,owl\ngone.png,owl\nb.png,wren\nsub,wren\na.png/x.png,owl\n")
    assert opened.keys == ("a.png", "b.png")
    assert [(problem.key, problem.reason) for problem in opened.problems] == [
        ("gone.png", "there is no such file (line 3)"),
        ("sub", "not a regular file (line 5)"),
        ("a.png/x.png", "cannot be read: Not a directory (line 6)"),
    ]


def test_absolute_paths_only_where_they_are_allowed(table, folder, tmp_path):
    outside = tmp_path / "outside.png"
    (folder / "c.png").rename(outside)
    text = f"path,label\na.png,owl\n{outside},wren\n"
    opened = table(text)
    assert opened.keys == ("a.png", outside.as_posix())
    assert opened.read(1)[0, 0, 0] == 2
    with pytest.raises(DataError, match=r"line 3: the path '.*outside\.png' is absolute; give it relative"):
        table(text, allow_absolute=False)
    for path in ("C:\\data\\x.png", "C:/data/x.png", "\\\\server\\share\\x.png", "/etc/passwd"):
        with pytest.raises(DataError, match=r"line 3: .* is absolute"):
            table(f"path,label\na.png,owl\n{path},wren\n", allow_absolute=False)
        problems = table(f"path,label\na.png,owl\nb.png,wren\n{path}.png,wren\n").problems
        assert [problem.reason for problem in problems] == ["there is no such file (line 4)"]


@pytest.mark.parametrize(
    "path", ["../x.png", "sub/../../x.png", "..", "..\\x.png", "sub\\..\\..\\x.png", "./../set/a.png"]
)
@pytest.mark.parametrize("column", ["path", "mask"])
@pytest.mark.parametrize("allow_absolute", [True, False])
def test_relative_paths_stay_in_the_folder(table, path, column, allow_absolute):
    line = f"{path},owl," if column == "path" else f"b.png,owl,{path}"
    with pytest.raises(DataError, match=r"list\.csv, line 3: the path '.*' leaves the folder of the CSV file; put"):
        table(f"path,label,mask\na.png,wren,\n{line}\n", allow_absolute=allow_absolute)


def test_names_with_dots_and_colons_are_no_way_out(table, folder):
    (folder / "a.png").rename(folder / "..a.png")
    (folder / "b.png").rename(folder / "b:1.png")
    assert labels(table("path,label\n..a.png,owl\nb:1.png,wren\n", allow_absolute=False)) == {
        "..a.png": "owl",
        "b:1.png": "wren",
    }


def test_accents_may_be_stored_in_another_way(table, folder):
    composed, apart = unicodedata.normalize("NFC", "\u00e9.png"), unicodedata.normalize("NFD", "\u00e9.png")
    (folder / "a.png").rename(folder / apart)
    opened = table(f"path,label\n{composed},owl\nb.png,wren\n")
    assert opened.keys[0] == composed
    assert opened.read(0)[0, 0, 0] == 0
    with pytest.raises(DataError, match="lines 2 and 3 name the same picture"):
        table(f"path,label\n{composed},owl\n{apart},wren\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv is empty; its first line must name the columns path and label"),
        ("\n ,,\n", "is empty"),
        ("a.png,owl\nb.png,wren\n", r"line 1: it must name the columns path and label .* found 'a\.png,owl'"),
        ("path,species\na.png,owl\n", "line 1: it must name the columns path and label"),
        ("path|label\na.png|owl\n", "separated by comma, semicolon or tab"),
        ("path,file,label\na.png,b.png,owl\n", "line 1: 'path' and 'file' both name the path; rename or remove one"),
        ("path,label,Class\na.png,owl,x\n", "line 1: 'label' and 'Class' both name the label"),
        ("path,label\n", "no pictures are listed below the first line"),
        ("path,label\na.png,owl\nb.png\n", "line 3: the label is missing; fill it in or remove the line"),
        ("path,label\na.png,owl\nb.png,  \n", "line 3: the label is missing"),
        ("path,label\n,owl\n", "line 2: the path is missing"),
        ("path,label\na.png,owl\nb.png,wren\n./a.png,wren\n", r"lines 2 and 4 name the same picture 'a\.png'"),
        ("path,label\na.png,owl, barn\n", "line 2: 3 cells, but the first line names 2 columns; put a cell"),
        ("path,label,split\na.png,owl,trian\n", "line 2: there is no split 'trian'; did you mean 'train'?"),
        ("path,label,split\na.png,owl,fold 1\n", "there is no split 'fold 1'; use train, val or test"),
        ("path,label,split\na.png,owl,train\nb.png,wren,\n", "line 3: the split is missing; give it for every"),
        ("path,label,group\na.png,owl,\nb.png,wren,x\n", "line 2: the group is missing; give it for every picture"),
        ('path,label\n"a.png,owl\nb.png,wren\n', "line 2: it cannot be read as CSV .* look for a stray quote"),
        ("path,label\na\0.png,owl\n", "line 2: the path .* contains a zero character"),
        (b"path,label\na.png,owl\nb.png,K\xe4uzchen\n", "line 3: not UTF-8 text; save the file as CSV in UTF-8"),
        ("path,label\na.png,owl\nb.png,owl\n", "there is only the class 'owl'; at least two"),
        (
            "path,label\nx.png,owl\ny.png,wren\n",
            r"(?s)none of the listed pictures is there; .*x\.png: there is no such",
        ),
        (
            "path,label\na.png,owl\ny.png,wren\n",
            r"(?s)none of the pictures of class 'wren' is there; .*y\.png: there is no such file \(line 3\)",
        ),
        ("path,label,split\na.png,owl,test\nb.png,wren,val\n", "there are val and test pictures but no training"),
        (
            "path,label,split\na.png,owl,train\nb.png,wren,train\nc.png,jay,test\n",
            "the test split has class 'jay', which the train split lacks",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(table, text, message, folder):
    with pytest.raises(DataError, match=message) as caught:
        table(text)
    assert str(caught.value).startswith(str(folder / "list.csv"))


def test_line_numbers_count_lines_within_quotes(table):
    with pytest.raises(DataError, match="line 5: the label is missing"):
        table('path,label\na.png,"owl\n\nbarn"\nb.png,\n')


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv cannot be read \(No such file"):
        csv_table(tmp_path / "none.csv", CONFIG)


def test_a_list_of_pictures_is_told_from_other_tables(tmp_path):
    for text, expected in (("image;class\n", True), ("id,score\n1,2\n", False), ("", False)):
        (tmp_path / "x.csv").write_text(text)
        assert is_listing(tmp_path / "x.csv") is expected


def taken(call) -> int:
    """Return how much memory a call takes at most, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_list_is_told_by_its_head_and_read_a_line_at_a_time(folder):
    path = folder / "list.csv"
    with path.open("w") as stream:
        stream.write("path,label,note\n")
        for number in range(400):
            stream.write(f"{PICTURES[number] if number < 4 else number},{number % 2},{'x' * 20_000}\n")
    assert path.stat().st_size > 8e6
    assert taken(lambda: is_listing(path)) < 1e6
    assert taken(lambda: csv_table(path, CONFIG)) < 3e6
    assert len(csv_table(path, CONFIG)) == 4


def test_a_list_of_gigabytes_is_refused_unread(table, folder):
    path = folder / "list.csv"
    path.write_text("path,label\na.png,owl\nb.png,wren\n")
    os.truncate(path, MOST_BYTES + 1)
    with pytest.raises(DataError, match=r"list\.csv is larger than 256 MiB, more than a list of pictures may be"):
        csv_table(path, CONFIG)


@pytest.mark.parametrize("cell", ["x,", '"\n",', " "])
def test_a_line_of_any_length_is_refused(table, cell):
    text = "path,label\na.png,owl\n" + cell * (MOST_CHARACTERS // len(cell) + 1)
    with pytest.raises(DataError, match=rf"line 3: .*longer than {MOST_CHARACTERS} characters.*look for a stray quote"):
        table(text)


def test_long_lines_are_counted_one_by_one(table):
    lines = [f"{name},{name[0]},{'x' * 100_000},{'y' * 100_000},{'z' * 100_000}" for name in PICTURES]
    assert len(table("\n".join(["path,label,1,2,3", *lines]))) == 4


def test_a_list_may_name_so_many_pictures(table):
    text = "path,label\na.png,owl\nb.png,wren\nc.png,wren\n"
    assert len(table(text, most=3)) == 3
    with pytest.raises(DataError, match="line 4: more than 2 pictures are listed; shorten the list"):
        table(text, most=2)


def test_a_first_line_that_does_not_end_is_refused(table):
    text = "path,label" + ",x" * 40_000
    with pytest.raises(DataError, match=r"no whole line that is filled within 65536 bytes; its first line must name"):
        table(text + "\na.png,owl\n")
    with pytest.raises(DataError, match="no whole line that is filled"):
        table("\n" * 70_000 + "path,label\na.png,owl\n")
    assert len(table("\n" * 60_000 + "path,label\na.png,owl\nb.png,wren\n")) == 2


@pytest.mark.parametrize("before", [1, 100_000])
def test_the_line_that_is_no_text_is_found_wherever_it_is(table, before):
    lines = b"path,label\n" + b"\xc3\xa9.png,owl\n" + b",\n" * (before - 1)
    with pytest.raises(DataError, match=f"line {before + 2}: not UTF-8 text"):
        table(lines + b"b.png,\xe4\nc.png,wren\n")
    with pytest.raises(DataError, match=f"line {before + 2}: not UTF-8 text"):
        table(lines + b"b.png,\xc3")  # cut off
    wide = "\ufeffpath,label\n".encode("utf-16-le") + ",\n".encode("utf-16-le") * before
    with pytest.raises(DataError, match=f"line {before + 2}: not UTF-16 text"):
        table(wide + b"\0\xd8\0\0\n\0")


def test_links_lead_out_of_the_folder_only_where_absolute_paths_may(table, folder, tmp_path):
    outside = tmp_path / "set-private"  # starts like the folder's name
    outside.mkdir()
    (folder / "c.png").rename(outside / "c.png")
    (folder / "file.png").symlink_to(outside / "c.png")
    (folder / "deep").symlink_to(outside)
    (folder / "near.png").symlink_to("sub/d.png")
    for line, what in (
        ("file.png,wren,", "picture"),
        ("deep/c.png,wren,", "picture"),
        ("b.png,wren,deep/c.png", "mask"),
    ):
        text = f"path,label,mask\na.png,owl,\n{line}\n"
        assert len(table(text)) == 2
        with pytest.raises(
            DataError, match=rf"list\.csv: line 3: the {what} of '.*' lies outside the folder.*put a copy"
        ):
            table(text, allow_absolute=False)
    inside = table("path,label,mask\na.png,owl,near.png\nnear.png,wren,\n", allow_absolute=False)
    assert inside.read(1)[0, 0, 0] == 3
    assert inside.masks is not None
    assert "object" in inside.masks(0)
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be reached through a link
    assert len(csv_table(tmp_path / "link" / "list.csv", CONFIG, allow_absolute=False)) == 2


def test_what_a_link_leads_to_is_not_even_said_to_be_there(table, folder):
    (folder / "x.png").symlink_to("/nothing/here.png")
    with pytest.raises(DataError, match=r"line 3: the picture of .x\.png. lies outside"):
        table("path,label\na.png,owl\nx.png,wren\n", allow_absolute=False)


def test_names_in_messages_do_not_act_on_a_terminal(table, folder):
    (folder / "evil\x1b]0;pwn\x07").mkdir()
    path = folder / "evil\x1b]0;pwn\x07" / "list\u202e.csv"
    path.write_text("path,label,mask\n../a.png,owl,\n")
    with pytest.raises(DataError) as caught:
        csv_table(path, CONFIG)
    assert "evil\\x1b]0;pwn\\x07/list\\u202e.csv, line 2" in str(caught.value)
    told = table("path,label,mask\na.png,owl,m\x1b[2J.png\nb.png,wren,\n").problems[0].reason
    assert "m\\x1b[2J.png is left out" in told
    with pytest.raises(DataError) as caught:
        table("path,label\nx\x1b[2J.png,owl\ny.png,wren\n")
    assert "\n  x\\x1b[2J.png: there is no such file" in str(caught.value)


# The csv module before Python 3.13 leaves a lone carriage return unquoted where lines end in a newline.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.tuples(WORDS, WORDS), min_size=4, max_size=4).filter(
        lambda rows: all(label and group for label, group in rows) and len({label for label, _ in rows}) > 1
    ),
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_whatever_the_csv_module_writes_comes_back(cells, delimiter, newline, mark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=newline)
    writer.writerow(["path", "label", "group"])
    for number, (label, group) in enumerate(cells):
        (folder / f"{number}.png").write_bytes(b"x")
        writer.writerow([f"{number}.png", label, group])
    (folder / "list.csv").write_bytes(stream.getvalue().encode(mark))
    opened = csv_table(folder / "list.csv", CONFIG)
    assert opened.keys == tuple(f"{number}.png" for number in range(4))
    assert [opened.class_names[n] for n in opened.labels] == [label for label, _ in cells]
    assert [opened.group_names[n] for n in opened.groups] == [group for _, group in cells]


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "a", "b c", "...", ".. ", "C:", "~"]), min_size=1, max_size=6),
    separator=st.sampled_from("/\\"),
)
def test_no_relative_path_reaches_outside(parts, separator, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "inside"
    folder.mkdir(exist_ok=True)
    (folder / "list.csv").write_text(f'path,label\n"{separator.join(parts)}",owl\n')
    opened: list[str] = []

    def spy(path):
        opened.append(str(path))
        return "there is no such file"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("concept_tuning.data.containment.Containment.fault", lambda place, file: spy(file))
        patch.setattr("concept_tuning.data.csv_file.os.path.exists", lambda path: False)
        with pytest.raises(DataError):
            csv_table(folder / "list.csv", CONFIG, allow_absolute=False)
    assert all((folder / path).resolve().is_relative_to(folder.resolve()) for path in opened)
