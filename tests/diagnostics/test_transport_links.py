from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from concept_tuning.diagnostics.concept_maps import concept_sets, find_concept_maps
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.transport_links import TransportLinks, match_concepts, strongest_links, transport_links
from concept_tuning.losses.sinkhorn import transport_plan


def unit_vectors(count: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_with_little_entropy_the_plan_is_the_best_assignment(seed: int) -> None:
    first, second = unit_vectors(9, seed), unit_vectors(9, 100 + seed)
    epsilon = 2e-3
    costs, plan = match_concepts(first, second, epsilon=epsilon, max_iterations=3000, tolerance=1e-7)
    rows, columns = linear_sum_assignment(costs.numpy())
    best = costs[rows, columns].mean().item()
    # the plan's entropy is at most log 81, the assignment's log 9: the entropic optimum cannot be dearer than this
    assert best - 1e-4 <= (plan * costs).sum().item() <= best + epsilon * np.log(9)
    links = strongest_links(costs, plan, count=9)
    assert {(link.first, link.second) for link in links} == set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_a_set_is_linked_with_itself_along_the_diagonal() -> None:
    vectors = unit_vectors(9, 0)
    costs, plan = match_concepts(vectors, vectors, epsilon=0.01)
    links = strongest_links(costs, plan, count=9)
    assert {(link.first, link.second) for link in links} == {(p, p) for p in range(9)}
    assert all(link.cost == pytest.approx(0, abs=1e-6) for link in links)


def test_costs_and_plan_are_those_of_the_loss() -> None:
    first, second = unit_vectors(9, 1), unit_vectors(4, 2)
    costs, plan = match_concepts(first, second, epsilon=0.05)
    cosines = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    torch.testing.assert_close(costs, 1 - cosines.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(plan, transport_plan(costs[None], epsilon=0.05)[0])
    np.testing.assert_allclose(plan.sum(0), 1 / 4, rtol=1e-6)


def test_links_are_the_heaviest_entries_in_order() -> None:
    plan = torch.tensor([[0.1, 0.4], [0.3, 0.2]], dtype=torch.float64)
    costs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    links = strongest_links(costs, plan, count=3)
    assert [(link.first, link.second, link.weight, link.cost) for link in links] == [
        (0, 1, 0.4, 2.0),
        (1, 0, 0.3, 3.0),
        (1, 1, 0.2, 4.0),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_pairs_of_pictures(subjects, pictures, number: int, tmp_path) -> None:
    subject = subjects[number]
    features = compute_features(subject, pictures)
    concepts = find_concept_maps(subject, pictures, features)
    same, pair, back = transport_links(subject, pictures, features, concepts, pairs=[(2, 2), (2, 6), (6, 2)], count=5)
    sets = concept_sets(subject, pictures, features, concepts, places=[2, 6])
    costs, plan = match_concepts(sets[0], sets[1], epsilon=subject.run.config.concept_tuning.transport_epsilon)
    np.testing.assert_allclose(pair.costs, costs, atol=1e-6)
    np.testing.assert_allclose(pair.plan, plan, atol=1e-6)
    np.testing.assert_allclose(pair.costs, back.costs.T, atol=1e-6)
    assert pair.keys == (pictures.keys[2], pictures.keys[6])
    assert pair.labels == (features.predicted[2], features.predicted[6])
    assert np.array_equal(pair.boxes, concepts.boxes[[2, 6]])
    assert pair.distance == pytest.approx((pair.costs * pair.plan).sum())
    assert len(pair.links) == 5
    np.testing.assert_allclose(np.diag(same.costs), 0, atol=1e-6)
    save_result(pair, tmp_path / "pair.json")
    again = load_result(TransportLinks, tmp_path / "pair.json")
    assert again.links == pair.links
    assert np.array_equal(again.plan, pair.plan)


def test_no_pair_no_links(subjects, pictures) -> None:
    features = compute_features(subjects[0], pictures)
    concepts = find_concept_maps(subjects[0], pictures, features)
    assert transport_links(subjects[0], pictures, features, concepts, pairs=[]) == ()
