from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.slices import SliceTable, find_slices, fit_mixture, reduce_embedding
from concept_tuning.diagnostics.statistics import share

NAMES = ("a", "b", "c", "d")


def sample(*, broken: bool, seed: int = 0, n: int = 300) -> tuple[dict, np.ndarray]:
    """Four classes in three habitats; if broken, class b in habitat 2 is mostly called c."""
    rng = np.random.default_rng(seed)
    labels, habitats = rng.integers(4, size=n), rng.integers(3, size=n)
    looks = rng.normal(size=(7, 40))
    embeddings = looks[labels] + looks[4 + habitats] + rng.normal(size=(n, 40)) * 0.6
    bad = (labels == 1) & (habitats == 2)
    wrong = rng.random(n) < np.where(bad & broken, 0.8, 0.1)
    predicted = np.where(wrong, (labels + 1) % 4, labels)
    probabilities = np.where(np.eye(4, dtype=bool)[predicted], 0.85, 0.05).astype(np.float32)
    values = {"embeddings": embeddings, "labels": labels, "probabilities": probabilities, "class_names": NAMES}
    return values | {"keys": [str(i) for i in range(n)]}, bad


def test_a_broken_habitat_is_the_first_slice(tmp_path) -> None:
    values, bad = sample(broken=True)
    table = find_slices(**values, n_slices=12, draws=19)
    assert isinstance(table, SliceTable)
    worst = table.slices[0]
    members = np.array([int(key) for key in worst.keys])
    assert bad[members].mean() > 0.9
    assert bad[members].sum() > 0.6 * bad.sum()
    assert worst.classes[0] == ("b", 1.0)
    assert worst.predicted[0][0] == "c"
    right = values["probabilities"].argmax(1) == values["labels"]
    assert worst.accuracy == share(right[members])
    assert worst.lift == pytest.approx(right[members].mean() - right.mean())
    ofclass = values["labels"] == 1
    assert worst.excess == pytest.approx(len(members) * right[ofclass].mean() - right[members].sum())
    assert table.p_value == 0.05
    save_result(table, tmp_path / "slices.json")
    assert load_result(SliceTable, tmp_path / "slices.json") == table


@pytest.mark.slow
def test_errors_at_random_are_not_called_a_slice() -> None:
    found = [find_slices(**sample(broken=False, seed=seed)[0], n_slices=12, draws=19).p_value for seed in range(5)]
    assert np.mean(found) > 0.2
    assert max(found) > 0.4


def test_every_picture_is_in_one_slice_or_counted_as_small() -> None:
    values, _ = sample(broken=True)
    table = find_slices(**values, draws=0)
    keys = [key for found in table.slices for key in found.keys]
    assert len(keys) == len(set(keys)) == 300 - table.small
    assert (table.n_slices, table.p_value) == (15, None)
    assert sorted(table.slices, key=lambda found: -found.excess) == list(table.slices)


def test_it_is_deterministic_and_does_not_depend_on_scale_or_offset() -> None:
    values, _ = sample(broken=True)
    first = find_slices(**values, n_slices=8, draws=3)
    assert find_slices(**values, n_slices=8, draws=3) == first
    moved = values | {"embeddings": values["embeddings"] * 1000 + 5}
    assert find_slices(**moved, n_slices=8, draws=0).slices == first.slices


def test_the_objective_never_falls_and_is_that_of_a_slow_reference() -> None:
    values, _ = sample(broken=True, n=80)
    blurred = values["embeddings"] + np.random.default_rng(1).normal(size=(80, 40)) * 4
    reduced = reduce_embedding(blurred, 4, 0)
    model = fit_mixture(reduced, values["labels"], values["probabilities"], n_slices=5, powers=(0.5, 0.7), seed=0)
    assert len(model.objective) > 3
    # A little may be lost to the smoothing of the tables and the floor of the variances.
    assert min(np.diff(model.objective)) > -1e-3
    total = 0.0
    for z, label, row in zip(reduced, values["labels"], values["probabilities"], strict=True):
        parts = [
            model.log_weights[k]
            + norm.logpdf(z, model.means[k], np.sqrt(model.variances[k])).sum()
            + 0.5 * model.labels[k, label]
            + 0.7 * (row * model.predictions[k]).sum()
            for k in range(5)
        ]
        total += logsumexp(parts)
    assert model.objective[-1] == pytest.approx(total / 80, rel=1e-6)
    np.testing.assert_allclose(np.exp(model.labels).sum(1), 1)
    np.testing.assert_allclose(np.exp(model.predictions).sum(1), 1)


def test_the_weight_of_the_label_makes_slices_pure() -> None:
    values, _ = sample(broken=False)
    noise = values | {"embeddings": np.random.default_rng(0).normal(size=(300, 40))}
    pure = {}
    for weight in (0.0, 50.0):
        table = find_slices(**noise, n_slices=6, label_weight=weight, error_weight=0.0, draws=0)
        pure[weight] = np.mean([found.classes[0][1] for found in table.slices])
    assert pure[0.0] < 0.6
    assert pure[50.0] > 0.95


def test_what_has_no_slices_says_why() -> None:
    values, _ = sample(broken=True)
    few = {name: value[:30] if name != "class_names" else value for name, value in values.items()}
    right = np.eye(4)[values["labels"]]
    for changed, words in (
        (few, "40 pictures"),
        (values | {"n_slices": 100}, "500 pictures"),
        (values | {"probabilities": right}, "All pictures are right"),
        (values | {"probabilities": np.roll(right, 1, axis=1)}, "All pictures are wrong"),
        (values | {"embeddings": np.ones((300, 40))}, "same embedding"),
    ):
        found = find_slices(**changed)
        assert isinstance(found, Unavailable)
        assert words in found.reason
    with pytest.raises(ValueError, match="n keys"):
        find_slices(**(values | {"keys": ["a"]}))
