"""Sanity check of attribution maps: a map that stays when the weights go does not explain them.

Cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv 1810.03292, section 3.1).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from scipy.ndimage import uniform_filter
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from concept_tuning.diagnostics.attribution import CAMS, attribute_all, scale_to_one, untouched
from concept_tuning.diagnostics.features import BATCH, class_probabilities, network_input
from concept_tuning.diagnostics.map_measures import is_blank
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array
from concept_tuning.errors import RunError
from concept_tuning.methods.base import Method
from concept_tuning.models.backbone import Backbone

#: Side in pixels of the window of structural similarity.
_WINDOW = 7


class Stage(NamedTuple):
    """What one step of the cascade randomises."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SanityCheck:
    """How far maps stay the same while the network is randomised from the head downwards.

    The rank correlation should fall towards ``chance``. Caveats: whether maps are normalised, and what is done
    with negative values (here they are 0), changes the numbers; Eigen-CAM knows of no class, so that it cannot
    change with the heads; passing does not make a map faithful.

    Attributes:
        subject: Name of the run.
        keys: The n pictures.
        maps: The M kinds of maps.
        stages: The T steps of the cascade, heads first; each adds to those before it.
        correlation: (M, T, n) Spearman's rank correlation over the pixels with the map of the trained network,
            -1..1; NaN where either map is 0 everywhere.
        similarity: (M, T, n) structural similarity of the maps scaled to a maximum of 1, -1..1; NaN likewise.
        chance: (M,) mean rank correlation of the trained network's maps over all pairs of different pictures; NaN where
            fewer than two maps can be ranked.
        seed: Of the random weights.
    """

    subject: str
    keys: tuple[str, ...]
    maps: tuple[str, ...]
    stages: tuple[str, ...]
    correlation: Array
    similarity: Array
    chance: Array
    seed: int

    @property
    def counts(self) -> np.ndarray:
        """(M, T) number of pictures that have a correlation."""
        return np.isfinite(self.correlation).sum(2)

    @property
    def mean_correlation(self) -> np.ndarray:
        """(M, T) mean rank correlation over those pictures; NaN where there are none."""
        return _mean(self.correlation)


