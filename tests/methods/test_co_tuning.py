"""Co-Tuning: the relationship is learnt once, kept, and taught to the source classifier."""

from __future__ import annotations

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
from concept_tuning.methods.co_tuning import CoTuning
from concept_tuning.models.relationship import learn_relationship


def prepared(folder: Path, **settings: object) -> CoTuning:
    method = build(CoTuning, rival_config("co_tuning", source_file(folder), **settings))
    method.prepare(TinyPictures())
    return method


@torch.no_grad()
def test_relationship_is_learnt_from_the_start_in_evaluation_mode(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    assert method.training
    assert method.relationship.shape == (CLASSES, SOURCE_CLASSES)
    torch.testing.assert_close(method.relationship.sum(1), torch.ones(CLASSES))
    fresh = build(CoTuning, method.config).eval()
    found = []
    for split in ("train", "val"):
        pictures = list(TinyPictures().batches(split))
        images = torch.cat([part.images for part in pictures])
        logits = method.source_head(pool(fresh.backbone(images)))
        found += [logits.double().softmax(1).numpy(), torch.cat([part.labels for part in pictures]).numpy()]
    expected = torch.from_numpy(learn_relationship(*found, num_classes=CLASSES)).float()
    torch.testing.assert_close(method.relationship, expected, rtol=1e-2, atol=1e-3)


def test_preparing_leaves_running_statistics_and_random_state(tmp_path: Path) -> None:
    method = build(CoTuning, rival_config("co_tuning", source_file(tmp_path)))
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    state = torch.get_rng_state()
    method.prepare(TinyPictures())
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_terms_are_those_of_both_classifiers(tmp_path: Path) -> None:
    method = prepared(tmp_path, weight=0.25)
    views, labels = batch(method)
    terms, keep = method(views, labels, context())
    features = pool(method.backbone(views[:, 0]))
    logs = method.source_head(features).log_softmax(1)
    expected = -(method.relationship[labels] * logs).sum(1).mean()
    plain = nn.functional.cross_entropy(method.classifier(features), labels)
    torch.testing.assert_close(terms["source_cross_entropy"], expected)
    assert method.total(terms).item() == pytest.approx((plain + 0.25 * expected).item(), rel=1e-5)
    assert keep == {}


def test_gradients_reach_what_is_trained_alone(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    assert gradients(method, "source_cross_entropy") == {"backbone", "source_head"}
    assert gradients(method, "cross_entropy") == {"backbone", "classifier"}
    assert not method.relationship.requires_grad


def test_training_lowers_both_terms_and_leaves_the_relationship(tmp_path: Path) -> None:
    method = prepared(tmp_path)
    before = method.relationship.clone()
    losses = train(method, steps=10)
    for name in ("loss", "source_cross_entropy"):
        assert losses[-1][name] < losses[1][name]
    assert torch.equal(method.relationship, before)


@pytest.mark.parametrize("file_is_there", [True, False])
def test_a_run_goes_on_from_its_state_dict(file_is_there: bool, tmp_path: Path) -> None:
    method = prepared(tmp_path)
    if not file_is_there:
        Path(method.config.backbone.weights).unlink()
    assert_resumes(method, build(CoTuning, method.config, weights="random", seed=9))


def test_prediction_needs_backbone_and_classifier_alone(tmp_path: Path) -> None:
    assert set(prepared(tmp_path).inference_modules()) == {"backbone", "classifier"}


def test_random_weights_are_refused() -> None:
    assert CoTuning.needs_pretrained
    with pytest.raises(ConfigError, match="random has none"):
        build(CoTuning, rival_config("co_tuning"))
