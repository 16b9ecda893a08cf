from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.bi_tuning import classifier_contrast, with_bias_entry

CLASSES, SIZE, WIDTH = 3, 4, 5


def inputs(filled: tuple[int, ...] = (4, 2, 0)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "features": with_bias_entry(normal(5, WIDTH)),
        "weight": normal(CLASSES, WIDTH),
        "bias": normal(CLASSES),
        "queue": F.normalize(normal(CLASSES, SIZE, WIDTH + 1), dim=-1),
        "filled": torch.tensor(filled),
        "labels": torch.tensor([0, 1, 2, 1, 0]),
    }


def slow(given: dict[str, Tensor], temperature: float) -> Tensor:
    """The authors' loop over images: row of the label against own, same-class and other-class features."""
    losses = []
    for feature, label in zip(given["features"], given["labels"].tolist(), strict=True):
        row = torch.cat([given["weight"][label], given["bias"][label : label + 1]]).detach()
        row = row / row.norm()
        positives, negatives = [row @ feature], []
        for other in range(CLASSES):
            for slot in range(int(given["filled"][other])):
                (positives if other == label else negatives).append(row @ given["queue"][other, slot])
        logs = (torch.stack(positives + negatives) / temperature).log_softmax(0)[: len(positives)]
        losses.append(-math.log(len(positives)) - logs.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("filled", [(4, 2, 0), (4, 4, 4), (0, 0, 0)])
def test_value_and_gradient_equal_the_slow_loop(filled: tuple[int, ...]) -> None:
    given = inputs(filled)
    results = []
    for function in (slow, classifier_contrast):
        own = given | {"features": given["features"].clone().requires_grad_()}
        loss = slow(own, 0.07) if function is slow else classifier_contrast(**own, temperature=0.07)
        results.append((loss.detach(), torch.autograd.grad(loss, own["features"])[0]))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)


def test_a_feature_along_its_row_against_opposite_ones_has_a_closed_form() -> None:
    row = F.normalize(torch.tensor([3.0, 4.0]), dim=0)
    queue = torch.stack([row.expand(2, 2), -row.expand(2, 2)])
    loss = classifier_contrast(
        row[None], torch.tensor([[3.0], [1.0]]), torch.tensor([4.0, 0.0]), queue, torch.tensor([2, 2]),
        torch.tensor([0]), temperature=0.5,
    )  # fmt: skip
    # three positives at 1, two negatives at -1, over a temperature of 1/2
    assert loss.item() == pytest.approx(math.log(1 + 2 / 3 * math.exp(-4)), rel=1e-4)


def test_the_classifier_is_taken_as_constant() -> None:
    given = inputs()
    given["weight"].requires_grad_()
    given["features"].requires_grad_()
    classifier_contrast(**given, temperature=0.07).backward()
    assert given["weight"].grad is None
    assert given["features"].grad.abs().max() > 0


def test_slots_that_were_never_filled_do_not_matter() -> None:
    given = inputs()
    loss = classifier_contrast(**given, temperature=0.07)
    given["queue"][2] = given["queue"][1, 2:] = 1e3
    assert torch.equal(classifier_contrast(**given, temperature=0.07), loss)


def test_the_bias_entry_makes_the_product_the_logit_up_to_lengths() -> None:
    given = inputs()
    features = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))
    extended = with_bias_entry(features)
    torch.testing.assert_close(extended.norm(dim=1), torch.ones(2))
    rows = torch.cat([given["weight"], given["bias"][:, None]], dim=1)
    logits = extended @ rows.T * torch.cat([features, torch.ones(2, 1)], dim=1).norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits, features @ given["weight"].T + given["bias"])


@pytest.mark.parametrize("name", ["features", "weight", "bias", "queue", "filled", "labels"])
def test_wrong_shapes_are_named(name: str) -> None:
    given = inputs() | {name: torch.zeros(1, 2, 2).long()}
    shapes = [str(tuple(given[one].shape)) for one in ("features", "weight", "bias", "filled", "queue", "labels")]
    wanted = "features must be (B, D + 1), weight (C, D), bias, filled (C,), queue (C, K, D + 1), labels (B,), got "
    with pytest.raises(ValueError, match=f"^{re.escape(wanted + ', '.join(shapes))}.$"):
        classifier_contrast(**given, temperature=0.07)


def test_features_of_three_dimensions_that_fit_otherwise_are_refused() -> None:
    given = inputs()
    with pytest.raises(ValueError, match=r"^features must be"):
        classifier_contrast(**(given | {"features": given["features"][..., None]}), temperature=0.07)
