"""How often pre-training saw a concept, read from what the pre-trained network kept of its data.

The last batch norm keeps each channel's mean and variance over the pre-training data. With them a target activation
x becomes z = (x - mean) / deviation, in pre-training units, and a level z had the source probability 1 - Phi(z).
Caveats: the tails are taken as Gaussian; the probability is that of one patch, not of a picture, and holds for the
picture size and crops of pre-training; single channels only, without their covariances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from scipy.stats import norm
from torch import Tensor, nn

from concept_tuning.data.decode import UnreadableImage, decode_image
from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.features import BATCH
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.results import RESULT, Array, Unavailable
from concept_tuning.errors import ConfigError, DataError, WeightsError
from concept_tuning.models.backbone import Backbone, build_backbone, last_batch_norm

_ANALYSIS = "source frequency"

#: What follows the last batch norm on the way to the feature map.
Link = Literal["none", "relu", "relu6", "other"]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SourceFrequency:
    """How often pre-training saw each of K concepts above its level.

    Attributes:
        frequency: (K,) probability 0..1 for one patch.
        basis: ``last batch norm`` or ``source-like pictures``.
        note: What to bear in mind, for the user.
    """

    frequency: Array
    basis: str
    note: str


@plain_dataclass(frozen=True, eq=False, kw_only=True)
class PretrainedMaps:
    """What the pre-trained network makes of n pictures.

    Attributes:
        maps: (n, D, h, w) float32 feature maps.
        standardised: (n, D, h, w) float32 inputs of the last batch norm in pre-training units, signed so that more
            is more activation, 0 for a channel of scale 0; None where there is no usable batch norm. The deviation
            is the batch norm's, with its epsilon.
        floor: (D,) value of ``standardised`` below which the ReLU after the batch norm is silent; -inf without one.
        link: What follows the batch norm.
        missing: Why ``standardised`` is None.
    """

    maps: np.ndarray
    standardised: np.ndarray | None
    floor: np.ndarray
    link: Link
    missing: Unavailable | None


def build_pretrained(subject: Subject, *, analysis: str) -> Backbone | Unavailable:
    """Build the network a run began with, with its pre-trained weights, in evaluation mode.

    Args:
        subject: The run.
        analysis: What the network is wanted for, to be said where the run began at random or the weights are gone.
    """
    config = subject.run.config
    if config.method == "scratch" or config.backbone.weights == "random":
        return Unavailable(
            analysis=analysis,
            reason=f"{subject.name} began with random weights: there is no pre-trained network to look at.",
        )
    try:
        with torch.random.fork_rng(devices=[]):
            return build_backbone(config.backbone, image_size=subject.image_size).eval()
    except (WeightsError, ConfigError) as error:
        return Unavailable(
            analysis=analysis, reason=f"The pre-trained weights of {subject.name} cannot be loaded: {error}"
        )


def pretrained_maps(
    backbone: Backbone,
    images: Callable[[range], Tensor],
    count: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PretrainedMaps:
    """Run pictures through a pre-trained network and read its last batch norm's input.

    Args:
        backbone: The network; left as found.
        images: Gives the pictures of a range of places, (b, 3, S, S) uint8.
        count: Number of pictures, >= 1.
        progress: Called with the number of pictures done and of all.
    """
    layer = last_batch_norm(backbone)
    caught: list[Tensor] = []
    maps: list[np.ndarray] = []
    inputs: list[np.ndarray] = []
    with _evaluating(backbone), torch.inference_mode(), _catching(layer, caught):
        for start in range(0, count, BATCH):
            batch = images(range(start, min(start + BATCH, count)))
            normalised = backbone.normalise(batch).contiguous(memory_format=torch.channels_last)
            maps.append(backbone(normalised).contiguous().numpy())
            if layer is not None:
                inputs.append(caught.pop().contiguous().numpy())
                caught.clear()
            progress(start + len(batch), count)
    return _standardise(layer, np.concatenate(maps), inputs)


def batch_norm_frequency(levels: np.ndarray, *, deviations: np.ndarray | float = 1.0) -> np.ndarray:
    """Return 1 - Phi(level / deviation): how often a patch of the pre-training data was above each level.

    Args:
        levels: (K,) in pre-training units.
        deviations: (K,) standard deviation that the concept has in those units: 1 for a single channel, see
            :func:`group_deviations` for the mean of several.
    """
    return norm.sf(np.asarray(levels, np.float64) / deviations)


def group_deviations(standardised: np.ndarray, weights: np.ndarray, *, independent: bool = False) -> np.ndarray:
    """Return the standard deviation in the source of weighted sums of channels, each of variance 1 there.

    The batch norm kept no covariances. Taking the channels as independent makes a group of channels that fire
    together look far rarer than it was; by default their correlations in the target pictures stand in.

    Args:
        standardised: (n, D, h, w) in pre-training units.
        weights: (K, D).
        independent: Take the channels as independent.

    Returns:
        (K,) float64 > 0.
    """
    weights = weights * (standardised != 0).any((0, 2, 3))  # a channel that the batch norm switches off has none
    if independent:
        variance = (weights.astype(np.float64) ** 2).sum(1)
    else:
        correlation = channel_correlation(standardised)
        variance = np.einsum("kd,kd->k", weights @ correlation, weights, dtype=np.float64)
    return np.sqrt(np.maximum(variance, np.finfo(np.float32).tiny))


def channel_correlation(maps: np.ndarray) -> np.ndarray:
    """Return the (D, D) float32 correlation of channels over all patches of (n, D, h, w) maps; 0 for constant ones."""
    patches = maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1).astype(np.float32)
    patches = patches - patches.mean(1, keepdims=True)
    length = np.linalg.norm(patches, axis=1, keepdims=True)
    patches = np.divide(patches, length, out=np.zeros_like(patches), where=length > 0)
    correlation = patches @ patches.T
    np.fill_diagonal(correlation, 1.0)
    return correlation


def picture_frequency(concept_maps: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the share of patches of (n, K, h, w) concept maps above each level, (K,)."""
    return (concept_maps > levels[:, None, None]).mean((0, 2, 3), dtype=np.float64)


