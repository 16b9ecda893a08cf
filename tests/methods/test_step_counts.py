"""What a step of Concept-Tuning costs, counted in encoder passes and torch operators instead of seconds."""

from __future__ import annotations

import copy

import pytest
import torch
from operator_count import operators
from tiny_runs import tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.methods.base import StepContext
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.models.backbone import build_backbone
from concept_tuning.models.class_queue import ClassQueue
from concept_tuning.models.momentum import momentum_copy, update_momentum_copy

SIZE, CONCEPTS = 64, 9
#: Passes of an encoder over whole views (B images each) and over patches (B * P each).
Passes = tuple[int, int]
#: Settings of a mode, then the passes of the trained network and of the key encoder in one step.
MODES: dict[str, tuple[dict[str, object], Passes, Passes]] = {
    "faithful": ({"views": 4, "patches": "encoder"}, (1, 1), (3, 1)),
    "two views": ({"views": 2, "patches": "encoder"}, (1, 1), (1, 1)),
    "feature map": ({"views": 4, "patches": "feature-map"}, (2, 0), (3, 0)),
    "feature map, two views": ({"views": 2, "patches": "feature-map"}, (1, 0), (1, 0)),
    "front door alone": ({"image_weight": 0, "concept_weight": 0}, (1, 0), (0, 0)),
    "image contrast alone": ({"concept_weight": 0, "front_door": False}, (1, 0), (1, 0)),
}
#: Batch, classes and queue size: a base, and each of them made larger alone.
CASES = [(2, 3, 2), (8, 3, 2), (2, 12, 2), (2, 3, 20)]
#: One Sinkhorn iteration for every image: with a tolerance of next to nothing none stops by itself before the last.
ONE_ITERATION = {"transport_iterations": 1, "transport_tolerance": 1e-12}


def build(classes: int, queue_size: int, **settings: object) -> ConceptTuning:
    """Return a method in training with full queues."""
    off = settings.get("image_weight") == 0 and settings.get("concept_weight") == 0
    wanted = settings if off else {"queue_size": queue_size, **settings}
    config = tiny_config("concept-tuning", **wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = ConceptTuning(config, build_backbone(config.backbone, image_size=SIZE), classes)
        for queue in method.modules():
            if isinstance(queue, ClassQueue):
                keys = torch.randn(classes * queue_size, *queue.keys.shape[2:])
                queue.enqueue(F.normalize(keys, dim=-1), torch.arange(classes).repeat(queue_size))
    return method.train()


def batch(method: ConceptTuning, size: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(size, len(method.view_kinds), 3, SIZE, SIZE, generator=generator)
    return views, torch.arange(size) % classes


def context() -> StepContext:
    return StepContext(torch.Generator().manual_seed(5))


def watch(backbone: nn.Module) -> list[tuple[int, bool]]:
    """Return a list that gets, for each pass of a backbone, its number of images and whether it built a graph."""
    seen: list[tuple[int, bool]] = []
    backbone.register_forward_hook(lambda module, inputs, output: seen.append((len(output), output.requires_grad)))
    return seen


# Encoder passes


@pytest.mark.parametrize(("size", "classes", "queue_size"), CASES)
@pytest.mark.parametrize("mode", MODES)
def test_passes_of_both_encoders_and_the_images_in_them(mode: str, size: int, classes: int, queue_size: int) -> None:
    """As many passes for any batch, classes and queue; patches go together, and only the query's build a graph."""
    settings, query_passes, key_passes = MODES[mode]
    method = build(classes, queue_size, **settings)
    query = watch(method.backbone)
    key = watch(method.key_encoder.backbone) if method.uses_keys else []
    terms, keep = method(*batch(method, size, classes), context())
    method.total(terms).backward()
    method.after_step(keep)
    for seen, (views, patches), graph in ((query, query_passes, True), (key, key_passes, False)):
        assert sorted(seen) == [(size, graph)] * views + [(size * CONCEPTS, graph)] * patches


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_takes_one_pass_of_the_query(mode: str) -> None:
    method = build(3, 2, **MODES[mode][0]).eval()
    query = watch(method.backbone)
    key = watch(method.key_encoder.backbone) if method.uses_keys else []
    with torch.no_grad():
        method.predict(batch(method, 4, 3)[0][:, 0])
    assert (query, key) == ([(4, False)], [])


@pytest.mark.parametrize("mode", ["faithful", "two views"])
def test_running_statistics_count_views_and_no_patches(mode: str) -> None:
    """Batch norms count as many batches as there are passes over whole views, though patches went through as well."""
    settings, query_passes, key_passes = MODES[mode]
    method = build(3, 2, **settings)
    method(*batch(method, 2, 3), context())
    for module, (views, patches) in ((method.backbone, query_passes), (method.key_encoder.backbone, key_passes)):
        counted = [layer.num_batches_tracked.item() for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert patches == 1
        assert counted == [views] * len(counted) != []


# Torch operators


@pytest.mark.parametrize("mode", MODES)
def test_a_step_takes_as_many_operators_for_any_batch_classes_and_queue(mode: str) -> None:
    """Forward, backward and what follows: a loop over images, classes or keys would take more for more of them."""
    settings = MODES[mode][0]
    transport = {} if settings.get("concept_weight") == 0 else ONE_ITERATION

    def step(size: int, classes: int, queue_size: int) -> int:
        method = build(classes, queue_size, **settings, **transport)
        views, labels = batch(method, size, classes)

        def work() -> None:
            terms, keep = method(views, labels, context())
            method.total(terms).backward()
            method.after_step(keep)

        return len(operators(work))

    # From four classes on: with fewer there are fewer than three confusing ones.
    counts = {case: step(*case) for case in [(2, 4, 2), (8, 4, 2), (2, 12, 2), (2, 4, 20)]}
    assert len(set(counts.values())) == 1, counts
    assert min(counts.values()) > 100


@pytest.mark.parametrize("patches", ["encoder", "feature-map"])
def test_a_step_takes_as_many_operators_for_any_number_of_patches(patches: str) -> None:
    def step(concepts: int) -> int:
        method = build(4, 2, patches=patches, concepts=concepts, **ONE_ITERATION)
        views, labels = batch(method, 2, 4)
        return len(operators(lambda: method(views, labels, context())))

    assert step(2) == step(9)


@pytest.mark.parametrize("layers", [1, 30])
def test_the_momentum_update_is_one_operator(layers: int) -> None:
    query = nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers)))
    key = momentum_copy(query)
    assert operators(lambda: update_momentum_copy(query, key, 0.9)) == ["aten::_foreach_lerp_.Scalar"]


def test_the_momentum_update_of_a_step_is_one_operator() -> None:
    method = build(3, 2)
    _, keep = method(*batch(method, 2, 3), context())
    before = copy.deepcopy(method.key_encoder.state_dict())
    with torch.no_grad():
        method.classifier.bias.add_(1)
    found = operators(lambda: method.after_step(keep))
    assert [name for name in found if "foreach" in name or "lerp" in name] == ["aten::_foreach_lerp_.Scalar"]
    assert not torch.equal(before["classifier.bias"], method.key_encoder.classifier.bias)


@pytest.mark.parametrize("classes", [2, 50])
def test_queueing_takes_as_many_operators_for_2_keys_as_for_64(classes: int) -> None:
    def enqueue(count: int) -> list[str]:
        queue = ClassQueue(classes, 3, (4,))
        return operators(lambda: queue.enqueue(torch.ones(count, 4), torch.arange(count) % classes))

    assert enqueue(2) == enqueue(64)
