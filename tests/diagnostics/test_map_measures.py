from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from concept_tuning.diagnostics.map_measures import (
    concentration,
    impute,
    insertion_deletion,
    is_blank,
    outside_mass,
    pointing_hits,
    removal_order,
    road,
)

SIZE = 24


def box(*place: int, size: int = SIZE) -> np.ndarray:
    """Return a (size, size) bool mask of rows and columns top, bottom, left, right."""
    top, bottom, left, right = place
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_outside_mass_counts_what_lies_off_the_mask() -> None:
    mask = box(0, 6, 0, 12)
    maps = np.stack([mask * 3.0, ~mask * 2.0, np.full(mask.shape, 0.1), mask * 3.0 + box(12, 18, 0, 12) * 1.0])
    masks = np.stack([mask] * 4)
    np.testing.assert_allclose(outside_mass(maps, masks), [0, 1, 1 - mask.mean(), 0.25])
    np.testing.assert_allclose(concentration(maps, masks), [1 / mask.mean(), 0, 1, 0.75 / mask.mean()])


def test_concentration_is_over_each_masks_own_area() -> None:
    masks = np.stack([box(0, 6, 0, 12), box(0, 12, 0, 24)])
    np.testing.assert_allclose(concentration(masks * 1.0, masks), [8, 2])


def test_maps_and_masks_of_nothing_have_no_measure() -> None:
    mask = box(0, 6, 0, 12)
    broken = mask.astype(float)
    broken[0, 0] = np.nan
    maps = np.stack([np.zeros(mask.shape), mask * 1.0, broken, np.full(mask.shape, np.nan)])
    masks = np.stack([mask, np.zeros(mask.shape, bool), mask, mask])
    with np.errstate(all="raise"), warnings.catch_warnings(action="error"):
        for measure in (outside_mass, concentration, pointing_hits):
            assert np.isnan(measure(maps, masks)).all()
    assert is_blank(maps).tolist() == [True, False, True, True]


def test_scaling_a_map_changes_no_measure() -> None:
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    masks = np.random.default_rng(1).random((3, SIZE, SIZE)) < 0.3
    np.testing.assert_allclose(outside_mass(maps * 1e-6, masks), outside_mass(maps, masks))
    masks[0] = maps[0] == maps[0].max()
    for scale in (1e-6, 1e6):
        np.testing.assert_array_equal(pointing_hits(maps * scale, masks), pointing_hits(maps, masks))
    assert pointing_hits(maps, masks)[0] == 1
    assert (removal_order(maps * 7) == removal_order(maps)).all()


@pytest.mark.parametrize(
    ("peak", "tolerance", "hit"),
    [
        ((5, 5), 0, 1),
        ((10, 10), 0, 0),
        ((8, 5), 0.9, 0),
        ((8, 5), 1, 1),
        ((9, 5), 2, 1),
        ((10, 10), 4.2, 0),
        ((10, 10), 4.3, 1),
    ],
)
def test_pointing_game_with_tolerance_in_pixels(peak, tolerance, hit) -> None:
    """The mask's last pixel is (7, 7), so (10, 10) is 3 sqrt(2) = 4.24 pixels away."""
    maps = np.zeros((1, SIZE, SIZE))
    maps[0][peak] = 1
    assert pointing_hits(maps, box(2, 8, 2, 8)[None], tolerance=tolerance) == [hit]


def test_a_flat_peak_hits_by_its_share() -> None:
    """The first of equal pixels is the upper left one, which would be no fair draw."""
    maps = np.stack([box(0, 4, 0, 4) * 2.0, np.ones((SIZE, SIZE))])
    masks = np.stack([box(0, 1, 0, 4), box(0, 12, 0, 12)])
    np.testing.assert_allclose(pointing_hits(maps, masks), [0.25, 0.25])
    noise = 1 + 1e-6 * np.random.default_rng(0).normal(size=maps.shape)
    np.testing.assert_allclose(pointing_hits(maps * noise, masks), [0.25, 0.25])


def test_removal_order_is_by_relevance_and_draws_equal_pixels() -> None:
    maps = np.zeros((2, 6, 6))
    maps[:, 3, 3], maps[:, 0, 1] = 5, 2
    order = removal_order(maps, seed=0)
    assert order[:, :2].tolist() == [[21, 1]] * 2
    assert sorted(order[0]) == list(range(36))
    assert order[0].tolist() == removal_order(maps, seed=0)[0].tolist() != removal_order(maps, seed=1)[0].tolist()
    assert order[0, 2:].tolist() != sorted(order[0, 2:])
    assert np.array_equal(removal_order(maps), order)


