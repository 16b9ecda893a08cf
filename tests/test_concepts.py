from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from golden import FIGURES, wave
from torch import Tensor
from torchvision.ops import roi_align

from concept_tuning.concepts import (
    channel_groups,
    concept_maps,
    confusing_classes,
    crop_patches,
    default_step,
    find_concepts,
    fit_groups,
    peak_boxes,
    pool_boxes,
)

GOLDEN = FIGURES["concept_search"]


def ints(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def test_cells_and_confusing_classes_agree_with_the_authors() -> None:
    labels = torch.tensor(GOLDEN["inputs"]["labels"])
    found = find_concepts(
        wave((2, 2048, 7, 7), 0.0137, 0.05).relu(),
        wave((2, 20), 1.3, 0.4),
        labels,
        wave((20, 2048), 0.017, 0.3),
        image_size=224,
        side=64.0,
    )
    for image in range(2):
        assert found.confusing[image].tolist() == GOLDEN[f"confusing_classes_image{image}"]
    peaks = found.maps.flatten(2).argmax(2)
    cells = torch.stack([peaks // 7, peaks % 7], dim=2)
    assert cells.tolist() == GOLDEN["peak_cells_row_col"]
    # ours are centred on the cell, 32 px wide, and clipped to the image
    centre = cells.flip(2) * 32.0 + 16
    expected = torch.cat([centre - 32, centre + 32], dim=2).clamp(0, 224)
    assert torch.equal(found.boxes, expected)


def test_confusing_classes_equal_a_sort_without_the_label() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 5, 2, 3])
    for count in (1, 3, 9):
        expected = [
            [c for c in row.argsort(descending=True).tolist() if c != label][:count]
            for row, label in zip(logits, labels.tolist(), strict=True)
        ]
        assert confusing_classes(logits, labels, count).tolist() == expected


def test_the_search_is_made_of_its_parts_with_the_given_settings() -> None:
    generator = torch.Generator().manual_seed(5)
    feature_map, weight = torch.rand(2, 40, 3, 4, generator=generator), torch.randn(6, 40, generator=generator)
    logits, labels = torch.randn(2, 6, generator=generator), torch.tensor([4, 1])
    settings = {"concepts": 4, "channels": 5, "step": 7}
    found = find_concepts(
        feature_map, logits, labels, weight, image_size=(48, 64), side=20.0, confusing_for_score=2, **settings
    )
    groups = channel_groups(weight, labels, confusing_classes(logits, labels, 2), **settings)
    assert torch.equal(found.confusing, confusing_classes(logits, labels, 5))
    assert torch.equal(found.groups, groups)
    assert torch.equal(found.maps, concept_maps(feature_map, groups))
    assert torch.equal(found.boxes, peak_boxes(found.maps, image_size=(48, 64), side=20.0))


def test_everything_is_made_where_the_inputs_lie() -> None:
    """With another default device, whatever is made without naming one does not fit the inputs."""
    feature_map, logits, weight = torch.rand(2, 40, 3, 3), torch.rand(2, 6), torch.rand(6, 40)
    labels, images = torch.tensor([4, 1]), torch.rand(2, 3, 32, 32)

    def made() -> tuple[Tensor, ...]:
        found = find_concepts(feature_map, logits, labels, weight, image_size=32, side=8.0)
        patches, pooled = crop_patches(images, found.boxes, 4), pool_boxes(feature_map, found.boxes, image_size=32)
        return (found.confusing, found.groups, found.maps, found.boxes, patches, pooled)

    expected = made()
    with torch.device("meta"):
        found = made()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_two_classes_have_one_confusing_class() -> None:
    logits = torch.tensor([[9.0, 1.0], [9.0, 1.0]])
    assert confusing_classes(logits, torch.tensor([0, 1]), 3).tolist() == [[1], [0]]


@pytest.mark.parametrize(("features", "step"), [(2048, 250), (1280, 156), (512, 62), (1, 1)])
def test_default_step_is_the_papers_in_proportion(features: int, step: int) -> None:
    assert default_step(features) == step


@pytest.mark.parametrize(
    ("features", "expected"),
    [(2048, (30, 250)), (1280, (30, 156)), (100, (30, 8)), (30, (30, 0)), (12, (12, 0)), (1, (1, 0))],
)
def test_groups_always_fit_the_ranks(features: int, expected: tuple[int, int]) -> None:
    channels, step = fit_groups(features, concepts=9, channels=30, step=default_step(features))
    assert (channels, step) == expected
    assert 8 * step + channels <= features


def test_one_and_two_concepts_fit_too() -> None:
    assert fit_groups(100, concepts=1, channels=30, step=250) == (30, 250)
    assert fit_groups(100, concepts=2, channels=30, step=250) == (30, 70)


@pytest.mark.parametrize("name", ["features", "concepts", "channels", "step"])
def test_groups_of_nothing_are_refused(name: str) -> None:
    numbers = {"features": 9, "concepts": 2, "channels": 3, "step": 4} | {name: 0}
    got = "{features}, {concepts}, {channels} and {step}".format(**numbers)
    with pytest.raises(ValueError, match=f"^features, concepts, channels and step must be >= 1, got {got}.$"):
        fit_groups(**numbers)


@pytest.mark.parametrize("confusing", [[[0, 3], [2, 1]], [[0], [2]]])
def test_channel_groups_equal_a_slow_ranking(confusing: list[list[int]]) -> None:
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    labels, confusing = torch.tensor([1, 4]), torch.tensor(confusing)
    groups = channel_groups(weight, labels, confusing, concepts=3, channels=4, step=10)
    for image in range(2):
        y, c = int(labels[image]), confusing[image].tolist()
        scores = [sum(weight[y, d] - weight[other, d] for other in c) for d in range(40)]
        ranks = sorted(range(40), key=lambda d: -scores[d])
        assert groups[image].tolist() == [ranks[p * 10 : p * 10 + 4] for p in range(3)]


def test_channels_that_score_alike_stay_in_order() -> None:
    groups = channel_groups(torch.zeros(3, 2048), ints(1), ints(1, 1) + 1, concepts=2, channels=9, step=1000)
    assert groups[0].tolist() == [list(range(9)), list(range(1000, 1009))]


def test_maps_are_sums_of_their_channels() -> None:
    feature_map = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(2))
    groups = torch.tensor([[[0, 5], [2, 3]], [[1, 2], [4, 0]]])
    maps = concept_maps(feature_map, groups)
    for image in range(2):
        for concept in range(2):
            expected = sum(feature_map[image, int(d)] for d in groups[image, concept])
            torch.testing.assert_close(maps[image, concept], expected)


