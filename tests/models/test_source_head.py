"""The pre-trained classifier: packaged, timm's, of a file, or none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import timm
import torch
from rivals import SIZE, source_file
from torch import nn

from concept_tuning.config import BackboneConfig
from concept_tuning.errors import ConfigError, WeightsError
from concept_tuning.models import source_head
from concept_tuning.models.backbone import Backbone, build_backbone, create_network
from concept_tuning.models.source_head import adopt_shapes, load_source_head, source_classes
from concept_tuning.models.state import read_state
from concept_tuning.models.weights import WeightsSource, packaged_file

PACKAGED_HERE = "tf_efficientnet_lite0"


def pair(weights: str, architecture: str = "test_resnet") -> tuple[Backbone, BackboneConfig]:
    config = BackboneConfig(architecture=architecture, weights=weights)
    return build_backbone(config, image_size=SIZE).eval(), config


def images(size: int = SIZE) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_packaged_head_on_pooled_features_is_the_whole_network() -> None:
    backbone, config = pair("packaged", PACKAGED_HERE)
    head = load_source_head(backbone, config)
    assert (head.in_features, head.out_features) == (1280, 1000)
    logits = head(backbone(images()).mean((2, 3)))
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(2))
    # The whole network by timm's names, its values in the file's order.
    whole = timm.create_model(PACKAGED_HERE, num_classes=1000).eval()
    state = dict(zip(whole.state_dict(), read_state(packaged_file(PACKAGED_HERE)).values(), strict=True))
    whole.load_state_dict(state)
    torch.testing.assert_close(logits, whole(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@torch.no_grad()
def test_head_of_a_file_is_that_of_the_saved_network(prefix: str, tmp_path: Path) -> None:
    state = read_state(Path(source_file(tmp_path)))
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "file.pth")
    backbone, config = pair(str(tmp_path / "file.pth"))
    head = load_source_head(backbone, config)
    whole = timm.create_model("test_resnet", num_classes=7).eval()
    whole.load_state_dict(state)
    torch.testing.assert_close(head(backbone(images()).mean((2, 3))), whole(images()))
    assert source_classes(backbone, config) == 7


def test_timm_head_is_fetched_with_its_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved = Path(source_file(tmp_path, classes=1000))
    source = WeightsSource(kind="timm", architecture="test_resnet", path=saved)
    monkeypatch.setattr(source_head, "find_weights", lambda name, choice: source)
    backbone, config = pair("random")
    head = load_source_head(backbone, dataclasses.replace(config, weights="timm"))
    assert torch.equal(head.weight, read_state(saved)["fc.weight"])
    assert torch.equal(head.bias, read_state(saved)["fc.bias"])


def test_a_timm_head_that_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cut off.safetensors").write_bytes(b"half")
    source = WeightsSource(kind="timm", architecture="test_resnet", path=tmp_path / "cut off.safetensors")
    monkeypatch.setattr(source_head, "find_weights", lambda name, choice: source)
    backbone, config = pair("random")
    with pytest.raises(WeightsError, match=r"timm's classifier of test_resnet cannot be loaded \("):
        load_source_head(backbone, dataclasses.replace(config, weights="timm"))


def test_a_classifier_without_bias_gets_none_to_add(tmp_path: Path) -> None:
    state = read_state(Path(source_file(tmp_path)))
    del state["fc.bias"]
    torch.save(state, tmp_path / "file.pth")
    assert load_source_head(*pair(str(tmp_path / "file.pth"))).bias.abs().max() == 0


def test_random_weights_have_no_classifier() -> None:
    backbone, config = pair("random")
    for function in (load_source_head, source_classes):
        with pytest.raises(ConfigError, match="random has none"):
            function(backbone, config)


@pytest.mark.parametrize("architecture", ["test_vit", "test_vit2", "test_convnext", "mobilenetv3_small_050", "dla46_c"])
def test_a_classifier_on_anything_else_than_the_pooled_map_is_refused(architecture: str) -> None:
    """On a class token, on features normalised after the pooling, on further layers, or no linear layer."""
    config = BackboneConfig(architecture=architecture, weights="timm")
    size = 160 if "vit" in architecture else SIZE
    backbone = Backbone(create_network(architecture, image_size=size), architecture=architecture, image_size=size)
    with pytest.raises(ConfigError, match=f"average-pooled feature map, and that of {architecture} is not"):
        source_classes(backbone, config)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_byobnet", "test_nfnet"])
def test_the_number_is_timms_where_the_weights_are_not_at_hand(architecture: str, tmp_path: Path) -> None:
    backbone, config = pair("random", architecture)
    for weights in ("auto", "timm", str(tmp_path / "gone.pth")):
        assert source_classes(backbone, dataclasses.replace(config, weights=weights)) == 1000


def test_where_timms_weights_have_no_classifier_a_file_may_have_one(tmp_path: Path) -> None:
    """Where that file is gone since, the number is for the state dict of the run to tell."""
    backbone, config = pair("random", "resnet50.bamboo")
    assert source_classes(backbone, dataclasses.replace(config, weights=str(tmp_path / "gone.pth"))) == 1
    with pytest.raises(ConfigError, match=r"the weights of resnet50\.bamboo have none"):
        source_classes(backbone, dataclasses.replace(config, weights="timm"))


def test_a_file_without_classifier_or_with_another_is_refused(tmp_path: Path) -> None:
    state = read_state(Path(source_file(tmp_path)))
    path = tmp_path / "file.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, path)
    backbone, config = pair(str(path))
    with pytest.raises(ConfigError, match=r"file.pth holds none \(fc.weight and fc.bias\)"):
        load_source_head(backbone, config)
    torch.save(state | {"fc.weight": torch.zeros(7, 5)}, path)
    with pytest.raises(ConfigError, match=r"on 96 features, and .*file.pth holds one of shape \(7, 5\)"):
        load_source_head(backbone, config)


def test_the_projection_of_a_momentum_encoder_is_no_classifier(tmp_path: Path) -> None:
    state = read_state(Path(source_file(tmp_path)))
    torch.save({f"module.encoder_q.{name}": value for name, value in state.items()}, tmp_path / "moco.pth")
    with pytest.raises(ConfigError, match="holds none"):
        load_source_head(*pair(str(tmp_path / "moco.pth")))


def test_a_file_damaged_since_is_not_needed_to_know_a_number(tmp_path: Path) -> None:
    backbone, config = pair("random")
    (tmp_path / "file.pth").write_bytes(b"no weights")
    assert source_classes(backbone, dataclasses.replace(config, weights=str(tmp_path / "file.pth"))) == 1000


def test_trying_out_draws_no_random_number() -> None:
    backbone, config = pair("random")
    source_head._has_linear_head.cache_clear()
    state = torch.get_rng_state()
    source_classes(backbone, dataclasses.replace(config, weights="auto"))
    assert torch.equal(torch.get_rng_state(), state)


def test_shapes_are_adopted_by_the_same_tensors() -> None:
    layer = nn.Linear(3, 5)
    held = layer.weight
    state = nn.Linear(3, 2).state_dict()
    adopt_shapes(layer, state, ("weight", "bias", "not there"))
    layer.load_state_dict(state)
    assert layer.weight is held
    assert torch.equal(held, state["weight"])
    assert math.prod(layer.bias.shape) == 2
