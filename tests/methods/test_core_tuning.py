"""Core-tuning: mixtures, their labels, and the two terms on them."""

from __future__ import annotations

import pytest
import torch
from rivals import CLASSES, assert_resumes, batch, build, context, gradients, rival_config, train
from torch.nn import functional as F

from concept_tuning.losses.core_tuning import beta_shares, find_partners, focal_contrast
from concept_tuning.methods.base import pool
from concept_tuning.methods.core_tuning import NEGATIVE_SHARE, CoreTuning


def made(**settings: object) -> CoreTuning:
    return build(CoreTuning, rival_config("core_tuning", **({"projection_dim": 8} | settings)))


@torch.no_grad()
def test_terms_equal_a_slow_loop_over_the_images() -> None:
    method = made(mixup=0.4, focal=2.0, temperature=0.3)
    views, labels = batch(method)
    terms, keep = method(views, labels, context())
    features = pool(method.backbone(views[:, 0]))
    draws = context().uniform(len(labels), 3, device=torch.device("cpu"))
    shares = beta_shares(draws[:, :2], 0.4)
    partners = find_partners(features, labels, draws[:, 2])
    total, mixtures = 0.0, {"positive": [], "negative": []}
    for i, label in enumerate(labels.tolist()):
        near, far, drawn = (int(getattr(partners, name)[i]) for name in ("positive", "negative", "random_negative"))
        share, other = float(shares[i, 0]), max(float(shares[i, 1]), NEGATIVE_SHARE)
        mixtures["positive"].append(share * features[near] + (1 - share) * features[far])
        mixtures["negative"].append(other * features[drawn] + (1 - other) * features[i])
        logs = [method.classifier(row).log_softmax(0) for row in (mixtures["positive"][i], mixtures["negative"][i])]
        total -= float(method.classifier(features[i]).log_softmax(0)[label])
        total -= share * float(logs[0][label]) + (1 - share) * float(logs[0][labels[far]])
        total -= other * float(logs[1][labels[drawn]]) + (1 - other) * float(logs[1][label])
    assert terms["cross_entropy"].item() == pytest.approx(total / 18, rel=1e-4)
    projected = [
        F.normalize(method.projector(rows), dim=1) for rows in (features, *map(torch.stack, mixtures.values()))
    ]
    expected = focal_contrast(*projected, labels, partners.has_negative, temperature=0.3, focal=2.0)
    torch.testing.assert_close(terms["focal_contrast"], expected, rtol=1e-4, atol=1e-5)
    assert keep == {}


def test_gradients_reach_the_parts_of_each_term() -> None:
    method = made()
    assert gradients(method, "cross_entropy") == {"backbone", "classifier"}
    assert gradients(method, "focal_contrast") == {"backbone", "projector"}


def test_the_step_decides_the_mixtures_and_nothing_else_is_drawn() -> None:
    method = made()
    views, labels = batch(method)
    state = torch.get_rng_state()
    once, again, other = (method(views, labels, context(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in once.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1], [0, 1, 2, 0]])
def test_any_batch_will_do(labels: list[int]) -> None:
    method = made()
    views = batch(method)[0][: len(labels)]
    terms, _ = method(views, torch.tensor(labels), context())
    total = method.total(terms)
    total.backward()
    assert total.isfinite()
    assert all(value.grad.isfinite().all() for value in method.backbone.parameters())


def test_without_the_contrast_there_is_no_projector() -> None:
    method = made(weight=0.0)
    terms, _ = method(*batch(method), context())
    assert terms.keys() == {"cross_entropy"}
    assert method.projector is None
    assert made(weight=0.5).total({"focal_contrast": torch.tensor(4.0)}).item() == 2


def test_projector_learns_at_the_heads_rate() -> None:
    method = made()
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert len(groups["heads"]["params"]) == 6
    assert groups["heads"]["lr"] == method.config.optim.lr


def test_training_lowers_the_loss() -> None:
    losses = train(made(), steps=12)
    assert losses[-1]["loss"] + losses[-2]["loss"] < losses[0]["loss"] + losses[1]["loss"]


def test_a_run_goes_on_from_its_state_dict() -> None:
    method = made()
    assert_resumes(method, build(CoreTuning, method.config, seed=9))


def test_prediction_needs_backbone_and_classifier_alone() -> None:
    method = made()
    assert set(method.inference_modules()) == {"backbone", "classifier"}
    assert method.classifier.out_features == CLASSES
