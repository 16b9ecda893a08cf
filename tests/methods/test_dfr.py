"""Deep feature reweighting against a slow reference, and what it warns of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny_runs import tiny_config

from concept_tuning.engine.session import start_run
from concept_tuning.methods import dfr
from concept_tuning.methods.base import Batch
from concept_tuning.methods.dfr import Dfr, retrained_classifier
from concept_tuning.models.backbone import build_backbone
from concept_tuning.progress import ConsoleWatcher

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # the authors'


class InOrder:
    """Takes rows as they come, in place of draws."""

    def permutation(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def choice(self, rows: np.ndarray, count: int, *, replace: bool) -> np.ndarray:
        return rows[:count]


def pictures(seed: int, classes: int, per_cell: int = 8, width: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noisy features, labels and groups, one cell of each class larger than the others."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), 3 * per_cell)
    groups = np.tile(np.repeat([0, 0, 1], per_cell), classes)
    features = random.normal(size=(len(labels), width))
    features[:, 0] += 1.5 * labels
    features[:, 1] += 2.0 * (groups == labels % 2)
    return features.astype(np.float32), labels, groups


def fitted(features: np.ndarray, labels: np.ndarray, strength: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of one class against the rest; of two classes, of the second against the first."""
    fits = []
    for label in range(1, 2) if classes == 2 else range(classes):
        model = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", max_iter=1000, random_state=0)
        fits.append(model.fit(features, labels == label))
    return np.concatenate([fit.coef_ for fit in fits]), np.concatenate([fit.intercept_ for fit in fits])


