from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from toys import ToyMethod

from concept_tuning.diagnostics import embedding as module
from concept_tuning.diagnostics.concept_maps import find_concept_maps
from concept_tuning.diagnostics.embedding import (
    NEIGHBOURS,
    Embedding,
    align,
    embed_concepts,
    embed_pictures,
    lay_out,
    nearest_neighbours,
)
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.methods.base import pool


@pytest.fixture(scope="module")
def features(subjects, pictures):
    return {subject.name: compute_features(subject, pictures) for subject in subjects}


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ninety points of three far clusters in twelve dimensions, and their cluster."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    return rng.normal(0, 1, (90, 12)) + 30 * np.eye(12)[labels], labels


@pytest.mark.slow
def test_clusters_stay_apart_and_a_seed_gives_one_picture() -> None:
    values, labels = clusters()
    state = np.random.get_state()[1].copy()
    points, technique, distinct, explained = lay_out(values, seed=3)
    assert np.array_equal(state, np.random.get_state()[1])
    assert (technique, distinct) == ("umap", 90)
    assert explained == pytest.approx(1)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()
    assert np.array_equal(points, lay_out(values, seed=3)[0])
    assert not np.allclose(points, lay_out(values, seed=4)[0])


@pytest.mark.parametrize("width", [12, 50])  # sklearn searches by trees below 15 dimensions, and all pairs above
def test_the_neighbours_are_those_that_umap_finds_itself(width: int) -> None:
    from umap import UMAP

    values = np.random.default_rng(0).normal(size=(120, width)) + 30
    neighbours, distances = nearest_neighbours(values)
    assert (neighbours[:, 0] == np.arange(120)).all()
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1] > 0.1).all()
    graphs = [
        UMAP(n_neighbors=NEIGHBOURS, random_state=0, n_jobs=1, n_epochs=1, **known).fit(values).graph_
        for known in ({}, {"precomputed_knn": (neighbours, distances)})
    ]
    assert abs(graphs[0] - graphs[1]).max() < 1e-4
    assert graphs[1].max(axis=1).toarray().min() == pytest.approx(1)


def test_points_on_a_line_have_a_layout() -> None:
    points, technique, distinct, _ = lay_out(np.random.default_rng(0).normal(size=(40, 1)) * np.ones(5))
    assert (technique, distinct) == ("umap", 40)
    assert np.isfinite(points).all()


def test_copies_lie_on_one_another_and_do_not_weigh() -> None:
    values, _ = clusters()
    copied = np.concatenate([values, np.repeat(values[:1], 60, axis=0) * (1 + 1e-9)])
    points, technique, distinct, _ = lay_out(copied)
    assert (technique, distinct) == ("umap", 90)
    assert (points[90:] == points[0]).all()
    assert np.isfinite(points).all()


def test_too_few_points_are_laid_out_by_their_components() -> None:
    values = np.random.default_rng(0).normal(0, [5, 3, 1, 1], (12, 4))
    many = np.tile(values, (4, 1))
    for some, distinct in ((values, 12), (many, 12)):
        points, technique, found, explained = lay_out(some)
        assert (technique, found) == ("pca", distinct)
        expected = PCA(2).fit(some)
        assert explained == pytest.approx(expected.explained_variance_ratio_.sum())
        scale = np.sqrt(((some - some.mean(0)) ** 2).sum(1).mean())
        np.testing.assert_allclose(np.abs(points), np.abs(expected.transform(some)) / scale, atol=1e-4)


@pytest.mark.parametrize("values", [np.ones((40, 3)), np.zeros((1, 3)), np.arange(2.0)[:, None]])
def test_points_without_a_plane(values: np.ndarray) -> None:
    points, technique, distinct, explained = lay_out(values)
    assert points.shape == (len(values), 2)
    assert technique == "pca"
    assert distinct == len(np.unique(values, axis=0))
    assert explained == pytest.approx(1)
    assert np.isfinite(align(points)).all()


def test_layouts_are_turned_onto_the_first() -> None:
    reference = align(np.random.default_rng(0).normal(0, 1, (30, 2)))
    assert (reference**2).sum(1).mean() == pytest.approx(1)
    mirrored = reference @ np.array([[0.6, 0.8], [0.8, -0.6]]) * 7 + [3, -40]
    np.testing.assert_allclose(align(mirrored, reference), reference, atol=1e-9)


