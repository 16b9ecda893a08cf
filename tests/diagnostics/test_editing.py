from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from concept_tuning.diagnostics.editing import (
    EDITS,
    background,
    blur,
    draw_donors,
    edit_pictures,
    fill_holes,
    grow,
    has_background,
    paste_patches,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def disc(size: int = 40, radius: int = 9) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - size // 2) ** 2 + (x - size // 2) ** 2 <= radius**2)[None]


@pytest.mark.parametrize("size", [(40, 40), (37, 53), (1, 9), (64, 33)])
def test_a_constant_background_fills_exactly(size: tuple[int, int]) -> None:
    holes = torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) < 0.6
    holes[:, 0, 0] = False
    colours = torch.tensor([[12.0, 200, 77], [255, 0, 1], [3, 3, 3]])[:, :, None, None]
    images = torch.where(holes[:, None], 123.0, colours.expand(3, 3, *size))
    torch.testing.assert_close(fill_holes(images, holes), colours.expand(3, 3, *size), rtol=1e-6, atol=1e-4)


def test_known_pixels_stay_and_holes_stay_in_range() -> None:
    images, holes = noise(2, 3, 45, 38).float(), torch.cat([disc(45), disc(45, 15)])[:, :, :38]
    filled = fill_holes(images, holes)
    assert torch.equal(filled.where(~holes[:, None], 0.0), images.where(~holes[:, None], 0.0))
    for image, hole, result in zip(images, holes, filled, strict=True):
        for channel in range(3):
            known = image[channel][~hole]
            assert known.min() <= result[channel].min()
            assert result[channel].max() <= known.max()


def test_what_is_in_the_hole_does_not_matter() -> None:
    images, holes = noise(1, 3, 40, 40).float(), disc()
    other = torch.where(holes[:, None], noise(1, 3, 40, 40, seed=5).float(), images)
    assert torch.equal(fill_holes(images, holes), fill_holes(other, holes))


def test_a_ramp_is_continued_across_the_hole() -> None:
    ramp = torch.arange(40.0).expand(1, 1, 40, 40) * 5
    filled = fill_holes(ramp, disc(40, 6))
    assert (filled - ramp).abs().max() < 30  # a flat filling is off by 6 * 5 and more, zeros by 100
    assert (filled - ramp).abs()[disc(40, 6)[:, None]].mean() < 10


def test_pictures_of_a_batch_do_not_see_one_another() -> None:
    images, holes = noise(3, 3, 40, 40).float(), torch.cat([disc(), disc(40, 3), disc(40, 19)])
    together = fill_holes(images, holes)
    for i in range(3):
        torch.testing.assert_close(together[i], fill_holes(images[i : i + 1], holes[i : i + 1])[0])


def test_nothing_known_gives_zero_and_wrong_shapes_are_refused() -> None:
    assert not fill_holes(noise(1, 3, 8, 8).float(), torch.ones(1, 8, 8, dtype=torch.bool)).any()
    with pytest.raises(ValueError, match="holes"):
        fill_holes(noise(1, 3, 8, 8).float(), torch.ones(1, 8, 9, dtype=torch.bool))


def test_no_colour_of_the_object_is_left() -> None:
    """An antialiased red disc on green: no pixel of the background is more red than green."""
    objects = disc(64, 12)
    soft = torch.nn.functional.avg_pool2d(objects[:, None].float(), 3, 1, 1)
    green, red = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ([0.0, 200, 0], [255.0, 0, 0]))
    images = (soft * red + (1 - soft) * green).round().to(torch.uint8)
    empty = background(images, objects)
    assert torch.equal(empty, green.to(torch.uint8).expand_as(empty))


def test_edits_leave_the_object_and_show_the_donor() -> None:
    images, objects = noise(1, 3, 40, 40), disc()
    other, same = torch.full_like(images, 17), torch.full_like(images, 211)
    edits = dict(zip(EDITS, edit_pictures(images, objects, other, same), strict=True))
    inside = objects[:, None].expand_as(images)
    for kind in EDITS[:3]:
        assert torch.equal(edits[kind][inside], images[inside])
    assert (edits["other class"][~inside] == 17).all()
    assert (edits["same class"][~inside] == 211).all()
    around = ~grow(objects)[:, None].expand_as(images)
    assert torch.equal(edits["object removed"][around], images[around])
    assert not torch.equal(edits["object removed"][inside], images[inside])
    assert not torch.equal(edits["blurred"][around], images[around])
    own = edits["blurred"][~inside].float()
    assert own.std() < images[~inside].float().std() / 3
    assert own.mean() == pytest.approx(images[~inside].float().mean().item(), abs=8)


def test_blur_is_gaussian_and_keeps_a_flat_picture() -> None:
    assert (blur(torch.full((1, 3, 20, 20), 90, dtype=torch.uint8)) == 90).all()
    images = noise(2, 3, 64, 64)
    expected = gaussian_filter(images.double().numpy(), (0, 0, 4, 4), mode="mirror", truncate=3)
    assert np.abs(blur(images).numpy() - expected).max() < 1


def test_objects_grow_by_a_rim() -> None:
    one = torch.zeros(1, 128, 128, dtype=torch.bool)
    one[0, 5, 60] = True
    grown = grow(one)
    assert grown.sum() == 25
    assert grown[0, 3:8, 58:63].all()
    assert grow(torch.zeros(1, 16, 16, dtype=torch.bool)).sum() == 0


def test_a_background_needs_an_object_and_something_around_it() -> None:
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8), torch.eye(8)]).bool()
    assert has_background(masks).tolist() == [False, False, True]


def test_donors_fit_and_are_drawn_evenly() -> None:
    labels, donors = np.repeat([0, 1, 2], 400), np.array([0, 0, 0, 1, 1, 2])
    usable = np.array([True, True, False, True, True, True])
    own = np.full(1200, -1)
    own[1199] = 5
    drawn = draw_donors(labels, donors, usable, own=own, seed=3)
    other, same = drawn.T
    assert (donors[other] != labels).all()
    assert (donors[same[:-1]] == labels[:-1]).all()
    assert same[-1] == -1  # the only donor of its class is itself
    assert not (drawn == 2).any()
    counts = np.bincount(other[labels == 0], minlength=6)
    assert counts[[0, 1, 2]].sum() == 0
    assert counts[3:] == pytest.approx(400 / 3, abs=40)
    assert np.array_equal(drawn, draw_donors(labels, donors, usable, own=own, seed=3))
    assert not np.array_equal(drawn, draw_donors(labels, donors, usable, own=own, seed=4))


def test_patches_are_pasted_where_they_were() -> None:
    hosts, sources = noise(2, 3, 12, 10), noise(2, 3, 12, 10, seed=1)
    boxes = torch.tensor([[1.0, 2, 4, 5], [6.4, 0, 10, 3.6]])
    found = paste_patches(hosts, sources, boxes)
    expected = hosts.clone()
    expected[0, :, 2:5, 1:4] = sources[0, :, 2:5, 1:4]
    expected[1, :, 0:4, 6:10] = sources[1, :, 0:4, 6:10]
    assert torch.equal(found, expected)