def folder_images(folder: Path, *, size: int, limit: int = 1000, max_pixels: int = 178_956_970) -> Tensor:
    """Read up to ``limit`` source-like pictures, spread evenly over a folder's sorted files, (n, 3, size, size) uint8.

    Unreadable files are passed over; raises :class:`DataError` if none is left.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    found: list[Tensor] = []
    for place in np.linspace(0, len(files) - 1, min(limit, len(files))).round().astype(int):
        try:
            pixels = decode_image(files[place], max_pixels=max_pixels)
        except UnreadableImage:
            continue
        found.append(eval_view(torch.from_numpy(pixels.copy()).permute(2, 0, 1), size=size))
    if not found:
        raise DataError(f"{folder} holds no readable picture; name a folder of pictures like those of pre-training.")
    return torch.stack(found)


def _standardise(layer: nn.Module | None, maps: np.ndarray, inputs: list[np.ndarray]) -> PretrainedMaps:
    floor = np.full(maps.shape[1], -np.inf, np.float32)
    missing = _unusable(layer, maps, inputs)
    if missing is not None:
        return PretrainedMaps(maps=maps, standardised=None, floor=floor, link="other", missing=missing)
    norm_layer: Any = layer
    mean = norm_layer.running_mean.float().numpy()
    deviation = (norm_layer.running_var.double() + norm_layer.eps).sqrt().float().numpy()
    scale = np.ones_like(mean) if norm_layer.weight is None else norm_layer.weight.detach().float().numpy()
    shift = np.zeros_like(mean) if norm_layer.bias is None else norm_layer.bias.detach().float().numpy()
    sign = np.sign(scale)  # 0 for a channel that the batch norm switches off: it never varies
    z = (np.concatenate(inputs) - mean[:, None, None]) * (sign / deviation)[:, None, None]
    link = _link(maps[:BATCH], z[:BATCH] * np.abs(scale)[:, None, None] + shift[:, None, None])
    if link in ("relu", "relu6"):
        floor = np.divide(-shift, np.abs(scale), out=floor, where=scale != 0)
    return PretrainedMaps(maps=maps, standardised=z, floor=floor, link=link, missing=None)


def _link(maps: np.ndarray, output: np.ndarray) -> Link:
    """Return what leads from the batch norm's output to the feature map."""
    tolerance = 1e-3 * max(1.0, float(np.abs(output).max()))
    known: dict[Link, np.ndarray] = {
        "none": output,
        "relu": np.maximum(output, 0),
        "relu6": np.clip(output, 0, 6),
    }
    for name, expected in known.items():
        if np.abs(maps - expected).max() <= tolerance:
            return name
    return "other"


def _unusable(layer: nn.Module | None, maps: np.ndarray, inputs: list[np.ndarray]) -> Unavailable | None:
    advice = "Name a folder of pictures like those of pre-training (source_folder) to count them instead."
    if layer is None:
        return Unavailable(
            analysis=_ANALYSIS,
            reason=f"The network has no batch norm, so it kept no statistics of its pre-training data. {advice}",
        )
    statistics: Any = layer
    if statistics.running_mean is None:
        return Unavailable(analysis=_ANALYSIS, reason=f"The last batch norm keeps no running statistics. {advice}")
    if inputs[0].shape[1:] != maps.shape[1:]:
        return Unavailable(
            analysis=_ANALYSIS,
            reason="The last batch norm does not have the feature map's channels and cells "
            f"({inputs[0].shape[1:]} and {maps.shape[1:]}). {advice}",
        )
    if not statistics.running_mean.any() and bool((statistics.running_var == 1).all()):
        return Unavailable(
            analysis=_ANALYSIS,
            reason=f"The last batch norm has never been trained: its statistics are 0 and 1. {advice}",
        )
    return None


@contextmanager
def _catching(layer: nn.Module | None, caught: list[Tensor]) -> Iterator[None]:
    """Within the block what goes into the layer is appended to ``caught``."""
    if layer is None:
        yield
        return
    handle = layer.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within the block the module is in evaluation mode; every part's mode is put back after it."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
