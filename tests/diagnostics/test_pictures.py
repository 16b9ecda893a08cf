from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from concept_tuning.config import DataConfig, RunConfig
from concept_tuning.data.planted import planted_table
from concept_tuning.data.registry import load_data
from concept_tuning.data.splits import splits_to_json
from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.pictures import Subject, check_comparable, choose_pictures
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.engine.loading import LoadedRun
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import RunError


def test_a_seed_chooses_pictures_without_repetition(subjects) -> None:
    bundle = subjects[0].run.data()
    first = choose_pictures(bundle, count=7, seed=1)
    assert len(first) == len(set(first.keys)) == 7
    assert np.array_equal(first.chosen, choose_pictures(bundle, count=7, seed=1).chosen)
    assert not np.array_equal(first.chosen, choose_pictures(bundle, count=7, seed=2).chosen)
    assert len(choose_pictures(bundle, count=10_000)) == len(bundle.splits["test"])
    assert np.array_equal(first.labels, bundle.splits["test"].labels[first.chosen])
    assert np.array_equal(first.groups, bundle.splits["test"].groups[first.chosen])


def test_pictures_are_those_of_the_split(pictures) -> None:
    expected = eval_view(pictures.split.image(3), size=40)
    assert torch.equal(pictures.image(3, 40), expected)
    assert torch.equal(pictures.images([2, 3], 40)[1], expected)


def test_masks_lie_on_the_bird(pictures) -> None:
    """The drawn bird's mask, brought to the input's size, stays where the drawing has it."""
    size = 64
    masks = pictures.masks(0, size)
    full = pictures.bundle.table.masks(int(pictures.split.rows[pictures.chosen[0]]))
    assert set(masks) == set(full)
    for name, mask in masks.items():
        assert mask.shape == (size, size)
        if full[name].sum() > 100:
            assert float(mask.float().mean()) == pytest.approx(full[name].mean(), rel=0.25)
            centre = np.argwhere(mask.numpy()).mean(0) / size
            assert centre == pytest.approx(np.argwhere(full[name]).mean(0) / full[name].shape, abs=0.05)


def test_pictures_without_masks_say_so(pictures) -> None:
    table = dataclasses.replace(pictures.bundle.table, masks=None)
    bare = dataclasses.replace(pictures, bundle=dataclasses.replace(pictures.bundle, table=table))
    assert pictures.has_masks
    assert not bare.has_masks
    with pytest.raises(RunError, match="no masks"):
        bare.masks(0, 64)


def test_runs_of_the_same_pictures_can_be_compared(subjects) -> None:
    check_comparable(subjects)


def test_runs_that_cannot_be_laid_side_by_side_are_refused(subjects, tmp_path) -> None:
    first, second = subjects
    with pytest.raises(RunError, match="same name"):
        check_comparable([first, dataclasses.replace(second, name=first.name)])
    other = dataclasses.replace(second.run, class_names=("a", "b", "c", "d"))
    with pytest.raises(RunError, match="different classes"):
        check_comparable([first, Subject(name="other", run=other)])


def changed(
    subject: Subject, path: Path, *, files: dict[str, dict[str, object]] | None = None, **planted: object
) -> Subject:
    """A copy of a run, named ``copy``, with entries of its files and settings of its planted birds exchanged."""
    folder = RunFolder(path)
    for name in ("split.json", "data.json"):
        folder.path.mkdir(exist_ok=True)
        folder.write_json(name, subject.run.folder.read_json(name) | (files or {}).get(name, {}))
    config = subject.run.config
    data = dataclasses.replace(config.data, data_seed=planted.pop("data_seed", config.data.data_seed))
    config = dataclasses.replace(config, data=data, planted=dataclasses.replace(config.planted, **planted))
    return Subject(name="copy", run=dataclasses.replace(subject.run, folder=folder, config=config))


@pytest.mark.parametrize("split", ["test", "val"])
def test_other_keys_are_refused_in_the_split_looked_at_alone(subjects, tmp_path, split) -> None:
    """Everything else is the same, the fingerprint too: it is over all splits."""
    keys = subjects[1].run.folder.read_json("split.json")[split]
    copy = changed(subjects[1], tmp_path / "copy", files={"split.json": {split: [*keys[:-1], "another"]}})
    with pytest.raises(RunError, match=f"vanilla and copy have different {split} pictures: 2 are in one"):
        check_comparable([subjects[0], copy], split=split)
    check_comparable([subjects[0], copy], split={"test": "val", "val": "test"}[split])


def test_the_order_of_the_keys_does_not_matter(subjects, tmp_path) -> None:
    keys = subjects[1].run.folder.read_json("split.json")["test"]
    check_comparable([subjects[0], changed(subjects[1], tmp_path / "copy", files={"split.json": {"test": keys[::-1]}})])


