from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from tiny_runs import tiny_config
from torch import nn
from torch.nn import functional as F

from concept_tuning.diagnostics.attribution import (
    METHODS,
    attribute,
    attribute_all,
    class_activations,
    integrated_gradients,
    occlusion,
    principal_map,
    scale_to_one,
    untouched,
)
from concept_tuning.diagnostics.features import class_scores, network_input
from concept_tuning.diagnostics.sanity import recalibrate
from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import Backbone, create_network

FAMILIES = {"test_resnet": 128, "test_efficientnet": 128, "test_convnext": 128, "test_vit": 64, "swin": 64}
TINY_SWIN = {"embed_dim": 16, "depths": (1, 1, 1), "num_heads": (1, 2, 4), "window_size": 4, "strict_img_size": False}


def build(family: str, size: int) -> Method:
    """Return a small network of a family with four classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "swin":
            network = timm.create_model("swin_tiny_patch4_window7_224", img_size=size, num_classes=0, **TINY_SWIN)
        else:
            network = create_network(family, image_size=size)
        backbone = Backbone(network, architecture=family, image_size=size)
        return build_method(tiny_config("vanilla"), backbone, 4).eval()


def squares(places: list[tuple[int, int]], size: int) -> torch.Tensor:
    """Return dark pictures with a bright square of a quarter of the side at (row, column)."""
    images = torch.full((len(places), 3, size, size), 20, dtype=torch.uint8)
    for image, (row, column) in zip(images, places, strict=True):
        image[:, row : row + size // 4, column : column + size // 4] = 235
    return images


def teach_brightness(method: Method, size: int) -> None:
    """Make class 0 the bright square: ridge regression from the features of each cell to its bright share."""
    starts = np.linspace(0, size - size // 4, 5).astype(int)
    images = squares([(row, column) for row in starts for column in starts], size)
    recalibrate(method, images, [name for name, _ in method.named_parameters()])
    with torch.no_grad():
        maps = method.backbone(network_input(method, images))
        bright = F.interpolate((images[:, :1] > 100).float(), size=maps.shape[2:], mode="area").flatten()
        cells = maps.flatten(2).mT.reshape(-1, maps.shape[1])
        ridge = 1e-2 * cells.pow(2).sum() / cells.shape[1] * torch.eye(cells.shape[1])
        method.classifier.weight.zero_()
        method.classifier.bias.zero_()
        method.classifier.weight[0] = torch.linalg.solve(cells.T @ cells + ridge, cells.T @ bright)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bright_square_takes_the_peak_of_every_map_along(family: str) -> None:
    size = FAMILIES[family]
    method = build(family, size)
    teach_brightness(method, size)
    side, cell = size // 4, method.backbone.stride
    # Places that the regression has not seen, one in each quarter of the picture.
    near, far = size // 8, size - side - size // 8
    places = [(near, near), (near, far), (far, near), (far, far)]
    found = attribute_all(
        method, squares(places, size), torch.zeros(4, dtype=torch.long), names=METHODS, steps=4, stride=side
    )
    for name, maps in found.items():
        assert torch.isfinite(maps).all()
        assert (maps >= 0).all()
        peaks = maps.flatten(1).argmax(1)
        for (row, column), y, x in zip(places, peaks // size, peaks % size, strict=True):
            distance = max(abs(int(y) - row - side // 2), abs(int(x) - column - side // 2))
            assert distance <= cell, f"{name} of {family}: peak {distance} px from the square's middle"
            assert (int(y) >= size // 2, int(x) >= size // 2) == (row == far, column == far), f"{name} of {family}"


def random_map(method: Method, *, count: int = 3, side: int = 4) -> torch.Tensor:
    return torch.randn(count, method.backbone.num_features, side, side, generator=torch.Generator().manual_seed(1))


def test_grad_cam_of_a_linear_head_is_its_weights_times_the_features() -> None:
    """With pooling and a linear layer the gradient is w / (h w) in every cell (arXiv 1610.02391, section 3.1)."""
    method = build("test_resnet", 64)
    features, targets = random_map(method), torch.tensor([0, 3, 1])
    with untouched(method):
        found = class_activations(method, features, targets, names=["grad-cam"])["grad-cam"]
    expected = torch.einsum("bd,bdhw->bhw", method.classifier.weight[targets], features) / 16
    torch.testing.assert_close(found, expected)


def test_maps_explain_the_heads_that_the_prediction_reads(subjects) -> None:
    method = subjects[1].method
    features, targets = random_map(method), torch.tensor([0, 3, 1])
    with untouched(method):
        found = class_activations(method, features, targets, names=["grad-cam"])["grad-cam"]
    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(class_scores(method, leaf)[torch.arange(3), targets].sum(), leaf)
    torch.testing.assert_close(found, (gradient.mean((2, 3), keepdim=True) * features).sum(1))
    (classifier_alone,) = torch.autograd.grad(method.classify(leaf)["classifier"][torch.arange(3), targets].sum(), leaf)
    assert not torch.allclose(gradient, classifier_alone)


def test_a_map_of_no_such_name_is_refused(subjects) -> None:
    method = subjects[0].method
    with untouched(method), pytest.raises(KeyError, match="occlusion"):
        class_activations(method, random_map(method), torch.tensor([0, 3, 1]), names=["grad-cam", "occlusion"])


@pytest.mark.parametrize("run", [0, 1])
def test_grad_cam_is_that_of_captum(subjects, pictures, run: int) -> None:
    method, images, targets = subjects[run].method, pictures.images(range(4), 64), torch.tensor([0, 3, 1, 2])
    inputs = network_input(method, images).requires_grad_()
    explain = LayerGradCam(lambda values: class_scores(method, method.backbone(values)), method.backbone)
    cells = explain.attribute(inputs, target=targets, relu_attributions=True)
    expected = F.interpolate(cells, size=(64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(attribute(method, images, targets, name="grad-cam"), expected)


@pytest.mark.parametrize("channels", [3, 50])
def test_principal_map_is_the_first_component_of_a_slow_reference(channels: int) -> None:
    features = torch.randn(5, channels, 3, 4, generator=torch.Generator().manual_seed(2)) + 1
    for picture, found in zip(features.double().numpy(), principal_map(features).numpy(), strict=True):
        cells = picture.reshape(channels, -1).T
        centred = cells - cells.mean(0)
        _, _, right = np.linalg.svd(centred, full_matrices=False)
        expected = centred @ right[0]
        np.testing.assert_allclose(np.abs(found.ravel()), np.abs(expected), atol=1e-4)


def test_the_sign_of_a_principal_map_follows_the_mean_activation() -> None:
    """Pictures and their negatives in all but the mean: pytorch-grad-cam would give either sign."""
    generator = torch.Generator().manual_seed(3)
    bump = torch.zeros(3, 3)
    bump[2, 0] = 1
    for sign in (1.0, -1.0):
        channels = sign * torch.rand(1, 8, 1, 1, generator=generator) * bump + 0.01 * torch.randn(
            1, 8, 3, 3, generator=generator
        )
        found = principal_map(channels + 5)[0]
        correlation = torch.corrcoef(torch.stack([found.flatten(), channels.mean((0, 1)).flatten()]))[0, 1]
        assert correlation > 0.9
        assert int(found.abs().argmax()) == 6
        assert (found[2, 0] > 0) == (sign > 0)


def test_with_equal_means_the_cell_that_stands_out_is_positive() -> None:
    """Layer-normalised cells all have the mean 0, up to rounding, which must not decide the sign."""
    generator = torch.Generator().manual_seed(4)
    usual, odd = F.layer_norm(torch.randn(2, 64, generator=generator), (64,))
    for row in range(4):
        features = usual[None, :, None, None].expand(1, 64, 4, 4).clone()
        features[0, :, row, 1] = odd
        found = principal_map(F.layer_norm(features.movedim(1, 3), (64,)).movedim(3, 1))[0]
        assert found.argmax() == 4 * row + 1


def test_a_map_of_equal_cells_points_at_nothing() -> None:
    features = torch.full((2, 5, 3, 3), 0.7) * torch.arange(1, 6)[None, :, None, None]
    assert not principal_map(features).any()
    assert torch.equal(scale_to_one(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))


def test_integrated_gradients_are_complete() -> None:
    """They sum to the score's difference between picture and baseline (arXiv 1703.01365, proposition 1)."""
    method = build("test_vit", 64)
    inputs = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    targets = torch.tensor([2, 0, 1])
    mean = inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    with untouched(method):
        found = integrated_gradients(method, inputs, targets, steps=128).sum((1, 2, 3))
        rise = class_scores(method, method.backbone(inputs)) - class_scores(method, method.backbone(mean))
    torch.testing.assert_close(found, rise.gather(1, targets[:, None])[:, 0], rtol=0.03, atol=0.003)


