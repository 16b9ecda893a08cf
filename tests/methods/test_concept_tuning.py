"""The method's parts one by one; test_naive_reference.py holds the losses of the whole against a slow reference."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor, nn

from concept_tuning.concepts import crop_patches
from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.methods.base import StepContext, pool
from concept_tuning.methods.concept_tuning import ConceptTuning, _View, concept_embeddings, patch_size
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import build_backbone

ALL_TERMS = {"cross_entropy", "front_door_cross_entropy", "bottleneck_kl", "image_contrast", "concept_contrast"}
SIZE = 64


def build(classes: int = 3, *, backbone: str = "test_resnet", filled: bool = True, **settings: object) -> ConceptTuning:
    """Return a method with random weights, key encoder apart from the query's, attentions on and queues in use."""
    config = tiny_config("concept-tuning", backbone=backbone, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = build_method(config, build_backbone(config.backbone, image_size=config.data.image_size), classes)
        assert isinstance(method, ConceptTuning)
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # timm starts the last of each block at 0, which stops the gradient
        nn.init.normal_(method.classifier.weight, generator=torch.Generator().manual_seed(1))
        if method.front_door is not None:
            for attention in (method.front_door.position, method.front_door.channel):
                if attention is not None:
                    nn.init.constant_(attention.gamma, 0.5)
        if method.uses_keys:
            key = method.key_encoder.classifier.weight
            nn.init.normal_(key, generator=torch.Generator().manual_seed(2))
    if filled:
        labels = torch.arange(classes).repeat(2)
        for name in ("image_queue", "concept_queue"):
            queue = getattr(method, name, None)
            if queue is not None:
                keys = torch.randn(len(labels), *queue.keys.shape[2:], generator=torch.Generator().manual_seed(3))
                queue.enqueue(nn.functional.normalize(keys, dim=-1), labels)
    return method.train()


def batch(method: ConceptTuning, size: int = 4, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # The same first views for every method of a test, however many it asks for.
    views = torch.randn(size, 4, 3, SIZE, SIZE, generator=generator)[:, : len(method.view_kinds)]
    return views, torch.arange(size) % classes


def context(seed: int = 5) -> StepContext:
    return StepContext(torch.Generator().manual_seed(seed))


def losses(method: ConceptTuning, size: int = 4, classes: int = 3, seed: int = 5) -> dict[str, float]:
    views, labels = batch(method, size, classes)
    terms, _ = method(views, labels, context(seed))
    return {name: value.item() for name, value in terms.items()}


def running(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name or "tracked" in name}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# Terms


def test_all_parts_give_five_terms_of_weight() -> None:
    found = losses(build())
    assert found.keys() == ALL_TERMS
    assert min(found.values()) > 1e-3


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"image_weight": 0}, {"image_contrast"}),
        ({"concept_weight": 0}, {"concept_contrast"}),
        ({"image_weight": 0, "concept_weight": 0}, {"image_contrast", "concept_contrast"}),
        ({"bottleneck": False}, {"bottleneck_kl"}),
        ({"front_door": False}, {"front_door_cross_entropy", "bottleneck_kl"}),
        (
            {"front_door": False, "image_weight": 0, "concept_weight": 0},
            ALL_TERMS - {"cross_entropy"},
        ),
    ],
    ids=["no image", "no concept", "no contrast", "no bottleneck", "no front door", "vanilla"],
)
def test_an_ablation_takes_out_its_own_terms_and_no_more(settings: dict[str, object], gone: set[str]) -> None:
    """What is left has the same value; the front door without bottleneck is another network, so its own differs."""
    whole, ablated = losses(build()), losses(build(**settings))
    assert ablated.keys() == ALL_TERMS - gone
    compared = set(ablated) - ({"front_door_cross_entropy"} if "bottleneck" in settings else set())
    if "front_door" not in settings and "bottleneck" not in settings:
        assert ablated == {name: pytest.approx(whole[name], rel=1e-5) for name in ablated}
    else:
        # Without noise to draw first, the concept pairs are drawn from other numbers.
        compared -= {"concept_contrast"}
        assert {name: ablated[name] for name in compared} == {
            name: pytest.approx(whole[name], rel=1e-5) for name in compared
        }


