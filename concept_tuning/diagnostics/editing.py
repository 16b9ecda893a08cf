"""Pictures with another background, a blurred one, or without their object; pure functions of batches.

Unless said otherwise, pictures are float32 or uint8 (B, 3, H, W) with values 0..255, masks (B, H, W) bool.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

OTHER_CLASS, SAME_CLASS, BLURRED, REMOVED = "other class", "same class", "blurred", "object removed"
#: What is done to a picture: background of a picture of another class, of its own class, own one blurred,
#: own one without the object.
EDITS = (OTHER_CLASS, SAME_CLASS, BLURRED, REMOVED)
#: Pixels around an object that are not taken as background: its antialiased edge, as a share of the picture's side.
EDGE_FRACTION = 1 / 64
#: Deviation of the background blur, as a share of the picture's side.
BLUR_FRACTION = 1 / 16
#: Weight below which an average is taken as unknown.
_UNKNOWN = 1e-6


def background(images: Tensor, objects: Tensor) -> Tensor:
    """Return pictures without their object, its hole filled from the background around it.

    A rim of the object's edge belongs to the hole, so that no colour of the object is left. The filling is
    smooth, so that a silhouette may still be guessed from missing texture.

    Args:
        images: (B, 3, H, W), values 0..255.
        objects: (B, H, W) bool.

    Returns:
        (B, 3, H, W) uint8. A picture that is all object has no background; see :func:`has_background`.
    """
    return to_bytes(fill_holes(images.float(), grow(objects)))


def edit_pictures(images: Tensor, objects: Tensor, other: Tensor, same: Tensor) -> Tensor:
    """Return pictures edited in all ways of :data:`EDITS`, (len(EDITS), B, 3, H, W) uint8.

    In all but the last, the object's pixels stay exactly as they are.

    Args:
        images: (B, 3, H, W) uint8.
        objects: (B, H, W) bool.
        other: (B, 3, H, W) uint8 backgrounds of other classes.
        same: (B, 3, H, W) uint8 backgrounds of the same class.
    """
    empty = background(images, objects)
    swapped = [swap_background(images, objects, donor) for donor in (other, same, blur(empty))]
    return torch.stack([*swapped, empty])


def has_background(objects: Tensor) -> Tensor:
    """Return (B,) bool: whether there is an object and something around it, for masks (B, H, W)."""
    return objects.flatten(1).any(1) & ~grow(objects).flatten(1).all(1)


def swap_background(images: Tensor, objects: Tensor, backgrounds: Tensor) -> Tensor:
    """Put objects before other backgrounds, all uint8 (B, 3, H, W); the object's pixels stay exactly as they are."""
    return torch.where(objects[:, None], images, backgrounds)


def blur(images: Tensor) -> Tensor:
    """Return uint8 pictures blurred by a Gaussian of deviation :data:`BLUR_FRACTION` of the side."""
    sigma = max(images.shape[-2:]) * BLUR_FRACTION
    reach = min(int(3 * sigma), min(images.shape[-2:]) - 1)
    width = 2 * reach + 1
    across = transforms.gaussian_blur(images.float(), [width, 1], [sigma, sigma])  # one axis at a time is far quicker
    return to_bytes(transforms.gaussian_blur(across, [1, width], [sigma, sigma]))


def grow(objects: Tensor) -> Tensor:
    """Return masks (B, H, W) grown by :data:`EDGE_FRACTION` of the side, at least a pixel, in all directions."""
    margin = max(1, round(max(objects.shape[-2:]) * EDGE_FRACTION))
    return F.max_pool2d(objects[:, None].float(), 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0


def fill_holes(images: Tensor, holes: Tensor) -> Tensor:
    """Fill holes by normalised convolution over a pyramid: averages of what is known, from fine to coarse.

    Known pixels are averaged into halved pictures until everything is known; on the way back, unknown pixels
    are read from the coarser picture, bilinearly (the pull-push of Gortler et al., The Lumigraph, SIGGRAPH
    1996; normalised convolution: Knutsson and Westin, CVPR 1993). Known pixels stay as they are. Where
    nothing is known at all, the result is 0.

    Args:
        images: (B, C, H, W) floating point.
        holes: (B, H, W) bool, the unknown pixels.

    Returns:
        (B, C, H, W), within the range of the known values of each channel.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if images.ndim != 4 or holes.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"images must be (B, C, H, W) and holes (B, H, W), got {tuple(images.shape)} and {tuple(holes.shape)}"
        )
    return _filled(images.where(~holes[:, None], 0.0), (~holes[:, None]).to(images.dtype))


def draw_donors(
    labels: np.ndarray, donor_labels: np.ndarray, usable: np.ndarray, *, own: np.ndarray, seed: int
) -> np.ndarray:
    """Draw a donor of another class and one of the same class for every picture.

    Args:
        labels: (n,) int64 classes of the pictures.
        donor_labels: (m,) int64 classes of the donors.
        usable: (m,) bool, donors that can be drawn.
        own: (n,) int64, the donor that is the picture itself, which is not drawn; -1 for none.
        seed: Of the draws.

    Returns:
        (n, 2) int64 donors, each drawn uniformly from those that fit; -1 where there is none.
    """
    same = donor_labels == labels[:, None]
    allowed = usable & (np.arange(len(donor_labels)) != own[:, None])
    keys = np.random.default_rng(seed).random((2, *same.shape))
    fits = np.stack([~same & allowed, same & allowed])
    drawn = np.where(fits, keys, -1.0).argmax(2) if same.shape[1] else np.zeros((2, len(labels)), dtype=np.int64)
    return np.where(fits.any(2), drawn, -1).T


def paste_patches(hosts: Tensor, sources: Tensor, boxes: Tensor) -> Tensor:
    """Return hosts with the sources' pixels inside the boxes, at the same place.

    Args:
        hosts: (B, 3, H, W).
        sources: (B, 3, H, W).
        boxes: (B, 4) as (x1, y1, x2, y2) in pixels; a pixel is inside where its centre is.
    """
    x, y = (torch.arange(size) + 0.5 for size in (hosts.shape[3], hosts.shape[2]))
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    columns, rows = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], sources, hosts)


def to_bytes(images: Tensor) -> Tensor:
    """Round pictures with values 0..255 to uint8."""
    return images.round().clamp(0, 255).to(torch.uint8)


def _filled(values: Tensor, known: Tensor) -> Tensor:
    """Fill where ``known`` (B, 1, H, W) is 0; ``values`` are 0 there."""
    height, width = values.shape[2:]
    if max(height, width) == 1 or bool((known > _UNKNOWN).all()):
        return values
    odd = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(known, odd), 2)
    mean = F.avg_pool2d(F.pad(values * known, odd), 2) / share.clamp_min(_UNKNOWN)
    # what is known at all counts in full at the coarser level, so that thin rims reach as far as wide ones
    coarse = _filled(mean.where(share > _UNKNOWN, 0.0), (share > _UNKNOWN).to(values.dtype))
    guess = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]
    return values.where(known > _UNKNOWN, guess)
