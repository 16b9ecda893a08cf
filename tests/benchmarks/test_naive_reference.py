"""The package's faithful mode against a training step written slowly from the method's description."""

from __future__ import annotations

import pytest
import torch
from naive_reference import NaiveConceptTuning, NaiveQueue, contrast, sinkhorn
from tiny_runs import tiny_config
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.methods.base import StepContext
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.models.backbone import build_backbone

BATCH, STEPS = 5, 4


def faithful(backbone: str, classes: int, *, spread: float, **overrides: object) -> ConceptTuning:
    """Return the method with every part at work: attentions switched on, key encoder apart, queues half full."""
    # The package works with the rate and momentum as given; larger ones than usual show an error sooner.
    settings = {"encoder_momentum": 0.9, "lr": 0.003, "queue_size": 3, **overrides}
    config = tiny_config("concept-tuning", backbone=backbone, **settings)
    method = ConceptTuning(config, build_backbone(config.backbone, image_size=config.data.image_size), classes)
    key = method.key_encoder.classifier
    with torch.no_grad():
        method.classifier.weight.normal_(std=spread)
        for layer in (method.classifier, key):
            layer.bias.copy_(torch.arange(classes) - 1.0)
        key.weight.copy_(method.classifier.weight + 0.1 * spread * torch.randn_like(key.weight))
        method.front_door.position.gamma.fill_(0.5)
        method.front_door.channel.gamma.fill_(0.3)
    labels = torch.arange(classes).repeat(2)[1:]
    centre = F.normalize(key.bias.detach(), dim=0)
    method.image_queue.enqueue(F.normalize(centre + spread * torch.randn(len(labels), classes), dim=1), labels)
    noise = torch.randn(len(labels), config.concept_tuning.concepts, classes)
    method.concept_queue.enqueue(F.normalize(centre + spread * noise, dim=2), labels)
    return method.train()


def batch(step: int, classes: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    views = torch.randn(BATCH, 4, 3, size, size, generator=generator)
    return views, torch.randint(classes, (BATCH,), generator=generator)


# At the usual epsilon a plan is all but a permutation where costs differ much: its largest weights are then equal
# to rounding, and which are heaviest is chance. So either embeddings lie close together, or epsilon is larger.
@pytest.mark.parametrize(
    ("backbone", "classes", "patch_calls", "spread", "overrides"),
    [
        ("test_convnext", 5, "nine", 0.05, {}),
        ("test_convnext", 2, "nine", 0.05, {}),
        ("test_convnext", 5, "nine", 0.3, {"transport_epsilon": 0.2, "image_size": 128}),
        ("test_vit", 5, "nine", 0.05, {"image_size": 96, "confusing_for_negatives": 2, "label_smoothing": 0.1}),
        ("test_resnet", 5, "together", 0.05, {}),
    ],
)
def test_faithful_mode_computes_the_same_losses_over_several_steps(
    backbone: str, classes: int, patch_calls: str, spread: float, overrides: dict[str, object]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = faithful(backbone, classes, spread=spread, **overrides)
    reference = NaiveConceptTuning(method, patch_calls=patch_calls, transport_dtype=torch.float64)
    optimizer = build_optimizer(method, method.config.optim)
    size = method.config.data.image_size
    for step in range(STEPS):
        views, labels = batch(step, classes, size)
        terms, keep = method(views, labels, StepContext(torch.Generator().manual_seed(step)))
        optimizer.zero_grad()
        method.total(terms).backward()
        optimizer.step()
        method.after_step(keep)
        draw = StepContext(torch.Generator().manual_seed(step))
        noise = draw.normal(BATCH, method.front_door.latent_dim, device=labels.device)
        draws = draw.uniform(BATCH, 1 + method.parts.queue_size, device=labels.device)
        expected = reference.step(views, labels, noise, draws)
        assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-4), step
        assert min(expected.values()) > 1e-3
    queues = reference.concept_queue.keys
    for label, keys in enumerate(queues):
        torch.testing.assert_close(method.concept_queue.of_class(label), keys, rtol=0, atol=1e-3)
    key_encoder = method.key_encoder.backbone
    for ours, theirs in zip(key_encoder.parameters(), reference.key.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(method.backbone.buffers(), reference.query.backbone.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert any(len(keys) == 3 and reference.concept_queue.first_slot[label] != 0 for label, keys in enumerate(queues))


def test_queue_takes_over_a_wrapped_ring_oldest_first() -> None:
    keys = torch.tensor([[[40.0], [20.0], [30.0]], [[7.0], [0.0], [0.0]]])
    queue = NaiveQueue(keys, filled=torch.tensor([3, 1]), pointer=torch.tensor([1, 1]))
    assert queue.keys[0].flatten().tolist() == [20, 30, 40]
    assert queue.slots(0) == [1, 2, 0]
    queue.append(0, torch.tensor([50.0]))
    queue.append(1, torch.tensor([8.0]))
    assert queue.keys[0].flatten().tolist() == [30, 40, 50]
    assert queue.slots(0) == [2, 0, 1]
    assert queue.keys[1].flatten().tolist() == [7, 8]
    assert queue.slots(1) == [0, 1]


def test_sinkhorn_agrees_with_the_published_code() -> None:
    """First costs and iterations of the authors' code (arXiv 2311.06868) on inputs given by formula."""
    x = F.normalize(_wave((1, 9, 20), 0.7, 0.1), dim=-1)
    y = F.normalize(_wave((40, 9, 20), 0.3, 0.2), dim=-1)
    cost = 1 - x @ y.mT
    plan = sinkhorn(cost, 0.01, 200, 1e-3)
    transported = (plan * cost).sum((1, 2))[:4]
    expected = [0.9138413667678833, 0.9049040079116821, 0.8908534646034241, 0.9021062850952148]
    assert transported.tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(plan, sinkhorn(cost, 0.01, 30, 0))
    assert not torch.equal(plan, sinkhorn(cost, 0.01, 29, 0))


def test_contrast_agrees_with_the_published_code() -> None:
    similarities = _wave((4, 16), 0.8, 0.3)
    losses = [contrast(row[:4], row[4:], 0.07) for row in similarities]
    assert torch.stack(losses).mean().item() == pytest.approx(4.860248565673828, rel=1e-5)


def test_other_modes_are_refused() -> None:
    config = tiny_config("concept-tuning", views=2)
    method = ConceptTuning(config, build_backbone(config.backbone, image_size=config.data.image_size), 3)
    with pytest.raises(ValueError, match="faithful"):
        NaiveConceptTuning(method)


def _wave(shape: tuple[int, ...], a: float, b: float) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(a * torch.arange(count, dtype=torch.float64) + b).float().reshape(shape)
