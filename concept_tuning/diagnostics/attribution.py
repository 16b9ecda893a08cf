"""Attribution maps: which parts of a picture speak for a class, for any method and any backbone.

No layer has to be chosen: every :class:`Backbone` ends in a feature map (B, D, h, w), be it convolutional, ViT
or Swin, and that is the layer the class activation maps look at. What is explained is a class's score,
:func:`concept_tuning.diagnostics.features.class_scores`, so all heads that the prediction reads have their part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from concept_tuning.diagnostics.features import BATCH, class_scores, network_input
from concept_tuning.methods.base import Method

#: Class activation maps, which cost one pass through the network for all of them together.
CAMS: tuple[str, ...] = ("grad-cam", "eigen-cam", "eigen-grad-cam")

#: All maps by name; the last two need tens of passes for each picture.
METHODS: tuple[str, ...] = (*CAMS, "integrated-gradients", "occlusion")

#: Pixels whose gradients are computed at once: bounds the memory at any input size.
_PIXELS = 16 * 128 * 128

#: Correlation with the mean activation below which that says nothing about the sign of a principal component.
_SIGN_CORRELATION = 0.1

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within the block a model is in evaluation mode and asks for no gradient of its parameters.

    Modes, ``requires_grad``, gradients, hooks and buffers of all its modules are as before afterwards, also
    after an error. The model is changed meanwhile, so that two threads must not do this to one model at once.
    """
    modes = [(module, module.training) for module in model.modules()]
    hooks = [
        (kept, dict(kept))
        for module in model.modules()
        for name in _HOOKS
        if (kept := getattr(module, name, None)) is not None
    ]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        # Some networks keep computed position biases while evaluating; `train` makes them forget.
        model.train().eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        model.train()
        for module, training in modes:
            module.training = training
        for kept, before in hooks:
            kept.clear()
            kept.update(before)
        _put_buffers_back(buffers)
        for parameter, wanted, gradient in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


