from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from concept_tuning.config import RunConfig, validate
from concept_tuning.data import registry
from concept_tuning.data.cache import shrink
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.registry import DATASETS, load_data, open_table
from concept_tuning.data.splits import splits_to_json
from concept_tuning.data.survey import survey
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError


def draw(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (30, 24, 3), dtype=np.uint8)


def memory_table(count=20, bad=(), order=None, **changes) -> ImageTable:
    """Pictures in memory, two classes in turn; ``order`` lists the pictures in another order of rows."""
    order = np.arange(count) if order is None else np.asarray(order)

    def read(row: int) -> np.ndarray:
        if int(order[row]) in bad:
            raise UnreadableImage("broken file")
        return draw(int(order[row]))

    columns = {
        "source": "memory",
        "class_names": ("owl", "wren"),
        "group_names": ("field", "wood"),
        "keys": tuple(f"p{number:02d}" for number in order),
        "labels": order % 2,
        "groups": order // 2 % 2,
        "splits": None,
        "read": read,
        "stamp": lambda row: f"{order[row]}",
        "validation_note": "balanced over woods",
    }
    return ImageTable(**(columns | changes))


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return validate({"data": {"cache_dir": str(tmp_path / "cache"), "image_size": 16}})


@pytest.fixture
def use(monkeypatch):
    def put(table: ImageTable) -> None:
        monkeypatch.setattr(registry, "open_table", lambda config, contained: table)

    return put


def keys(bundle) -> dict[str, list[str]]:
    return splits_to_json({name: split.rows for name, split in bundle.splits.items()}, bundle.table.keys)


