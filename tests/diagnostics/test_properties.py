from __future__ import annotations

import colorsys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB

from concept_tuning.config import DataConfig, PlantedConfig, RunConfig
from concept_tuning.data.planted import planted_table
from concept_tuning.data.registry import load_data
from concept_tuning.diagnostics.catalogue import BY_NAME
from concept_tuning.diagnostics.pictures import Pictures, choose_pictures
from concept_tuning.diagnostics.properties import (
    PropertyScore,
    PropertyTable,
    measure_images,
    measure_sizes,
    original_sizes,
    property_table,
    score_property,
    whole_pictures,
)
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.workbench import Workbench


def scored(values: np.ndarray, labels: np.ndarray, classes: int = 2) -> PropertyScore:
    return score_property("brightness", np.asarray(values, float).reshape(len(labels), -1), labels, classes=classes)


def plain(colour: tuple[int, int, int], height: int = 20, width: int = 30) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, height, width))


def test_plain_pictures_have_known_measures() -> None:
    colours = [(255, 0, 0), (0, 128, 0), (30, 60, 200), (90, 90, 90)]
    found = measure_images([plain(colour) for colour in colours])
    shares = np.array(colours) / 255
    for name in ("mean colour", "centre colour", "border colour"):
        np.testing.assert_allclose(found[name], shares, atol=1e-6)
    np.testing.assert_allclose(found["brightness"][:, 0], shares @ [0.299, 0.587, 0.114], atol=1e-6)
    for name in ("contrast", "sharpness"):
        np.testing.assert_allclose(found[name], 0, atol=1e-4)
    red, green, blue = np.array(colours, float).T
    expected = 0.3 * np.hypot(red - green, (red + green) / 2 - blue)
    np.testing.assert_allclose(found["colourfulness"][:, 0], expected, rtol=1e-5)
    assert found["hue"][3].tolist() == [0, 0]


def test_hue_is_the_angle_on_the_colour_circle() -> None:
    """Pure hues at multiples of 60 degrees, where hexagon and circle agree."""
    colours = [(200, 0, 0), (200, 200, 0), (0, 200, 0), (0, 200, 200), (0, 0, 200), (200, 0, 200)]
    found = measure_images([plain(colour) for colour in colours])["hue"]
    angles = np.array([2 * np.pi * colorsys.rgb_to_hsv(*(c / 255 for c in colour))[0] for colour in colours])
    np.testing.assert_allclose(found, np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


def test_measures_of_noise_agree_with_plain_numpy() -> None:
    image = np.random.default_rng(0).integers(256, size=(3, 23, 40)).astype(np.uint8)
    found = {name: values[0] for name, values in measure_images([image]).items()}
    whole = image.astype(float)
    luma = np.tensordot([0.299, 0.587, 0.114], whole, 1)
    assert found["contrast"][0] == pytest.approx(luma.std() / 255, rel=1e-5)
    assert found["sharpness"][0] == pytest.approx(np.log10(1 + laplace(luma)[1:-1, 1:-1].var()), rel=1e-5)
    ring = np.ones((23, 40), bool)
    ring[2:-2, 2:-2] = False
    np.testing.assert_allclose(found["border colour"], whole[:, ring].mean(1) / 255, rtol=1e-6)
    np.testing.assert_allclose(found["centre colour"], whole[:, 5:17, 10:30].mean((1, 2)) / 255, rtol=1e-6)
    red, green, blue = whole
    first, second = red - green, (red + green) / 2 - blue
    expected = np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())
    assert found["colourfulness"][0] == pytest.approx(expected, rel=1e-5)


def test_an_array_measures_like_its_pictures_and_a_border_is_no_centre() -> None:
    images = np.random.default_rng(0).integers(256, size=(70, 3, 24, 24)).astype(np.uint8)
    images[:, :, 6:-6, 6:-6] = 0
    whole, single = measure_images(images), measure_images(iter(images))
    for name in whole:
        np.testing.assert_allclose(whole[name], single[name], rtol=1e-5, atol=1e-7)
    assert (whole["centre colour"] == 0).all()
    assert (whole["border colour"] > 0.3).all()