@torch.no_grad()
def _put_buffers_back(buffers: Sequence[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for module, name, buffer, value in buffers:
        module._buffers[name] = buffer
        if not torch.equal(buffer, value):
            buffer.copy_(value)


def attribute(
    method: Method,
    images: Tensor,
    targets: Tensor,
    *,
    name: str,
    steps: int = 16,
    window: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """Compute one kind of map; see :func:`attribute_all`. Returns (B, S, S) float32 >= 0, not normalised."""
    return attribute_all(method, images, targets, names=(name,), steps=steps, window=window, stride=stride)[name]


def attribute_all(
    method: Method,
    images: Tensor,
    targets: Tensor,
    *,
    names: Sequence[str] = CAMS,
    feature_map: Tensor | None = None,
    steps: int = 16,
    window: int | None = None,
    stride: int | None = None,
) -> dict[str, Tensor]:
    """Compute several kinds of maps of the same pictures; the class activation maps share one pass.

    - ``grad-cam``: the feature map's channels weighted by their mean gradient (arXiv 1610.02391, equations 1, 2).
    - ``eigen-cam``: the feature map's first principal component over the cells (arXiv 2008.00299); it knows of
      no class. As in the library pytorch-grad-cam, the channels are centred, which the paper leaves out.
    - ``eigen-grad-cam``: the same of gradient times activation, as in pytorch-grad-cam and in figure 1 of
      Concept-Tuning (arXiv 2311.06868).
    - ``integrated-gradients``: arXiv 1703.01365, equation 1, summed over the colours. Costs ``steps``
      gradients, each some three passes.
    - ``occlusion``: the fall of the score when a window is covered (arXiv 1311.2901). Costs a pass for each
      place of the window, 49 by default.

    A principal component has no sign. For ``eigen-cam`` it is chosen so that the component correlates with the
    mean activation, for ``eigen-grad-cam`` with the sum of gradient times activation; where that correlation is
    within 0.1 of zero (layer-normalised features have the same mean in every cell), so that the few cells that
    stand out most are positive. The last two kinds compare with the picture's mean colour, and see
    nothing in pixels that have it.

    Args:
        method: The model. Left as found, also after an error; not for two threads at once.
        images: (B, 3, S, S) uint8.
        targets: (B,) int64 classes whose scores are explained.
        names: Some of :data:`METHODS`.
        feature_map: (B, D, h, w) of the pictures where it is known, which saves the class activation maps' pass.
        steps: Points on the path of integrated gradients, >= 1.
        window: Side of the occluding square in pixels; None: a quarter of the picture's.
        stride: Pixels between its places, at most ``window``; None: half the window.

    Returns:
        (B, S, S) float32 maps by name, >= 0 (what speaks against the class is set to 0), in units of the score
        where it has any, not normalised; see :func:`scale_to_one`. A map may be 0 everywhere. Class
        activation maps are enlarged bilinearly from h x w cells and bleed over edges by up to a cell.

    Raises:
        ValueError: if a name is unknown or the shapes do not fit together.
    """
    _check(images, targets, names)
    size = images.shape[-1]
    window = window or max(1, size // 4)
    stride = stride or max(1, window // 2)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.inference_mode(False), torch.enable_grad(), untouched(method):
        targets = targets.clone()  # may have been made in inference mode, which has no part in gradients
        for start in range(0, len(images), BATCH):
            inputs = network_input(method, images[start : start + BATCH])
            classes = targets[start : start + BATCH]
            known = None if feature_map is None else feature_map[start : start + BATCH].clone()
            cams = _cams(method, inputs, classes, names, feature_map=known)
            raw = {name: _enlarge(cells, size) for name, cells in cams.items()}
            if "integrated-gradients" in names:
                raw["integrated-gradients"] = integrated_gradients(method, inputs, classes, steps=steps).sum(1)
            if "occlusion" in names:
                raw["occlusion"] = occlusion(method, inputs, classes, window=window, stride=stride)
            for name in names:
                found[name].append(raw[name].detach().float().clamp(min=0).cpu())
    return {name: torch.cat(parts) if parts else torch.zeros(0, size, size) for name, parts in found.items()}


def scale_to_one(maps: Tensor) -> Tensor:
    """Divide each map (B, h, w) by its largest value; a map that is 0 everywhere stays so."""
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


def class_activations(
    method: Method, feature_map: Tensor, targets: Tensor, *, names: Sequence[str] = CAMS
) -> dict[str, Tensor]:
    """Compute class activation maps from a feature map (B, D, h, w); see :func:`attribute_all`.

    Returns:
        (B, h, w) by name, with negative values.

    Raises:
        KeyError: There is no such class activation map.
    """
    leaf = feature_map.detach().requires_grad_()
    gradient = torch.zeros_like(feature_map)
    if {"grad-cam", "eigen-grad-cam"} & set(names):
        score = class_scores(method, leaf).gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, leaf)
    maps = {
        "grad-cam": lambda: (gradient.mean((2, 3), keepdim=True) * feature_map).sum(1),
        "eigen-cam": lambda: principal_map(feature_map),
        "eigen-grad-cam": lambda: principal_map(gradient * feature_map),
    }
    with torch.no_grad():
        return {name: maps[name]() for name in names}


@torch.no_grad()
def principal_map(feature_map: Tensor) -> Tensor:
    """Project the cells of each feature map (B, D, h, w) on their first principal component over the cells.

    Returns:
        (B, h, w); its sign is resolved as :func:`attribute_all` says. All zero where all cells are alike.
    """
    cells = feature_map.flatten(2).mT.double()
    centred = cells - cells.mean(1, keepdim=True)
    # The projection A v of the first right singular vector is sigma u, and u an eigenvector of the small A A^T.
    values, vectors = torch.linalg.eigh(centred @ centred.mT)
    projected = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    # Alike up to rounding: what is left has no direction.
    projected = projected * (projected.norm(dim=1) > 1e-6 * cells.flatten(1).norm(dim=1))[:, None]
    mean = centred.mean(2)
    # Rounding errors of equal means must not decide, so the lengths are compared with those of the cells.
    agreement = (projected * mean).sum(1)
    certain = agreement.abs() > _SIGN_CORRELATION * projected.norm(dim=1) * torch.maximum(
        mean.norm(dim=1), 1e-5 * cells.flatten(1).norm(dim=1)
    )
    sign = torch.where(certain, agreement, projected.pow(3).sum(1)).sign()
    return (projected * torch.where(sign < 0, -1.0, 1.0)[:, None]).unflatten(1, feature_map.shape[2:]).float()


def integrated_gradients(method: Method, inputs: Tensor, targets: Tensor, *, steps: int) -> Tensor:
    """Return signed integrated gradients (B, 3, S, S) of normalised inputs, from the picture's mean colour on.

    They sum to the score less that of the picture of the mean colour, up to the error of ``steps`` points.
    """
    explain = IntegratedGradients(lambda images: class_scores(method, method.backbone(images)))
    at_once = max(1, _PIXELS // (inputs.shape[-1] ** 2 * steps))
    parts = [
        explain.attribute(some.requires_grad_(), baselines=_mean_colour(some), target=classes, n_steps=steps)
        for some, classes in zip(inputs.detach().split(at_once), targets.split(at_once), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def occlusion(method: Method, inputs: Tensor, targets: Tensor, *, window: int, stride: int) -> Tensor:
    """Return the fall of the score (B, S, S), averaged over the windows that cover a pixel, negative if it rose."""
    explain = Occlusion(lambda images: class_scores(method, method.backbone(images)))
    falls = explain.attribute(
        inputs,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=_mean_colour(inputs),
        target=targets,
    )
    return falls.mean(1)


def _cams(
    method: Method, inputs: Tensor, targets: Tensor, names: Sequence[str], *, feature_map: Tensor | None
) -> dict[str, Tensor]:
    wanted = [name for name in names if name in CAMS]
    if not wanted:
        return {}
    if feature_map is None:
        with torch.no_grad():
            feature_map = method.backbone(inputs)
    return class_activations(method, feature_map, targets, names=wanted)


def _mean_colour(inputs: Tensor) -> Tensor:
    return inputs.detach().mean(dim=(2, 3), keepdim=True).expand_as(inputs).contiguous()


def _enlarge(maps: Tensor, size: int) -> Tensor:
    """Cut off what is negative, then enlarge: in that order, as in equation 2 of Grad-CAM."""
    enlarged = F.interpolate(
        maps.detach().clamp(min=0)[:, None], size=(size, size), mode="bilinear", align_corners=False
    )
    return enlarged[:, 0]


def _check(images: Tensor, targets: Tensor, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"There are the maps {', '.join(METHODS)}; got {', '.join(unknown)}.")
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.dtype != torch.uint8:
        raise ValueError(f"images must be (B, 3, S, S) uint8, got {tuple(images.shape)} {images.dtype}.")
    if targets.shape != images.shape[:1]:
        raise ValueError(f"targets must be ({len(images)},), got {tuple(targets.shape)}.")
