"""Data sets of the Hub, from copies in folders; none of these tests reaches the net."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from miniatures import opened, picture
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.known import hub
from concept_tuning.data.known.opening import known_table
from concept_tuning.data.survey import survey
from concept_tuning.errors import DataError
from concept_tuning.settings import build_config


@pytest.mark.parametrize("source", ["hf:", "hf:mnist", "hf:a/b/c", "hf:a/b:", "hf:../b/c", "hf:https://x/y"])
def test_other_names_are_refused(source: str) -> None:
    with pytest.raises(DataError, match="write hf:owner/name"):
        known_table(DataConfig(source=source))


def test_the_lacking_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="`pip install datasets`"):
        known_table(DataConfig(source="hf:owner/name"))


@pytest.fixture
def datasets():
    """Return the package; without it these tests are left out."""
    return pytest.importorskip("datasets", reason="the optional package datasets is not installed")


def birds(root: Path) -> None:
    for split in ("train", "validation", "test"):
        for name in ("owl", "wren"):
            for n in range(2):
                picture(root / "owner" / "birds" / split / name / f"{split}{n}.jpg")


def test_a_copy_in_class_folders_is_read(datasets, tmp_path: Path) -> None:
    birds(tmp_path)
    table = opened("hf:owner/birds", tmp_path)
    assert table.source == "hf:owner/birds"
    assert table.class_names == ("owl", "wren")
    assert tuple(np.bincount(table.splits)) == (4, 4, 4)
    assert table.keys[0] == "train/000000"
    assert table.validation_note == "given with the data"
    original = np.asarray(Image.open(tmp_path / "owner/birds/train/owl/train0.jpg").convert("RGB"))
    np.testing.assert_array_equal(table.read(0), original)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(table.read))(0), original)
    assert opened("hf:owner/birds", tmp_path).stamp(0) == table.stamp(0)


def jpeg(colour: tuple[int, int, int] = (200, 10, 10)) -> dict[str, object]:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def stored(datasets, root: Path, features: dict[str, object], **splits: dict[str, list[object]]) -> None:
    folder = root / "owner" / "set"
    folder.mkdir(parents=True)
    for name, columns in splits.items():
        part = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        part.to_parquet(folder / f"{name}-00000-of-00001.parquet")


def test_rows_without_a_label_and_other_splits_are_told(datasets, tmp_path: Path) -> None:
    features = {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["a", "b", "unused"])}
    full = {"img": [jpeg()] * 4, "fine_label": [0, 1, 0, 1]}
    stored(datasets, tmp_path, features, train=full, test=full | {"fine_label": [0, 1, -1, -1]})
    table = opened("hf:owner/set", tmp_path)
    assert table.class_names == ("a", "b")
    assert tuple(np.bincount(table.splits, minlength=3)) == (4, 0, 2)
    assert [(problem.key, problem.reason) for problem in table.problems] == [("test", "2 of 4 rows have no label")]
    assert table.read(5).shape == (4, 6, 3)
    assert (table.read(5)[0, 0] == [200, 10, 10]).all()


def test_one_split_is_left_to_be_split(datasets, tmp_path: Path) -> None:
    features = {"image": datasets.Image(), "label": datasets.Value("string")}
    stored(datasets, tmp_path, features, train={"image": [jpeg()] * 3, "label": ["10", "9", "9"]})
    table = opened("hf:owner/set", tmp_path)
    assert table.splits is None
    assert table.class_names == ("9", "10")


def test_a_row_without_a_picture_is_unreadable(datasets, tmp_path: Path) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    stored(datasets, tmp_path, features, train={"image": [jpeg(), None], "label": [0, 1]})
    table = opened("hf:owner/set", tmp_path)
    assert table.read(0).shape == (4, 6, 3)
    with pytest.raises(UnreadableImage, match="the row holds no picture"):
        table.read(1)


def named(file: Path | str) -> dict[str, object]:
    """Return what a row holds of a picture whose bytes lie elsewhere."""
    return {"bytes": None, "path": str(file)}


def test_a_row_cannot_name_a_file_outside_the_copy(datasets, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "owner" / "set"
    inside = [picture(folder / "files" / f"{n}.jpg") for n in range(2)]
    secret = picture(tmp_path / "secret" / "secret.jpg")
    (folder / "link.jpg").symlink_to(secret)
    (folder / "near.jpg").symlink_to(inside[0])
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    climbing = folder / ".." / ".." / ".." / "secret" / "secret.jpg"
    pipes = [tmp_path / "pipe.jpg", folder / "pipe.jpg"]
    rows = [named(file) for file in (*inside, folder / "near.jpg")]
    rows += [named(file) for file in (secret, folder / "link.jpg", climbing, *pipes, "secret.jpg")]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": rows, "label": [n % 2 for n in range(len(rows))]}
    # By pyarrow, since `datasets` would put the bytes of the files in.
    pyarrow.parquet.write_table(
        pyarrow.table(columns, schema=features.arrow_schema), folder / "train-00000-of-00001.parquet"
    )
    table = opened("hf:owner/set", tmp_path / "data")
    for read in (table.read, pickle.loads(pickle.dumps(table.read))):
        assert all(read(row).shape == (16, 20, 3) for row in range(3))
        for row in range(3, len(rows)):
            with pytest.raises(UnreadableImage, match=r"leads out of the data folder|not a regular file"):
                read(row)


def test_pictures_of_the_hub_may_be_links_within_its_caches(datasets, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    blob = picture(cache / "datasets--owner--set" / "blobs" / "0123")
    shot = cache / "datasets--owner--set" / "snapshots" / "9"
    shot.mkdir(parents=True)
    (shot / "a.jpg").symlink_to("../../blobs/0123")
    rows = [named(shot / "a.jpg"), named(picture(tmp_path / "own" / "b.jpg")), named(picture(tmp_path / "c.jpg"))]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    part = datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 1]}, features=features)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": part})
    table = opened("hf:owner/set", tmp_path / "own")
    assert np.array_equal(table.read(0), np.asarray(Image.open(blob).convert("RGB")))
    assert table.read(1).shape == (16, 20, 3)
    with pytest.raises(UnreadableImage, match="leads out"):
        table.read(2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert known_table(DataConfig(source="hf:owner/set")).read(2).shape == (16, 20, 3)


def test_splits_of_which_none_is_for_training_are_refused(datasets, tmp_path: Path) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    part = {"image": [jpeg()] * 2, "label": [0, 1]}
    stored(datasets, tmp_path, features, validation=part, test=part)
    with pytest.raises(DataError, match="hf:owner/set: none of its splits validation, test is called train"):
        opened("hf:owner/set", tmp_path)


def test_of_several_columns_of_pictures_the_one_of_a_known_name_is_taken(datasets, tmp_path: Path) -> None:
    features = {"depth": datasets.Image(), "img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    columns = {"depth": [jpeg((0, 0, 0))] * 2, "img": [jpeg()] * 2, "label": [0, 1]}
    stored(datasets, tmp_path, features, train=columns)
    assert (opened("hf:owner/set", tmp_path).read(0)[0, 0] == [200, 10, 10]).all()


def test_pictures_that_are_held_in_memory_have_the_stamp_of_their_files(datasets, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "IN_MEMORY_MAX_SIZE", 10**6)
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    stored(datasets, tmp_path, features, train={"image": [jpeg()] * 2, "label": [0, 1]})
    stamp = opened("hf:owner/set", tmp_path).stamp(0)
    assert opened("hf:owner/set", tmp_path).stamp(0) == stamp
    os.utime(next((tmp_path / "owner" / "set").iterdir()), (1, 1))
    assert opened("hf:owner/set", tmp_path).stamp(0) != stamp


def test_one_class_is_refused_in_a_survey_too(datasets, tmp_path: Path) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    stored(datasets, tmp_path, features, train={"image": [jpeg()] * 6, "label": [0] * 6})
    config = build_config(data="hf:owner/set", overrides={"root": str(tmp_path)})
    with pytest.raises(DataError, match="hf:owner/set has fewer than two classes"):
        survey(config)


def test_columns_that_cannot_be_told_are_refused(datasets, tmp_path: Path) -> None:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
    stored(datasets, tmp_path, features, train={"text": ["x", "y"], "label": [0, 1]})
    with pytest.raises(DataError, match="hf:owner/set: it has no column of pictures"):
        opened("hf:owner/set", tmp_path)


def test_what_is_not_there_says_how_to_get_it(datasets, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hf:owner/none cannot be opened: .*Set `root` to.*download=true"):
        opened("hf:owner/none", tmp_path)


def test_without_leave_to_download_the_net_is_not_asked(datasets, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    seen = []

    def load(name: str, subset: str | None, **given: object) -> dict[str, object]:
        seen.append((name, subset, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        raise ConnectionError("no net")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for download in (False, True):
        with pytest.raises(DataError, match="no net"):
            opened("hf:owner/none:small", tmp_path, download=download)
    assert seen == [("owner/none", "small", True, True), ("owner/none", "small", False, False)]
