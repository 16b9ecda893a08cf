from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from test_attribution import FAMILIES, build, squares, state, teach_brightness

from concept_tuning.diagnostics import controls, sanity
from concept_tuning.diagnostics.attribution import attribute_all, untouched
from concept_tuning.diagnostics.controls import compare_with_controls
from concept_tuning.diagnostics.features import BATCH
from concept_tuning.diagnostics.pictures import Pictures
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.sanity import (
    SanityCheck,
    calibration_places,
    check_sanity,
    likeness_of_different,
    randomisation_stages,
    randomise,
    randomised_copy,
    rank_correlation,
    recalibrate,
    structural_similarity,
)
from concept_tuning.errors import RunError


def maps(*, seed: int, count: int = 4, size: int = 12) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).normal(size=(count, size, size)), 0).astype(np.float32)


def test_rank_correlation_is_that_of_scipy_with_ties() -> None:
    first, second = maps(seed=0), maps(seed=1) + 0.5 * maps(seed=0)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected)
    np.testing.assert_allclose(rank_correlation(first, np.exp(first)), 1)


def slow_similarity(x: np.ndarray, y: np.ndarray, side: int = 7) -> float:
    """Return the mean of equation 13 of Wang et al. (2004) over all windows that lie inside."""
    x, y = (values.astype(float) / values.max() for values in (x, y))
    found = []
    for row in range(len(x) - side + 1):
        for column in range(len(x) - side + 1):
            a, b = (v[row : row + side, column : column + side] for v in (x, y))
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            top = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
            found.append(top / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)))
    return float(np.mean(found))


@pytest.mark.parametrize("size", [12, 7, 4])
def test_structural_similarity_equals_a_slow_reference(size: int) -> None:
    first, second = maps(seed=0, size=size), maps(seed=1, size=size) + 0.5 * maps(seed=0, size=size)
    expected = [slow_similarity(a, b, min(7, size)) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(structural_similarity(first, second), expected, rtol=1e-6)
    np.testing.assert_allclose(structural_similarity(first, 3 * first), 1)


def test_chance_is_the_mean_over_all_pairs_in_any_order_of_the_pictures() -> None:
    found = maps(seed=0, count=8)
    found[4:] += 2 * maps(seed=5, count=1)  # a class of pictures that look alike, the last half
    found[6] = 0
    pairs = [
        spearmanr(found[a].ravel(), found[b].ravel()).statistic for a in range(8) for b in range(a) if 6 not in (a, b)
    ]
    assert likeness_of_different(found) == pytest.approx(np.mean(pairs))
    mixed = found[np.random.default_rng(0).permutation(8)]
    assert likeness_of_different(mixed) == pytest.approx(likeness_of_different(found))
    assert np.isnan(likeness_of_different(found[5:7]))


def test_batch_norms_are_fitted_to_pictures_drawn_over_all() -> None:
    places = calibration_places(500, seed=0)
    assert len(set(places)) == BATCH
    assert max(places) > 400
    assert places == calibration_places(500, seed=0) != calibration_places(500, seed=1)
    assert calibration_places(5, seed=0) == list(range(5))


def test_both_controls_and_the_check_fit_batch_norms_to_these(subjects, pictures, monkeypatch) -> None:
    fitted: list[torch.Tensor] = []
    monkeypatch.setattr(sanity, "recalibrate", lambda method, images, names: fitted.append(images))
    monkeypatch.setattr(sanity, "calibration_places", lambda count, *, seed: [3, 1])
    monkeypatch.setattr(controls, "calibration_places", lambda count, *, seed: [3, 1])
    some = pictures.at(range(4))
    check_sanity(subjects[0], some, maps=("eigen-cam",), stages=1)
    compare_with_controls(subjects[0], some, maps=("eigen-cam",), measures=())
    assert len(fitted) == 3
    for images in fitted:
        torch.testing.assert_close(images, some.images([3, 1], subjects[0].image_size))


def test_a_blank_map_has_no_likeness() -> None:
    first, second = maps(seed=0), maps(seed=1)
    first[1], second[2] = 0, 0
    for measure in (rank_correlation, structural_similarity):
        assert np.isnan(measure(first, second)).tolist() == [False, True, True, False]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cascade_goes_from_the_head_to_the_first_layer(family: str) -> None:
    method = build(family, 64)
    stages = randomisation_stages(method, count=4)
    assert len(stages) == 5
    assert set(stages[0].parameters) == {"classifier.weight", "classifier.bias"}
    names = [name for stage in stages for name in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in method.named_parameters())
    # Every stage is nearer to the input: what runs after its first layer does not reach that layer's input.
    first = {"test_vit": "pos_embed", "swin": "patch_embed.proj.weight", "test_efficientnet": "conv_stem.weight"}
    stem = {"test_resnet": "conv1.0.weight", "test_convnext": "stem.0.weight", **first}[family]
    assert f"backbone.network.{stem}" in stages[-1].parameters
    last = {"test_resnet": "layer4", "test_efficientnet": "bn2", "test_convnext": "head.norm"}
    final = last.get(family, "norm.")
    assert any(name.startswith(f"backbone.network.{final}") for name in stages[1].parameters)


def test_heads_of_concept_tuning_are_all_in_the_first_step(subjects) -> None:
    method = subjects[1].method
    stages = randomisation_stages(method)
    heads = {name for name, _ in method.named_parameters() if name.startswith(("classifier.", "front_door."))}
    assert set(stages[0].parameters) == heads
    assert not any("key_encoder" in name for stage in stages for name in stage.parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_leave_nothing_of_the_old_ones(family: str) -> None:
    method = build(family, 64)
    with torch.no_grad():
        for parameter in method.parameters():  # as if trained, so that no bias is all zeros
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    images = squares([(0, 0), (0, 40), (40, 0), (20, 20)], 64)
    before = state(method)
    twin = randomised_copy(method, images, seed=3)
    assert state(method) == before
    old, new = dict(method.named_parameters()), dict(twin.named_parameters())
    for name, parameter in new.items():
        if parameter.numel() >= 256:
            correlation = torch.corrcoef(torch.stack([parameter.flatten(), old[name].flatten()]))[0, 1]
            assert abs(correlation) < 0.25, name
            torch.testing.assert_close(parameter.std(), old[name].std(), rtol=0.3, atol=0)
        if parameter.numel() > 1:
            assert not (parameter == old[name]).any(), name
    again, other = (randomised_copy(method, images, seed=seed) for seed in (3, 4))
    assert state(again)["parameters"] == state(twin)["parameters"] != state(other)["parameters"]
    found = attribute_all(twin, images, torch.zeros(4, dtype=torch.long))
    assert all(torch.isfinite(values).all() for values in found.values())


def test_batch_norms_fit_the_random_weights_and_only_theirs() -> None:
    method = build("test_resnet", 64)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stages = randomisation_stages(method)
    names = stages[1].parameters
    before = copy.deepcopy(method).state_dict()
    randomise(method, names, torch.Generator().manual_seed(0))
    recalibrate(method, images, names)
    parts = {name.rpartition(".")[0] for name in names}
    for name, value in method.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name]) != (name.rpartition(".")[0] in parts), name
    norm = method.backbone.network.layer4[0].bn1
    assert not norm.training
    seen: list[torch.Tensor] = []
    with untouched(method), torch.no_grad():
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        method.backbone(method.backbone.normalise(images))
    # Up to the variance's n - 1 in the layers before.
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=0.02, atol=1e-3)


