"""The same function in fewer operations: batch norms of a network in evaluation mode folded into their convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from concept_tuning.models.backbone import Backbone

#: Largest difference from the network's own feature map that rounding explains, as a share of the map's largest value.
_ROUNDING = 1e-3


def fold_batch_norms(backbone: Backbone) -> Backbone:
    """Return a copy for inference that gives the same feature maps, up to rounding, in less time.

    A batch norm in evaluation mode is linear, so where it reads a convolution alone the two are one convolution
    (B. Jacob et al., CVPR 2018, arXiv 1712.05877, section 3.2). Which they are is seen in a dry run, and the copy
    is tried against the network; where it differs by more than rounding, an unfolded copy is returned.

    Args:
        backbone: The network; left as found. A network without batch norms has nothing to fold.

    Returns:
        A copy in evaluation mode, its weights channels last, that takes no part in training.
    """
    # weights made in inference mode could have no part in the gradients of explanations
    with torch.inference_mode(False), torch.no_grad():
        plain = copy.deepcopy(backbone).eval().requires_grad_(False)
        folded = copy.deepcopy(plain)
        for norm, convolution in _pairs(folded):
            _fold(folded, norm=norm, convolution=convolution)
        return (folded if _alike(plain, folded) else plain).to(memory_format=torch.channels_last)


def _pairs(backbone: Backbone) -> list[tuple[str, str]]:
    """Return the names of batch norms and of the convolutions that they read, found in a dry run."""
    made: list[tuple[Tensor, str]] = []
    pairs: list[tuple[str, str]] = []

    def note(name: str) -> Iterator[torch.utils.hooks.RemovableHandle]:
        module = backbone.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            yield module.register_forward_hook(lambda _module, _inputs, output: made.append((output, name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            yield module.register_forward_pre_hook(
                lambda _module, inputs: pairs.extend((name, maker) for output, maker in made if output is inputs[0])
            )

    handles = [handle for name, _ in backbone.named_modules() for handle in note(name)]
    try:
        backbone(torch.zeros(1, 3, backbone.image_size, backbone.image_size))
    finally:
        for handle in handles:
            handle.remove()
    # a layer that runs twice is not one linear step
    norms, makers = [norm for norm, _ in pairs], [maker for _, maker in made]
    return [(norm, maker) for norm, maker in pairs if norms.count(norm) == makers.count(maker) == 1]


def _fold(backbone: Backbone, *, norm: str, convolution: str) -> None:
    old, module = backbone.get_submodule(norm), backbone.get_submodule(convolution)
    assert isinstance(old, nn.BatchNorm2d)
    assert isinstance(module, nn.Conv2d)
    backbone.set_submodule(convolution, fuse_conv_bn_eval(module, old))
    # timm's batch norms carry the activation that follows them
    rest = nn.Sequential(old.drop, old.act) if isinstance(old, BatchNormAct2d) else nn.Identity()
    backbone.set_submodule(norm, rest)


def _alike(plain: Backbone, folded: Backbone) -> bool:
    """Return whether two networks make the same of noise, as far as rounding lets them."""
    noise = torch.randn(2, 3, plain.image_size, plain.image_size, generator=torch.Generator().manual_seed(0))
    ours, theirs = folded(noise), plain(noise)
    return bool((ours - theirs).abs().max() <= _ROUNDING * theirs.abs().max().clamp(min=1e-6))
