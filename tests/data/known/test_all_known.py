"""What holds of every known data set."""

from __future__ import annotations

import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from miniatures import MINIATURES, fashion, opened
from torchvision import datasets

from concept_tuning.config import KNOWN_DATA, DataConfig, validate
from concept_tuning.data.known import files
from concept_tuning.data.known.catalogue import BY_NAME, KNOWN
from concept_tuning.data.known.opening import is_there
from concept_tuning.data.registry import DATASETS, SOURCE_NAMES, load_data, open_table
from concept_tuning.engine.session import with_absolute_paths
from concept_tuning.errors import ConfigError, DataError
from concept_tuning.settings import build_config

#: Pictures of each split and of each class, as the miniatures have them; None: no splits are given.
SHAPES = {
    "cub200": ((4, 0, 4), 2),
    "stanford-cars": ((4, 0, 4), 2),
    "aircraft": ((4, 4, 4), 2),
    "cifar10": ((50, 0, 10), 10),
    "cifar100": ((6, 0, 3), 3),
    "caltech101": (None, 2),
    "dtd": ((4, 4, 4), 2),
    "flowers102": ((102, 102, 102), 102),
    "oxford-pets": ((4, 0, 4), 2),
    "food101": ((4, 0, 4), 2),
    "eurosat": (None, 2),
    "fashion-mnist": ((20, 0, 10), 10),
    "isic": ((160, 0, 0), 8),
    "waterbirds": ((4, 4, 4), 2),
    "imagenet-folder": ((4, 0, 4), 2),
}


def test_every_name_is_in_the_catalogue_the_list_and_the_tests() -> None:
    names = tuple(known.name for known in KNOWN if known.package is None)
    assert names == KNOWN_DATA == tuple(MINIATURES)
    assert set(names) <= set(SOURCE_NAMES)
    listed = {entry.name: entry for entry in DATASETS if entry.kind == "known"}
    assert set(listed) == set(BY_NAME)
    for entry in listed.values():
        assert not entry.offline
        assert entry.layout
        assert entry.note.startswith(BY_NAME[entry.name].licence)


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_the_official_layout_is_read(name: str, laid_out) -> None:
    root = laid_out(name)
    table = opened(name, root)
    counts, classes = SHAPES[name]
    assert table.source == name
    assert table.problems == ()
    assert len(table.class_names) == len(set(table.class_names)) == classes
    assert len(set(table.keys)) == len(table.keys) == len(table.labels)
    assert table.labels.dtype == np.int64
    if counts is None:
        assert table.splits is None
    else:
        assert tuple(np.bincount(table.splits, minlength=3)) == counts
    assert all(not Path(key).is_absolute() and ".." not in key for key in table.keys)
    for row in (0, len(table) - 1):
        pixels = table.read(row)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(table.read))(row), pixels)
    again = opened(name, root)
    assert again.keys == table.keys
    rows = range(len(table))
    assert [again.stamp(row) for row in rows] == [table.stamp(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(again.read, [0, 1, 2, 0]))
    np.testing.assert_array_equal(read[0], read[3])


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_missing_files_are_answered_with_the_layout_and_the_ways_on(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        opened(name, tmp_path)
    told = str(caught.value)
    assert str(tmp_path) in told
    assert all(line in told for line in BY_NAME[name].layout)
    assert "Set `root` to the folder" in told
    assert "`download=true`" in told
    assert BY_NAME[name].address in told
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "needed"), [(known.name, needed) for known in KNOWN for needed in known.needs])
def test_each_needed_file_is_missed_by_name(name: str, needed: str, laid_out) -> None:
    root = laid_out(name)
    gone = root / needed
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(DataError, match=f"has no {re.escape(needed)}"):
        opened(name, root)


@pytest.mark.parametrize("name", [known.name for known in KNOWN if known.folder])
def test_root_may_be_the_data_sets_own_folder(name: str, laid_out) -> None:
    root = laid_out(name)
    assert opened(name, root / BY_NAME[name].folder).keys == opened(name, root).keys


@pytest.mark.parametrize("name", ["dtd", "fashion-mnist", "isic"])
def test_without_a_root_the_users_cache_is_looked_into(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "user_cache_path", lambda app: tmp_path / app)
    entry = next(entry for entry in DATASETS if entry.name == name)
    assert not entry.available
    root = tmp_path / "concept-tuning" / "datasets"
    root = root if BY_NAME[name].folder else root / name
    root.mkdir(parents=True)
    MINIATURES[name](root)
    assert is_there(name)
    assert entry.available
    assert len(open_table(validate({"data": {"source": name}})))


