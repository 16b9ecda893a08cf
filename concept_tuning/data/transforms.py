"""Augmented training views and the one evaluation view of a picture, on uint8.

Everything here is a pure function: a training view depends on the picture, the settings and a seed
that the caller derives with :func:`image_seed`, so a resumed run sees the same views as an
uninterrupted one whatever the number of loader processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from concept_tuning.config import DataConfig

ViewKind = Literal["strong", "mild"]

ASPECT_RATIOS = (3 / 4, 4 / 3)


def image_seed(run_seed: int, epoch: int, row: int) -> int:
    """Return a well mixed seed in 0..2**63 - 1 for one picture in one epoch, or draw, of one run."""
    return _mixed(run_seed, epoch, row)


def train_views(image: Tensor, kinds: Sequence[ViewKind], *, size: int, config: DataConfig, seed: int) -> Tensor:
    """Draw one augmented view for each kind.

    Section 3.1 of Concept-Tuning (arXiv 2311.06868) takes two strong views for the image-level contrast
    and two milder ones for the concept patches. A view is a random crop of an area share between
    ``strong_scale_min`` or ``mild_scale_min`` and 1 and an aspect ratio between 3/4 and 4/3, resized
    with antialiasing, mirrored in half of the cases if ``horizontal_flip``, and jittered in brightness,
    contrast and saturation if ``color_jitter`` is above 0.

    View v is a function of the picture, its own kind, the settings and (seed, v) alone: neither the other
    views nor torch's global random state has a part in it, and that state is left as it was. The state
    belongs to the process, so threads of one process must not call this at the same time.

    Args:
        image: (3, h, w) uint8.
        kinds: The kind of each of the V views.
        size: Side of the square views, in pixels.
        config: Crop scales, mirroring and jitter.
        seed: Any integer; see :func:`image_seed`.

    Returns:
        (V, 3, size, size) uint8.

    Raises:
        ValueError: The image is not (3, h, w) uint8, no kind is given, or one is unknown.
    """
    _check_image(image)
    if not kinds:
        raise ValueError("kinds is empty; at least one view must be asked for")
    # The CPU generator alone is seeded: torch.manual_seed would also reseed the accelerators'.
    generator = torch.default_generator
    views = []
    with torch.random.fork_rng(devices=[]):
        for number, kind in enumerate(kinds):
            generator.manual_seed(_mixed(seed, number))
            views.append(
                _augmentation(_smallest_share(kind, config), size, config.horizontal_flip, config.color_jitter)(image)
            )
    return torch.stack(views)


def eval_view(image: Tensor, *, size: int) -> Tensor:
    """Resize the short side to ``size`` pixels with antialiasing and cut the central square.

    Args:
        image: (3, h, w) uint8.
        size: Side of the result, in pixels.

    Returns:
        (3, size, size) uint8; nothing about it is random.

    Raises:
        ValueError: The image is not (3, h, w) uint8.
    """
    _check_image(image)
    resized = functional.resize(image, [size], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    return functional.center_crop(resized, [size, size])


@lru_cache(maxsize=16)
def _augmentation(smallest: float, size: int, flip: bool, jitter: float) -> v2.Transform:
    steps: list[v2.Transform] = [v2.RandomResizedCrop(size, scale=(smallest, 1.0), ratio=ASPECT_RATIOS, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if jitter > 0:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


def _smallest_share(kind: str, config: DataConfig) -> float:
    shares = {"strong": config.strong_scale_min, "mild": config.mild_scale_min}
    if kind not in shares:
        raise ValueError(f"a view is 'strong' or 'mild', got {kind!r}")
    return shares[kind]


def _mixed(*numbers: int) -> int:
    text = ",".join(str(int(number)) for number in numbers).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _check_image(image: Tensor) -> None:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected a (3, h, w) uint8 image, got {tuple(image.shape)} {image.dtype}")