@pytest.mark.parametrize(
    ("setting", "value", "changed"),
    [
        ("position_attention", False, {"front_door_cross_entropy", "bottleneck_kl"}),
        ("channel_attention", False, {"front_door_cross_entropy", "bottleneck_kl"}),
        ("aggregate", "concat", {"front_door_cross_entropy", "bottleneck_kl"}),
        ("kl_deviation", "exp-sigma", {"bottleneck_kl"}),
        ("beta", 0.5, set()),
        ("views", 2, {"concept_contrast"}),
        ("patches", "feature-map", {"concept_contrast"}),
        ("negative_pairs", 3, {"concept_contrast"}),
        ("confusing_for_negatives", 1, {"concept_contrast"}),
        ("temperature", 0.5, {"image_contrast", "concept_contrast"}),
        ("label_smoothing", 0.2, {"cross_entropy", "front_door_cross_entropy"}),
    ],
)
def test_a_setting_changes_the_terms_it_belongs_to(setting: str, value: object, changed: set[str]) -> None:
    whole, other = losses(build()), losses(build(**{setting: value}))
    assert other.keys() == whole.keys()
    assert {name for name in whole if other[name] != pytest.approx(whole[name], rel=1e-5)} == changed


def test_the_total_is_the_weighted_sum() -> None:
    method = build(image_weight=0.25, concept_weight=0.5, beta=0.125)
    terms = {
        "cross_entropy": 1.0,
        "front_door_cross_entropy": 10.0,
        "bottleneck_kl": 100.0,
        "image_contrast": 1000.0,
        "concept_contrast": 10_000.0,
    }
    total = method.total({name: torch.tensor(value) for name, value in terms.items()})
    assert total.item() == 1 + 10 + 12.5 + 250 + 5000
    assert method.total({"cross_entropy": torch.tensor(3.0)}).item() == 3


def test_cross_entropies_are_those_of_the_two_heads() -> None:
    method = build()
    views, labels = batch(method)
    terms, _ = method(views, labels, context())
    with torch.no_grad():
        features = method.backbone(views[:, 0])
        logits = method.classifier(features.mean((2, 3)))
        noise = context().normal(4, method.front_door.latent_dim, device=labels.device)
        latent = method.front_door(features, noise)
    rows = torch.arange(4)
    plain = -logits.log_softmax(1)[rows, labels].mean()
    torch.testing.assert_close(terms["cross_entropy"], plain)
    torch.testing.assert_close(
        terms["front_door_cross_entropy"], -latent.logits.log_softmax(1)[rows, labels].mean(), rtol=1e-4, atol=1e-5
    )


def test_the_deviation_of_the_kl_is_the_sampled_one_or_its_exponential() -> None:
    sampled, exponential = build(), build(kl_deviation="exp-sigma")
    views, _ = batch(sampled)
    with torch.no_grad():
        output = sampled.front_door(sampled.backbone(views[:, 0]))
    for method, deviation in ((sampled, output.deviation), (exponential, output.deviation.exp())):
        gaussian = torch.distributions.Normal(output.mean, deviation)
        expected = torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(0, 1)).sum(1).mean()
        assert losses(method)["bottleneck_kl"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_same_context_gives_the_same_losses_and_another_one_other_noise() -> None:
    first, again, other = losses(build()), losses(build()), losses(build(), seed=6)
    assert first == again
    fixed = {"cross_entropy", "bottleneck_kl", "image_contrast"}
    assert {name for name in first if first[name] == other[name]} == fixed


def test_the_global_generator_is_not_drawn_from() -> None:
    method = build()
    state = torch.get_rng_state()
    losses(method)
    assert torch.equal(torch.get_rng_state(), state)


# Views


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ("strong", "strong", "mild", "mild")),
        ({"views": 2}, ("strong", "strong")),
        ({"concept_weight": 0}, ("strong", "strong")),
        ({"image_weight": 0}, ("strong", "strong", "mild", "mild")),
        ({"image_weight": 0, "concept_weight": 0}, ("strong",)),
    ],
)
def test_no_more_views_are_asked_for_than_are_used(settings: dict[str, object], kinds: tuple[str, ...]) -> None:
    method = build(**settings)
    assert method.view_kinds == kinds
    views, labels = batch(method)
    base, _ = method(views, labels, context())
    for index in range(len(kinds)):
        changed = views.clone()
        changed[:, index] = changed[:, index].flip(3) + 0.5
        terms, _ = method(changed, labels, context())
        moved = {name for name in base if not torch.allclose(terms[name], base[name], rtol=1e-5)}
        heads = set(base) - {"image_contrast", "concept_contrast"}
        if index == 0:
            two = set() if len(kinds) == 4 else {"concept_contrast"}
            assert moved == heads | ({"image_contrast"} | two) & set(base)
        elif index == 1:
            two = set() if len(kinds) == 4 else {"concept_contrast"}
            assert moved == ({"image_contrast"} | two) & set(base)
        else:
            assert moved == {"concept_contrast"}