def test_sizes() -> None:
    found = measure_sizes(np.array([[64, 128], [128, 64], [32, 32]]))
    assert found["size"][:, 0].tolist() == [13, 13, 10]
    assert found["aspect"][:, 0].tolist() == [1, -1, 0]
    assert found["odd aspect"][:, 0].tolist() == [0.5, 0.5, 1]
    with pytest.raises(ValueError, match="positive"):
        measure_sizes(np.array([[0, 3]]))


def test_the_score_is_sklearns_naive_bayes_against_the_majority() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 20])
    values = rng.normal(labels[:, None] * [1.0, -0.5], 1.0)
    found = scored(values, labels, 3)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_score(GaussianNB(), values, labels, cv=folds)
    assert found.accuracy.value == pytest.approx(expected.mean())
    assert found.baseline == pytest.approx(60 / 110)
    assert found.score == pytest.approx((1 - expected.mean()) / (1 - 60 / 110))
    assert found.strength == pytest.approx(1 - found.score)
    np.testing.assert_allclose(found.class_means[1], values[labels == 1].mean(0))


@pytest.mark.parametrize("largest", [0, 1])
def test_a_useless_property_of_uneven_classes_is_not_flagged(largest) -> None:
    """cleanlab takes the index of the largest class for its share: 0.10, flagged, where 1.0 is right."""
    labels = np.where(np.arange(200) < 180, largest, 1 - largest)
    found = scored(np.random.default_rng(0).normal(size=200), labels)
    assert found.baseline == 0.9
    assert found.score > 0.95
    assert not found.flagged
    assert not found.informative


def test_a_property_that_gives_the_class_away_is_flagged() -> None:
    labels = np.arange(60) % 3
    found = scored(labels + np.random.default_rng(0).normal(0, 0.05, 60), labels, 3)
    assert (found.score, found.strength, found.flagged, found.informative) == (0, 1, True, True)


@pytest.mark.parametrize("values", [np.zeros(40), np.eye(40)[0], np.eye(40)[:, :2]], ids=["constant", "one", "two"])
def test_a_property_that_hardly_varies_knows_nothing(values) -> None:
    labels = np.arange(40) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scored(values, labels)
    assert found.score > 0.85
    assert not found.informative


def test_what_is_informative_allows_for_all_that_is_tested() -> None:
    labels = np.arange(100) % 2
    values = np.where(np.arange(100) < 62, labels, 1 - labels).reshape(-1, 1).astype(float)
    one, of_many = (score_property("hue", values, labels, classes=2, tested=tested) for tested in (1, 50))
    assert one.accuracy == of_many.accuracy
    assert one.accuracy.low > 0.5
    assert (one.informative, of_many.informative) == (True, False)


def test_a_single_class_has_no_score() -> None:
    with pytest.raises(ValueError, match="two classes"):
        scored(np.arange(5), np.zeros(5, int))


def pictures_of(labels: np.ndarray, *, border: bool) -> np.ndarray:
    """Noise whose border's colour, or whose centre's, goes with the label."""
    images = np.random.default_rng(0).integers(60, 200, size=(len(labels), 3, 32, 32)).astype(np.uint8)
    inside = np.zeros((32, 32), bool)
    inside[8:-8, 8:-8] = True
    images[:, 0][:, ~inside if border else inside] //= (1 + labels)[:, None].astype(np.uint8)
    return images


@pytest.mark.parametrize(("border", "strong", "weak"), [(True, "border", "centre"), (False, "centre", "border")])
def test_border_and_centre_are_told_apart(tmp_path, border, strong, weak) -> None:
    labels = np.arange(90) % 2
    table = property_table(
        pictures_of(labels, border=border), labels, class_names=("a", "b"), keys=[str(i) for i in range(90)]
    )
    assert isinstance(table, PropertyTable)
    found = {score.name: score for score in table.properties}
    assert found[f"{strong} colour"].flagged
    assert not found[f"{weak} colour"].flagged
    assert [score.score for score in table.properties] == sorted(score.score for score in table.properties)
    assert {missing.analysis for missing in table.unavailable} == {"size", "aspect", "odd aspect"}
    save_result(table, tmp_path / "properties.json")
    again = load_result(PropertyTable, tmp_path / "properties.json")
    assert again.properties[0].score == table.properties[0].score
    assert np.array_equal(again.properties[0].values, table.properties[0].values)


