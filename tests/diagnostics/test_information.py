from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score, roc_auc_score

from concept_tuning.diagnostics.information import (
    PresenceInformation,
    best_levels,
    candidate_levels,
    class_auc,
    infonce_bounds,
    information_test,
    knn_information,
    presence_information,
)
from concept_tuning.diagnostics.results import load_result, save_result


def test_plug_in_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 300)
    present = rng.random((300, 40)) < np.linspace(0, 1, 40) * (0.3 + 0.15 * labels[:, None])
    expected = [mutual_info_score(labels, column) for column in present.T]
    np.testing.assert_allclose(presence_information(present, labels, corrected=False), expected, atol=1e-12)


def test_constant_presence_says_nothing_with_and_without_correction() -> None:
    labels = np.array([0, 1, 0, 1, 2])
    present = np.stack([np.zeros(5, bool), np.ones(5, bool)], axis=1)
    for corrected in (True, False):
        np.testing.assert_allclose(presence_information(present, labels, corrected=corrected), 0, atol=1e-12)


def test_correction_is_that_of_miller_and_madow() -> None:
    # Entropies each raised by (cells that occur - 1) / 2n: presence has 2, the label 3, the pair 5 of 6 cells.
    labels = np.repeat([0, 1, 2], [4, 5, 6])
    present = np.array([1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], bool)[:, None]
    plain = presence_information(present, labels, corrected=False)
    expected = plain + ((2 - 1) + (3 - 1) - (5 - 1)) / (2 * 15)
    np.testing.assert_allclose(presence_information(present, labels), expected, rtol=1e-12)


def test_correction_takes_away_the_bias_of_useless_concepts() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 4
    present = rng.random((400, 3000)) < 0.3
    plain = presence_information(present, labels, corrected=False).mean()
    assert plain == pytest.approx(3 / 800, rel=0.08)
    assert abs(presence_information(present, labels).mean()) < 0.1 * plain