# Keys, queues and running statistics


def test_keys_take_no_gradient_and_all_that_is_trained_does() -> None:
    method = build()
    views, labels = batch(method)
    terms, keep = method(views, labels, context())
    method.total(terms).backward()
    assert all(parameter.grad is None for parameter in method.key_encoder.parameters())
    without = [name for name, value in method.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []
    assert not any(value.requires_grad for value in keep.values())


@pytest.mark.parametrize("term", ["image_contrast", "concept_contrast"])
def test_each_contrast_alone_trains_the_backbone(term: str) -> None:
    method = build()
    views, labels = batch(method)
    terms, _ = method(views, labels, context())
    terms[term].backward()
    assert all(value.grad.abs().max() > 0 for value in method.backbone.parameters() if value.ndim > 1)
    # Patches are embedded with the classifier's weights detached; logits of whole images are not.
    touched = method.classifier.weight.grad is not None and method.classifier.weight.grad.abs().max() > 0
    assert touched == (term == "image_contrast")


@pytest.mark.parametrize("patches", ["encoder", "feature-map"])
def test_running_statistics_follow_whole_views_alone(patches: str) -> None:
    """The query's batch norms see its whole views and the key's see theirs, each in order, and no patch."""
    method = build(patches=patches)
    query, key = copy.deepcopy(method.backbone), copy.deepcopy(method.key_encoder.backbone)
    views, labels = batch(method)
    method(views, labels, context())
    with torch.no_grad():
        query(views[:, 0])
        if patches == "feature-map":
            query(views[:, 2])
        for index in (1, 2, 3):
            key(views[:, index])
    assert running(query).keys() == running(method.backbone).keys()
    for module, expected in ((method.backbone, query), (method.key_encoder.backbone, key)):
        for name, value in running(module).items():
            torch.testing.assert_close(value, running(expected)[name], msg=name)
    assert not same(running(method.backbone), running(method.key_encoder.backbone))


def test_a_step_queues_the_keys_and_moves_the_key_encoder() -> None:
    method = build(filled=False, encoder_momentum=0.75)
    views, labels = batch(method)
    _, keep = method(views, labels, context())
    before = {name: value.clone() for name, value in method.key_encoder.named_parameters()}
    with torch.no_grad():
        method.classifier.bias.add_(1)
    statistics = running(method.key_encoder)
    method.after_step(keep)
    for queue, keys in ((method.image_queue, keep["image_keys"]), (method.concept_queue, keep["concept_keys"])):
        assert torch.equal(queue.of_class(0), keys[[0, 3]])
        assert torch.equal(queue.of_class(1), keys[[1]])
        torch.testing.assert_close(keys.norm(dim=-1), torch.ones(keys.shape[:-1]))
    moved = dict(method.key_encoder.named_parameters())
    query = {
        **{f"backbone.{name}": value for name, value in method.backbone.named_parameters()},
        **{f"classifier.{name}": value for name, value in method.classifier.named_parameters()},
    }
    for name, value in moved.items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * query[name], msg=name)
    assert same(running(method.key_encoder), statistics)


def test_the_key_encoder_starts_as_the_query() -> None:
    config = tiny_config("concept-tuning")
    method = ConceptTuning(config, build_backbone(config.backbone, image_size=SIZE), 3)
    assert same(method.backbone.state_dict(), method.key_encoder.backbone.state_dict())
    assert same(method.classifier.state_dict(), method.key_encoder.classifier.state_dict())


def test_forward_leaves_queues_and_parameters_for_after_the_step() -> None:
    method = build()
    before = copy.deepcopy(method.state_dict())
    losses(method)
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


