"""Vanilla fine-tuning, the linear probe and training from scratch, and what all methods share."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor, nn

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.engine.session import start_run
from concept_tuning.errors import ConfigError
from concept_tuning.methods.base import Method, StepContext, pool
from concept_tuning.methods.registry import METHODS, build_method
from concept_tuning.models.backbone import build_backbone


def build(name: str, classes: int = 3, *, backbone_scale: float | None = None, **settings: object) -> Method:
    config = tiny_config(name, weights="random", **settings)
    if backbone_scale is not None:
        # As a preset may set it; named for a method that does not use it, it would be refused.
        optim = dataclasses.replace(config.optim, backbone_lr_scale=backbone_scale)
        config = dataclasses.replace(config, optim=optim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(config, build_backbone(config.backbone, image_size=64), classes).train()


def batch(size: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 1, 3, 64, 64, generator=generator), torch.arange(size) % classes


def context(rank: int = 0, processes: int = 1) -> StepContext:
    return StepContext(torch.Generator().manual_seed(5), rank=rank, processes=processes)


def train(method: Method, steps: int = 3, size: int = 4, classes: int = 3) -> list[float]:
    """Train on one batch and return the losses."""
    optimizer = build_optimizer(method, method.config.optim)
    views, labels = batch(size, classes)
    losses = []
    for _ in range(steps):
        terms, keep = method(views, labels, context())
        loss = method.total(terms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(keep)
        losses.append(loss.item())
    return losses


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", ["vanilla", "scratch", "linear-probe"])
def test_the_one_term_is_the_cross_entropy_of_the_pooled_features(name: str) -> None:
    method = build(name, label_smoothing=0.3)
    views, labels = batch()
    terms, keep = method(views, labels, context())
    with torch.no_grad():
        logits = method.classifier(method.backbone(views[:, 0]).flatten(2).mean(2)).log_softmax(1)
    expected = -0.7 * logits[torch.arange(4), labels] - 0.3 * logits.mean(1)
    assert terms.keys() == {"cross_entropy"}
    torch.testing.assert_close(terms["cross_entropy"], expected.mean())
    assert keep == {}
    assert method.total(terms).item() == terms["cross_entropy"].item()


# Linear probe


def test_a_probe_leaves_the_backbone_to_the_bit() -> None:
    method = build("linear-probe", lr=0.5, weight_decay=0.1)
    before, head = snapshot(method.backbone), snapshot(method.classifier)
    losses = train(method)
    assert same(method.backbone.state_dict(), before)
    assert not same(method.classifier.state_dict(), head)
    assert losses[-1] < losses[0]


def test_train_mode_of_a_probe_is_the_classifiers_alone() -> None:
    method = build("linear-probe").eval()
    assert method.train() is method
    assert method.training
    assert method.classifier.training
    assert not any(module.training for module in method.backbone.modules())
    before = snapshot(method.backbone)
    with torch.no_grad():
        method.backbone(batch()[0][:, 0])
    assert same(method.backbone.state_dict(), before)


def test_a_probe_sees_the_same_features_in_training_and_evaluation() -> None:
    method = build("linear-probe")
    views, labels = batch()
    with torch.no_grad():
        trained, _ = method(views, labels, context())
        evaluated = nn.functional.cross_entropy(method.eval().head_logits(views[:, 0])["classifier"], labels)
    torch.testing.assert_close(trained["cross_entropy"], evaluated)


def test_the_groups_of_a_probe_hold_the_classifier_alone() -> None:
    method = build("linear-probe", lr=0.5)
    (group,) = method.parameter_groups()
    assert (group["name"], group["lr"]) == ("heads", 0.5)
    assert [id(value) for value in group["params"]] == [id(value) for value in method.classifier.parameters()]


# Scratch and vanilla


class _EnoughError(Exception):
    """Raised by a watcher that has heard what it wanted."""


class _Listener:
    def message(self, text: str) -> None:
        if text.startswith("Weights of"):
            raise _EnoughError(text)

    def step(self, done: int, total: int, values: object) -> None:
        raise AssertionError("a step was done before the weights were named")


@pytest.mark.parametrize(("name", "weights"), [("scratch", "random"), ("vanilla", "packaged, ImageNet-1k")])
def test_scratch_takes_random_weights_though_there_are_packaged_ones(name: str, weights: str, tmp_path: Path) -> None:
    config = tiny_config(name, backbone="tf_efficientnet_lite0")
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights="auto"))
    with pytest.raises(_EnoughError, match=f"^Weights of tf_efficientnet_lite0: {weights}\\.$"):
        start_run(config, tmp_path / "run", _Listener())


def test_scratch_trains_everything_at_the_full_rate() -> None:
    method = build("scratch", lr=0.5, backbone_scale=0.01)
    (group,) = method.parameter_groups()
    assert group["lr"] == 0.5
    assert {id(value) for value in group["params"]} == {id(value) for value in method.parameters()}


def test_vanilla_holds_the_backbone_back() -> None:
    method = build("vanilla", lr=0.5, backbone_scale=0.01)
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert {name: group["lr"] for name, group in groups.items()} == {"heads": 0.5, "backbone": 0.005}
    assert len(groups["heads"]["params"]) == 2
    assert len(groups["backbone"]["params"]) == len(list(method.backbone.parameters()))


@pytest.mark.parametrize("name", ["vanilla", "scratch"])
def test_a_rate_of_nothing_holds_only_the_backbone(name: str) -> None:
    method = build(name, lr=0.1, backbone_scale=0.0, weight_decay=0.0)
    before = {key: value.detach().clone() for key, value in method.backbone.named_parameters()}
    train(method, steps=2)
    still = all(torch.equal(value, before[key]) for key, value in method.backbone.named_parameters())
    assert still == (name == "vanilla")


def test_frozen_parts_of_a_network_are_in_no_group() -> None:
    """MobileNetV3's conv_head never reaches the feature map; see the backbone's tests."""
    config = tiny_config("vanilla", backbone="mobilenetv3_small_050")
    method = build_method(config, build_backbone(config.backbone, image_size=64), 2)
    grouped = {id(value) for group in method.parameter_groups() for value in group["params"]}
    assert grouped == {id(value) for value in method.parameters() if value.requires_grad}
    assert id(method.backbone.network.conv_head.weight) not in grouped


# What all share


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name not in ("co-tuning", "lwf")])
def test_the_table_builds_the_method_that_was_asked_for(name: str) -> None:
    method = build(name)
    assert method.name == name
    assert type(method) is METHODS[name]
    assert method.summary.endswith(".")
    assert set(method.inference_modules()) >= {"backbone", "classifier"}


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name not in ("co-tuning", "lwf")])
@torch.no_grad()
def test_prediction_is_of_each_image_by_itself(name: str) -> None:
    method = build(name).eval()
    images = batch()[0][:, 0]
    together = method.predict(images)
    for head, probabilities in together.items():
        torch.testing.assert_close(probabilities.sum(1), torch.ones(4))
        torch.testing.assert_close(method.predict(images[2:3])[head], probabilities[2:3])
    logits = method.classifier(pool(method.backbone(images)))
    torch.testing.assert_close(together["classifier"], logits.softmax(1))


@pytest.mark.parametrize("name", ["vanilla", "scratch", "linear-probe"])
def test_two_classes_and_one_image(name: str) -> None:
    method = build(name, classes=2, lr=0.05)
    losses = train(method, steps=4, size=1, classes=2)
    assert losses[-1] < losses[0]


def test_random_numbers_of_an_image_do_not_depend_on_the_processes() -> None:
    device = torch.device("cpu")
    whole, shares = context(), [context(rank, 3) for rank in range(3)]
    for draw in ("normal", "uniform"):
        expected = getattr(whole, draw)(6, 2, 5, device=device)
        parts = [getattr(share, draw)(2, 2, 5, device=device) for share in shares]
        assert torch.equal(torch.cat(parts), expected)
    assert not torch.equal(whole.normal(6, device=device), whole.normal(6, device=device))


def test_an_unknown_method_is_a_configuration_error() -> None:
    values = tiny_config().to_dict() | {"method": "self-tuning"}
    with pytest.raises(ConfigError, match='Setting method = "self-tuning" is not valid'):
        RunConfig.from_dict(values)
