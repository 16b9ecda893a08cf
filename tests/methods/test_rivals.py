"""The rival methods: each learns, goes on to the same bytes, and refuses what it cannot work with."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import tiny_config, write_weights
from torch import Tensor, nn

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.engine.loading import load_run
from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.trainer import Stopped
from concept_tuning.errors import ConfigError, RunError, TrainingError
from concept_tuning.methods.base import Batch, Method, StepContext, pool
from concept_tuning.methods.dfr import retrained_classifier
from concept_tuning.methods.group_dro import GroupDro
from concept_tuning.methods.registry import METHODS, build_method
from concept_tuning.models.backbone import build_backbone
from concept_tuning.progress import ConsoleWatcher

RIVALS = METHOD_NAMES[4:]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the tiny network's weights, classifier included, to begin with."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def config_of(name: str, weights: Path, **settings: object) -> RunConfig:
    return tiny_config(name, weights=str(weights), device="cpu", **settings)


def build(name: str, weights: Path, classes: int = 4, **settings: object) -> Method:
    config = config_of(name, weights, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(config, build_backbone(config.backbone, image_size=64), classes).train()


class Pictures:
    """Random pictures as a run would hand them over, two groups."""

    def batches(self, split: str):
        generator = torch.Generator().manual_seed(7 if split == "train" else 8)
        labels = torch.arange(8) % 4
        yield Batch(torch.randn(8, 3, 64, 64, generator=generator), labels, torch.arange(8) // 4)

    def group_counts(self) -> Tensor:
        return torch.tensor([[9, 1], [4, 4], [1, 9], [0, 16]])


def context(progress: float = 0.9) -> StepContext:
    return StepContext(torch.Generator().manual_seed(5), progress=progress, groups=torch.arange(8) % 2)


def batch(method: Method) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, len(method.view_kinds), 3, 64, 64, generator=generator), torch.arange(8) % 4


def train(method: Method, steps: int = 6) -> list[dict[str, float]]:
    """Train on one batch and return the terms of each step."""
    optimizer = build_optimizer(method, method.config.optim)
    views, labels = batch(method)
    found = []
    for _ in range(steps):
        terms, keep = method(views, labels, context())
        optimizer.zero_grad()
        method.total(terms).backward()
        optimizer.step()
        method.after_step(keep)
        found.append({name: value.item() for name, value in terms.items()})
    return found


@pytest.mark.parametrize("name", RIVALS)
def test_it_lowers_the_cross_entropy_and_every_term_is_finite_and_has_a_weight(name: str, weights: Path) -> None:
    method = build(name, weights, lr=0.05)
    method.prepare(Pictures())
    found = train(method)
    assert found[-1]["cross_entropy"] < found[0]["cross_entropy"]
    for terms in found:
        assert terms.keys() == method.term_weights.keys()
        assert all(np.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("name", RIVALS)
def test_what_it_is_for_prediction_is_a_backbone_and_a_classifier(name: str, weights: Path) -> None:
    method = build(name, weights).eval()
    assert set(method.inference_modules()) == {"backbone", "classifier"}
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        found = method.predict(images)["prediction"]
        assert found.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
        expected = method.classifier(pool(method.backbone(images))).softmax(1)
    torch.testing.assert_close(found, expected)


class _StopAt(ConsoleWatcher):
    """Interrupts a run after so many steps."""

    def __init__(self, step: int) -> None:
        super().__init__(quiet=True)
        self._step = step

    def step(self, done: int, total: int, values) -> None:
        super().step(done, total, values)
        if done == self._step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_an_interrupted_run_ends_in_the_same_bytes_with_other_loader_workers_too(
    name: str, weights: Path, tmp_path: Path
) -> None:
    config = config_of(name, weights)
    whole = start_run(config, tmp_path / "whole", ConsoleWatcher(quiet=True))
    with pytest.raises(Stopped):
        start_run(config, tmp_path / "cut", _StopAt(3))
    file = tmp_path / "cut" / "config.json"
    settings = json.loads(file.read_text())
    assert settings["engine"]["workers"] == 0
    settings["engine"]["workers"] = 2
    file.write_text(json.dumps(settings))
    cut = resume_run(tmp_path / "cut", ConsoleWatcher(quiet=True))
    first, second = load_file(whole.best_weights), load_file(cut.best_weights)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert load_run(tmp_path / "cut").class_names == load_run(tmp_path / "whole").class_names


@pytest.mark.parametrize("name", [name for name in RIVALS if METHODS[name].needs_pretrained])
def test_without_pre_trained_weights_it_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="random"):
        start_run(tiny_config(name, device="cpu"), tmp_path / "run", ConsoleWatcher(quiet=True))


@pytest.mark.parametrize("name", [name for name in RIVALS if METHODS[name].needs_groups])
def test_without_group_labels_it_is_refused_with_a_sentence(name: str, weights: Path, tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    config = config_of(name, weights)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(tmp_path / "pictures")))
    with pytest.raises(ConfigError, match="needs group labels"):
        start_run(config, tmp_path / "run", ConsoleWatcher(quiet=True))


# LP-FT


def test_lp_ft_leaves_the_backbone_alone_while_it_probes(weights: Path) -> None:
    method = build("lp-ft", weights)
    views, labels = batch(method)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    terms, _ = method(views, labels, context(progress=0.49))
    method.total(terms).backward()
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
    assert method.classifier.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert method.backbone.training
    terms, _ = method(views, labels, context(progress=0.5))
    method.total(terms).backward()
    assert any(parameter.grad is not None for parameter in method.backbone.parameters())


# L2-SP, DELTA, and Concept-Tuning with them


@pytest.mark.parametrize("name", ["l2-sp", "delta"])
def test_the_distance_is_zero_at_the_start_and_the_terms_stand_in_for_weight_decay(name: str, weights: Path) -> None:
    method = build(name, weights)
    views, labels = batch(method)
    term = {"l2-sp": "start_distance", "delta": "feature_distance"}[name]
    found, _ = method.eval()(views, labels, context())
    assert found[term].item() == pytest.approx(0, abs=1e-6)
    squares = sum(value.pow(2).sum().item() for value in method.classifier.parameters())
    assert found["head_norm"].item() == pytest.approx(squares / 2, rel=1e-4)
    assert [group["weight_decay"] for group in method.parameter_groups()] == [0.0, 0.0]
    assert train(method)[-1][term] > 0


class TellingChannels(nn.Module):
    """A backbone of which 4 of 64 channels, those from 20 on, tell the class and the others are noise."""

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.rand(len(images), 64, generator=torch.Generator().manual_seed(4))
        noise[:, 20:24] = 2 * images[:, 0, 0, :4]
        return noise[:, :, None, None].expand(-1, -1, 2, 2)


class TellingPictures(Pictures):
    """Pictures whose first pixel c of 4 is 1 for class c and 0 for the others."""

    def batches(self, split: str):
        labels = torch.arange(80) % 4
        images = torch.zeros(80, 3, 64, 64)
        images[torch.arange(80), 0, 0, labels] = 1
        yield Batch(images, labels, None)


def test_delta_weighs_the_channels_that_matter_unless_it_is_told_not_to(weights: Path) -> None:
    weighed, even = build("delta", weights), build("delta", weights, attention=False)
    for method in (weighed, even):
        method.starting_point.start = TellingChannels()
        method.starting_point.weights = torch.full((64,), 1 / 64)
        method.prepare(TellingPictures())
    found = 64 * weighed.starting_point.weights
    assert found.sum().item() == pytest.approx(64, abs=1e-2)
    assert set(found.topk(4).indices.tolist()) == {20, 21, 22, 23}
    assert found[20:24].min() > 1.5 * torch.cat([found[:20], found[24:]]).max()
    assert even.starting_point.weights.tolist() == pytest.approx([1 / 64] * 64)


@pytest.mark.parametrize("kind", ["l2-sp", "delta"])
def test_concept_tuning_takes_a_regulariser_in(kind: str, weights: Path) -> None:
    plain, tuned = build("concept-tuning", weights), build("concept-tuning", weights, regulariser=kind)
    tuned.prepare(Pictures())
    views, labels = batch(tuned)
    more = {"l2-sp": "start_distance", "delta": "feature_distance"}[kind]
    theirs, _ = plain(views, labels, context())
    found, _ = tuned(views, labels, context())
    assert found.keys() - theirs.keys() == {more, "head_norm"}
    assert found["cross_entropy"].item() == pytest.approx(theirs["cross_entropy"].item(), rel=1e-5)
    assert tuned.total(found).isfinite()
    assert all(group["weight_decay"] == 0.0 for group in tuned.parameter_groups())


def test_a_regularisers_settings_are_idle_without_it() -> None:
    with pytest.raises(ConfigError, match="would do nothing"):
        tiny_config("concept-tuning", **{"l2_sp.backbone_decay": 0.2})
    found = tiny_config("concept-tuning", regulariser="l2-sp", **{"l2_sp.backbone_decay": 0.2})
    assert found.l2_sp.backbone_decay == 0.2


# Stochastic normalisation


@pytest.mark.parametrize(("probability", "like"), [(0.0, "batch"), (1.0, "moving")])
def test_stochastic_normalisation_at_its_ends_is_one_of_the_two(probability: float, like: str, weights: Path) -> None:
    method, plain = build("stoch-norm", weights, probability=probability), build("vanilla", weights)
    views, labels = batch(method)
    found, _ = method(views, labels, context())
    expected, _ = (plain if like == "batch" else plain.eval())(views, labels, context())
    if like == "batch":
        torch.testing.assert_close(found["cross_entropy"], expected["cross_entropy"])
    own, theirs = method.backbone.state_dict(), plain.backbone.state_dict()
    assert own.keys() == theirs.keys()
    if like == "batch":
        assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_stochastic_normalisation_chooses_by_channel_from_the_steps_own_randomness(weights: Path) -> None:
    method = build("stoch-norm", weights)
    views, labels = batch(method)
    layer = method._layers[0]
    inputs = torch.randn(8, layer.num_features, 5, 5, generator=torch.Generator().manual_seed(2))
    method(views, labels, context())
    first = layer.chosen.clone()
    method(views, labels, context())
    assert torch.equal(first, layer.chosen)
    assert 0 < first.float().mean() < 1
    both = layer(inputs)
    layer.chosen = None
    by_batch = layer(inputs)
    assert torch.equal(both[:, ~first], by_batch[:, ~first])
    assert not torch.allclose(both[:, first], by_batch[:, first])
    layer.eval()
    assert torch.isfinite(layer(inputs)).all()


def test_stochastic_normalisation_needs_batch_norms() -> None:
    config = tiny_config("stoch-norm", backbone="test_vit")
    backbone = build_backbone(config.backbone, image_size=64)
    with pytest.raises(ConfigError, match="batch norms"):
        build_method(config, backbone, 2)


# Group DRO and DFR


def test_group_dro_begins_with_equal_weights_of_groups_that_are_there_and_raises_the_worst(weights: Path) -> None:
    method = build("group-dro", weights, lr=1e-6, step_size=0.5)
    assert isinstance(method, GroupDro)
    method.prepare(Pictures())
    assert method.weights.sum().item() == pytest.approx(1)
    assert method.weights[3, 0] == 0
    assert method.weights[0].tolist() == pytest.approx([1 / 7, 1 / 7])
    train(method, steps=20)
    assert method.weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert method.weights[3, 0] == 0
    assert method.weights.max() > 1.2 / 7


def test_group_dro_adds_the_adjustment_over_the_root_of_the_groups_size(weights: Path) -> None:
    method = build("group-dro", weights, adjustment=2.0)
    method.prepare(Pictures())
    assert method.margins[0].tolist() == pytest.approx([2 / 3, 2.0])
    assert method.margins[3, 0] == 0


def test_group_dro_goes_on_with_its_weights_and_sizes(weights: Path) -> None:
    method, other = build("group-dro", weights), build("group-dro", weights)
    method.prepare(Pictures())
    train(method)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.weights, method.weights)
    assert torch.equal(other.sizes, Pictures().group_counts())


def test_group_dro_of_an_earlier_version_is_refused_with_a_sentence(weights: Path) -> None:
    method = build("group-dro", weights)
    state = {{"sizes": "counts"}.get(name, name): value for name, value in method.state_dict().items()}
    with pytest.raises(RunError, match="earlier version"):
        method.load_state_dict(state)


def test_the_retrained_layer_reads_the_feature_and_not_the_shortcut() -> None:
    """Feature 0 tells the class, feature 1 the group, and class and group go together but for a few."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    groups = np.where(random.random(400) < 0.9, labels, 1 - labels)
    features = np.stack([labels + 0.4 * random.normal(size=400), 3.0 * groups + 0.1 * random.normal(size=400)], 1)
    weights, bias = retrained_classifier(features.astype(np.float32), labels, groups, classes=2, subsets=5, seed=0)
    scale = features.std(0)
    gap = np.abs((weights[1] - weights[0]) * scale)
    assert gap[0] > 5 * gap[1]
    minority = groups != labels
    right = ((features @ weights.T + bias).argmax(1) == labels)[minority]
    assert right.mean() > 0.75


def test_retraining_without_pictures_of_a_class_is_refused() -> None:
    features, labels, groups = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]), np.zeros(4, int)
    with pytest.raises(TrainingError, match="class 2 has none"):
        retrained_classifier(features, labels, groups, classes=3, subsets=1, seed=0)


def test_dfr_changes_the_classifier_alone_and_says_so(weights: Path) -> None:
    method = build("dfr", weights)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert method.finish(Pictures())
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"classifier.weight", "classifier.bias"}
    assert changed
    assert not build("vanilla", weights).finish(Pictures())
