from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from concept_tuning.concepts import crop_patches
from concept_tuning.diagnostics.concept_maps import ConceptMaps, concept_sets, find_concept_maps
from concept_tuning.diagnostics.features import compute_features, network_input
from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.methods.base import pool
from concept_tuning.methods.concept_tuning import _View, patch_size


@pytest.fixture(scope="module")
def features(subjects, pictures):
    return {subject.name: compute_features(subject, pictures) for subject in subjects}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("label", ["predicted", "true"])
def test_concepts_are_groups_of_ranked_channels(subjects, pictures, features, number: int, label: str) -> None:
    subject = subjects[number]
    known = features[subject.name]
    found = find_concept_maps(subject, pictures, known, label=label)
    weight = subject.method.classifier.weight.detach().double().numpy()
    labels = known.predicted if label == "predicted" else pictures.labels
    assert np.array_equal(found.labels, labels)
    logits = known.pooled @ weight.T + subject.method.classifier.bias.detach().numpy()
    for i in (0, 7, 15):
        rivals = [c for c in np.argsort(-logits[i], kind="stable") if c != labels[i]][:3]
        assert found.confusing[i].tolist() == rivals
        score = len(rivals) * weight[labels[i]] - weight[rivals].sum(0)
        ranking = np.argsort(-score, kind="stable")
        np.testing.assert_allclose(found.scores[i], score[found.channels[i]], atol=1e-5)
        np.testing.assert_allclose(found.scores[i], score[ranking[found.ranks]], atol=1e-5)
        expected = known.maps[i][found.channels[i]].sum(1)
        np.testing.assert_allclose(found.maps[i], expected, rtol=1e-4, atol=1e-5)


def test_the_runs_own_settings_are_used(subjects, pictures, features) -> None:
    plain, tuned = (find_concept_maps(subject, pictures, features[subject.name]) for subject in subjects)
    assert tuned.channels.shape[2] == 6
    assert plain.channels.shape[2] == 30
    side = 64 * 64 / 224
    for found in (plain, tuned):
        inside = (found.boxes[..., :2] > 0).all(-1) & (found.boxes[..., 2:] < 64).all(-1)
        np.testing.assert_allclose((found.boxes[..., 2:] - found.boxes[..., :2])[inside], side, rtol=1e-5)


def test_boxes_lie_around_the_peaks(subjects, pictures, features) -> None:
    found = find_concept_maps(subjects[1], pictures, features["concept-tuning"])
    rows, columns = found.maps.shape[2:]
    peak = found.maps.reshape(*found.maps.shape[:2], -1).argmax(2)
    x, y = (peak % columns + 0.5) * 64 / columns, (peak // columns + 0.5) * 64 / rows
    assert ((found.boxes[..., 0] < x) & (x < found.boxes[..., 2])).all()
    assert ((found.boxes[..., 1] < y) & (y < found.boxes[..., 3])).all()


def test_some_of_the_pictures(subjects, pictures, features) -> None:
    known = features["concept-tuning"]
    whole = find_concept_maps(subjects[1], pictures, known)
    some = find_concept_maps(subjects[1], pictures, known, places=[9, 2])
    assert some.keys == (pictures.keys[9], pictures.keys[2])
    np.testing.assert_allclose(some.maps, whole.maps[[9, 2]], rtol=1e-4, atol=1e-5)
    assert np.array_equal(some.channels, whole.channels[[9, 2]])
    assert np.array_equal(some.predicted, whole.predicted[[9, 2]])


@torch.no_grad()
def test_embeddings_are_those_of_the_method(subjects, pictures, features) -> None:
    """As in training, with the trained network in the place of the momentum copy."""
    subject = subjects[1]
    method, known = subject.method, features[subject.name]
    maps = find_concept_maps(subject, pictures, known)
    found = concept_sets(subject, pictures, known, maps, places=[3, 11])
    view_images = network_input(method, pictures.images([3, 11], 64))
    encoder = method._query_encoder()
    view = _View(view_images, *encoder(view_images))
    concepts = method._find(view, method.classifier.weight, torch.from_numpy(maps.labels[[3, 11]]))
    np.testing.assert_allclose(concepts.boxes.numpy(), maps.boxes[[3, 11]])
    torch.testing.assert_close(found, method._embed(view, concepts, encoder), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_run_of_another_method_is_embedded_by_its_classifier(subjects, pictures, features) -> None:
    subject = subjects[0]
    method = subject.method
    maps = find_concept_maps(subject, pictures, features[subject.name])
    found = concept_sets(subject, pictures, features[subject.name], maps, places=[5])
    size = patch_size(method.backbone, subject.run.config)
    for concept in (0, 8):
        box = torch.from_numpy(maps.boxes[5:6, concept : concept + 1])
        patch = crop_patches(network_input(method, pictures.images([5], 64)), box, size)
        logits = method.classifier(pool(method.backbone(patch)))[0]
        torch.testing.assert_close(found[0, concept], logits / logits.norm(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_run_that_read_patches_from_the_feature_map_is_embedded_from_it(subjects, pictures, features) -> None:
    """Where the map is the same in every cell, so is every patch."""
    subject, known = subjects[1], features["concept-tuning"]
    run, config = subject.run, subject.run.config
    parts = dataclasses.replace(config.concept_tuning, patches="feature-map")
    tuned = dataclasses.replace(run, config=dataclasses.replace(config, concept_tuning=parts))
    means = known.maps.mean((2, 3), keepdims=True)
    even = dataclasses.replace(known, maps=np.broadcast_to(means, known.maps.shape).copy())
    concepts = find_concept_maps(subject, pictures, known)
    found = concept_sets(dataclasses.replace(subject, run=tuned), pictures, even, concepts, places=[3, 11])
    logits = subject.method.classifier(torch.from_numpy(means[[3, 11], :, 0, 0]))
    expected = (logits / logits.norm(dim=1, keepdim=True))[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_concepts_of_other_pictures_are_refused(subjects, pictures, features) -> None:
    known = features["vanilla"]
    some = find_concept_maps(subjects[0], pictures, known, places=[0, 1])
    with pytest.raises(ValueError, match="all the pictures"):
        concept_sets(subjects[0], pictures, known, some, places=[0])


def test_the_model_is_left_as_found(subjects, pictures, features) -> None:
    method = subjects[1].method
    before = copy.deepcopy(method.state_dict())
    maps = find_concept_maps(subjects[1], pictures, features["concept-tuning"])
    concept_sets(subjects[1], pictures, features["concept-tuning"], maps, places=range(16))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert not method.training
    assert all(parameter.grad is None for parameter in method.parameters())


def test_the_result_is_read_back_equal(subjects, pictures, features, tmp_path) -> None:
    found = find_concept_maps(subjects[0], pictures, features["vanilla"])
    save_result(found, tmp_path / "maps.json")
    again = load_result(ConceptMaps, tmp_path / "maps.json")
    assert (again.run, again.keys, again.label_kind) == (found.run, found.keys, found.label_kind)
    for name in ("labels", "channels", "ranks", "scores", "maps", "boxes", "confusing"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