def test_the_planted_shortcut_is_found_without_its_groups_and_not_where_there_is_none() -> None:
    strengths = {}
    for rho in (0.95, 0.0):
        birds = planted_table(
            PlantedConfig(images=160, validation_images=8, test_images=8, rho=rho, draw_size=48), seed=0
        )
        images = (np.moveaxis(birds.read(row), 2, 0) for row in range(160))
        table = property_table(
            images,
            birds.labels[:160],
            class_names=birds.class_names,
            keys=birds.keys[:160],
            sizes=np.full((160, 2), 48),
        )
        assert isinstance(table, PropertyTable)
        strengths[rho] = {score.name: score for score in table.properties}
    assert strengths[0.95]["border colour"].flagged
    assert strengths[0.95]["border colour"].informative
    assert max(score.strength for score in strengths[0.0].values()) < 0.25
    assert strengths[0.95]["size"].strength == strengths[0.0]["size"].strength == 0


def test_classes_with_one_picture_are_left_out_and_named() -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2])
    images = pictures_of(labels, border=True)
    names = ("a", "b", "c", "d")
    table = property_table(images, labels, class_names=names, keys=[str(i) for i in range(24)])
    assert isinstance(table, PropertyTable)
    assert table.left_out == ("c",)
    first = table.properties[0]
    assert (first.accuracy.n, first.baseline) == (23, pytest.approx(20 / 23))
    assert np.isnan(first.class_means[3]).all()
    assert not np.isnan(first.class_means[:3]).any()


def test_what_cannot_be_measured() -> None:
    alone = property_table([plain((1, 2, 3))] * 3, np.array([0, 0, 1]), class_names=("a", "b"), keys="xyz")
    assert isinstance(alone, Unavailable)
    with pytest.raises(ValueError, match="uint8"):
        measure_images([np.zeros((3, 9, 9))])
    with pytest.raises(ValueError, match="no pictures"):
        measure_images([])
    with pytest.raises(ValueError, match="expected 4 pictures"):
        property_table([plain((1, 2, 3))] * 3, np.array([0, 0, 1, 1]), class_names=("a", "b"), keys="wxyz")


#: Height and width of the files of two classes, one of them stored lying on its side.
SHAPES = {"tall": (300, 120), "wide": (100, 250)}