def predicted(features: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    logits = features @ weights.T + bias
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(int)


def worst_of_the_other_half(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, strength: float, classes: int
) -> float:
    """Fit to the first half of every cell, as many of each as of the smallest; return the worst cell of the rest."""
    cells = {
        (label, group): np.flatnonzero((labels == label) & (groups == group))
        for label in range(classes)
        for group in set(groups.tolist())
    }
    least = min(len(rows) // 2 for rows in cells.values())
    first = np.sort(np.concatenate([rows[: len(rows) // 2][:least] for rows in cells.values()]))
    model = fitted(features[first], labels[first], strength, classes)
    accuracies = []
    for (label, _), rows in cells.items():
        rest = rows[len(rows) // 2 :]
        accuracies.append((predicted(features[rest], *model) == label).mean())
    return min(accuracies)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_strength_is_the_one_with_the_best_worst_cell_of_the_half_that_is_not_fitted(classes: int) -> None:
    chosen = []
    for seed in range(8):
        features, labels, groups = pictures(seed, classes)
        scores = [worst_of_the_other_half(features, labels, groups, strength, classes) for strength in STRENGTHS]
        cells = labels * 2 + groups
        found = dfr._chosen_strength(features, labels, cells, None, InOrder())
        assert found == STRENGTHS[int(np.argmax(scores))]  # of equal ones the weakest penalty
        chosen.append(found)
    assert len(set(chosen)) > 1  # else any constant would do


def test_with_too_few_pictures_to_halve_the_weakest_penalty_is_taken() -> None:
    others = []
    for seed in range(8):
        features, labels, groups = pictures(seed, 2, per_cell=3)
        assert dfr._chosen_strength(features, labels, labels * 2 + groups, None, InOrder()) == 1.0
        scores = [worst_of_the_other_half(features, labels, groups, strength, 2) for strength in STRENGTHS]
        others.append(int(np.argmax(scores)))
    assert any(others)  # by halves another would have been chosen


@pytest.mark.parametrize("seed", range(5))
def test_the_halves_part_no_plant(seed: int) -> None:
    """Else the strength would be chosen on pictures of plants that were fitted to."""
    random = np.random.default_rng(seed)
    units = np.repeat(np.arange(40), random.integers(1, 9, 40))
    cells = (units % 4)[random.permutation(len(units))] if seed == 4 else units % 4  # 4: plants of several cells
    half = dfr._half(cells, units, np.random.default_rng(seed))
    assert half is not None
    assert not set(units[half]) & set(units[~half])
    assert all(0.3 < half[cells == cell].mean() < 0.7 for cell in range(4))
    again = dfr._half(cells, units, np.random.default_rng(seed))
    np.testing.assert_array_equal(half, again)


def test_the_layer_is_fitted_with_the_units_of_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("dfr")
    with torch.random.fork_rng(devices=[]):
        method = Dfr(config, build_backbone(config.backbone, image_size=64), 2)

    class Plants:
        def batches(self, split: str):
            for start in (0, 8):
                rows = torch.arange(start, start + 8)
                yield Batch(torch.randn(8, 3, 64, 64), rows % 2, rows // 2 % 2, rows // 4)

    halved, half = [], dfr._half
    monkeypatch.setattr(dfr, "_half", lambda *given: halved.append(given[1]) or half(*given))
    method.finish(Plants())
    assert [units.tolist() for units in halved] == [[0] * 4 + [1] * 4 + [2] * 4 + [3] * 4]


def test_with_fewer_than_four_plants_of_a_cell_nothing_is_halved() -> None:
    units = np.repeat(np.arange(7), 10)
    assert dfr._half((units > 2).astype(int), units, np.random.default_rng(0)) is None
    assert dfr._half((units > 2).astype(int), None, np.random.default_rng(0)) is not None


def test_where_a_half_would_lack_a_cell_nothing_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = np.repeat([0, 1], 8)
    monkeypatch.setattr(
        "sklearn.model_selection.StratifiedGroupKFold.split", lambda *_: iter([(np.arange(8), np.arange(8, 16))])
    )
    assert dfr._half(cells, np.arange(16) // 2, np.random.default_rng(0)) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_is_the_mean_of_those_fitted_to_its_balanced_samples(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels, groups = pictures(1, classes)
    features = features * np.linspace(0.1, 9, features.shape[1], dtype=np.float32) + 5
    cells, drawn, real = labels * 2 + groups, [], dfr._balanced
    monkeypatch.setattr(dfr, "_balanced", lambda *given: drawn.append(real(*given)) or drawn[-1])
    monkeypatch.setattr(dfr, "_chosen_strength", lambda *given: 0.3)
    weights, bias = retrained_classifier(features, labels, groups, classes=classes, subsets=4, seed=3)
    assert len(drawn) == 4
    assert len({tuple(rows) for rows in drawn}) == 4
    scaled = (features - features.mean(0)) / features.std(0)
    logits = []
    for rows in drawn:
        assert set(np.unique(cells[rows], return_counts=True)[1]) == {np.bincount(cells).min()}
        own_weights, own_bias = fitted(scaled[rows], labels[rows], 0.3, classes)
        logits.append(scaled @ own_weights.T + own_bias)
    found = features @ weights.T + bias
    if classes == 2:
        found = found[:, 1:] - found[:, :1]
    np.testing.assert_allclose(found, np.mean(logits, axis=0), atol=2e-3)


def split(counts: list[list[int]]) -> SimpleNamespace:
    """Return a split with so many pictures of each class (row) within each group (column)."""
    cells = [(label, group) for label, row in enumerate(counts) for group, n in enumerate(row) for _ in range(n)]
    labels, groups = np.array(cells).T
    return SimpleNamespace(labels=labels, groups=groups)


def caution(val: list[list[int]], train: list[list[int]], data: str = "validation") -> str:
    config = tiny_config("dfr", **{"dfr.data": data})
    with torch.random.fork_rng(devices=[]):
        method = Dfr(config, build_backbone(config.backbone, image_size=64), 2)
    bundle = SimpleNamespace(
        class_names=("gull", "tern"), group_names=("sea", "land"), splits={"val": split(val), "train": split(train)}
    )
    return method.caution(bundle)


def test_a_small_group_is_warned_of_with_its_name_its_number_and_what_to_do() -> None:
    enough = [[10, 30], [30, 10]]
    said = caution([[30, 9], [40, 30]], enough)
    assert "Of the validation pictures that is gull | land with 9, so that 36 at a time decide the last layer" in said
    assert said.endswith(" Take more validation pictures, or dfr.data=training, where the smallest has 10.")
    assert caution(enough, [[1, 1], [1, 1]]) == ""
    said = caution(enough, [[50, 0], [2, 50]], "training")  # what is not there is passed over
    assert "Of the training pictures that is tern | sea with 2, so that 6 at a time decide" in said
    assert said.endswith("Take more training pictures, or dfr.data=validation, where the smallest has 10.")
    said = caution([[30, 2], [40, 30]], [[50, 2], [50, 50]])  # the other split has no more
    assert said.endswith("chance has a great part in it. Take more validation pictures.")


class Listener(ConsoleWatcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("method", "warned"), [("dfr", True), ("vanilla", False)])
def test_a_run_says_it_before_the_training_and_keeps_it_with_its_results(
    method: str, warned: bool, tmp_path: Path
) -> None:
    listener = Listener()
    run = start_run(tiny_config(method, max_steps=1, device="cpu"), tmp_path / "run", listener)
    results = json.loads((run.path / "results.json").read_text())
    found = [place for place, text in enumerate(listener.said) if text.startswith("dfr draws as many pictures")]
    assert (len(found), "caution" in results) == (warned, warned)
    if warned:
        assert results["caution"] == listener.said[found[0]]
        assert found[0] < listener.said.index("Predicting with the best epoch")