@pytest.mark.parametrize(
    "settings", [{}, {"front_door": False}, {"image_weight": 0}, {"image_weight": 0, "concept_weight": 0}]
)
def test_the_state_dict_carries_everything(settings: dict[str, object]) -> None:
    """Loaded into a fresh method, the next losses are the same to the bit."""
    method = build(**settings)
    optimizer = build_optimizer(method, method.config.optim)
    views, labels = batch(method)
    for step in range(2):
        terms, keep = method(views, labels, context(step))
        optimizer.zero_grad()
        method.total(terms).backward()
        optimizer.step()
        method.after_step(keep)
    config = method.config
    fresh = ConceptTuning(config, build_backbone(config.backbone, image_size=SIZE), 3).train()
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    assert losses(fresh) == losses(method)
    stored = {name.partition(".")[0] for name in method.state_dict()}
    assert {"key_encoder", "image_queue", "concept_queue"} <= stored or "image_weight" in settings
    assert ("front_door" in stored) == ("front_door" not in settings)


@pytest.mark.parametrize("settings", [{"image_weight": 0}, {"concept_weight": 0}])
def test_a_part_that_is_off_keeps_nothing(settings: dict[str, object]) -> None:
    method = build(**settings)
    off = next(iter(settings)).removesuffix("_weight")
    assert not any(name.startswith(f"{off}_queue") for name in method.state_dict())
    assert any(name.endswith("_queue.pointer") for name in method.state_dict())
    _, keep = method(*batch(method), context())
    assert f"{off}_keys" not in keep


def test_without_contrast_there_is_no_key_encoder() -> None:
    method = build(image_weight=0, concept_weight=0)
    assert not any("key_encoder" in name for name, _ in method.named_parameters())
    _, keep = method(*batch(method), context())
    assert keep == {}
    before = copy.deepcopy(method.state_dict())
    method.after_step(keep)
    assert same(method.state_dict(), before)


# Patches


@torch.no_grad()
def test_concept_keys_are_encoded_crops_or_read_from_the_map() -> None:
    """The key sets, patch by patch, without the classifier's running statistics in between."""
    cropped, read = build().eval(), build(patches="feature-map").eval()
    views, labels = batch(cropped)
    for method in (cropped, read):
        key = method.key_encoder
        feature_map, logits = key(views[:, 3])
        view = _View(views[:, 3], feature_map, logits)
        concepts = method._find(view, key.classifier.weight, labels)
        _, keep = method(views, labels, context())
        for image in range(2):
            for concept in range(method.parts.concepts):
                box = concepts.boxes[image : image + 1, concept : concept + 1]
                if method is cropped:
                    patch = crop_patches(views[image : image + 1, 3], box, method.patch_size)
                    features = pool(key.backbone(patch))[0]
                else:
                    # A map of 2x2 cells and a box of half a cell's side around a cell's centre: that cell, or so.
                    left, top, _, _ = (box[0, 0] / SIZE * feature_map.shape[-1]).tolist()
                    features = feature_map[image, :, int(top), int(left)]
                expected = nn.functional.normalize(key.classifier(features), dim=0)
                torch.testing.assert_close(keep["concept_keys"][image, concept], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "size", "fraction", "expected"),
    [
        ("test_resnet", 224, 64 / 224, 64),
        ("test_resnet", 224, 0.01, 32),
        ("test_resnet", 224, 1.0, 224),
        ("test_vit", 96, 64 / 224, 32),
        ("test_vit_relpos", 160, 64 / 224, 160),
    ],
    ids=["paper", "at least a cell", "the whole image", "vit", "a network of one size"],
)
def test_patches_are_of_a_size_the_network_takes(backbone: str, size: int, fraction: float, expected: int) -> None:
    config = tiny_config("concept-tuning", backbone=backbone, image_size=size, patch_fraction=fraction)
    assert patch_size(build_backbone(config.backbone, image_size=size), config) == expected


# Prediction


@pytest.mark.parametrize("rule", ["mean", "classifier", "front-door"])
@torch.no_grad()
def test_the_prediction_rule(rule: str) -> None:
    method = build(prediction=rule).eval()
    images = batch(method)[0][:, 0]
    found = method.predict(images)
    features = method.backbone(images)
    one = method.classifier(pool(features)).softmax(1)
    two = method.front_door(features).logits.softmax(1)
    assert not torch.allclose(one, two, atol=1e-3)
    expected = {"mean": (one + two) / 2, "classifier": one, "front-door": two}[rule]
    torch.testing.assert_close(found["prediction"], expected)
    torch.testing.assert_close(found["classifier"], one)
    torch.testing.assert_close(found["front_door"], two)


