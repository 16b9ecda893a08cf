from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from tiny_runs import tiny_config
from torch import nn

from concept_tuning.config import BackboneConfig
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import (
    batch_norm_frequency,
    build_pretrained,
    channel_correlation,
    folder_images,
    group_deviations,
    picture_frequency,
    pretrained_maps,
)
from concept_tuning.errors import DataError
from concept_tuning.models.backbone import build_backbone, last_batch_norm


def pictures_of(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)


def network(architecture: str, *, trained: bool = True):
    """A random network whose batch norms have seen some pictures, the last with scales and shifts of both signs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneConfig(architecture=architecture, weights="random"), image_size=64)
        layer = last_batch_norm(backbone)
        if trained and layer is not None:
            for part in backbone.modules():  # open the residual branches, which begin at 0
                if isinstance(part, nn.BatchNorm2d):
                    nn.init.ones_(part.weight)
            nn.init.uniform_(layer.weight, -2, 2)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            with torch.no_grad():
                for _ in range(60):
                    backbone.train()(backbone.normalise(pictures_of(16, 1)))
    return backbone.eval()


def read(backbone, count: int = 16, seed: int = 1):
    images = pictures_of(count, seed)
    return pretrained_maps(backbone, lambda places: images[places.start : places.stop], count)


@pytest.mark.slow
def test_known_source_is_found_again_in_the_statistics_of_the_batch_norm() -> None:
    backbone = network("test_efficientnet")
    found = read(backbone)
    assert found.missing is None
    # On the pictures the statistics were gathered from, every channel is centred and has unit deviation.
    z = found.standardised
    assert z.shape == found.maps.shape
    np.testing.assert_allclose(z.mean((0, 2, 3)), 0, atol=0.1)
    np.testing.assert_allclose(z.std((0, 2, 3)), 1, atol=0.1)
    layer = last_batch_norm(backbone)
    sign = np.sign(layer.weight.detach().numpy())
    assert (sign < 0).any()
    assert (sign > 0).any()
    # More is always more activation, also where the scale is negative.
    maps = found.maps.transpose(1, 0, 2, 3).reshape(z.shape[1], -1)
    flat = z.transpose(1, 0, 2, 3).reshape(z.shape[1], -1)
    rises = np.diff(np.take_along_axis(maps, flat.argsort(1), axis=1), axis=1)
    if found.link != "other":
        assert rises.min() > -1e-4


class Affine(nn.Module):
    """A network of one batch norm, of which everything is known."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, eps=1e-9)
        self.activation = activation
        self.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        self.num_features = 3

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(images))


def affine(activation: nn.Module):
    from concept_tuning.models.backbone import Backbone

    model = Affine(activation)
    model.norm.running_mean.copy_(torch.tensor([0.2, 0.5, 0.7]))
    model.norm.running_var.copy_(torch.tensor([0.01, 0.04, 0.09]))
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([1.5, -2.0, 0.5]))
        model.norm.bias.copy_(torch.tensor([-0.3, 0.4, 0.1]))
    return Backbone(model.eval(), architecture="affine", image_size=64)


@pytest.mark.parametrize(
    ("activation", "link"),
    [(nn.Identity(), "none"), (nn.ReLU(), "relu"), (nn.ReLU6(), "relu6"), (nn.SiLU(), "other")],
)
def test_units_signs_and_silent_level_of_a_known_batch_norm(activation: nn.Module, link: str) -> None:
    images = pictures_of(40)
    found = read(affine(activation), 40, 0)
    assert found.link == link
    mean, deviation, sign = np.array([0.2, 0.5, 0.7]), np.array([0.1, 0.2, 0.3]), np.array([1, -1, 1])
    x = images.numpy() / 255
    z = sign[:, None, None] * (x - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(found.standardised, z, atol=1e-3)
    if link in ("relu", "relu6"):
        np.testing.assert_allclose(found.floor, [0.3 / 1.5, -0.4 / 2.0, -0.1 / 0.5], rtol=1e-6)
        np.testing.assert_array_equal(found.maps > 1e-5, found.standardised > found.floor[:, None, None] + 1e-5)
    else:
        assert np.isneginf(found.floor).all()


def test_a_level_has_the_share_of_gaussian_source_values_above_it() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal([3.0, -1.0], [2.0, 0.5], (200_000, 2))
    levels = np.array([6.0, -0.5])
    frequency = batch_norm_frequency((levels - [3.0, -1.0]) / [2.0, 0.5])
    np.testing.assert_allclose(frequency, (source > levels).mean(0), atol=0.002)
    np.testing.assert_allclose(frequency, [1 - norm.cdf(1.5), 1 - norm.cdf(1.0)], rtol=1e-12)


def test_deviation_of_a_group_follows_the_correlation_and_independence_makes_it_look_rarer() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(3000, 1, 2, 2))
    maps = np.concatenate([0.8 * shared + 0.6 * rng.normal(size=(3000, 3, 2, 2)), rng.normal(size=(3000, 1, 2, 2))], 1)
    weights = np.array([[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1.0]])
    # Three channels of variance 1 and correlation 0.64: variance of the mean (1 + 2 * 0.64) / 3.
    np.testing.assert_allclose(group_deviations(maps, weights), [np.sqrt((1 + 2 * 0.64) / 3), 1], rtol=0.01)
    np.testing.assert_allclose(group_deviations(maps, weights, independent=True), [np.sqrt(1 / 3), 1], rtol=1e-12)
    level = np.array([1.5, 1.5])
    group = batch_norm_frequency(level, deviations=group_deviations(maps, weights))
    np.testing.assert_allclose(group, picture_frequency(np.einsum("kd,ndhw->nkhw", weights, maps), level), atol=0.01)
    assert batch_norm_frequency(level, deviations=np.sqrt(1 / 3))[0] < group[0] / 5


