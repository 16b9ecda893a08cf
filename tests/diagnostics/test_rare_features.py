from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import norm
from test_rare_selection import maps_of, without_batch_norm
from torch import nn
from toys import ToyMethod, toy_pictures, toy_subject

from concept_tuning.config import BackboneConfig
from concept_tuning.diagnostics import rare_features
from concept_tuning.diagnostics.concept_activations import Channels, define_concepts
from concept_tuning.diagnostics.features import Features, compute_features
from concept_tuning.diagnostics.information import knn_information
from concept_tuning.diagnostics.rare_features import (
    channel_contributions,
    diagnose_rare_features,
    measure_rare_features,
)
from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport
from concept_tuning.diagnostics.rare_selection import RareFeatureSettings
from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.source_frequency import SourceFrequency, pretrained_maps
from concept_tuning.errors import DataError, RunError
from concept_tuning.models.backbone import build_backbone

QUICK = RareFeatureSettings(permutations=40, level_count=16, groups=5, factors=3, resamples=50, top=4, gallery=3)
CAREFUL = dataclasses.replace(QUICK, permutations=199, network_permutations=199, band_level=0.99)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A file of pre-trained weights for the tiny network: random, but with batch norms that have seen pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneConfig(architecture="test_resnet", weights="random"), image_size=64)
        for part in backbone.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
        with torch.no_grad():
            for _ in range(20):
                backbone.train()(torch.randn(16, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_file(backbone.network.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def tuned(subjects, weights):
    """The session's runs as if they had begun with those weights."""

    def begun(run):
        backbone = dataclasses.replace(run.config.backbone, weights=weights)
        return dataclasses.replace(run, config=dataclasses.replace(run.config, backbone=backbone))

    return tuple(dataclasses.replace(subject, run=begun(subject.run)) for subject in subjects)


@pytest.fixture(scope="module")
def features(subjects, pictures) -> dict[str, Features]:
    return {subject.name: compute_features(subject, pictures) for subject in subjects}


@pytest.fixture(scope="module")
def report(tuned, pictures, features) -> RareFeaturesReport:
    return diagnose_rare_features(
        tuned, pictures, features, views=("channels", "groups", "factors", "clusters"), settings=QUICK
    )


def assert_alike(first, second) -> None:
    """Equal to the last bit, arrays and their types included, NaN alike NaN."""
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_alike(one, other)
    elif dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            assert_alike(getattr(first, field.name), getattr(second, field.name))
    else:
        assert first == second


def planted(seed: int = 0, *, shift: float = 6.0, count: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm inputs (n, 20, 2, 2): channel 0 is far beyond the source in one cell of the pictures of class 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    z = rng.normal(size=(count, 20, 2, 2))
    z[labels == 0, 0, 1, 0] += shift
    return z, labels


def view_of(maps: np.ndarray, labels: np.ndarray, *, right: float = 1.0) -> Features:
    """A run's features with those maps, of which the first share ``right`` of the pictures is classified right."""
    said = np.where(np.arange(len(labels)) < right * len(labels), labels, (labels + 1) % 4)
    scores = np.eye(4, dtype=np.float32)[said]
    return Features(maps=maps, scores=scores, probabilities=scores, heads={"classifier": scores})


def measured(z: np.ndarray, labels: np.ndarray, *, concepts=None, frozen=None, runs=None, **arguments) -> RareFeatures:
    frozen = maps_of(z) if frozen is None else frozen
    return measure_rare_features(
        Channels(z.shape[1]) if concepts is None else concepts,
        frozen,
        {"run": view_of(frozen.maps, labels)} if runs is None else runs,
        labels,
        keys=tuple(f"{number}.png" for number in range(len(labels))),
        class_names=("a", "b", "c", "d"),
        **{"settings": CAREFUL, **arguments},
    )


@pytest.mark.slow
def test_whole_analysis_of_two_runs_has_every_view_and_network(report, tuned, pictures, features) -> None:
    assert [analysis.view for analysis in report.analyses] == ["channels", "groups", "factors", "clusters"]
    assert report.missing == ()
    assert report.note == ""
    for analysis in report.analyses:
        count = {"channels": 96, "groups": 5}.get(analysis.view, 3)
        assert len(analysis.concepts) == len(analysis.members) == len(analysis.knn) == count
        assert [network.name for network in analysis.networks] == [PRETRAINED, "vanilla", "concept-tuning"]
        assert analysis.class_names == tuned[0].run.class_names
        assert analysis.presence.n == len(pictures)
        assert analysis.gallery.pictures.shape == (count, 3)
        assert analysis.backbone.startswith("test_resnet (")
        known = analysis.view in ("channels", "groups")
        assert isinstance(analysis.source, SourceFrequency) is known
        assert isinstance(analysis.rarity, Unavailable) is not known
        assert (analysis.units == "activation") is not known
        assert (analysis.reconstruction_error is None) is known
        assert analysis.networks[0].contrast == ()
        assert [bound.batch for bound in analysis.networks[1].contrast] == [8]
        change = analysis.networks[1].auc - analysis.networks[0].auc
        np.testing.assert_array_equal(analysis.auc_change("vanilla"), change)
    channels = report.analyses[0]
    assert all(use.coverage is not None for use in channels.rarity.uses)
    np.testing.assert_allclose(channels.source.frequency, norm.sf(channels.presence.levels))


@pytest.mark.slow
def test_the_same_for_a_seed_with_models_and_random_state_as_found(report, tuned, pictures, features) -> None:
    before = [{name: value.clone() for name, value in s.method.state_dict().items()} for s in tuned]
    state, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    done = []
    views = ("channels", "groups", "factors", "clusters")
    again = diagnose_rare_features(
        tuned, pictures, features, views=views, settings=QUICK, progress=lambda *count: done.append(count)
    )
    assert_alike(again, report)
    assert done == [(16, 16)]  # one pre-trained network for both runs
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)
    for subject, expected in zip(tuned, before, strict=True):
        assert not subject.method.training
        assert all(parameter.grad is None for parameter in subject.method.parameters())
        assert all(torch.equal(value, expected[name]) for name, value in subject.method.state_dict().items())
    other = diagnose_rare_features(
        tuned, pictures, features, views=("channels",), settings=dataclasses.replace(QUICK, seed=1)
    )
    assert not np.array_equal(other.analyses[0].presence.band, report.analyses[0].presence.band)


def test_report_survives_saving(report, tmp_path) -> None:
    save_result(report, tmp_path / "report.json")
    assert_alike(load_result(RareFeaturesReport, tmp_path / "report.json"), report)


def test_runs_from_random_weights_are_told_why_not_each_by_name(subjects, pictures, features, tuned) -> None:
    found = diagnose_rare_features(subjects, pictures, features, settings=QUICK)
    assert found.analyses == ()
    assert len(found.missing) == 2
    for missing, name in zip(found.missing, ("vanilla", "concept-tuning"), strict=True):
        assert name in missing.reason
        assert "random weights" in missing.reason
    # A run from scratch beside one from pre-trained weights leaves that one's analysis.
    config = dataclasses.replace(tuned[0].run.config, method="scratch")
    scratch = dataclasses.replace(tuned[0], name="scratch", run=dataclasses.replace(tuned[0].run, config=config))
    both = diagnose_rare_features((scratch, tuned[0]), pictures, features, views=("channels",), settings=QUICK)
    assert [network.name for network in both.analyses[0].networks] == [PRETRAINED, "vanilla"]
    assert ["scratch" in missing.reason for missing in both.missing] == [True]
    assert "scratch; vanilla" in both.note


def test_a_run_called_like_the_pretrained_network_is_refused(tuned, pictures, features) -> None:
    named = dataclasses.replace(tuned[0], name=PRETRAINED)
    with pytest.raises(RunError, match=f"called '{PRETRAINED}'.*rename"):
        diagnose_rare_features((named,), pictures, {PRETRAINED: features["vanilla"]}, settings=QUICK)


def test_weights_that_are_gone_are_said_and_other_runs_go_on(tuned, pictures, features) -> None:
    backbone = dataclasses.replace(tuned[0].run.config.backbone, weights="no/such/file.safetensors")
    config = dataclasses.replace(tuned[0].run.config, backbone=backbone)
    gone = dataclasses.replace(tuned[0], run=dataclasses.replace(tuned[0].run, config=config))
    found = diagnose_rare_features((gone, tuned[1]), pictures, features, views=("channels",), settings=QUICK)
    assert len(found.analyses) == 1
    assert "file.safetensors" in found.missing[0].reason
    assert "vanilla; concept-tuning" in found.note


@pytest.mark.parametrize("chosen", [[0], [0, 1, 2], "one of each class"])
def test_too_few_pictures_are_said_and_four_suffice(tuned, pictures, features, chosen) -> None:
    first = np.unique(pictures.labels, return_index=True)[1]
    few = dataclasses.replace(pictures, chosen=np.sort(first) if isinstance(chosen, str) else np.array(chosen))
    found = diagnose_rare_features(tuned, few, dict.fromkeys(features), settings=QUICK)
    assert found.analyses == ()
    assert "At least four pictures" in found.missing[0].reason
    four = np.flatnonzero(pictures.labels == pictures.labels[0])[:2].tolist() + first[1:3].tolist()
    some = dataclasses.replace(pictures, chosen=np.sort(four))
    seen = {subject.name: compute_features(subject, some) for subject in tuned}
    (analysis,) = diagnose_rare_features(tuned, some, seen, views=("channels",), settings=QUICK).analyses
    assert not isinstance(analysis.rarity, Unavailable)


def test_a_folder_of_source_like_pictures_gives_frequencies_of_factors(tuned, pictures, features, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    settings = dataclasses.replace(QUICK, source_folder=tmp_path)
    found = diagnose_rare_features(tuned, pictures, features, views=("channels", "factors"), settings=settings)
    assert [analysis.source.basis for analysis in found.analyses] == ["last batch norm", "source-like pictures"]
    factors = found.analyses[1]
    assert "5 pictures" in factors.source.note
    assert ((factors.source.frequency >= 0) & (factors.source.frequency <= 1)).all()
    np.testing.assert_allclose(factors.source.frequency * 20, np.round(factors.source.frequency * 20), atol=1e-9)
    assert all(use.coverage is None for use in factors.rarity.uses)
    with pytest.raises(DataError, match="no readable picture"):
        diagnose_rare_features(
            tuned, pictures, features, settings=dataclasses.replace(QUICK, source_folder=tmp_path / "nowhere")
        )


def test_a_network_without_batch_norm_says_so_and_keeps_the_rest() -> None:
    images = torch.randint(0, 256, (24, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneConfig(architecture="test_vit", weights="random"), image_size=64).eval()
    frozen = pretrained_maps(backbone, lambda places: images[places.start : places.stop], 24)
    labels = np.arange(24) % 4
    concepts = define_concepts("groups", frozen.maps, count=6)
    found = measured(frozen.maps, labels, concepts=concepts, frozen=frozen, settings=QUICK)
    assert "no batch norm" in found.source.reason
    assert "source_folder" in found.source.reason
    assert found.rarity == found.source
    assert found.units == "activation"
    assert np.isfinite(found.presence.information).all()
    assert np.isfinite(found.networks[1].auc).all()
    counted = measured(frozen.maps, labels, concepts=concepts, frozen=frozen, source=frozen, settings=QUICK)
    np.testing.assert_array_equal(counted.source.frequency, counted.target_frequency)
    assert not isinstance(counted.rarity, Unavailable)


def test_negative_activations_get_clusters_where_factors_cannot_be_had(tuned, pictures, features, monkeypatch) -> None:
    plain = rare_features.pretrained_maps

    def signed(*arguments: object, **named: object) -> object:
        found = plain(*arguments, **named)
        return dataclasses.replace(found, maps=found.maps - found.maps.mean())

    monkeypatch.setattr(rare_features, "pretrained_maps", signed)
    found = diagnose_rare_features(tuned, pictures, features, settings=QUICK)
    assert [analysis.view for analysis in found.analyses] == ["channels", "groups", "clusters"]
    (missing,) = found.missing
    assert missing.analysis == "factors"
    assert "clusters" in missing.reason
    assert 0 < found.analyses[2].reconstruction_error < 1
    both = diagnose_rare_features(tuned, pictures, features, views=("clusters", "factors"), settings=QUICK)
    assert [analysis.view for analysis in both.analyses] == ["clusters"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_channel_is_the_only_rare_one_and_its_gallery_shows_it(seed: int) -> None:
    z, labels = planted(seed)
    found = measured(z, labels)
    assert np.flatnonzero(found.rarity.rare).tolist() == [0]
    assert found.source.frequency[0] < 1e-3
    assert found.marked_class[0] == 0
    np.testing.assert_allclose(found.class_frequency[:, 0], [1, 0, 0, 0], atol=0.03)
    assert found.target_frequency[0] == pytest.approx(1 / 16, abs=0.01)  # one cell of four in a quarter of the pictures
    assert found.networks[0].auc[0] > 0.99
    assert found.presence.information[0] > 0.4
    gallery = found.gallery
    assert set(gallery.pictures[0] % 4) == {0}
    assert (np.diff(gallery.activations, axis=1) <= 0).all()
    np.testing.assert_allclose(gallery.activations[0], np.sort(z[:, 0].max((1, 2)))[::-1][:3], rtol=1e-6)
    half = 32 / 224
    np.testing.assert_allclose(gallery.boxes[0], [[0.25 - half, 0.75 - half, 0.25 + half, 0.75 + half]] * 3, atol=1e-6)
    np.testing.assert_array_equal(found.knn, knn_information(np.maximum(z.max((2, 3)), 0).astype(np.float32), labels))


def test_shuffled_labels_leave_the_planted_channel_useless() -> None:
    z, labels = planted()
    found = measured(z, np.random.default_rng(3).permutation(labels))
    assert not found.rarity.rare[0]
    assert found.presence.useful.sum() <= 2
    assert isinstance(found.rarity.changes, Unavailable)


def test_a_run_that_makes_a_rare_channel_informative_raises_it_and_a_copy_of_the_network_changes_nothing() -> None:
    z, labels = planted(1, count=320)
    clear = maps_of(z)
    blurred = z.copy()
    blurred[::8, 0, 1, 0] -= 6  # half of the pictures of class 0 do without
    frozen = maps_of(blurred)
    runs = {"copy": view_of(frozen.maps, labels), "tuned": view_of(clear.maps, labels, right=0.75)}
    found = measured(blurred, labels, frozen=frozen, runs=runs)
    assert found.rarity.rare[0]
    changes = {(change.before, change.after): change for change in found.rarity.changes}
    assert changes[PRETRAINED, "tuned"].verdict == "raised"
    assert changes["copy", "tuned"].verdict == "raised"
    copy = changes[PRETRAINED, "copy"]
    assert copy.verdict == "no change shown"
    assert (copy.total.value, copy.total.low, copy.total.high) == (0, 0, 0)
    assert found.auc_change("tuned")[0] > 0.1
    np.testing.assert_array_equal(found.auc_change("copy"), 0)
    np.testing.assert_array_equal(found.auc_change("tuned")[1:], 0)
    uses = {use.name: use for use in found.rarity.uses}
    assert uses["copy"].rarest_tenth.value == uses["copy"].others.value == 1
    right = (uses["tuned"].rarest_tenth.value * 32 + uses["tuned"].others.value * 288) / 320
    assert right == pytest.approx(0.75)


def test_coverage_follows_what_a_channel_adds_to_the_score() -> None:
    z, labels = planted(2)
    rng = np.random.default_rng(0)
    added = rng.random((160, 20)).astype(np.float32)
    added[:, 0] = np.where(np.arange(160) < 40, 2, -1)
    settings = dataclasses.replace(CAREFUL, top=1)
    uses = {use.name: use for use in measured(z, labels, contributions={"run": added}, settings=settings).rarity.uses}
    assert uses["run"].coverage.value == 0.25
    assert uses["run"].chance == pytest.approx(1 / 20)
    first = np.maximum(z.max((2, 3)), 0).argmax(1)
    assert uses[PRETRAINED].coverage.value == pytest.approx(np.mean(first == 0))
    assert {use.name: use.coverage for use in measured(z, labels).rarity.uses}["run"] is None


def test_groups_add_what_their_channels_add() -> None:
    z, labels = planted(2)
    frozen = maps_of(z)
    groups = define_concepts("groups", frozen.maps, standardised=frozen.standardised, count=7)
    added = np.random.default_rng(1).normal(size=(160, 20)).astype(np.float32)
    settings = dataclasses.replace(CAREFUL, top=1, rare_share=1.0, band_level=0.5)
    found = measured(z, labels, concepts=groups, contributions={"run": added}, settings=settings)
    sums = np.stack([added[:, list(part)].sum(1) for part in found.members], axis=1)
    coverage = {use.name: use.coverage for use in found.rarity.uses}["run"]
    assert coverage.value == pytest.approx(found.rarity.rare[sums.argmax(1)].mean())


def test_an_absent_class_has_no_frequency_and_survives_saving(tmp_path) -> None:
    z, labels = planted()
    found = measured(z[labels < 3], labels[labels < 3], settings=QUICK)
    assert np.isnan(found.class_frequency[3]).all()
    assert np.isfinite(found.class_frequency[:3]).all()
    assert not (found.marked_class == 3).any()
    save_result(found, tmp_path / "rare.json")
    assert_alike(load_result(RareFeatures, tmp_path / "rare.json"), found)


def test_without_a_usable_batch_norm_levels_are_activations() -> None:
    z, labels = planted()
    frozen = without_batch_norm(maps_of(z))
    found = measured(z, labels, frozen=frozen)
    assert found.units == "activation"
    assert found.presence.useful[0]
    assert found.rarity == found.source == frozen.missing


def test_contributions_of_a_linear_head_sum_to_the_score() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    images = np.random.default_rng(0).integers(0, 256, (19, 3, 64, 64), dtype=np.uint8)
    subject = toy_subject(ToyMethod(weight))
    pictures = toy_pictures(images, np.arange(19) % 2)
    found = compute_features(subject, pictures)
    added = channel_contributions(subject, found)
    np.testing.assert_allclose(added, found.pooled * weight.numpy()[found.predicted], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(added.sum(1), found.scores.max(1), rtol=1e-4, atol=1e-6)
    assert subject.method.classifier.weight.grad is None


def test_contributions_of_a_trained_run_sum_to_the_score_less_the_bias(subjects, features) -> None:
    found = features["vanilla"]
    added = channel_contributions(subjects[0], found)
    assert added.dtype == np.float32
    bias = subjects[0].method.classifier.bias.detach().numpy()[found.predicted]
    scores = found.scores[np.arange(16), found.predicted]
    np.testing.assert_allclose(added.sum(1) + bias, scores, rtol=1e-3, atol=1e-4)