def slow_imputation(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Solve the dense system written down neighbour by neighbour (arXiv 2202.00449, section 4)."""
    places = [tuple(place) for place in np.argwhere(removed)]
    system, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(image)))
    for row, (y, x) in enumerate(places):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                beside = (y + down, x + across)
                if beside == (y, x) or not (0 <= beside[0] < len(removed) and 0 <= beside[1] < len(removed)):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                system[row, row] += weight
                if removed[beside]:
                    system[row, places.index(beside)] -= weight
                else:
                    right[row] += weight * image[:, beside[0], beside[1]]
    result = image.copy()
    result[:, removed] = np.linalg.solve(system, right).T
    return result


@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_imputation_equals_a_slow_reference(share: float) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3, 12, 12)).astype(np.float32)
    removed = rng.random((12, 12)) < share
    removed[0, 0], removed[11, 11] = True, False  # a corner has three neighbours
    found = impute(image, removed)
    np.testing.assert_allclose(found, slow_imputation(image.astype(float), removed), atol=1e-3)
    assert (found[:, ~removed] == image[:, ~removed]).all()


def test_imputation_of_an_even_picture_is_even_and_one_pixel_the_weighted_mean() -> None:
    even = np.full((3, 9, 9), 77.0, np.float32)
    np.testing.assert_allclose(impute(even, box(0, 8, 0, 9, size=9)), even, rtol=1e-5)
    image = np.zeros((3, 5, 5), np.float32)
    image[:, 1, 2], image[:, 1, 1] = 60, 120
    assert impute(image, box(2, 3, 2, 3, size=5))[:, 2, 2] == pytest.approx([60 / 6 + 120 / 12] * 3)
    assert (impute(image, np.zeros((5, 5), bool)) == image).all()
    assert impute(image.astype(np.float64), box(2, 3, 2, 3, size=5)).dtype == np.float32
    with pytest.raises(ValueError, match=r"^At least one pixel must stay, from which the others are imputed\.$"):
        impute(image, np.ones((5, 5), bool))


#: The square whose brightness the synthetic network reads.
NEEDED = box(8, 14, 10, 16)


def needs_square(pixels: np.ndarray) -> np.ndarray:
    """Return probabilities of two classes; class 1 rises with the brightness of one square alone."""
    logit = (pixels.mean(1)[:, NEEDED].mean(1) - 128) / 30
    second = 1 / (1 + np.exp(-logit))
    return np.stack([1 - second, second], axis=1)


def pictures(count: int = 4) -> np.ndarray:
    images = np.full((count, 3, SIZE, SIZE), 60, np.uint8)
    images[:, :, NEEDED] = 200
    return images


def scored(measure, maps: np.ndarray, **arguments):
    maps = np.stack([maps] * 4).astype(np.float32)
    return measure(needs_square, pictures(), maps, np.ones(4, np.int64), **arguments)


def test_road_is_high_for_the_pixels_that_the_network_reads() -> None:
    sharp = scored(road, NEEDED, fractions=(0.1, 0.3))
    centre = scored(road, gaussian_filter(box(0, 4, 0, 4) * 1.0, 4), fractions=(0.1, 0.3))
    inverse = scored(road, ~NEEDED, fractions=(0.1, 0.3))
    # Bright until the square goes: p = 0.917; then dark as its surroundings: p = 0.094.
    np.testing.assert_allclose(sharp.original, 1 / (1 + np.exp(-72 / 30)))
    np.testing.assert_allclose(sharp.most_first, 1 / (1 + np.exp(68 / 30)), atol=0.02)
    np.testing.assert_allclose(sharp.road, (sharp.least_first - sharp.most_first).mean(1) / 2)
    assert (sharp.road > 0.38).all()
    assert (np.abs(centre.road) < 0.1).all()
    assert (inverse.road < 0).all()
    assert (sharp.change > 0.2).all()


def test_a_probability_that_does_not_move_is_told() -> None:
    """ROAD of 0 may mean that the network was not moved at all (Quantus issue 333), so the change is kept."""

    def sure(pixels: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(pixels), 1))

    curves = road(sure, pictures(), np.stack([NEEDED * 1.0] * 4), np.ones(4, np.int64))
    assert (curves.road == 0).all()
    assert (curves.change == 0).all()


def removed_by_road(grey: int, **values) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network is shown of an even picture, least and most relevant first, and what is changed of it."""
    shown: list[np.ndarray] = []

    def listening(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32
        shown.append(pixels[0])
        return needs_square(pixels)

    maps = np.arange(SIZE * SIZE, dtype=float).reshape(1, SIZE, SIZE) + 1
    curves = road(listening, np.full((1, 3, SIZE, SIZE), grey, np.uint8), maps, np.ones(1, np.int64), **values)
    least, most, original = shown
    assert curves.fractions.tolist() == list(values["fractions"])
    assert (original == grey).all()
    pixels = np.stack([least, most])
    return pixels, (pixels != grey).any(1).reshape(2, -1)


@pytest.mark.parametrize(("fraction", "count"), [(0.25, 144), (0.0001, 1)])
def test_road_removes_the_share_of_pixels_from_either_end(fraction: float, count: int) -> None:
    _, (least, most) = removed_by_road(100, fractions=(fraction,))
    assert np.flatnonzero(least).tolist() == list(range(count))
    assert np.flatnonzero(most).tolist() == list(range(SIZE * SIZE - count, SIZE * SIZE))


@pytest.mark.parametrize("noise", [None, 8.0])
def test_roads_noise_differs_by_pixel_and_has_the_deviation_asked_for(noise: float | None) -> None:
    pixels, changed = removed_by_road(100, fractions=(0.9,), **({} if noise is None else {"noise": noise}))
    grain = pixels.reshape(2, 3, -1).transpose(0, 2, 1)[changed] - 100
    assert grain.std() == pytest.approx(noise or 2.55, rel=0.06)
    assert abs(grain.mean()) < 0.1 * grain.std()


@pytest.mark.parametrize("grey", [0, 255])
def test_road_stays_within_the_range_of_grey_levels(grey: int) -> None:
    pixels, _ = removed_by_road(grey, fractions=(0.5,))
    assert (pixels.max() if grey else pixels.min()) == grey
    assert ((pixels > 0) & (pixels < 255)).any()


def test_road_draws_equal_pixels_by_its_seed() -> None:
    flat = np.ones((SIZE, SIZE))
    default, first, other = (scored(road, flat, noise=0, **values) for values in ({}, {"seed": 0}, {"seed": 1}))
    assert default.fractions.tolist() == [0.1, 0.3, 0.5]
    assert (default.most_first == first.most_first).all()
    assert (default.most_first != other.most_first).any()


def test_road_is_the_same_for_a_seed() -> None:
    first, again, other = (scored(road, NEEDED, seed=seed) for seed in (1, 1, 2))
    assert (first.most_first == again.most_first).all()
    assert (first.most_first != other.most_first).any()


def test_insertion_and_deletion_areas_have_their_closed_form() -> None:
    """The square is 1/16 of the pixels; at sixteen steps it is all in, or all gone, at the first."""
    curves = scored(insertion_deletion, NEEDED, steps=16)
    full = curves.original[0]
    assert NEEDED.mean() == 1 / 16
    np.testing.assert_allclose(curves.least_first[:, 1:], full, atol=1e-6)
    mean = pictures()[0].mean()
    gone = 1 / (1 + np.exp(-(mean - 128) / 30))
    np.testing.assert_allclose(curves.most_first[:, 1:], gone, atol=1e-6)
    np.testing.assert_allclose(curves.deletion, ((full + gone) / 2 + 15 * gone) / 16, atol=1e-6)
    np.testing.assert_allclose(curves.insertion, ((curves.least_first[0, 0] + full) / 2 + 15 * full) / 16, atol=1e-6)
    worse = scored(insertion_deletion, ~NEEDED, steps=16)
    assert (worse.insertion < curves.insertion).all()
    assert (worse.deletion > curves.deletion).all()


def test_insertion_starts_from_each_pictures_blur_and_deletion_ends_at_its_mean_colour() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), np.uint8)
    targets = np.array([0, 2, 1])

    def one_pixel(pixels: np.ndarray) -> np.ndarray:
        """Return red, green and blue of one pixel as the probabilities of three classes."""
        assert pixels.dtype == np.float32
        return pixels[:, :, 7, 9] / 255

    curves = insertion_deletion(one_pixel, images, np.ones((3, SIZE, SIZE)), targets, steps=1)
    channels = [image[target].astype(float) for image, target in zip(images, targets, strict=True)]
    blurred = [gaussian_filter(channel, SIZE / 20)[7, 9] / 255 for channel in channels]
    mean = [channel.mean() / 255 for channel in channels]
    original = [channel[7, 9] / 255 for channel in channels]
    np.testing.assert_allclose(curves.least_first, np.stack([blurred, original], axis=1), rtol=1e-4)
    np.testing.assert_allclose(curves.most_first, np.stack([original, mean], axis=1), rtol=1e-4)


def test_insertion_takes_eight_steps_and_draws_equal_pixels_by_its_seed() -> None:
    flat = np.ones((SIZE, SIZE))
    default, first, other = (scored(insertion_deletion, flat, **values) for values in ({}, {"seed": 0}, {"seed": 1}))
    assert default.fractions.tolist() == [step / 8 for step in range(9)]
    assert (default.most_first == first.most_first).all()
    assert (default.most_first != other.most_first).any()


@pytest.mark.parametrize("measure", [road, insertion_deletion])
def test_a_blank_map_has_no_curve(measure) -> None:
    maps = np.stack([NEEDED * 1.0, np.zeros((SIZE, SIZE))])
    curves = measure(needs_square, pictures(2), maps, np.ones(2, np.int64))
    for values in (curves.road, curves.insertion, curves.deletion, curves.change):
        assert np.isfinite(values).tolist() == [True, False]


def test_wrong_shapes_and_fractions_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        outside_mass(np.ones((2, 4, 4)), np.ones((1, 4, 4), bool))
    for fractions in ((0.5, 1.0), (0.0, 0.5), ()):
        with pytest.raises(ValueError, match="between 0 and 1"):
            scored(road, NEEDED, fractions=fractions)
