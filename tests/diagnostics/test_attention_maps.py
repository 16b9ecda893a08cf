from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from concept_tuning.diagnostics.attention_maps import (
    ChannelLinks,
    PositionMaps,
    average_blocks,
    channel_attention,
    position_attention,
)
from concept_tuning.diagnostics.concept_maps import find_concept_maps
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.models.front_door import FrontDoorHead


def stand_in(head: FrontDoorHead | None) -> SimpleNamespace:
    return SimpleNamespace(name="toy", method=SimpleNamespace(front_door=head))


def test_attention_of_trained_runs_sums_to_one(subjects, pictures) -> None:
    subject = subjects[1]
    features = compute_features(subject, pictures)
    found = position_attention(subject, pictures, features, places=[4, 1])
    assert found.keys == (pictures.keys[4], pictures.keys[1])
    np.testing.assert_allclose(found.weights.sum((3, 4)), 1, rtol=1e-5)
    np.testing.assert_allclose(found.mean, found.weights.mean((1, 2)), rtol=1e-5)
    concepts = find_concept_maps(subject, pictures, features)
    links = channel_attention(subject, features, concepts)
    with torch.no_grad():
        weights = subject.method.front_door.channel.weights(torch.from_numpy(features.maps[:1]))[0].numpy()
    for p, q in ((0, 0), (2, 7)):
        block = weights[np.ix_(concepts.channels[0, p], concepts.channels[0, q])]
        assert links.weights[0, p, q] == pytest.approx(block.mean(), rel=1e-4)
    np.testing.assert_allclose(links.mean, links.weights.mean(0), rtol=1e-5)


def test_the_known_attention_of_a_hand_made_map(pictures) -> None:
    """The key reads channel 0 and the query is constant: every cell attends by softmax of channel 0."""
    head = FrontDoorHead(8, 2, latent_dim=2).eval()
    with torch.no_grad():
        for layer in (head.position.query, head.position.key):
            layer.weight.zero_()
            layer.bias.zero_()
        head.position.query.bias.fill_(3.0)
        head.position.key.weight[0, 0] = 1.0
    maps = np.zeros((16, 8, 2, 3), dtype=np.float32)
    maps[:, 0] = np.log([[1, 2, 3], [4, 5, 5]]) / 3
    found = position_attention(stand_in(head), pictures, SimpleNamespace(maps=maps))
    expected = np.array([[1, 2, 3], [4, 5, 5]]) / 20
    np.testing.assert_allclose(found.weights, np.broadcast_to(expected, (16, 2, 3, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.mean, np.broadcast_to(expected, (16, 2, 3)), rtol=1e-5)
    assert found.gamma == 0


def test_the_map_of_a_query_cell_is_its_own(pictures) -> None:
    """With one-hot cells and large scores every cell attends to itself alone: rows are queries."""
    head = FrontDoorHead(32, 2, latent_dim=2).eval()
    with torch.no_grad():
        for layer in (head.position.query, head.position.key):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[range(4), range(4), 0, 0] = 10.0
    maps = np.zeros((16, 32, 2, 2), dtype=np.float32)
    maps[:, range(4), [0, 0, 1, 1], [0, 1, 0, 1]] = 1
    maps[:, 0, 0, 0] = 0  # the first cell attends to all alike
    found = position_attention(stand_in(head), pictures, SimpleNamespace(maps=maps))
    np.testing.assert_allclose(found.weights[0, 0, 0], 0.25, rtol=1e-5)
    np.testing.assert_allclose(found.weights[0, 1, 0], [[0, 0], [1, 0]], atol=1e-5)


def test_block_means_against_loops() -> None:
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.random((2, 7, 7)))
    groups = torch.stack([torch.from_numpy(rng.permutation(7)[:6].reshape(3, 2)) for _ in range(2)])
    found = average_blocks(weights, groups)
    for b in range(2):
        for p in range(3):
            for q in range(3):
                pairs = [weights[b, i, j] for i in groups[b, p] for j in groups[b, q]]
                assert found[b, p, q].item() == pytest.approx(np.mean(pairs))


def test_channels_that_are_alike_are_read_evenly() -> None:
    head = FrontDoorHead(12, 2, latent_dim=2).eval()
    groups = np.arange(12).reshape(1, 3, 4)
    maps = np.ones((1, 12, 2, 2), dtype=np.float32)
    found = channel_attention(
        stand_in(head), SimpleNamespace(maps=maps), SimpleNamespace(channels=groups, keys=("one",))
    )
    assert found.even == pytest.approx(1 / 12)
    np.testing.assert_allclose(found.weights, 1 / 12, rtol=1e-5)


def test_channels_read_from_those_unlike_them() -> None:
    head = FrontDoorHead(4, 2, latent_dim=2).eval()
    maps = np.zeros((1, 4, 1, 2), dtype=np.float32)
    maps[0, :2, 0, 0] = maps[0, 2:, 0, 1] = 5
    groups = np.array([[[0, 1], [2, 3]]])
    found = channel_attention(
        stand_in(head), SimpleNamespace(maps=maps), SimpleNamespace(channels=groups, keys=("one",))
    )
    np.testing.assert_allclose(found.weights[0], [[0, 0.5], [0.5, 0]], atol=1e-5)


def test_without_the_head_it_is_said_what_is_missing(subjects, pictures) -> None:
    features = compute_features(subjects[0], pictures)
    concepts = find_concept_maps(subjects[0], pictures, features)
    for found in (
        position_attention(subjects[0], pictures, features),
        channel_attention(subjects[0], features, concepts),
    ):
        assert isinstance(found, Unavailable)
        assert "vanilla has no front-door head" in found.reason
    half = stand_in(FrontDoorHead(8, 2, latent_dim=2, position=False))
    found = position_attention(half, pictures, features)
    assert isinstance(found, Unavailable)
    assert "position_attention on" in found.reason


def test_concepts_of_other_pictures_are_refused(subjects, pictures) -> None:
    features = compute_features(subjects[1], pictures)
    some = find_concept_maps(subjects[1], pictures, features, places=[0, 1])
    with pytest.raises(ValueError, match="2 pictures and 16"):
        channel_attention(subjects[1], features, some)


def test_results_are_read_back_equal(subjects, pictures, tmp_path) -> None:
    features = compute_features(subjects[1], pictures)
    concepts = find_concept_maps(subjects[1], pictures, features)
    for kind, found in (
        (PositionMaps, position_attention(subjects[1], pictures, features)),
        (ChannelLinks, channel_attention(subjects[1], features, concepts)),
    ):
        save_result(found, tmp_path / "links.json")
        again = load_result(kind, tmp_path / "links.json")
        assert np.array_equal(again.weights, found.weights)
        assert np.array_equal(again.mean, found.mean)
        assert (again.run, again.keys, again.gamma) == (found.run, found.keys, found.gamma)