def one_peak(row: int, column: int, rows: int = 4, columns: int = 8) -> Tensor:
    maps = torch.zeros(1, 1, rows, columns)
    maps[0, 0, row, column] = 1
    return maps


def test_boxes_are_centred_on_the_cell_and_clipped() -> None:
    size = (128, 256)  # cells of 32 px
    assert peak_boxes(one_peak(2, 3), image_size=size, side=40).flatten().tolist() == [92, 60, 132, 100]
    assert peak_boxes(one_peak(0, 0), image_size=size, side=40).flatten().tolist() == [0, 0, 36, 36]
    assert peak_boxes(one_peak(3, 7), image_size=size, side=40).flatten().tolist() == [220, 92, 256, 128]
    single = peak_boxes(torch.ones(1, 1, 1, 1), image_size=64, side=200)
    assert single.flatten().tolist() == [0, 0, 64, 64]
    within_a_pixel = peak_boxes(torch.ones(1, 1, 1, 1), image_size=1, side=0.5)
    assert within_a_pixel.flatten().tolist() == [0.25, 0.25, 0.75, 0.75]


def test_crops_show_the_pixels_of_their_box() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8).clone()
    boxes = torch.tensor([[[2.0, 3.0, 6.0, 7.0], [0.0, 0.0, 8.0, 8.0]]])
    crops = crop_patches(image, boxes, 4)
    torch.testing.assert_close(crops[0], image[0, :, 3:7, 2:6])
    # two by two pixels to one: their mean
    torch.testing.assert_close(crops[1], torch.nn.functional.avg_pool2d(image, 2)[0])