def test_correlation_is_that_of_numpy_and_0_for_a_constant_channel() -> None:
    maps = np.random.default_rng(2).normal(size=(10, 3, 2, 2))
    maps[:, 2] = 4
    found = channel_correlation(maps)
    np.testing.assert_allclose(found[:2, :2], np.corrcoef(maps[:, :2].transpose(1, 0, 2, 3).reshape(2, -1)), atol=1e-6)
    np.testing.assert_array_equal(found[2], [0, 0, 1])


@pytest.mark.parametrize(
    ("architecture", "trained", "reason"),
    [
        ("test_vit", True, "no batch norm"),
        ("test_convnext", True, "no batch norm"),
        ("test_resnet", False, "never been trained"),
    ],
)
def test_where_the_network_kept_nothing_this_is_said(architecture: str, trained: bool, reason: str) -> None:
    found = read(network(architecture, trained=trained), 4)
    assert found.standardised is None
    assert isinstance(found.missing, Unavailable)
    assert reason in found.missing.reason
    assert "source_folder" in found.missing.reason
    assert found.maps.ndim == 4


def test_a_batch_norm_without_running_statistics_says_nothing_of_the_source() -> None:
    backbone = affine(nn.Identity())
    backbone.network.norm = nn.BatchNorm2d(3, track_running_stats=False)
    assert "keeps no running statistics" in read(backbone, 4).missing.reason


def test_a_batch_norm_of_other_cells_than_the_maps_says_nothing_of_their_source() -> None:
    found = read(affine(nn.AvgPool2d(2)), 4)
    assert found.standardised is None
    assert "channels and cells ((3, 64, 64) and (3, 32, 32))" in found.missing.reason


def test_residual_networks_are_told_from_those_whose_batch_norm_gives_the_map() -> None:
    assert read(network("test_resnet")).link == "other"


def test_network_is_left_as_found_also_after_an_error() -> None:
    backbone = network("test_resnet").train()
    next(backbone.children()).eval()
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    read(backbone, 4)

    def broken(places: range) -> torch.Tensor:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pretrained_maps(backbone, broken, 4)
    assert [module.training for module in backbone.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[name])


def test_runs_from_random_weights_have_no_source(subjects) -> None:
    before = torch.random.get_rng_state()
    found = build_pretrained(subjects[0], analysis="rare features")
    assert isinstance(found, Unavailable)
    assert "random weights" in found.reason
    assert torch.equal(torch.random.get_rng_state(), before)


@torch.no_grad()
def test_the_pretrained_network_is_what_the_run_began_with() -> None:
    config = tiny_config(backbone="tf_efficientnet_lite0", weights="auto")
    subject = SimpleNamespace(name="run", image_size=64, run=SimpleNamespace(config=config))
    state = torch.get_rng_state()
    found = build_pretrained(subject, analysis="before run")
    assert torch.equal(state, torch.get_rng_state())
    assert not found.training
    fresh = build_backbone(config.backbone, image_size=64).eval()
    images = fresh.normalise(pictures_of(1))
    assert torch.equal(found(images), fresh(images))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (tiny_config("scratch"), "run began with random weights"),
        (tiny_config(weights="no/such/file.safetensors"), "file.safetensors"),
    ],
)
def test_a_run_without_pretraining_or_its_weights_is_told_why(config, reason: str) -> None:
    subject = SimpleNamespace(name="run", image_size=64, run=SimpleNamespace(config=config))
    found = build_pretrained(subject, analysis="before run")
    assert isinstance(found, Unavailable)
    assert found.analysis == "before run"
    assert reason in found.reason


def test_a_channel_that_the_batch_norm_switches_off_never_varies() -> None:
    backbone = affine(nn.ReLU())
    with torch.no_grad():
        backbone.network.norm.weight[1] = 0
    found = read(backbone, 8)
    assert np.ptp(found.maps[:, 1]) == 0
    assert not found.standardised[:, 1].any()
    assert np.isneginf(found.floor[1])
    assert np.isfinite(found.floor[[0, 2]]).all()
    assert (np.ptp(found.standardised[:, [0, 2]], axis=(0, 2, 3)) > 1).all()


def test_source_like_pictures_are_read_evenly_and_damaged_ones_passed_over(tmp_path) -> None:
    for number in range(9):
        folder = tmp_path / f"{number % 3}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert folder_images(tmp_path, size=16).shape == (9, 3, 16, 16)
    few = folder_images(tmp_path, size=16, limit=3)
    assert len(few) <= 3
    assert len({int(image[0, 0, 0]) for image in few}) == len(few)
    with pytest.raises(DataError, match="no readable picture"):
        folder_images(tmp_path / "nowhere", size=16)


def test_a_channel_that_the_batch_norm_switches_off_adds_nothing_to_the_deviation_of_its_group() -> None:
    maps = np.random.default_rng(2).normal(size=(500, 2, 2, 2))
    maps[:, 1] = 0
    for independent in (True, False):
        found = group_deviations(maps, np.array([[0.5, 0.5]]), independent=independent)
        np.testing.assert_allclose(found, [0.5], rtol=1e-6)
