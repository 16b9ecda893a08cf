"""Bi-Tuning: its parts one by one, and what they keep."""

from __future__ import annotations

import copy

import pytest
import torch
from rivals import CLASSES, assert_resumes, batch, build, context, gradients, rival_config, train
from torch.nn import functional as F

from concept_tuning.losses.bi_tuning import classifier_contrast, with_bias_entry
from concept_tuning.losses.contrastive import image_contrast
from concept_tuning.methods.base import pool
from concept_tuning.methods.bi_tuning import BiTuning


def made(**settings: object) -> BiTuning:
    parts = {"queue_size": 4, "projection_dim": 8} | settings
    return build(BiTuning, rival_config("bi_tuning", **parts))


def filled(**settings: object) -> BiTuning:
    """Return a method after two steps, so that its queues hold keys."""
    method = made(**settings)
    train(method, steps=2)
    return method


def test_terms_are_the_losses_of_query_and_keys() -> None:
    method = filled(temperature=0.2).requires_grad_(False)
    views, labels = batch(method)
    twin = copy.deepcopy(method)
    terms, keep = method(views, labels, context())
    features = pool(twin.backbone(views[:, 0]))
    key_features = pool(twin.key_encoder.backbone(views[:, 1]))
    key_projections = F.normalize(twin.key_encoder.projector(key_features), dim=1)
    torch.testing.assert_close(keep["projections"], key_projections)
    torch.testing.assert_close(keep["features"], with_bias_entry(key_features))
    projector = image_contrast(
        F.normalize(twin.projector(features), dim=1),
        key_projections,
        twin.projection_queue.keys,
        twin.projection_queue.filled,
        labels,
        temperature=0.2,
    )
    classifier = classifier_contrast(
        with_bias_entry(features),
        twin.classifier.weight,
        twin.classifier.bias,
        twin.feature_queue.keys,
        twin.feature_queue.filled,
        labels,
        temperature=0.2,
    )
    torch.testing.assert_close(terms["projector_contrast"], projector)
    torch.testing.assert_close(terms["classifier_contrast"], classifier)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(twin.classifier(features), labels))


def test_gradients_flow_to_the_query_alone_and_past_the_classifier_in_its_contrast() -> None:
    method = filled()
    assert gradients(method, "classifier_contrast") == {"backbone"}
    assert gradients(method, "projector_contrast") == {"backbone", "projector"}
    assert gradients(method, "cross_entropy") == {"backbone", "classifier"}
    assert not any(value.requires_grad for value in method.key_encoder.parameters())
    _, keep = method(*batch(method), context())
    assert not any(value.requires_grad for value in keep.values())


def test_a_step_queues_its_keys_by_class_and_moves_the_key_encoder() -> None:
    method = made(encoder_momentum=0.75)
    views, labels = batch(method)
    _, keep = method(views, labels, context())
    before = method.key_encoder.projector.weight.clone()
    with torch.no_grad():
        method.projector.weight.add_(1)
    method.after_step(keep)
    torch.testing.assert_close(method.key_encoder.projector.weight, before + 0.25)
    assert method.feature_queue.filled.tolist() == method.projection_queue.filled.tolist() == [2] * CLASSES
    for label in range(CLASSES):
        assert torch.equal(method.projection_queue.of_class(label), keep["projections"][labels == label])
        assert torch.equal(method.feature_queue.of_class(label), keep["features"][labels == label])


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"classifier_weight": 0.0}, "classifier_contrast"),
        ({"projector_weight": 0.0}, "projector_contrast"),
        ({"classifier_weight": 0.0, "projector_weight": 0.0}, "both"),
    ],
)
def test_a_contrast_of_no_weight_is_not_there_at_all(settings: dict[str, float], gone: str) -> None:
    method = made(**settings)
    both = {"classifier_contrast", "projector_contrast"}
    terms, keep = method(*batch(method), context())
    assert terms.keys() == {"cross_entropy"} | (both - {gone} if gone in both else set())
    assert len(method.view_kinds) == (1 if gone == "both" else 2)
    method.total(terms).backward()
    assert all(value.grad is not None for value in method.parameters() if value.requires_grad)
    method.after_step(keep)
    assert any(name.startswith("key_encoder") for name in method.state_dict()) == (gone != "both")


def test_weights_are_those_of_the_settings() -> None:
    method = made(classifier_weight=0.5, projector_weight=0.25)
    terms = {"cross_entropy": torch.tensor(1.0), "classifier_contrast": torch.tensor(10.0)}
    assert method.total({**terms, "projector_contrast": torch.tensor(100.0)}).item() == 1 + 5 + 25


def test_training_lowers_the_loss() -> None:
    # The first steps find empty queues, which cost nothing.
    losses = train(made(), steps=14)
    assert losses[-1]["loss"] < losses[3]["loss"]
    assert losses[-1]["projector_contrast"] < losses[3]["projector_contrast"]


def test_a_run_goes_on_from_its_state_dict() -> None:
    method = made()
    assert_resumes(method, build(BiTuning, method.config, seed=9))


def test_prediction_needs_backbone_and_classifier_alone() -> None:
    assert set(made().inference_modules()) == {"backbone", "classifier"}


def test_no_random_number_is_drawn() -> None:
    method = made()
    state = torch.get_rng_state()
    train(method, steps=1)
    assert torch.equal(torch.get_rng_state(), state)