def slow_best(activations: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Try every candidate level by itself, with scikit-learn and the correction written out."""
    levels, found = [], []
    for column, candidates in zip(activations.T, candidate_levels(activations), strict=True):
        values = []
        for level in candidates:
            present = column > level
            cells = len({*zip(present, labels, strict=True)})
            excess = len(np.unique(present)) + len(np.unique(labels)) - cells - 1
            values.append(mutual_info_score(labels, present) + excess / (2 * len(labels)))
        levels.append(candidates[int(np.argmax(values))])
        found.append(max(values))
    return np.array(levels), np.array(found)


def test_search_of_levels_agrees_with_a_slow_reference() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 120)
    activations = np.maximum(rng.normal(size=(120, 12)) + 0.7 * (labels[:, None] == 1), 0)  # silent in many pictures
    found = information_test(activations, labels, permutations=20)
    levels, information = slow_best(activations, labels)
    np.testing.assert_allclose(found.information, information, atol=1e-12)
    np.testing.assert_allclose(found.levels, levels)
    np.testing.assert_allclose(best_levels(activations, labels), levels)
    np.testing.assert_allclose(presence_information(activations > found.levels, labels), information, atol=1e-12)


def test_null_is_that_of_labels_shuffled_by_hand_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels, activations = rng.integers(0, 3, 60), rng.normal(size=(60, 5))
    found = information_test(activations, labels, permutations=25, band_level=0.9, seed=7)
    orders = np.random.default_rng(7)
    null = np.stack([slow_best(activations, labels[orders.permutation(60)])[1] for _ in range(25)])
    np.testing.assert_allclose(found.null_mean, null.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.band, np.sort(null, axis=0)[-2], atol=1e-12)
    np.testing.assert_allclose(found.p_value, (1 + (null >= found.information - 1e-12).sum(0)) / 26)
    monkeypatch.setattr("concept_tuning.diagnostics.information._CELLS", 1)
    again = information_test(activations, labels, permutations=25, band_level=0.9, seed=7)
    for name in ("levels", "information", "band", "familywise"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_useless_concepts_are_flagged_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(4)
    flagged, family = 0, 0
    for seed in range(15):
        labels = rng.permutation(np.arange(100) % 4)
        activations = np.maximum(rng.normal(size=(100, 60)) - rng.random(60) * 1.5, 0)
        found = information_test(activations, labels, permutations=99, seed=seed)
        np.testing.assert_array_equal(found.useful, found.p_value <= 0.05 + 1e-12)
        flagged += int(found.useful.sum())
        family += bool((found.familywise <= 0.05).any())
    low, high = binom.ppf([0.001, 0.999], 900, 0.05)
    assert low <= flagged <= high
    assert family <= binom.ppf(0.999, 15, 0.05)


def test_a_level_chosen_without_a_null_of_its_own_would_flag_far_too_many() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(200) % 4
    activations = rng.normal(size=(200, 300))
    found = information_test(activations, labels, permutations=99)
    fixed = np.stack([presence_information(activations > found.levels, rng.permutation(labels)) for _ in range(99)])
    assert (found.information > np.sort(fixed, axis=0)[-5]).mean() > 0.15
    assert found.useful.mean() < 0.1


def test_too_few_permutations_for_the_band_are_refused() -> None:
    with pytest.raises(ValueError, match="10 permutations are too few"):
        information_test(np.zeros((4, 1)), np.array([0, 1, 0, 1]), permutations=10)
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(3,\)"):
        presence_information(np.zeros((4, 1), bool), np.array([0, 1, 0]))


def test_constant_activations_and_two_pictures_are_useless_and_no_error() -> None:
    found = information_test(np.full((30, 2), 3.0), np.arange(30) % 2, permutations=40)
    np.testing.assert_allclose(found.information, 0, atol=1e-12)
    assert not found.useful.any()
    assert (found.familywise == 1).all()
    assert not information_test(np.array([[0.0], [1.0]]), np.array([0, 1]), permutations=40).useful.any()


def gaussian_information(shift: float) -> float:
    """I(x; y) of y in {0, 1} alike and x ~ N(+-shift / 2, 1), by numerical integration, in nats."""

    def mixture(x: float) -> float:
        return 0.5 * norm.pdf(x, -shift / 2) + 0.5 * norm.pdf(x, shift / 2)

    entropy = quad(lambda x: -mixture(x) * math.log(mixture(x)), -12, 12)[0]
    return entropy - 0.5 * math.log(2 * math.pi * math.e)


def test_neighbours_give_the_information_of_two_gaussians() -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(1500) % 2
    shifts = np.array([0.0, 1.0, 2.0, 4.0])
    activations = rng.normal(size=(1500, 4)) + labels[:, None] * shifts
    expected = [gaussian_information(shift) for shift in shifts]
    assert expected[3] == pytest.approx(math.log(2), abs=0.12)
    found = knn_information(activations, labels)
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_array_equal(found, mutual_info_classif(activations, labels, random_state=0))
    assert (information_test(activations, labels, permutations=20).information < np.array(expected) + 0.02).all()


def test_auc_is_that_of_scikit_learn_with_ties_and_nan_where_there_is_none() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 80)
    activations = rng.integers(0, 5, (80, 6)).astype(float)
    found = class_auc(activations, labels, classes=4)
    for label in range(3):
        expected = [roc_auc_score(labels == label, column) for column in activations.T]
        np.testing.assert_allclose(found[label], expected)
    assert np.isnan(found[3]).all()
    assert np.isnan(class_auc(activations, np.zeros(80, int), classes=1)).all()


def test_infonce_stays_below_log_n_however_much_there_is_to_know() -> None:
    labels = np.arange(64)
    perfect = np.eye(64) * 1000.0
    bounds = infonce_bounds(perfect, labels, batches=(4, 16, 64, 128))
    assert [bound.batch for bound in bounds] == [4, 16, 64]
    for bound in bounds:
        assert bound.cap == pytest.approx(math.log(bound.batch))
        assert bound.value == pytest.approx(bound.cap)


def test_infonce_is_below_the_information_and_0_for_scores_that_say_nothing() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 2, 4096)
    heard = np.where(rng.random(4096) < 0.9, labels, 1 - labels)
    scores = np.log(np.where(heard[:, None] == np.arange(2), 0.9, 0.1))
    truth = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    values = [bound.value for bound in infonce_bounds(scores, labels, batches=(2, 8, 512))]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(truth, abs=0.02)
    assert values[0] < 0.75 * truth
    assert all(abs(bound.value) < 1e-9 for bound in infonce_bounds(np.zeros((64, 2)), labels[:64]))


def test_infonce_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(9)
    labels, scores = rng.integers(0, 3, 10), rng.normal(size=(10, 3))
    order = np.random.default_rng(4).permutation(10)[:8].reshape(2, 4)
    terms = [
        math.log(math.exp(scores[i, labels[i]]) / np.mean([math.exp(scores[i, labels[j]]) for j in batch]))
        for batch in order
        for i in batch
    ]
    (bound,) = infonce_bounds(scores, labels, batches=(4,), seed=4)
    assert bound.value == pytest.approx(np.mean(terms))
    assert bound.n == 8


def test_result_survives_saving(tmp_path) -> None:
    rng = np.random.default_rng(10)
    found = information_test(rng.normal(size=(30, 3)), np.arange(30) % 2, permutations=40)
    save_result(found, tmp_path / "result.json")
    again = load_result(PresenceInformation, tmp_path / "result.json")
    np.testing.assert_array_equal(again.information, found.information)
    np.testing.assert_array_equal(again.useful, found.useful)
    assert again.useful.dtype == bool
    assert again.excess == pytest.approx(found.information - found.null_mean)
