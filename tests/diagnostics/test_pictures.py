from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.pictures import Subject, check_comparable, choose_pictures
from concept_tuning.engine.session import load_run
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


def test_runs_tested_on_other_pictures_are_refused(subjects, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(subjects[1].run.folder.path, copy)
    for name, change in {
        "data.json": {"used_fingerprint": "another"},
        "split.json": {"test": ["test/000003"]},
    }.items():
        found = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(found | change))
    with pytest.raises(RunError, match="different pictures"):
        check_comparable([subjects[0], Subject(name="copy", run=load_run(copy))])
