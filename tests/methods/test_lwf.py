"""Learning without forgetting: the start stays, the source classifier learns along, the distance is measured."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from rivals import (
    CLASSES,
    SOURCE_CLASSES,
    TinyPictures,
    assert_resumes,
    batch,
    build,
    context,
    gradients,
    rival_config,
    source_file,
    train,
)
from torch import nn

from concept_tuning.errors import ConfigError
from concept_tuning.methods.base import pool
from concept_tuning.methods.lwf import Lwf
from concept_tuning.models.state import read_state


def prepared(folder: Path, **settings: object) -> Lwf:
    method = build(Lwf, rival_config("lwf", source_file(folder), **settings))
    method.prepare(TinyPictures())
    return method


def test_prepare_takes_over_the_classifier_twice(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    saved = read_state(Path(method.config.backbone.weights))
    for head in (method.source_head, method.start.classifier):
        assert torch.equal(head.weight, saved["fc.weight"])
        assert torch.equal(head.bias, saved["fc.bias"])
    assert method.source_head.weight.requires_grad
    assert not any(value.requires_grad for value in method.start.parameters())


def test_terms_are_those_of_the_networks_own_outputs(tmp_path: Path) -> None:
    method = prepared(tmp_path, weight=0.5, temperature=3.0)
    nn.init.normal_(method.source_head.weight, generator=torch.Generator().manual_seed(0))
    views, labels = batch(method)
    with torch.no_grad():
        terms, keep = method(views, labels, context())
        features = pool(method.backbone(views[:, 0]))
        start = method.start.classifier(pool(method.start.backbone.eval()(views[:, 0])))
    now, before = (method.source_head(features) / 3).log_softmax(1), (start / 3).log_softmax(1)
    expected = (before.exp() * (before - now)).sum(1).mean()
    torch.testing.assert_close(terms["distillation"], expected.detach())
    plain = nn.functional.cross_entropy(method.classifier(features), labels)
    torch.testing.assert_close(terms["cross_entropy"], plain.detach())
    assert method.total(terms).item() == pytest.approx((plain + 0.5 * expected).item(), rel=1e-5)
    assert keep == {}


def test_in_evaluation_mode_nothing_is_forgotten_at_the_start(tmp_path: Path) -> None:
    terms, _ = prepared(tmp_path).eval()(*batch(prepared(tmp_path)), context())
    assert terms["distillation"].item() == pytest.approx(0, abs=1e-6)


def test_gradients_reach_what_is_trained_alone(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    assert gradients(method, "distillation") == {"backbone", "source_head"}
    assert gradients(method, "cross_entropy") == {"backbone", "classifier"}


def test_training_lowers_the_loss_and_leaves_the_start(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    before = copy.deepcopy(method.start.state_dict())
    losses = train(method, steps=8)
    assert losses[-1]["loss"] < losses[1]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in method.start.state_dict().items())
    assert not any(module.training for module in method.start.modules())


def test_source_classifier_learns_at_the_backbones_rate(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert groups["source_head"]["lr"] == groups["backbone"]["lr"] == pytest.approx(groups["heads"]["lr"] / 10)
    assert [id(value) for value in groups["heads"]["params"]] == [id(value) for value in method.classifier.parameters()]
    grouped = [id(value) for group in groups.values() for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in method.parameters() if value.requires_grad)


@pytest.mark.parametrize("file_is_there", [True, False])
def test_a_run_goes_on_from_its_state_dict(file_is_there: bool, tmp_path: Path) -> None:
    """Built with random weights and, where the file is gone, with a wrong guess of the source classes."""
    method = prepared(tmp_path)
    if not file_is_there:
        Path(method.config.backbone.weights).unlink()
    fresh = build(Lwf, method.config, weights="random", seed=9)
    assert fresh.source_head.out_features == (SOURCE_CLASSES if file_is_there else 1000)
    assert_resumes(method, fresh)


def test_prediction_needs_backbone_and_classifier_alone(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    assert set(method.inference_modules()) == {"backbone", "classifier"}
    assert method.eval().predict(batch(method)[0][:, 0])["prediction"].shape == (6, CLASSES)


def test_random_weights_are_refused() -> None:
    assert Lwf.needs_pretrained
    with pytest.raises(ConfigError, match="random has none"):
        build(Lwf, rival_config("lwf"))