def test_a_run_trained_on_the_split_is_refused(subjects, tmp_path) -> None:
    found = subjects[1].run.folder.read_json("split.json")
    overlap = {"split.json": {"train": [*found["train"], found["test"][3]]}}
    copy = changed(subjects[1], tmp_path / "copy", files=overlap)
    with pytest.raises(RunError, match="copy was trained on 1 of the test pictures"):
        check_comparable([subjects[0], copy])
    check_comparable([subjects[0], copy], split="val")
    check_comparable([copy], split="train")


OTHER_FILES = {"data.json": {"fingerprint": "another", "used_fingerprint": "another"}}


@pytest.mark.parametrize("split", ["test", "val", "train"])
@pytest.mark.parametrize(
    "change",
    [
        {"rho": 0.2}, {"rarity": 0.3}, {"images": 40}, {"validation_images": 24}, {"test_images": 24},
        {"validation": "balanced"}, {"species": 6}, {"draw_size": 96}, {"data_seed": 5},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_planted_birds_may_differ_in_what_leaves_the_split_as_it_is(subjects, tmp_path, split, change) -> None:
    """The keys are the same whatever the settings; what is drawn for them is asked of the drawing itself."""
    copy = changed(subjects[0], tmp_path / "copy", files=OTHER_FILES, **change)
    drawn = []
    for config in (subjects[0].run.config, copy.run.config):
        table = planted_table(config.planted, seed=config.data.data_seed)
        places = {key: row for row, key in enumerate(table.keys)}
        keys = subjects[0].run.folder.read_json("split.json")[split]
        drawn.append([table.stamp(places[key]) for key in keys])
    if drawn[0] == drawn[1]:
        check_comparable([subjects[0], copy], split=split)
    else:
        with pytest.raises(RunError, match=f"different {split} pictures: {next(iter(change))} is "):
            check_comparable([subjects[0], copy], split=split)


def test_planted_birds_of_the_same_settings_that_look_different_are_refused(subjects, tmp_path) -> None:
    copy = changed(subjects[0], tmp_path / "copy", files=OTHER_FILES)
    with pytest.raises(RunError, match="drawn by different versions"):
        check_comparable([subjects[1], copy])


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory) -> Callable[..., Subject]:
    """Makes runs on one folder of 24 pictures, or on one with other pictures of the same names; nothing is trained."""
    root = tmp_path_factory.mktemp("folders")
    for place in range(24):
        for name, shift in (("pictures", 0), ("others", 1)):
            path = root / name / ("a" if place % 2 else "b") / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (10 * place, shift, 0)).save(path)

    def made(name: str, pictures: str = "pictures", **settings: object) -> Subject:
        data = DataConfig(source=str(root / pictures), cache_dir=str(root / "cache"), image_size=16, **settings)
        config = RunConfig(data=data)
        bundle = load_data(config)
        folder = RunFolder(root / name)
        folder.path.mkdir(exist_ok=True)
        rows = {split: found.rows for split, found in bundle.splits.items()}
        folder.write_json("split.json", splits_to_json(rows, bundle.table.keys))
        prints = {"fingerprint": bundle.fingerprint, "used_fingerprint": bundle.used_fingerprint}
        folder.write_json("data.json", prints)
        return Subject(name=name, run=LoadedRun(folder, config, None, bundle.class_names, bundle.group_names))

    return made


def test_runs_on_one_folder_with_other_splits_are_refused(folder_run) -> None:
    first, other = folder_run("first"), folder_run("other", data_seed=1)
    files = [subject.run.folder.read_json("data.json") for subject in (first, other)]
    assert files[0] == files[1]
    with pytest.raises(RunError, match="different test pictures"):
        check_comparable([first, other])


@pytest.mark.parametrize("change", [{"sample_rate": 50.0}, {"per_class": 2}])
def test_runs_with_fewer_training_pictures_are_comparable(folder_run, change) -> None:
    check_comparable([folder_run("first"), folder_run("fewer", **change)])


def test_other_pictures_of_the_same_names_are_refused(folder_run) -> None:
    first, other = folder_run("first"), folder_run("other", "others")
    splits = [subject.run.folder.read_json("split.json") for subject in (first, other)]
    assert splits[0] == splits[1]
    with pytest.raises(RunError, match="their files are not the same"):
        check_comparable([first, other])


def test_the_workbench_checks_the_split_it_looks_at(subjects, tmp_path) -> None:
    copy = changed(subjects[1], tmp_path / "copy", files={"split.json": {"val": ["another"]}})
    bundle = subjects[0].run.data()
    Workbench(subjects=[subjects[0], copy], bundle=bundle)
    with pytest.raises(RunError, match="different val pictures"):
        Workbench(subjects=[subjects[0], copy], bundle=bundle, split="val")