@torch.no_grad()
def test_without_a_front_door_the_classifier_predicts() -> None:
    method = build(front_door=False).eval()
    found = method.predict(batch(method)[0][:, 0])
    assert found.keys() == {"classifier", "prediction"}
    assert torch.equal(found["prediction"], found["classifier"])
    assert method.inference_modules().keys() == {"backbone", "classifier"}


@torch.no_grad()
def test_evaluation_draws_nothing_and_changes_nothing() -> None:
    method = build().eval()
    before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    images = batch(method)[0][:, 0]
    first, second = method.predict(images), method.predict(images)
    assert same(first, second)
    assert same(method.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)


# Degenerate cases and rates


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("patches", ["encoder", "feature-map"])
def test_two_classes_and_a_batch_of_one_image(views: int, patches: str) -> None:
    method = build(2, views=views, patches=patches, filled=False)
    optimizer = build_optimizer(method, method.config.optim)
    found = []
    for step in range(2):
        terms, keep = method(*batch(method, 1, 2, seed=step), context())
        optimizer.zero_grad()
        method.total(terms).backward()
        optimizer.step()
        method.after_step(keep)
        found.append({name: value.item() for name, value in terms.items()})
    # Queues that hold nothing leave the own key alone in the softmax: nothing to tell it from.
    assert found[0]["image_contrast"] == pytest.approx(0, abs=1e-6)
    assert found[0]["concept_contrast"] == pytest.approx(0, abs=1e-6)
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


def test_a_batch_of_one_class() -> None:
    method = build()
    views, _ = batch(method)
    terms, keep = method(views, torch.full((4,), 2), context())
    method.after_step(keep)
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.equal(method.image_queue.of_class(2), keep["image_keys"])


def test_the_backbone_has_its_own_rate_and_keys_have_none() -> None:
    method = build(lr=0.5, backbone_lr_scale=0.01)
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert {name: group["lr"] for name, group in groups.items()} == {"heads": 0.5, "backbone": 0.005}
    backbone = {id(parameter) for parameter in method.backbone.parameters() if parameter.requires_grad}
    heads = {id(value) for module in (method.classifier, method.front_door) for value in module.parameters()}
    assert [id(parameter) for parameter in groups["backbone"]["params"]] == list(
        dict.fromkeys(id(parameter) for parameter in method.backbone.parameters())
    )
    assert {id(parameter) for parameter in groups["backbone"]["params"]} == backbone
    assert {id(parameter) for parameter in groups["heads"]["params"]} == heads


# Precision of the keys


@pytest.mark.parametrize(("views", "patches"), [(4, "encoder"), (2, "feature-map")])
def test_keys_in_bfloat16_are_near_those_in_float32_and_leave_the_query_as_it_is(views: int, patches: str) -> None:
    exact, rough = (build(views=views, patches=patches, key_precision=name) for name in ("same", "bf16"))
    seen = []
    rough.key_encoder.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    wanted, found = losses(exact), losses(rough)
    assert set(seen) == {torch.bfloat16}
    for name in ("cross_entropy", "front_door_cross_entropy", "bottleneck_kl"):
        assert found[name] == wanted[name]
    assert found["image_contrast"] != wanted["image_contrast"]
    assert found["image_contrast"] == pytest.approx(wanted["image_contrast"], rel=0.1)
    assert 0 < found["concept_contrast"] < 20  # which channels are a concept's is a matter of ranks, which flip
    terms, keep = rough(*batch(rough), context())
    rough.total(terms).backward()
    assert {value.dtype for value in keep.values()} == {torch.float32, torch.int64}
    assert all(value.grad is None or value.grad.dtype == torch.float32 for value in rough.parameters())
    rough.after_step(keep)
    assert {value.dtype for value in rough.key_encoder.parameters()} == {torch.float32}


def test_embeddings_of_patches_are_in_float32_in_an_autocast_too() -> None:
    classifier, features = nn.Linear(8, 5), torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    plain = concept_embeddings(features, classifier)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = concept_embeddings(features, classifier)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)