@pytest.fixture(scope="module")
def checks(subjects, pictures) -> dict[str, SanityCheck]:
    return {subject.name: check_sanity(subject, pictures, seed=1) for subject in subjects}


class Squares:
    """Pictures of a bright square in sixteen places."""

    def __init__(self, size: int) -> None:
        starts = np.linspace(3, size - size // 4 - 3, 4).astype(int)
        self.all = squares([(row, column) for row in starts for column in starts], size)
        self.keys = tuple(f"square/{number}" for number in range(len(self.all)))

    def __len__(self) -> int:
        return len(self.all)

    def images(self, places: range, size: int) -> torch.Tensor:
        return self.all[list(places)]


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_of_a_taught_network_change_with_what_they_depend_on(family: str) -> None:
    """Eigen-CAM knows of no class; Grad-CAM follows the head. A random network still finds a bright square."""
    size = FAMILIES[family]
    method = build(family, size)
    teach_brightness(method, size)
    check = check_sanity(SimpleNamespace(name=family, method=method, image_size=size), Squares(size), seed=0)
    eigen, grad = check.maps.index("eigen-cam"), check.maps.index("grad-cam")
    assert check.stages[0] == "heads"
    np.testing.assert_allclose(check.correlation[eigen, 0], 1)
    np.testing.assert_allclose(check.similarity[eigen, 0], 1, rtol=1e-5)
    assert check.mean_correlation[grad, 0] < 0.8
    assert (check.chance < 0.7).all()


def test_eigen_cam_changes_with_the_features(checks) -> None:
    for check in checks.values():
        assert check.mean_correlation[check.maps.index("eigen-cam"), -1] < 0.97


def test_batch_norms_are_fitted_to_all_that_is_random_by_then(subjects, pictures, monkeypatch) -> None:
    fitted: list[set[str]] = []
    monkeypatch.setattr(sanity, "recalibrate", lambda method, images, names: fitted.append(set(names)))
    check_sanity(subjects[0], pictures, maps=("eigen-cam",), stages=3)
    stages = randomisation_stages(subjects[0].method, count=3)
    expected = [{name for stage in stages[: step + 1] for name in stage.parameters} for step in range(4)]
    assert fitted == expected


def test_one_picture_is_not_enough(subjects, pictures) -> None:
    one = Pictures(split=pictures.split, chosen=pictures.chosen[:1], bundle=pictures.bundle)
    for analysis in (check_sanity, compare_with_controls):
        with pytest.raises(RunError, match="At least two pictures"):
            analysis(subjects[0], one)


def test_blank_maps_are_not_counted(checks) -> None:
    for check in checks.values():
        known = np.isfinite(check.correlation)
        assert (check.counts == known.sum(2)).all()
        assert (np.isnan(check.mean_correlation) == (check.counts == 0)).all()
        assert (np.isfinite(check.similarity) >= known).all()


def test_the_check_is_the_same_for_a_seed_and_leaves_the_model(subjects, pictures, checks) -> None:
    subject = subjects[1]
    before = state(subject.method)
    torch.manual_seed(5)
    random = torch.get_rng_state()
    again = check_sanity(subject, pictures, seed=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert state(subject.method) == before
    np.testing.assert_array_equal(again.correlation, checks[subject.name].correlation)


def test_the_check_is_read_back_equal(tmp_path, checks) -> None:
    check = checks["vanilla"]
    save_result(check, tmp_path / "sanity.json")
    found = load_result(SanityCheck, tmp_path / "sanity.json")
    assert (found.keys, found.maps, found.stages, found.seed) == (check.keys, check.maps, check.stages, check.seed)
    for name in ("correlation", "similarity", "chance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(check, name))
