"""Folded networks give the same feature maps, and where they cannot, they are not folded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from concept_tuning.config import BackboneConfig
from concept_tuning.models.backbone import Backbone, build_backbone
from concept_tuning.models.folding import fold_batch_norms

#: Architectures, and how many of their batch norms read a convolution alone.
NETWORKS = [("tf_efficientnet_lite0", 49), ("resnet18", 20), ("test_vit", 0), ("densenet121", 59), ("test_convnext", 0)]


def unsettle(backbone: Backbone) -> Backbone:
    """Give batch norms statistics that matter."""
    draw = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.get_buffer("running_mean"), 0, 0.1, generator=draw)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2, generator=draw)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.1, generator=draw)
    return backbone.eval()


def norms(backbone: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


@pytest.mark.parametrize(("architecture", "folded"), NETWORKS)
def test_the_folded_network_is_the_same_function(architecture: str, folded: int) -> None:
    backbone = build_backbone(BackboneConfig(architecture=architecture, weights="random"), image_size=64)
    unsettle(backbone)
    before = copy.deepcopy(backbone.state_dict())
    found = fold_batch_norms(backbone)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = backbone(images)
        torch.testing.assert_close(found(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert norms(backbone) - norms(found) == folded
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in found.parameters())


class Shared(nn.Module):
    """A convolution whose output is read by a batch norm and by a sum, so that the two are not one step."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 4
        self.pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}
        self.convolution, self.norm = nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4)

    def forward_features(self, images: Tensor) -> Tensor:
        read = self.convolution(images)
        return read + self.norm(read)


def test_a_convolution_that_others_read_too_is_left_alone() -> None:
    backbone = unsettle(Backbone(Shared(), architecture="shared", image_size=32))
    found = fold_batch_norms(backbone)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(images), backbone(images))
    assert norms(found) == 1


def test_gradients_reach_the_picture_even_if_folded_in_inference_mode() -> None:
    backbone = build_backbone(BackboneConfig(architecture="resnet18", weights="random"), image_size=64).eval()
    with torch.inference_mode():
        found = fold_batch_norms(backbone)
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    found(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