def test_occlusion_is_the_fall_of_the_score_under_the_mean_colour() -> None:
    method = build("test_resnet", 64)
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    targets = torch.tensor([2, 0])
    covered = inputs.clone()
    covered[:, :, 32:, :32] = inputs.mean((2, 3))[:, :, None, None]
    with untouched(method), torch.no_grad():
        found = occlusion(method, inputs, targets, window=32, stride=32)
        fall = class_scores(method, method.backbone(inputs)) - class_scores(method, method.backbone(covered))
    expected = fall.gather(1, targets[:, None])[:, :, None].expand(2, 32, 32)
    torch.testing.assert_close(found[:, 32:, :32], expected, rtol=1e-3, atol=1e-5)


def test_a_batch_gives_the_maps_of_its_pictures(subjects, pictures) -> None:
    images, targets = pictures.images(range(4), 64), torch.tensor([0, 1, 2, 3])
    for subject in subjects:
        together = attribute_all(subject.method, images, targets, names=METHODS, steps=2)
        for name in METHODS:
            alone = attribute(subject.method, images[2:3], targets[2:3], name=name, steps=2)
            scale = float(together[name][2].max()) + 1e-6
            torch.testing.assert_close(alone[0] / scale, together[name][2] / scale, atol=2e-3, rtol=0)


