from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.losses.rare_concept import concept_contrast
from concept_tuning.losses.sinkhorn import Transport, solve_transport, transport_plan

CLASSES, SIZE, CONCEPTS, WIDTH = 4, 3, 5, 4
LABELS = torch.tensor([2, 0])
CONFUSING = torch.tensor([[0, 3, 1], [3, 1, 2]])


def units(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def inputs(filled: tuple[int, ...] = (3, 1, 2, 0)) -> dict[str, Tensor]:
    return {
        "queries": units(2, CONCEPTS, WIDTH, seed=1),
        "keys": units(2, CONCEPTS, WIDTH, seed=2),
        "queue": units(CLASSES, SIZE, CONCEPTS, WIDTH, seed=3),
        "filled": torch.tensor(filled),
        "labels": LABELS,
        "confusing": CONFUSING,
        "draws": torch.rand(2, 1 + SIZE, generator=torch.Generator().manual_seed(4)),
    }


def slow(given: dict[str, Tensor], *, temperature: float, positive_pairs: int = 3, negative_pairs: int = 10) -> Tensor:
    """Part 1b, steps 3 and 4, image by image and set by set."""
    losses = []
    for image, label in enumerate(given["labels"].tolist()):
        query = given["queries"][image]
        sets = [(given["keys"][image], True, 0)]
        for other in [label, *given["confusing"][image].tolist()]:
            sets += [
                (given["queue"][other, slot], other == label, 1 + slot) for slot in range(int(given["filled"][other]))
            ]
        cost = torch.stack([1 - query @ keys.T for keys, _, _ in sets])
        plans = transport_plan(cost.detach())
        positives, negatives = [], []
        for one_cost, plan, (_, positive, column) in zip(cost, plans, sets, strict=True):
            order = plan.flatten().argsort(descending=True)
            if positive:
                pick = int(given["draws"][image, column] * positive_pairs)
                positives.append(1 - one_cost.flatten()[order[pick]])
            else:
                negatives.extend(1 - one_cost.flatten()[order[:negative_pairs]])
        logs = (torch.stack(positives + negatives) / temperature).log_softmax(0)[: len(positives)]
        losses.append(-math.log(len(positives)) - logs.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("filled", [(3, 1, 2, 0), (3, 3, 3, 3), (0, 0, 0, 0)])
def test_value_and_gradient_equal_the_slow_loop(filled: tuple[int, ...]) -> None:
    given = inputs(filled)
    results = []
    for function in (concept_contrast, slow):
        query = given["queries"].clone().requires_grad_()
        settings = {"temperature": 0.07, "positive_pairs": 3, "negative_pairs": 10}
        arguments = {**given, "queries": query}
        loss = slow(arguments, **settings) if function is slow else concept_contrast(**arguments, **settings)
        loss.backward()
        results.append((loss.detach(), query.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pairs", [{"positive_pairs": 1}, {"positive_pairs": 5}, {"negative_pairs": 1}, {}])
def test_as_many_pairs_are_used_as_asked(pairs: dict[str, int]) -> None:
    given = inputs()
    found = concept_contrast(**given, temperature=0.07, **pairs)
    torch.testing.assert_close(found, slow(given, temperature=0.07, **pairs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.5}, {"max_iterations": 3}, {"tolerance": 0.1}])
def test_sinkhorn_gets_its_settings(settings: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    handed = {}

    def listening(cost: Tensor, entry: Tensor, entries: int, **values: float) -> Transport:
        handed.update(values)
        return solve_transport(cost, entry, entries, **values)

    monkeypatch.setattr("concept_tuning.losses.rare_concept.solve_transport", listening)
    concept_contrast(**inputs(), temperature=0.07, **settings)
    assert handed == {"epsilon": 0.01, "max_iterations": 200, "tolerance": 1e-3} | settings


def test_blocks_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs()
    for name in ("queries", "keys", "labels", "confusing", "draws"):
        given[name] = torch.cat([given[name], given[name].flip(0)])
    expected, blocks = concept_contrast(**given, temperature=0.07), []

    def listening(cost: Tensor, entry: Tensor, entries: int, **values: float) -> Transport:
        blocks.append(entries)
        return solve_transport(cost, entry, entries, **values)

    def three_at_once(size: int, device: torch.device) -> int:
        assert size == CONCEPTS**2 * (1 + 4 * SIZE)  # the own key set, and the queues of the label and three others
        return 3

    monkeypatch.setattr("concept_tuning.losses.rare_concept.solve_transport", listening)
    monkeypatch.setattr("concept_tuning.losses.rare_concept.entries_at_once", three_at_once)
    torch.testing.assert_close(concept_contrast(**given, temperature=0.07), expected)
    assert blocks == [3, 1]


@pytest.mark.parametrize(("images", "blocks"), [(0.5, [1, 1, 1, 1]), (3, [3, 1]), (4, [4])])
def test_blocks_of_cosines_change_neither_value_nor_gradient(
    images: float, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs()
    for name in ("queries", "keys", "labels", "confusing", "draws"):
        given[name] = torch.cat([given[name], given[name].flip(0)])
    found, solved = [], []

    def listening(cost: Tensor, entry: Tensor, entries: int, **values: float) -> Transport:
        solved.append(entries)
        return solve_transport(cost, entry, entries, **values)

    for limit in (1e9, images * CONCEPTS * CLASSES * SIZE * CONCEPTS):
        monkeypatch.setattr("concept_tuning.losses.rare_concept._CPU_COSINES", int(limit))
        monkeypatch.setattr("concept_tuning.losses.rare_concept.solve_transport", listening)
        query = given["queries"].clone().requires_grad_()
        loss = concept_contrast(**(given | {"queries": query}), temperature=0.07)
        found.append((loss.detach(), *torch.autograd.grad(loss, query)))
    torch.testing.assert_close(found[1], found[0])
    assert solved == [4, *blocks]


def test_slots_that_were_never_filled_do_not_matter() -> None:
    given = inputs((1, 1, 1, 1))
    loss = concept_contrast(**given, temperature=0.07)
    given["queue"][:, 1:] = 1e6
    assert torch.equal(concept_contrast(**given, temperature=0.07), loss)


def test_classes_that_are_not_confusing_do_not_matter() -> None:
    given = inputs((3, 3, 3, 3))
    given["confusing"] = CONFUSING[:, :1]
    loss = concept_contrast(**given, temperature=0.07)
    given["queue"][1] = units(SIZE, CONCEPTS, WIDTH, seed=9)  # class 1 is neither label nor most confusing
    assert torch.equal(concept_contrast(**given, temperature=0.07), loss)


def test_identical_patches_give_the_closed_form() -> None:
    one = units(1, WIDTH, seed=5)[0]
    sets = one.expand(1, CONCEPTS, WIDTH)
    loss = concept_contrast(
        sets, sets, one.expand(2, SIZE, CONCEPTS, WIDTH), torch.tensor([SIZE, SIZE]), torch.tensor([0]),
        torch.tensor([[1]]), temperature=0.07, negative_pairs=4,
    )  # fmt: skip
    positives, negatives = 1 + SIZE, SIZE * 4
    assert loss.item() == pytest.approx(math.log((positives + negatives) / positives), rel=1e-5)


def test_two_classes_and_no_confusing_class_at_all() -> None:
    given = inputs((3, 3, 3, 3)) | {"confusing": torch.zeros(2, 0, dtype=torch.int64)}
    assert concept_contrast(**given, temperature=0.07).item() >= 0


def test_draws_decide_which_of_the_heaviest_pairs_is_taken() -> None:
    given = inputs((0, 0, 0, 3))  # positives: the own key set alone
    losses = {
        value: concept_contrast(**(given | {"draws": torch.full((2, 1 + SIZE), value)}), temperature=0.07).item()
        for value in (0.0, 0.34, 0.67, 0.999)
    }
    assert losses[0.67] == losses[0.999]
    assert len({losses[0.0], losses[0.34], losses[0.67]}) == 3


def test_generator_repeats_its_draws() -> None:
    given = {key: value for key, value in inputs().items() if key != "draws"}
    found = [
        concept_contrast(**given, temperature=0.07, generator=torch.Generator().manual_seed(seed)).item()
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


def test_gradient_reaches_the_selected_concepts_alone() -> None:
    given = inputs((1, 0, 0, 0))  # image 0: one negative set; image 1: two positives and no negative
    query = given["queries"].clone().requires_grad_()
    loss = concept_contrast(**(given | {"queries": query}), temperature=0.07, negative_pairs=1)
    (gradient,) = torch.autograd.grad(loss, query)
    touched = gradient.ne(0).any(2).sum(1)
    assert 1 <= touched[0] <= 2
    assert 1 <= touched[1] <= 2


def _queries(batch: int, *, concepts: int = CONCEPTS, width: int = WIDTH) -> dict[str, Tensor]:
    return dict.fromkeys(("queries", "keys"), torch.zeros(batch, concepts, width))


@pytest.mark.parametrize(
    "change",
    [
        {"queries": torch.zeros(2, CONCEPTS, WIDTH, 1), "keys": torch.zeros(2, CONCEPTS, WIDTH, 1)},
        {"keys": torch.zeros(2, 1, WIDTH)},
        {"queue": torch.zeros(CLASSES, SIZE, CONCEPTS, WIDTH + 1)},
        {"filled": torch.zeros(2)},
        {"labels": torch.zeros(3)},
        {"confusing": torch.zeros(2)},
        {"confusing": torch.zeros(3, 3)},
        {"draws": torch.zeros(2, 1)},
        {"keys": torch.zeros(2, 1, WIDTH), "draws": None},
        {**_queries(0), "labels": torch.zeros(0), "confusing": torch.zeros(0, 1), "draws": torch.zeros(0, 1 + SIZE)},
        {**_queries(2, concepts=0), "queue": torch.zeros(CLASSES, SIZE, 0, WIDTH)},
        {**_queries(2, width=0), "queue": torch.zeros(CLASSES, SIZE, CONCEPTS, 0)},
        {"queue": torch.zeros(0, SIZE, CONCEPTS, WIDTH), "filled": torch.zeros(0)},
        {"queue": torch.zeros(CLASSES, 0, CONCEPTS, WIDTH), "draws": torch.zeros(2, 1)},
    ],
)
def test_each_wrong_shape_is_named(change: dict[str, Tensor | None]) -> None:
    given = inputs() | change
    names = ("queries", "keys", "queue", "filled", "labels", "confusing", "draws")
    shapes = ["none" if given[name] is None else str(tuple(given[name].shape)) for name in names]
    wanted = (
        "queries and keys must be (B, P, E), queue (C, K, P, E), filled (C,), labels (B,), confusing (B, n) "
        "and draws (B, 1 + K) or none, got "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(wanted + ', '.join(shapes))}.$"):
        concept_contrast(**given, temperature=0.07)


@pytest.mark.parametrize(("positive", "negative"), [(0, 1), (1, 0)])
def test_no_pairs_are_refused(positive: int, negative: int) -> None:
    message = f"^positive_pairs and negative_pairs must be >= 1, got {positive} and {negative}.$"
    with pytest.raises(ValueError, match=message):
        concept_contrast(**inputs(), temperature=0.07, positive_pairs=positive, negative_pairs=negative)
