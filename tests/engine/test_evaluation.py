from __future__ import annotations

import dataclasses
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from concept_tuning.engine import evaluation
from concept_tuning.engine.evaluation import PREDICTION, Predictions, evaluate
from concept_tuning.errors import DivergedError, RunError
from concept_tuning.proportion import share_interval


def predictions(groups: bool = True) -> Predictions:
    """Two classes, two groups; cells (0,a) 2 of 2 right, (0,b) 1 of 2, (1,a) 0 of 1, (1,b) 3 of 3."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    cells = np.array([0, 0, 1, 1, 0, 1, 1, 1])
    said = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    sure = np.where(said[:, None] == np.arange(2), 0.8, 0.2).astype(np.float32)
    other = np.where(labels[:, None] == np.arange(2), 0.6, 0.4).astype(np.float32)
    return Predictions({"classifier": other, PREDICTION: sure}, labels, cells if groups else None)


def run(groups: bool = True):
    names = ("a", "b") if groups else ()
    return evaluate(predictions(groups), split="test", class_names=("crow", "gull"), group_names=names)


def test_accuracy_loss_and_heads_in_closed_form() -> None:
    result = run()
    assert result.n == 8
    assert result.accuracy == 6 / 8
    assert result.loss == pytest.approx(-(6 * math.log(0.8) + 2 * math.log(0.2)) / 8, rel=1e-6)
    assert result.heads == {"classifier": 1.0}


def test_interval_is_wilsons() -> None:
    result = run()
    z, n, p = 1.959963984540054, 8, 0.75
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (result.low, result.high) == pytest.approx((centre - half, centre + half))


def test_worst_group_is_the_worst_class_group_cell() -> None:
    result = run()
    assert [(cell.name, cell.n, cell.accuracy) for cell in result.groups] == [
        ("crow | a", 2, 1.0),
        ("crow | b", 2, 0.5),
        ("gull | a", 1, 0.0),
        ("gull | b", 3, 1.0),
    ]
    assert result.worst_group == "gull | a"
    assert result.worst_group_accuracy == 0.0


def test_without_groups_there_is_no_worst_group() -> None:
    result = run(groups=False)
    assert result.groups == ()
    assert result.worst_group_accuracy is None
    assert [rate.accuracy for rate in result.classes] == [3 / 4, 3 / 4]


def test_predictions_survive_saving(tmp_path: Path) -> None:
    before = predictions()
    before.save(tmp_path / "folder" / "test.safetensors")
    after = Predictions.load(tmp_path / "folder" / "test.safetensors")
    assert set(after.probabilities) == {"classifier", PREDICTION}
    np.testing.assert_array_equal(after.probabilities[PREDICTION], before.probabilities[PREDICTION])
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.groups, before.groups)


@pytest.mark.skipif(os.name != "posix", reason="rights of files are those of POSIX")
def test_predictions_have_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        predictions().save(tmp_path / "test.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "test.safetensors").stat().st_mode) == 0o640


def test_predictions_that_cannot_be_written_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        predictions().save(tmp_path / "test.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_predictions_that_may_not_be_read_are_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions().save(tmp_path / "test.safetensors")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(RunError, match=r"test\.safetensors may not be read by this user"):
        Predictions.load(tmp_path / "test.safetensors")


@pytest.mark.parametrize("head", ["classifier", PREDICTION])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_probabilities_that_are_not_finite_are_refused(head: str, value: float) -> None:
    found = predictions()
    found.probabilities[head][3, 1] = value
    with pytest.raises(DivergedError, match=rf"of {head} are not finite for 1 of the 8 pictures of the test split"):
        evaluate(found, split="test", class_names=("crow", "gull"), group_names=("a", "b"))


def test_intervals_are_over_units_where_images_have_them(tmp_path: Path) -> None:
    alone, units = predictions(), np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = dataclasses.replace(alone, units=units)
    names = {"split": "test", "class_names": ("crow", "gull"), "group_names": ("a", "b")}
    plain, result = evaluate(alone, **names), evaluate(found, **names)
    assert (plain.units, result.units) == (None, 3)
    assert (result.accuracy, result.n) == (plain.accuracy, plain.n)
    assert (result.low, result.high) == share_interval(
        alone.probabilities[PREDICTION].argmax(1) == alone.labels, units=units
    )
    assert result.low < plain.low
    # all four crows are one unit
    assert result.classes[0].high - result.classes[0].low > plain.classes[0].high - plain.classes[0].low
    found.save(tmp_path / "test.safetensors")
    again = Predictions.load(tmp_path / "test.safetensors")
    assert again.units is not None
    assert np.array_equal(again.units, units)
    alone.save(tmp_path / "test.safetensors")
    assert Predictions.load(tmp_path / "test.safetensors").units is None
    dataclasses.replace(alone, units=units[:-1]).save(tmp_path / "test.safetensors")
    with pytest.raises(RunError, match="no unit for each label"):
        Predictions.load(tmp_path / "test.safetensors")