def test_bundle_holds_every_picture_where_it_belongs(config, use):
    use(memory_table())
    bundle = load_data(config)
    assert list(bundle.splits) == ["train", "val", "test"]
    assert [len(bundle.splits[name]) for name in bundle.splits] == [12, 4, 4]
    for name, split in bundle.splits.items():
        assert split.name == name
        for i in range(len(split)):
            number = int(split.keys[i][1:])
            assert (split.labels[i], split.groups[i]) == (number % 2, number // 2 % 2)
            assert np.array_equal(split.image(i).permute(1, 2, 0).numpy(), shrink(draw(number), 20))
    assert (bundle.source, bundle.validation_note) == ("memory", "balanced over woods")
    assert bundle.problems == ()


def test_splits_go_through_pickling(config, use):
    use(memory_table(groups=None, group_names=()))
    split = load_data(config).splits["val"]
    again = pickle.loads(pickle.dumps(split))
    assert again.keys == split.keys
    assert again.groups is None
    assert torch.equal(again.image(1), split.image(1))


def test_saved_splits_are_reused_exactly(config, use):
    use(memory_table())
    first = load_data(config)
    saved = json.loads(json.dumps(keys(first)))
    other = validate({"data": {"cache_dir": config.data.cache_dir, "image_size": 16, "data_seed": 9, "per_class": 1}})
    assert keys(load_data(other)) != saved
    assert keys(load_data(other, splits=saved)) == saved
    use(memory_table(order=range(19, -1, -1)))
    assert keys(load_data(other, splits=saved)) == saved


def test_saved_splits_of_changed_data_are_refused(config, use):
    use(memory_table())
    saved = keys(load_data(config))
    use(memory_table(bad={int(saved["val"][0][1:])}, stamp=lambda row: f"new{row}"))
    with pytest.raises(DataError, match=r"(?s)1 of its pictures cannot be decoded now.*broken file"):
        load_data(config, splits=saved)
    use(memory_table(count=19))
    with pytest.raises(DataError, match="data changed since the split was saved: p19 cannot be found"):
        load_data(config, splits=saved)
    use(memory_table(class_names=("owl", "wren", "tit")))
    with pytest.raises(DataError, match="No picture in the train split for class 'tit'"):
        load_data(config, splits=saved)


def test_unreadable_pictures_are_left_out_and_listed(config, use):
    use(memory_table(bad={3, 8}, problems=(ProblemFile("notes.txt", "not a picture"),)))
    bundle = load_data(config)
    assert [problem.key for problem in bundle.problems] == ["notes.txt", "p03", "p08"]
    kept = sorted(key for part in keys(bundle).values() for key in part)
    assert kept == [f"p{number:02d}" for number in range(20) if number not in (3, 8)]


def test_a_class_emptied_by_unreadable_pictures_is_named_with_its_files(config, use):
    use(memory_table(count=8, bad={0, 3, 5}, problems=(ProblemFile("x.png", "empty file"),)))
    with pytest.raises(DataError) as caught:
        load_data(config)
    lines = str(caught.value).splitlines()
    assert re.search(r"class 'wren' \(2 usable\)", lines[0])
    assert "owl" not in lines[0]
    # the files of the class that lacks most come first
    assert lines[2:] == ["  p03: broken file", "  p05: broken file", "  p00: broken file", "  x.png: empty file"]


def test_a_long_list_of_left_out_files_is_cut(config, use):
    use(memory_table(count=20, bad=set(range(1, 20, 2))))
    with pytest.raises(DataError, match=r"(?s)'wren' \(0 usable\).*p09: broken file\n  and 5 more$"):
        load_data(config)


@pytest.mark.parametrize(("names", "said"), [(("owl",), "only the class 'owl'"), ((), "has no class")])
def test_fewer_than_two_classes_are_refused(config, use, names, said):
    use(memory_table(class_names=names, labels=np.zeros(20, np.int64)))
    with pytest.raises(DataError, match=f"{said}.*at least two"):
        load_data(config)


def test_fingerprint_follows_content_and_labels_not_size_order_or_seed(config, use):
    def fingerprint(table, **data):
        use(table)
        return load_data(validate({"data": {"cache_dir": config.data.cache_dir, "image_size": 16} | data})).fingerprint

    base = fingerprint(memory_table())
    assert re.fullmatch("[0-9a-f]{64}", base)
    assert fingerprint(memory_table(order=range(19, -1, -1))) == base
    assert fingerprint(memory_table(), image_size=24, data_seed=3, per_class=2) == base
    assert fingerprint(memory_table(stamp=lambda row: f"moved{row}")) == base
    relabelled = np.arange(20) % 2
    relabelled[4] = 1
    assert fingerprint(memory_table(labels=relabelled)) != base
    assert fingerprint(memory_table(groups=np.zeros(20, np.int64))) != base
    assert fingerprint(memory_table(keys=tuple(f"q{number:02d}" for number in range(20)))) != base
    assert fingerprint(memory_table(bad={3}, stamp=lambda row: f"b{row}")) != base
    changed = memory_table(read=lambda row: draw(row) ^ (row == 3), stamp=lambda row: f"c{row}")
    assert fingerprint(changed) != base


def test_the_fingerprint_of_drawn_pictures_follows_their_recipe_and_not_what_a_processor_rounds(config, use):
    def fingerprint(**changes):
        use(memory_table(**changes))
        return load_data(config).fingerprint

    drawn = fingerprint(identity=lambda row: f"recipe {row}")
    assert fingerprint(identity=lambda row: f"recipe {row}", read=lambda row: draw(row) ^ 1, stamp=str) == drawn
    assert fingerprint(identity=lambda row: f"another {row}") != drawn


def test_used_fingerprint_follows_the_pictures_of_the_splits_alone(config, use):
    use(memory_table())
    bundle = load_data(config)
    assert bundle.used_fingerprint == bundle.fingerprint
    fewer = load_data(validate({"data": {"cache_dir": config.data.cache_dir, "image_size": 16, "per_class": 2}}))
    assert fewer.fingerprint == bundle.fingerprint
    assert fewer.used_fingerprint != bundle.used_fingerprint
    left_out = set(fewer.table.keys) - {key for split in fewer.splits.values() for key in split.keys}
    row = fewer.table.keys.index(min(left_out))
    use(memory_table(read=lambda i: draw(i) ^ (i == row), stamp=lambda i: f"d{i}"))
    changed = load_data(validate({"data": {"cache_dir": config.data.cache_dir, "image_size": 16, "per_class": 2}}))
    assert changed.fingerprint != fewer.fingerprint
    assert changed.used_fingerprint == fewer.used_fingerprint


def test_copies_of_training_pictures_in_other_splits_are_listed(config, use):
    table = memory_table()
    use(table)
    bundle = load_data(config)
    assert bundle.copies == ()
    test, train = (int(bundle.splits[name].rows[0]) for name in ("test", "train"))
    assert table.labels[test] == table.labels[train]
    use(dataclasses.replace(table, read=lambda row: draw(train if row == test else row), stamp=lambda row: f"v2 {row}"))
    saved = splits_to_json({name: split.rows for name, split in bundle.splits.items()}, table.keys)
    found = load_data(config, splits=saved)
    assert (found.copies, found.conflicts) == (((table.keys[test], table.keys[train]),), ())


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_picture_in_two_classes_is_a_conflict_in_whatever_split_and_no_copy(split, config, use):
    table = memory_table()
    use(table)
    bundle = load_data(config)
    first = int(bundle.splits["train"].rows[0])
    rows = bundle.splits[split].rows
    second = int(rows[table.labels[rows] != table.labels[first]][0])
    use(
        dataclasses.replace(
            table, read=lambda row: draw(first if row == second else row), stamp=lambda row: f"v3 {split} {row}"
        )
    )
    saved = splits_to_json({name: part.rows for name, part in bundle.splits.items()}, table.keys)
    found = load_data(config, splits=saved)
    later, earlier = sorted((first, second), key=table.keys.__getitem__, reverse=True)
    names = [table.class_names[table.labels[row]] for row in (later, earlier)]
    assert found.conflicts == ((table.keys[later], names[0], table.keys[earlier], names[1]),)
    assert found.copies == ()
    assert names[0] != names[1]


def test_other_classes_than_the_saved_splits_had_are_told_before_any_lack_of_pictures(config, use):
    table = memory_table()
    use(table)
    bundle = load_data(config)
    saved = splits_to_json({name: split.rows for name, split in bundle.splits.items()}, table.keys)
    more = (*table.class_names, "tit")
    use(dataclasses.replace(table, class_names=more))
    with pytest.raises(DataError, match=r"The classes are now .*tit, and were .* when the run began\. Put the old"):
        load_data(config, splits=saved, class_names=table.class_names)


def test_progress_and_report_are_passed_on(config, use):
    use(memory_table())
    lines, steps = [], []
    load_data(config, report=lines.append, progress=lambda done, total: steps.append((done, total)))
    assert lines == ["Decoding 20 pictures into the cache, once."]
    assert steps[-1] == (20, 20)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("plantet", "did you mean 'planted'"),
        ("ELPV", "did you mean 'elpv'"),
        ("/nowhere/at/all", "There is no path '/nowhere/at/all'.*planted or elpv"),
    ],
)
def test_unknown_sources_are_answered_with_what_there_is(source, said):
    with pytest.raises(DataError, match=said):
        open_table(validate({"data": {"source": source}}))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "bird.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"neither a folder, nor an archive \(\.zip.*nor a CSV file"):
        open_table(validate({"data": {"source": str(tmp_path / "bird.png")}}))


@pytest.mark.parametrize("name", ["list.csv", "birds.zip"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is neither a folder, nor an archive"):
        open_table(validate({"data": {"source": str(tmp_path / name)}}))


@pytest.mark.parametrize("way", ["absolute", "link"])
def test_a_list_that_another_chose_stays_in_its_folder(config, folder, tmp_path, way):
    (tmp_path / "secret").mkdir()
    for number in range(5):
        (folder / "wren" / f"{number}.png").rename(tmp_path / "secret" / f"{number}.png")
    (folder / "link").symlink_to(tmp_path / "secret")
    place = "link" if way == "link" else tmp_path / "secret"
    lines = [f"owl/{number}.png,owl\n{place}/{number}.png,wren" for number in range(5)]
    (folder / "list.csv").write_text("\n".join(["path,label", *lines]))
    chosen = validate({"data": {"source": str(folder / "list.csv"), "cache_dir": config.data.cache_dir}})
    assert len(load_data(chosen).table) == 10  # whoever types the command may name any file
    for refuse in (open_table, load_data, survey):
        with pytest.raises(DataError, match=r"line 3: the p.* (is absolute|lies outside the folder of the CSV file)"):
            refuse(chosen, contained=True)
    with pytest.raises(DataError, match="line 3"):
        survey(chosen, check=True, contained=True)


def test_left_out_files_do_not_act_on_a_terminal(config, use):
    keys = ("owl\x1b[2J.png", *(f"p{number}" for number in range(1, 20)))
    use(memory_table(bad=range(0, 20, 2), keys=keys))
    with pytest.raises(DataError) as caught:
        load_data(config)
    assert "owl\\x1b[2J.png: broken file" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_listed_names_open_and_say_whether_they_are_here(monkeypatch):
    by_name = {entry.name: entry for entry in DATASETS}
    assert len(by_name) == len(DATASETS)
    assert {entry.kind for entry in DATASETS} == {"generated", "packaged", "known", "own"}
    assert by_name["planted"].available
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert by_name["planted"].available
    assert not by_name["elpv"].available


@pytest.fixture
def folder(tmp_path):
    for name in ("owl", "wren"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(draw(number + 5 * (name == "wren"))).save(tmp_path / "birds" / name / f"{number}.png")
    return tmp_path / "birds"


def test_a_folder_is_opened_by_its_path(config, folder):
    (folder / "owl" / "5.png").write_bytes(b"\x89PNG broken")
    bundle = load_data(
        validate(config.to_dict() | {"data": {"source": str(folder), "cache_dir": config.data.cache_dir}})
    )
    assert bundle.class_names == ("owl", "wren")
    assert {name: len(split) for name, split in bundle.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert [problem.key for problem in bundle.problems] == ["owl/5.png"]
    split = bundle.splits["test"]
    number = int(split.keys[0].rpartition("/")[2][0]) + 5 * int(split.labels[0])
    assert np.array_equal(split.image(0).permute(1, 2, 0).numpy(), draw(number))


def test_a_csv_file_and_an_archive_hold_the_same_pictures(config, folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "birds"), "zip", folder)
    listing = folder / "list.csv"
    lines = [f"{path.relative_to(folder).as_posix()},{path.parent.name}" for path in sorted(folder.glob("*/*.png"))]
    listing.write_text("\n".join(["path,label", *lines]))
    prints = set()
    for source in (archive, listing):
        bundle = load_data(validate({"data": {"source": str(source), "cache_dir": config.data.cache_dir}}))
        assert len(bundle.table) == 10
        prints.add(bundle.fingerprint)
    assert len(prints) == 1


def test_planted_birds_go_through_the_cache(config):
    planted = {"images": 8, "validation_images": 8, "test_images": 8, "draw_size": 48, "species": 2}
    bundle = load_data(validate({"data": {"cache_dir": config.data.cache_dir, "image_size": 32}, "planted": planted}))
    assert {name: len(split) for name, split in bundle.splits.items()} == {"train": 8, "val": 8, "test": 8}
    split = bundle.splits["val"]
    row = int(split.rows[3])
    assert np.array_equal(split.image(3).permute(1, 2, 0).numpy(), shrink(bundle.table.read(row), 40))