@pytest.mark.parametrize("name", ["oxford-pets", "cifar100", "waterbirds", "eurosat"])
def test_they_become_splits_of_cached_pictures(name: str, laid_out, tmp_path: Path) -> None:
    data = {"source": name, "root": str(laid_out(name)), "cache_dir": str(tmp_path / "cache"), "image_size": 16}
    bundle = load_data(validate({"data": data}))
    assert all(len(split) for split in bundle.splits.values())
    assert bundle.source == name
    if SHAPES[name][0] is not None:
        assert len(bundle.splits["test"]) == SHAPES[name][0][2]
    assert load_data(validate({"data": data})).fingerprint == bundle.fingerprint


def test_wrong_checksums_are_refused(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100", "flowers102"):
        MINIATURES[name](tmp_path)
        with pytest.raises(DataError, match=r"damaged or laid out in another way \(RuntimeError: .*corrupted"):
            opened(name, tmp_path)


@pytest.mark.parametrize("name", ["dtd", "cub200"])
def test_a_download_comes_whole_or_not_at_all(name: str, tmp_path: Path, monkeypatch) -> None:
    known, root = BY_NAME[name], tmp_path / "new" / "root"
    asked = []

    def fail(part: str, **given: object) -> None:
        MINIATURES[name](Path(part))
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", lambda url, part, **_: fail(part))
    monkeypatch.setattr(datasets.DTD, "_download", lambda self: fail(self.root))
    with pytest.raises(DataError, match=r"could not be downloaded.*corrupted.*set `root` to"):
        opened(name, root, download=True)
    assert [path.name for path in root.iterdir() if path.is_dir()] == []

    def succeed(part: str, **given: object) -> None:
        asked.append(given)
        MINIATURES[name](Path(part))

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", lambda url, part, **g: succeed(part))
    monkeypatch.setattr(datasets.DTD, "_download", lambda self: None if asked else succeed(self.root))
    first = opened(name, root, download=True)
    assert opened(name, root, download=True).keys == first.keys
    assert len(asked) == 1
    assert [path.name for path in root.iterdir() if path.is_dir()] == [known.folder]


def test_what_another_process_has_fetched_meanwhile_is_not_fetched_again(tmp_path: Path) -> None:
    def lacking(root: Path) -> str | None:
        if (root / "dtd").is_dir():
            return None
        (root / "dtd").mkdir()  # by the other process, after this one found it missing
        return "dtd"

    config = DataConfig(source="dtd", root=str(tmp_path), download=True)
    found = files.ready_root(BY_NAME["dtd"], config, lambda part: pytest.fail("fetched"), lacking=lacking)
    assert found == tmp_path


def test_a_download_does_not_touch_what_is_there(laid_out) -> None:
    root = laid_out("dtd")
    (root / "dtd" / "dtd" / "labels" / "val1.txt").unlink()
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match=r"is there, but without dtd/dtd/labels/val1.txt. Move it away"):
        opened("dtd", root, download=True)
    assert [path for path in sorted(root.rglob("*")) if path.suffix != ".lock"] == before


@pytest.mark.parametrize("name", [known.name for known in KNOWN if not known.downloads])
def test_what_cannot_be_downloaded_says_where_it_is_had(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot fetch these: get them from https://"):
        opened(name, tmp_path / "nowhere", download=True)
    assert not (tmp_path / "nowhere").exists()


def test_root_and_download_belong_to_known_data_alone() -> None:
    for source in ("dtd", "hf:owner/name"):
        config = build_config(data=source, overrides=["root=here", "download=true"])
        assert (config.data.root, config.data.download) == ("here", True)
    for source in ("planted", "elpv", "path/to/dtd"):
        with pytest.raises(ConfigError, match=r"data\.root would do nothing here"):
            build_config(data=source, overrides=["root=here"])


def test_a_run_keeps_names_and_makes_roots_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("isic", "hf:owner"):
        (tmp_path / name / "name").mkdir(parents=True)
    for source in ("isic", "hf:owner/name"):
        config = with_absolute_paths(validate({"data": {"source": source, "root": "here"}}))
        assert config.data.source == source
        assert config.data.root == str(tmp_path / "here")


def test_fashion_mnist_is_read_as_debian_lays_it_out(tmp_path: Path) -> None:
    fashion(tmp_path / "torchvision")
    fashion(tmp_path / "debian", folder="", zipped=True)
    first, second = (opened("fashion-mnist", tmp_path / name) for name in ("torchvision", "debian"))
    assert first.keys == second.keys
    np.testing.assert_array_equal(first.labels, second.labels)
    for row in (0, 19, 20, 29):
        np.testing.assert_array_equal(first.read(row), second.read(row))
    theirs = datasets.FashionMNIST(tmp_path / "torchvision", train=False)
    np.testing.assert_array_equal(first.read(25)[..., 1], theirs.data[5].numpy())
