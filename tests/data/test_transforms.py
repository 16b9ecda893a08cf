from __future__ import annotations

import numpy as np
import pytest
import torch

from concept_tuning.config import DataConfig
from concept_tuning.data.transforms import eval_view, image_seed, train_views

PLAIN = DataConfig(strong_scale_min=1.0, mild_scale_min=1.0, horizontal_flip=False)
FOUR = ("strong", "strong", "mild", "mild")


def picture(height: int = 60, width: int = 80, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def triangle_weights(source: int, target: int) -> np.ndarray:
    """(target, source) antialiased bilinear weights: a triangle as wide as the step, cut at the border."""
    step = source / target
    reach = max(step, 1.0)
    centres = (np.arange(target) + 0.5) * step
    weights = np.clip(1 - np.abs(np.arange(source)[None] + 0.5 - centres[:, None]) / reach, 0, None)
    return weights / weights.sum(1, keepdims=True)


def slow_eval_view(image: np.ndarray, size: int) -> np.ndarray:
    _, height, width = image.shape
    short = min(height, width)
    tall, wide = int(size * height / short), int(size * width / short)
    rows, columns = triangle_weights(height, tall), triangle_weights(width, wide)
    resized = np.einsum("yh,chw,xw->cyx", rows, image.astype(np.float64), columns)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    return resized[:, top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(60, 80), (91, 64), (40, 40), (20, 33)])
def test_eval_view_is_the_antialiased_resize_and_the_central_square(shape):
    image = picture(*shape)
    view = eval_view(image, size=40)
    # two roundings to whole grey levels, one for each direction
    assert np.abs(view.numpy() - slow_eval_view(image.numpy(), 40)).max() <= 1.001


def test_eval_view_of_a_picture_at_size_only_crops():
    image = picture(40, 64)
    assert torch.equal(eval_view(image, size=40), image[:, :, 12:52])
    assert torch.equal(eval_view(image[:, :, :40], size=40), image[:, :, :40])


def test_eval_view_does_not_depend_on_memory_layout_or_on_random_state():
    image = picture()
    interleaved = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    state = torch.get_rng_state()
    assert torch.equal(eval_view(image, size=48), eval_view(interleaved, size=48))
    assert torch.equal(torch.get_rng_state(), state)


def test_views_are_a_pure_function_of_their_arguments():
    image = picture()
    before = image.clone()
    interleaved = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    jittered = DataConfig(color_jitter=0.4)
    torch.manual_seed(1)
    first = train_views(image, FOUR, size=32, config=jittered, seed=11)
    torch.manual_seed(2)
    assert torch.equal(first, train_views(image, FOUR, size=32, config=jittered, seed=11))
    assert torch.equal(first, train_views(interleaved, FOUR, size=32, config=jittered, seed=11))
    assert not torch.equal(first, train_views(image, FOUR, size=32, config=jittered, seed=12))
    assert torch.equal(image, before)