def test_pictures_of_all_runs(subjects, pictures, features, tmp_path) -> None:
    found = embed_pictures(subjects, pictures, features)
    assert [(one.name, one.tuned, one.technique) for one in found.layouts] == [
        ("vanilla", True, "pca"),
        ("concept-tuning", True, "pca"),
    ]
    assert [one.analysis for one in found.missing] == ["before vanilla", "before concept-tuning"]
    assert "random weights" in found.missing[0].reason
    assert np.array_equal(found.labels, pictures.labels)
    assert np.array_equal(found.groups, pictures.groups)
    assert np.array_equal(found.layouts[1].predicted, features["concept-tuning"].predicted)
    points = lay_out(features["vanilla"].pooled)[0]
    np.testing.assert_allclose(found.layouts[0].points, align(points), atol=1e-5)
    save_result(found, tmp_path / "embedding.json")
    again = load_result(Embedding, tmp_path / "embedding.json")
    assert again.boxes is None
    assert again.missing == found.missing
    assert np.array_equal(again.layouts[1].points, found.layouts[1].points)
    assert np.array_equal(again.layouts[1].predicted, found.layouts[1].predicted)


def test_the_network_before_is_laid_out_once_for_runs_that_share_it(subjects, pictures, features, monkeypatch) -> None:
    before = ToyMethod(torch.eye(3)).backbone
    monkeypatch.setattr(module, "build_pretrained", lambda subject, *, analysis: before)
    computed, pooled = [], module._pooled
    monkeypatch.setattr(module, "_pooled", lambda *given: computed.append(len(given[2])) or pooled(*given))
    found = embed_pictures(subjects, pictures, features)
    assert [(one.name, one.tuned) for one in found.layouts] == [
        ("before vanilla", False),
        ("vanilla", True),
        ("concept-tuning", True),
    ]
    assert found.layouts[0].predicted is None
    assert computed == [16]
    pooled = pool(before(before.normalise(pictures.images(range(16), 64)))).numpy()
    np.testing.assert_allclose(found.layouts[0].points, align(lay_out(pooled)[0]), atol=1e-4)


def test_patches_of_concepts(subjects, pictures, features, tmp_path) -> None:
    concepts = find_concept_maps(subjects[1], pictures, features["concept-tuning"])
    found = embed_concepts(subjects[1:], pictures, features, concepts)
    assert found.total == len(found.picture) == 144
    assert found.concept.tolist() == list(range(9)) * 16
    assert np.array_equal(found.boxes, concepts.boxes.reshape(-1, 4))
    assert np.array_equal(found.labels, pictures.labels.repeat(9))
    layout = found.layouts[0]
    assert np.array_equal(layout.predicted, features["concept-tuning"].predicted.repeat(9))
    # patches of one picture around the same peak are copies and lie on one another
    rows = np.column_stack([found.picture, found.boxes])
    _, first, copies = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    assert layout.distinct <= len(first)
    np.testing.assert_allclose(layout.points, layout.points[first][copies.ravel()])
    save_result(found, tmp_path / "patches.json")
    assert np.array_equal(load_result(Embedding, tmp_path / "patches.json").boxes, found.boxes)


def test_fewer_points_are_drawn_and_the_number_is_said(subjects, pictures, features) -> None:
    some = embed_pictures(subjects[:1], pictures, features, most=6, seed=2)
    assert (some.total, len(some.labels), len(some.keys)) == (16, 6, 6)
    places = [pictures.keys.index(key) for key in some.keys]
    assert places == sorted(places)
    assert np.array_equal(some.labels, pictures.labels[places])
    assert np.array_equal(some.layouts[0].predicted, features["vanilla"].predicted[places])
    concepts = find_concept_maps(subjects[0], pictures, features["vanilla"])
    patches = embed_concepts(subjects[:1], pictures, features, concepts, most=20)
    assert (patches.total, len(patches.labels), len(patches.keys)) == (144, 18, 2)
    with pytest.raises(ValueError, match="all the pictures"):
        embed_concepts(subjects[:1], pictures, features, dataclasses.replace(concepts, keys=("x",)))