def test_a_crop_averages_all_pixels_that_fall_into_one() -> None:
    images = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(4))
    whole = torch.tensor([[[0.0, 0.0, 9.0, 9.0]]])
    torch.testing.assert_close(crop_patches(images, whole, 3), torch.nn.functional.avg_pool2d(images, 3))
    torch.testing.assert_close(crop_patches(images, whole, 1), images.mean((2, 3), keepdim=True))
    columns = images[:, :, :1].expand(-1, -1, 9, -1)
    wide = crop_patches(columns, torch.tensor([[[0.0, 0.0, 9.0, 3.0]]]), 3)
    torch.testing.assert_close(wide, columns[:, :, :3].unflatten(3, (3, 3)).mean(4))


def test_the_largest_box_decides_how_finely_all_are_sampled() -> None:
    images = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(4))
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [2.5, 3.0, 5.5, 6.0]]])
    rois = torch.cat([torch.zeros(2, 1), boxes[0]], dim=1)
    expected = roi_align(images, rois, output_size=3, sampling_ratio=3, aligned=True)
    torch.testing.assert_close(crop_patches(images, boxes, 3), expected)


def test_no_boxes_are_no_patches() -> None:
    assert crop_patches(torch.rand(2, 3, 8, 8), torch.zeros(2, 0, 4), 4).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_maps_and_patches_keep_the_precision_of_what_they_are_made_of(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]])
    assert crop_patches(torch.rand(1, 3, 8, 8).to(dtype), boxes, 2).dtype == dtype
    assert pool_boxes(torch.rand(1, 5, 8, 8).to(dtype), boxes, image_size=8).dtype == dtype
    maps = concept_maps(torch.rand(1, 5, 8, 8).to(dtype), torch.zeros(1, 1, 1).long())
    assert maps.dtype == torch.promote_types(dtype, torch.float32)


def test_crops_of_one_image_come_in_a_row() -> None:
    images = torch.stack([torch.full((3, 8, 8), float(value)) for value in range(3)])
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 2).expand(3, 2, 4)
    assert crop_patches(images, boxes, 2).mean((1, 2, 3)).tolist() == [0, 0, 1, 1, 2, 2]


def test_pooled_boxes_are_means_of_their_cells_with_gradient() -> None:
    feature_map = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    two_by_two, corner = torch.tensor([[[[32.0, 32.0, 96.0, 96.0]]], [[[96.0, 96.0, 128.0, 128.0]]]])
    pooled = pool_boxes(feature_map, two_by_two, image_size=128)
    torch.testing.assert_close(pooled[0, 0], feature_map[0, :, 1:3, 1:3].mean((1, 2)))
    pooled = pool_boxes(feature_map, corner, image_size=128)
    torch.testing.assert_close(pooled[0, 0], feature_map[0, :, 3, 3])
    wide = pool_boxes(feature_map, two_by_two * torch.tensor([2, 1, 2, 1]), image_size=(128, 256))
    torch.testing.assert_close(wide[0, 0], feature_map[0, :, 1:3, 1:3].mean((1, 2)))
    pooled.sum().backward()
    assert feature_map.grad is not None
    assert feature_map.grad[0, :, 3, 3].eq(1).all()
    assert feature_map.grad.sum().item() == pytest.approx(5)


def test_half_precision_maps_keep_their_peak() -> None:
    feature_map = torch.full((1, 64, 2, 2), 100.0, dtype=torch.bfloat16)
    feature_map[0, 0, 1, 0] = 101
    groups = torch.arange(64).reshape(1, 1, 64)
    assert concept_maps(feature_map, groups).flatten().argmax().item() == 2