def test_global_random_states_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    train_views(picture(), FOUR, size=32, config=DataConfig(color_jitter=0.5), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_no_accelerator_is_reseeded(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seen.append)
    train_views(picture(), FOUR, size=32, config=DataConfig(), seed=3)
    assert seen == []


def test_random_state_comes_back_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="'strong' or 'mild', got 'weak'"):
        train_views(picture(), ("strong", "weak"), size=32, config=DataConfig(), seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_view_depends_on_its_own_number_alone():
    image = picture()
    four = train_views(image, FOUR, size=32, config=DataConfig(), seed=3)
    assert torch.equal(four[:2], train_views(image, FOUR[:2], size=32, config=DataConfig(), seed=3))
    other = train_views(image, ("mild", "strong", "strong", "mild"), size=32, config=DataConfig(), seed=3)
    assert torch.equal(four[[1, 3]], other[[1, 3]])
    assert not torch.equal(four[0], four[1])
    assert not torch.equal(four[0], other[0])


def test_a_crop_of_everything_is_the_plain_resize():
    image = picture(32, 32)
    views = train_views(image, ("strong", "mild"), size=32, config=PLAIN, seed=0)
    # whole area, but a ratio other than 1 does not fit and torchvision falls back to the whole square
    assert all(torch.equal(view, image) for view in views)


def test_half_of_the_views_are_mirrored_where_asked():
    image = picture(32, 32)
    config = DataConfig(strong_scale_min=1.0, horizontal_flip=True)
    views = [train_views(image, ("strong",), size=32, config=config, seed=seed)[0] for seed in range(200)]
    mirrored = sum(torch.equal(view, image.flip(-1)) for view in views)
    assert mirrored + sum(torch.equal(view, image) for view in views) == 200
    assert 72 <= mirrored <= 128  # binomial(200, 1/2): deviation 7.1, four of them either side


def crop_areas(kind, config, count=150):
    """Area shares of crops, read from the slopes of a picture of coordinates."""
    ramp = np.linspace(0, 255, 256, dtype=np.float64)
    image = np.stack([np.tile(ramp, (256, 1)), np.tile(ramp[:, None], (1, 256)), np.zeros((256, 256))]).astype(np.uint8)
    areas = []
    for seed in range(count):
        view = train_views(torch.from_numpy(image), (kind,), size=32, config=config, seed=seed)[0].double()
        wide = (view[0, 16, 30] - view[0, 16, 1]).abs() / 29 * 32 / 256
        tall = (view[1, 30, 16] - view[1, 1, 16]).abs() / 29 * 32 / 256
        areas.append(float(wide * tall))
    return np.array(areas)


def reference_areas(smallest, count=20_000):
    """Crops by their definition: uniform area, log-uniform ratio, drawn again while they do not fit."""
    rng = np.random.default_rng(0)
    area = rng.uniform(smallest, 1, count)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    return area[(area * ratio <= 1) & (area / ratio <= 1)]


@pytest.mark.parametrize(("kind", "smallest"), [("strong", 0.2), ("mild", 0.5)])
def test_crops_keep_to_their_area_shares(kind, smallest):
    areas = crop_areas(kind, DataConfig(strong_scale_min=0.2, mild_scale_min=0.5))
    expected = reference_areas(smallest)
    assert smallest - 0.02 < areas.min() < smallest + 0.05
    assert 0.85 < areas.max() < 1.03
    assert abs(areas.mean() - expected.mean()) < 4 * expected.std() / np.sqrt(len(areas))


def test_jitter_changes_colours_only_where_asked():
    grey = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    plain = train_views(grey, FOUR, size=32, config=DataConfig(), seed=1)
    jittered = train_views(grey, FOUR, size=32, config=DataConfig(color_jitter=0.4), seed=1)
    assert (plain == 100).all()
    levels = jittered.flatten(1).unique(dim=1)
    assert len(levels[:, 0].unique()) > 1
    assert ((levels >= 59) & (levels <= 141)).all()  # brightness 0.6..1.4; a grey picture has no contrast


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_other_images_are_refused(bad):
    with pytest.raises(ValueError, match=r"expected a \(3, h, w\) uint8 image, got"):
        eval_view(bad, size=8)
    with pytest.raises(ValueError, match=r"expected a \(3, h, w\) uint8 image, got"):
        train_views(bad, ("strong",), size=8, config=DataConfig(), seed=0)


def test_no_view_asked_for_is_refused():
    with pytest.raises(ValueError, match="kinds is empty"):
        train_views(picture(), (), size=8, config=DataConfig(), seed=0)


def test_image_seeds_differ_and_mix():
    seeds = {image_seed(run, epoch, row) for run in range(4) for epoch in range(20) for row in range(50)}
    assert len(seeds) == 4000
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert image_seed(1, 23, 4) != image_seed(12, 3, 4)
    assert image_seed(1, 2, 3) == image_seed(np.int64(1), np.int64(2), np.int64(3))
    ones = np.array([[(seed >> bit) & 1 for bit in range(63)] for seed in seeds]).mean(0)
    assert np.abs(ones - 0.5).max() < 0.04  # binomial(4000, 1/2): five deviations


def test_image_seed_is_the_same_in_every_version():
    # a resumed run must see the views of the interrupted one
    assert image_seed(0, 0, 0) == 9169699564768075551
    assert image_seed(7, 3, 1234) == 6289187708407542552