@pytest.fixture
def files(tmp_path) -> Pictures:
    """Training pictures of grey noise whose class is their format alone; borders left and right are white."""
    rng = np.random.default_rng(0)
    for name, (height, width) in SHAPES.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 200, (height, width), dtype=np.uint8)
            pixels[:, : width // 8] = pixels[:, -width // 8 :] = 255
            image = Image.fromarray(pixels if name == "tall" else np.ascontiguousarray(np.rot90(pixels)))
            exif = Image.Exif()
            exif[0x0112] = 1 if name == "tall" else 6  # turned by a quarter
            image.save(tmp_path / "data" / name / f"{number}.png", exif=exif)
    config = RunConfig(data=DataConfig(source=str(tmp_path / "data"), image_size=64, cache_dir=str(tmp_path / "cache")))
    return choose_pictures(load_data(config), split="train", count=10)


def test_sizes_are_those_of_the_upright_files_not_of_the_cache(files) -> None:
    expected = [SHAPES[key.split("/")[0]] for key in files.keys]
    assert original_sizes(files).tolist() == [list(shape) for shape in expected]


def test_sizes_of_drawn_or_vanished_pictures_are_not_made_up(files, pictures) -> None:
    drawn = original_sizes(pictures)
    assert isinstance(drawn, Unavailable)
    assert "drawn" in drawn.reason
    table = property_table(
        np.zeros((4, 3, 8, 8), np.uint8),
        np.arange(4) % 2,
        class_names=("a", "b"),
        keys=("1", "2", "3", "4"),
        sizes=drawn,
    )
    assert [(one.analysis, one.reason) for one in table.unavailable] == [
        (name, drawn.reason) for name in ("size", "aspect", "odd aspect")
    ]
    (Path(files.bundle.source) / files.keys[3]).unlink()
    gone = original_sizes(files)
    assert isinstance(gone, Unavailable)
    assert "no such file" in gone.reason


def test_whole_pictures_keep_what_a_square_view_cuts_off(files) -> None:
    whole = list(whole_pictures(files, side=64))
    assert {min(image.shape[1:]) for image in whole} == {64}
    wide = files.labels == files.bundle.class_names.index("wide")
    edges = np.array([image[:, :, 2].mean() for image in whole])
    assert (edges[wide] > 240).all()
    assert np.array([files.image(i, 64)[:, :, 2].float().mean() for i in np.flatnonzero(wide)]).max() < 200


def test_the_analysis_scores_the_format_of_the_files(files, subjects) -> None:
    bench = Workbench(subjects=subjects, bundle=files.bundle, count=10)
    table = BY_NAME["properties"].compute(bench)
    assert table.unavailable == ()
    scores = {one.name: one for one in table.properties}
    assert scores["aspect"].accuracy.value == scores["size"].accuracy.value == 1
    assert scores["aspect"].flagged
    wide = files.bundle.class_names.index("wide")
    assert scores["aspect"].class_means[wide, 0] == pytest.approx(np.log2(2.5))


def test_a_property_that_plants_share_tells_nothing_of_other_plants() -> None:
    """A colour goes with the plant and not with the class: folds that part plants would tell the class by it."""
    rng = np.random.default_rng(0)
    by_picture, by_plant = [], []
    for _ in range(30):
        units = np.repeat(np.arange(20), 10)
        labels = np.repeat(rng.permutation(20) % 2, 10)
        values = rng.normal(size=(20, 3))[units] + 0.01 * rng.normal(size=(200, 3))
        by_picture.append(score_property("colour", values, labels, classes=2))
        by_plant.append(score_property("colour", values, labels, classes=2, units=units))
    assert np.mean([one.accuracy.value for one in by_picture]) > 0.6
    assert np.mean([one.accuracy.value for one in by_plant]) < 0.53
    assert sum(one.informative for one in by_picture) > 15
    assert sum(one.informative for one in by_plant) <= 3


def test_the_strongest_of_many_useless_properties_is_seldom_informative() -> None:
    """At 95 % for each of the eleven, some is in four of the ten tables."""
    told = at_95 = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(100, 3, 8, 8)) * rng.integers(1, 40, (100, 1, 1, 1))
        images = np.clip(rng.integers(40, 215, (100, 3, 1, 1)) + noise, 0, 255).astype(np.uint8)
        table = property_table(
            images,
            rng.permutation(np.arange(100) % 2),
            class_names=("a", "b"),
            keys=tuple(map(str, range(100))),
            sizes=rng.integers(50, 500, (100, 2)),
        )
        assert isinstance(table, PropertyTable)
        told += any(one.informative for one in table.properties)
        at_95 += any(one.accuracy.low > one.baseline for one in table.properties)
    assert at_95 >= 3
    assert told <= 1


def test_classes_of_one_plant_are_left_out_and_the_plants_are_counted() -> None:
    units = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6])
    labels = np.array([2, 2, 2, 0, 0, 0, 1, 1, 1, 1, 0, 1])
    images = np.random.default_rng(0).integers(0, 255, (12, 3, 20, 20), dtype=np.uint8)
    names = {"class_names": ("a", "b", "c"), "keys": tuple(map(str, range(12)))}
    table = property_table(images, labels, units=units, **names)
    assert isinstance(table, PropertyTable)
    assert (table.left_out, table.units) == (("c",), 7)
    assert {score.accuracy.n for score in table.properties} == {9}
    none = property_table(images, labels, units=labels, **names)
    assert isinstance(none, Unavailable)
    assert none.reason == "It needs at least two classes with at least two units (plants, patients) each."
    with pytest.raises(ValueError, match="two classes"):
        score_property("brightness", images[:, 0, 0, :1].astype(float), labels, classes=3, units=labels)
