from __future__ import annotations

import math
import re

import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.core_tuning import beta_shares, find_partners, focal_contrast, mix

BATCH, WIDTH = 6, 4
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def units(seed: int, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, WIDTH, generator=generator, dtype=torch.float64), dim=1)


def inputs(labels: Tensor = LABELS) -> dict[str, Tensor]:
    others = (labels[:, None] != labels).any(1)
    return {
        "anchors": units(1, len(labels)),
        "hard_positives": units(2, len(labels)),
        "hard_negatives": units(3, len(labels)),
        "labels": labels,
        "has_negative": others,
    }


def slow(given: dict[str, Tensor], temperature: float, focal: float) -> Tensor:
    losses = []
    anchors, labels = given["anchors"], given["labels"].tolist()
    for i, label in enumerate(labels):
        positives, negatives = [anchors[i] @ given["hard_positives"][i]], []
        if given["has_negative"][i]:
            negatives.append(anchors[i] @ given["hard_negatives"][i])
        for j, other in enumerate(labels):
            if j != i:
                (positives if other == label else negatives).append(anchors[i] @ anchors[j])
        whole = sum(torch.exp(value / temperature) for value in positives + negatives)
        shares = [torch.exp(value / temperature) / whole for value in positives]
        losses.append(sum(-((1 - p) ** focal) * p.log() for p in shares) / len(shares))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("focal", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]])
def test_value_and_gradients_equal_the_slow_loop(focal: float, labels: list[int]) -> None:
    given = inputs(torch.tensor(labels))
    leaves = [given[name].requires_grad_() for name in ("anchors", "hard_positives", "hard_negatives")]
    expected, loss = slow(given, 0.2, focal), focal_contrast(**given, temperature=0.2, focal=focal)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    for own, reference in zip(found, torch.autograd.grad(expected, leaves, allow_unused=True), strict=True):
        torch.testing.assert_close(own, torch.zeros_like(own) if reference is None else reference)


@pytest.mark.parametrize("focal", [0.0, 1.0, 3.0])
def test_alike_embeddings_give_the_closed_form(focal: float) -> None:
    given = inputs() | {name: units(1, 1).expand(BATCH, -1) for name in ("anchors", "hard_positives", "hard_negatives")}
    count = BATCH - 1 + 2
    loss = focal_contrast(**given, temperature=0.07, focal=focal)
    assert loss.item() == pytest.approx((1 - 1 / count) ** focal * math.log(count))


def test_one_image_has_its_generated_positive_alone_and_costs_nothing() -> None:
    given = inputs(torch.tensor([1]))
    given["anchors"].requires_grad_()
    loss = focal_contrast(**given, temperature=0.07, focal=0.5)
    loss.backward()
    assert loss.item() == 0
    assert given["anchors"].grad.abs().max() == 0


@pytest.mark.parametrize("focal", [0.5, 1.0])
def test_perfect_separation_keeps_the_gradient_finite_in_single_precision(focal: float) -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    anchors = one.clone().requires_grad_()
    loss = focal_contrast(
        anchors, one, -one, torch.tensor([0, 1]), torch.tensor([True, True]), temperature=0.001, focal=focal
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert anchors.grad.isfinite().all()


# Pairs


def test_partners_equal_the_slow_search() -> None:
    features, uniforms = units(4) * 3 ** torch.arange(BATCH)[:, None], torch.linspace(0, 0.999, BATCH)
    partners = find_partners(features, LABELS, uniforms)
    similarities = F.cosine_similarity(features[:, None], features[None], dim=2)
    for i in range(BATCH):
        friends = [j for j in range(BATCH) if j != i and LABELS[j] == LABELS[i]]
        foes = [j for j in range(BATCH) if LABELS[j] != LABELS[i]]
        assert partners.positive[i] == min(friends, key=lambda j: similarities[i, j], default=i)
        assert partners.negative[i] == max(foes, key=lambda j: similarities[i, j])
        assert partners.random_negative[i] == foes[int(float(uniforms[i]) * len(foes))]
    assert partners.has_negative.tolist() == [True] * BATCH


def test_partners_are_told_apart_by_angles_that_half_precision_takes_for_equal() -> None:
    angles = torch.tensor([0.0, 0.010, 0.011, 0.011, 0.010])
    features, labels = torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([0, 0, 0, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        partners = find_partners(features, labels, torch.zeros(5))
    assert (partners.positive[0], partners.negative[0]) == (2, 4)


def test_every_image_of_another_class_is_drawn_alike() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1])
    counts = torch.zeros(5)
    for share in torch.arange(300) / 300:
        counts[find_partners(units(1, 5), labels, share.expand(5)).random_negative[0]] += 1
    assert counts.tolist() == [0, 100, 0, 100, 100]


def test_a_batch_of_one_class_pairs_negatives_with_themselves() -> None:
    partners = find_partners(units(1, 3), torch.tensor([2, 2, 2]), torch.full((3,), 0.9))
    assert partners.negative.tolist() == partners.random_negative.tolist() == [0, 1, 2]
    assert not partners.has_negative.any()
    assert all(partners.positive != torch.arange(3))


def test_mixtures_are_between() -> None:
    one, other = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert mix(one, other, torch.tensor([0.25, 1.0])).tolist() == [[0.25, 0.75], [1.0, 0.0]]


# Shares


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    uniforms = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    shares = beta_shares(uniforms, alpha)
    assert kstest(shares.double().numpy(), beta_distribution(alpha, alpha).cdf).pvalue > 0.01
    assert shares.dtype == torch.float32
    if alpha == 1:
        torch.testing.assert_close(shares, uniforms)


def test_half_is_half_whatever_the_parameter() -> None:
    assert beta_shares(torch.tensor([[0.5], [0.0]]), 0.3).tolist() == [[pytest.approx(0.5)], [0.0]]


@pytest.mark.parametrize("shapes", [((2, 3, 1), (2,), (2,)), ((2, 3), (3,), (2,)), ((2, 3), (2,), (3,))])
def test_find_partners_names_each_wrong_shape(shapes: tuple[tuple[int, ...], ...]) -> None:
    message = "features must be (B, D), labels and uniforms (B,), got {}, {} and {}.".format(*shapes)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_partners(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    "change",
    [
        {"anchors": (6, 4, 1), "hard_positives": (6, 4, 1), "hard_negatives": (6, 4, 1)},
        {"hard_negatives": (6, 5)},
        {"labels": (5,)},
        {"has_negative": (6, 1)},
    ],
)
def test_focal_contrast_names_each_wrong_shape(change: dict[str, tuple[int, ...]]) -> None:
    shapes = {name: tuple(value.shape) for name, value in inputs().items()} | change
    vectors = sorted({shapes[name] for name in ("anchors", "hard_positives", "hard_negatives")})
    message = (
        "anchors, hard_positives and hard_negatives must share one shape (B, E), labels and has_negative be (B,), "
        f"got {vectors}, {shapes['labels']} and {shapes['has_negative']}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        focal_contrast(**{name: torch.zeros(shape) for name, shape in shapes.items()}, temperature=1, focal=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: beta_shares(torch.zeros(1), 0), "alpha must be > 0, got 0"),
        (lambda: focal_contrast(**inputs(), temperature=0, focal=1), "temperature must be > 0 and focal >= 0"),
        (lambda: focal_contrast(**inputs(), temperature=1, focal=-1), "got 1 and -1"),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