LOGITS = "logits must be (B, C) with C >= 2 and labels (B,), got "
GROUPS = "classifier_weight must be (C, D), labels (B,) and confusing (B, n) with n >= 1, got "
ONE = {"concepts": 1, "channels": 1, "step": 1}
MAPS = "feature_map must be (B, D, h, w) and groups (B, P, channels), got "
BOXES = "maps must be (B, P, h, w), side > 0 and image_size >= 1, got "
CROPS = "images must be (B, 3, H, W), boxes (B, P, 4) and size >= 1, got "
POOLS = "feature_map must be (B, D, h, w) and boxes (B, P, 4), got "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusing_classes(torch.zeros(2, 1), ints(2), 1), LOGITS + "(2, 1) and (2,)."),
        (lambda: confusing_classes(torch.zeros(2, 3, 4), ints(2), 1), LOGITS + "(2, 3, 4) and (2,)."),
        (lambda: confusing_classes(torch.zeros(2, 3), ints(3), 1), LOGITS + "(2, 3) and (3,)."),
        (lambda: confusing_classes(torch.zeros(2, 3), ints(2), 0), "count must be >= 1, got 0."),
        (
            lambda: channel_groups(torch.zeros(3, 4), ints(2), ints(2, 0), **ONE),
            GROUPS + "(3, 4), (2,) and (2, 0).",
        ),
        (lambda: channel_groups(torch.zeros(3), ints(2), ints(2, 1), **ONE), GROUPS + "(3,), (2,) and (2, 1)."),
        (
            lambda: channel_groups(torch.zeros(3, 4), ints(2, 1), ints(2, 1), **ONE),
            GROUPS + "(3, 4), (2, 1) and (2, 1).",
        ),
        (lambda: channel_groups(torch.zeros(3, 4), ints(2), ints(2), **ONE), GROUPS + "(3, 4), (2,) and (2,)."),
        (
            lambda: channel_groups(torch.zeros(3, 4), ints(2), ints(1, 1), **ONE),
            GROUPS + "(3, 4), (2,) and (1, 1).",
        ),
        (lambda: concept_maps(torch.zeros(2, 3, 4), ints(2, 1, 1)), MAPS + "(2, 3, 4) and (2, 1, 1)."),
        (lambda: concept_maps(torch.zeros(2, 3, 4, 4), ints(2, 1)), MAPS + "(2, 3, 4, 4) and (2, 1)."),
        (lambda: concept_maps(torch.zeros(2, 3, 4, 4), ints(1, 1, 1)), MAPS + "(2, 3, 4, 4) and (1, 1, 1)."),
        (lambda: peak_boxes(torch.zeros(1, 1, 2, 2), image_size=8, side=0), BOXES + "(1, 1, 2, 2), 0 and 8."),
        (lambda: peak_boxes(torch.zeros(1, 1, 2), image_size=8, side=1), BOXES + "(1, 1, 2), 1 and 8."),
        (
            lambda: peak_boxes(torch.zeros(1, 1, 2, 2), image_size=(0, 8), side=1),
            BOXES + "(1, 1, 2, 2), 1 and (0, 8).",
        ),
        (
            lambda: crop_patches(torch.zeros(1, 3, 8, 8), torch.zeros(2, 1, 4), 4),
            CROPS + "(1, 3, 8, 8), (2, 1, 4) and 4.",
        ),
        (lambda: crop_patches(torch.zeros(2, 8, 8), torch.zeros(2, 1, 4), 4), CROPS + "(2, 8, 8), (2, 1, 4) and 4."),
        (lambda: crop_patches(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4), 4), CROPS + "(2, 3, 8, 8), (2, 4) and 4."),
        (
            lambda: crop_patches(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 4), 0),
            CROPS + "(2, 3, 8, 8), (2, 1, 4) and 0.",
        ),
        (
            lambda: pool_boxes(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 3), image_size=8),
            POOLS + "(1, 3, 8, 8) and (1, 1, 3).",
        ),
        (
            lambda: pool_boxes(torch.zeros(1, 8, 8), torch.zeros(1, 1, 4), image_size=8),
            POOLS + "(1, 8, 8) and (1, 1, 4).",
        ),
        (
            lambda: pool_boxes(torch.zeros(1, 3, 8, 8), torch.zeros(1, 4), image_size=8),
            POOLS + "(1, 3, 8, 8) and (1, 4).",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