def test_maps_can_be_asked_for_in_inference_mode(subjects, pictures) -> None:
    method, images = subjects[1].method, pictures.images(range(2), 64)
    expected = attribute_all(method, images, torch.tensor([0, 1]), names=METHODS, steps=2)
    with torch.inference_mode():
        found = attribute_all(method, images * 1, torch.tensor([0, 1]), names=METHODS, steps=2)
    for name in METHODS:
        assert torch.equal(found[name], expected[name])


class StoppedError(Exception):
    pass


def contents(values: torch.Tensor) -> bytes:
    return values.detach().contiguous().numpy().tobytes()


def state(model: nn.Module) -> dict[str, object]:
    """Return everything that looking at a model must leave alone, as values that compare with ==."""
    return {
        "modes": [module.training for module in model.modules()],
        "wanted": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else contents(p.grad) for p in model.parameters()],
        "hooks": [list(module._forward_hooks.values()) for module in model.modules()],
        "buffers": {name: contents(buffer) for name, buffer in model.named_buffers()},
        "parameters": {name: contents(parameter) for name, parameter in model.named_parameters()},
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(subjects, fails: bool) -> None:
    model = copy.deepcopy(subjects[0].method)
    model.train()
    model.backbone.network.bn1.eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[3].grad = torch.ones_like(parameters[3])
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    before = state(model)
    with pytest.raises(StoppedError) if fails else torch.no_grad(), untouched(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.backbone.train()
        model.backbone(torch.randn(4, 3, 64, 64))  # moves running statistics
        model.backbone.network.register_forward_hook(lambda *_: calls.append(2))
        model.classifier.register_buffer("extra", torch.zeros(1))
        del model.classifier._buffers["extra"]
        parameters[3].grad = torch.zeros_like(parameters[3])
        if fails:
            raise StoppedError
    assert state(model) == before
    assert calls == [1]  # the hook that was there ran, and the other is gone


def test_attribution_leaves_a_model_as_found_after_an_error(subjects, pictures, monkeypatch) -> None:
    model = copy.deepcopy(subjects[1].method).train()
    before = state(model)

    def fail(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.setattr(model, "classify", fail)
    for name in METHODS:
        if name == "eigen-cam":
            continue  # does not ask the heads
        with pytest.raises(StoppedError):
            attribute(model, pictures.images(range(2), 64), torch.tensor([0, 1]), name=name)
    assert state(model) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "grad-cam++"}, "grad-cam, eigen-cam.*got grad-cam"),
        ({"images": torch.zeros(2, 3, 8, 8)}, "uint8"),
        ({"targets": torch.tensor([0])}, r"targets must be \(2,\), got \(1,\)"),
    ],
)
def test_wrong_arguments_are_named(subjects, change, words) -> None:
    arguments = {
        "images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        "targets": torch.zeros(2, dtype=torch.long),
        "name": "grad-cam",
    }
    images, targets, name = (change.get(key, value) for key, value in arguments.items())
    with pytest.raises(ValueError, match=words):
        attribute(subjects[0].method, images, targets, name=name)