def check_sanity(
    subject: Subject,
    pictures: Pictures,
    *,
    maps: Sequence[str] = CAMS,
    stages: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SanityCheck:
    """Randomise a copy of a run's network step by step and compare its maps with the original ones.

    The class explained is the one that the trained network predicts. Costs ``stages + 2`` passes for each
    picture with class activation maps; a few tens of pictures are enough.

    Args:
        subject: The run; its model is left as found.
        pictures: At least two pictures.
        maps: Some of :data:`concept_tuning.diagnostics.attribution.METHODS`.
        stages: Steps the backbone is divided into, >= 1, after one for the heads.
        seed: Of the random weights.
        progress: Told of the steps done, and of how many there are.

    Raises:
        RunError: if there are fewer than two pictures.
    """
    check_enough(pictures)
    images = pictures.images(range(len(pictures)), subject.image_size)
    with untouched(subject.method):
        twin = copy.deepcopy(subject.method).eval()
    targets = _predicted(twin, images)
    original = {name: found.numpy() for name, found in attribute_all(twin, images, targets, names=maps).items()}
    generator = torch.Generator().manual_seed(seed)
    cascade = randomisation_stages(twin, count=stages)
    correlation = np.full((len(maps), len(cascade), len(images)), np.nan)
    similarity = correlation.copy()
    done: list[str] = []
    drawn = images[calibration_places(len(images), seed=seed)]
    for step, stage in enumerate(cascade):
        done += stage.parameters
        randomise(twin, stage.parameters, generator)
        recalibrate(twin, drawn, done)
        for row, (name, found) in enumerate(attribute_all(twin, images, targets, names=maps).items()):
            correlation[row, step] = rank_correlation(original[name], found.numpy())
            similarity[row, step] = structural_similarity(original[name], found.numpy())
        progress(step + 1, len(cascade))
    return SanityCheck(
        subject=subject.name,
        keys=pictures.keys,
        maps=tuple(maps),
        stages=tuple(stage.name for stage in cascade),
        correlation=correlation,
        similarity=similarity,
        chance=np.array([likeness_of_different(original[name]) for name in maps]),
        seed=seed,
    )


def calibration_places(count: int, *, seed: int) -> list[int]:
    """Return places of at most :data:`BATCH` of so many pictures, drawn over all, for :func:`recalibrate`.

    The first ones may all be of one class.
    """
    return sorted(np.random.default_rng(seed).permutation(count)[:BATCH].tolist())


def check_enough(pictures: Pictures) -> None:
    """Refuse a single picture: batch norms of random weights cannot be fitted to it, nor maps be compared."""
    if len(pictures) < 2:
        raise RunError("At least two pictures are needed to compare attribution maps with those of random weights.")


def randomised_copy(method: Method, images: Tensor, *, seed: int) -> Method:
    """Return a copy of a model in which every weight is random: :func:`randomise` of all that prediction uses.

    Args:
        method: The model; it is not changed.
        images: (B, 3, S, S) uint8 pictures for :func:`recalibrate`, B >= 2.
        seed: Of the weights.
    """
    with untouched(method):
        twin = copy.deepcopy(method).eval()
    names = _parameter_names(twin)
    randomise(twin, names, torch.Generator().manual_seed(seed))
    recalibrate(twin, images, names)
    return twin


def randomisation_stages(method: Method, *, count: int = 4) -> tuple[Stage, ...]:
    """Divide what prediction uses into steps from the head to the first layer: the heads, then the backbone.

    The backbone's parts are found by the order in which its layers run, for any family: the children of its
    sequences of blocks, in at most ``count`` runs of about as many parts each. Every parameter is in one step.
    """
    names = _parameter_names(method)
    prefix = "backbone.network."
    heads = tuple(name for name in names if not name.startswith("backbone."))
    waiting = [name for name in names if name.startswith("backbone.")]
    units = _units_in_order(method.backbone)
    stages = [Stage("heads", heads)]
    groups = [list(group) for group in np.array_split(np.array(units, dtype=object), min(count, len(units)))]
    for position, group in reversed(list(enumerate(groups))):
        within = tuple(f"{prefix}{unit}." for unit in group)
        # What no layer of its own owns (class token, position embedding) comes with the first layers.
        parameters = tuple(name for name in waiting if position == 0 or name.startswith(within))
        waiting = [name for name in waiting if name not in set(parameters)]
        name = group[0] if len(group) == 1 else f"{group[-1]} to {group[0]}"
        stages.append(Stage(name, parameters))
    return tuple(stages)


@torch.no_grad()
def randomise(model: nn.Module, names: Sequence[str], generator: torch.Generator) -> None:
    """Draw parameters anew, each from a normal distribution of its own mean and standard deviation.

    So the scale of every layer stays while what it learnt goes; a parameter of equal numbers, such as the weight
    of a norm that was never trained, stays as it is.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        parameter = parameters[name]
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.copy_(drawn * parameter.std(correction=0) + parameter.mean())


@torch.no_grad()
def recalibrate(method: Method, images: Tensor, names: Sequence[str]) -> None:
    """Estimate the running statistics of those batch norms anew whose weights are among ``names``.

    Statistics of the old weights do not fit random ones: signals would grow or vanish from layer to layer.
    """
    prefixes = {name.rpartition(".")[0] for name in names}
    norms = [
        module
        for name, module in method.named_modules()
        if name in prefixes and isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    method.backbone(network_input(method, images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation (n,) over the pixels of maps (n, S, S), ties at their mean rank.

    NaN where a map is 0 everywhere or has one value alone.
    """
    centred = [_centred_ranks(maps) for maps in (first, second)]
    lengths = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    usable = (lengths > 0) & ~is_blank(first) & ~is_blank(second)
    return np.where(usable, (centred[0] * centred[1]).sum(1) / np.where(usable, lengths, 1), np.nan)


def likeness_of_different(maps: np.ndarray) -> float:
    """Return the mean of :func:`rank_correlation` over all pairs of different maps of (n, S, S) that can be ranked.

    NaN where there are fewer than two of these.
    """
    centred = _centred_ranks(maps)
    lengths = np.sqrt((centred**2).sum(1))
    usable = (lengths > 0) & ~is_blank(maps)
    count = int(usable.sum())
    if count < 2:
        return float("nan")
    unit = centred[usable] / lengths[usable, None]
    # the sum of all vectors, squared, is the sum over all pairs, each map with itself (1 each) among them
    return float((np.sum(unit.sum(0) ** 2) - count) / (count * (count - 1)))


def _centred_ranks(maps: np.ndarray) -> np.ndarray:
    """Return the ranks (n, S * S) of the pixels of maps (n, S, S) less their mean, ties at their mean rank."""
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
    return ranks - ranks.mean(1, keepdims=True)


def structural_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the structural similarity (n,) of maps (n, S, S) scaled to a maximum of 1.

    Wang et al. (IEEE Transactions on Image Processing 13, 2004), equation 13, over even windows of 7 pixels (or the
    whole map, if smaller), averaged over the windows that lie inside. NaN where a map is 0 everywhere.
    """
    side = min(_WINDOW, first.shape[-1])
    margin = slice(side // 2, first.shape[-1] - (side - 1) // 2)
    x, y = (scale_to_one(torch.from_numpy(maps).double()).numpy() for maps in (first, second))

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=(1, side, side))[:, margin, margin]

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    small, smaller = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + small) * (2 * covariance + smaller)
    index /= (mean_x**2 + mean_y**2 + small) * (variances + smaller)
    return np.where(is_blank(first) | is_blank(second), np.nan, index.mean((1, 2)))


def _parameter_names(method: Method) -> list[str]:
    """Return the names of the parameters that prediction uses."""
    parts = tuple(f"{part}." for part in method.inference_modules())
    return [name for name, _ in method.named_parameters() if name.startswith(parts)]


def _units_in_order(backbone: Backbone) -> list[str]:
    """Return the parts of the network in the order in which they first run; blocks of a sequence are parts."""
    network = backbone.network
    ran: list[str] = []
    owners = {
        name: module
        for name, module in network.named_modules()
        if name and next(module.parameters(False), None) is not None
    }
    parameter = next(network.parameters())
    blank = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=parameter.device)
    with untouched(backbone), torch.no_grad():
        for name, module in owners.items():
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: ran.append(name))
        backbone(blank)

    def unit(name: str) -> str:
        top, _, rest = name.partition(".")
        sequence = isinstance(network.get_submodule(top), nn.Sequential | nn.ModuleList)
        return f"{top}.{rest.partition('.')[0]}" if sequence and rest else top

    return list(dict.fromkeys(unit(name) for name in ran))


@torch.no_grad()
def _predicted(method: Method, images: Tensor) -> Tensor:
    parts = [
        class_probabilities(method, method.backbone(network_input(method, some))).argmax(1)
        for some in images.split(BATCH)
    ]
    return torch.cat(parts)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the finite values; NaN where there are none."""
    finite = np.isfinite(values)
    count = finite.sum(-1)
    return np.where(count > 0, np.where(finite, values, 0).sum(-1) / np.maximum(count, 1), np.nan)
