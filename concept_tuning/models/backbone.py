"""Any timm network with a spatial feature map, behind one form: images in, (B, D, h, w) out."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import timm
import torch
from timm.layers.norm import RmsNorm, RmsNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from concept_tuning.config import BackboneConfig
from concept_tuning.errors import ConfigError
from concept_tuning.models.state import load_weights
from concept_tuning.models.weights import find_weights

#: Other names under which a network is known.
ALIASES = {f"efficientnet-lite{number}": f"tf_efficientnet_lite{number}" for number in range(3)}

#: Strides are powers of two up to this, so a map of a side that is a multiple of it has no cut-off cells.
_LARGEST_STRIDE = 64

#: Constructor arguments that free a network from its input size, by family; the first that timm takes is used.
_SIZE_ARGUMENTS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})

#: What timm's networks raise for an input of a size they are not made for.
_REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError)

_SOME_THAT_WORK = "tf_efficientnet_lite0, resnet50, convnext_tiny, vit_small_patch16_224, swin_tiny_patch4_window7_224"


class Backbone(nn.Module):
    """A timm network without classifier that always gives a feature map (B, D, h, w).

    timm's ``forward_features`` gives (B, D, h, w) for convolutional networks, (B, h, w, D) for Swin and
    tokens (B, prefix + h*w, D) for ViT, DeiT and Mixer; the prefix tokens (class, distillation,
    registers) are left out. Where the pre-trained head normalises the pooled features (ConvNeXt's
    ``head.norm``, the ``fc_norm`` of average-pooled ViTs), that layer norm is applied to every cell
    instead, so that the features have the scale a pre-trained classifier sees; the mean of normalised
    cells is not quite the normalised mean. Layers of the head after the pooling, such as
    MobileNetV3's ``conv_head``, are not used. Parameters that do not reach the feature map are frozen.

    Attributes:
        network: The timm network.
        architecture: Its timm name.
        image_size: Side in pixels of the square images it was built for.
        num_features: Channels D of the feature map.
        stride: Input pixels per cell of the feature map.
        mean: (3,) channel means of the pre-training, for values in 0..1; not in the state dictionary.
        std: (3,) channel deviations, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, architecture: str, image_size: int) -> None:
        """Wrap a network; raises :class:`ConfigError` if it has no spatial map or refuses ``image_size``."""
        super().__init__()
        self.network = network
        self.architecture = architecture
        self.image_size = image_size
        pretrained: Any = network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(pretrained["mean"], dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(pretrained["std"], dtype=torch.float32), persistent=False)
        self._accepted = {image_size: True}
        with _probing(network), torch.enable_grad():
            features = self._first_run()
            self._layout = self._find_layout(features)
            feature_map = self._to_map(features, (image_size, image_size))
            _freeze_unused(network, feature_map)
        self.num_features = int(feature_map.shape[1])
        self.stride = self._find_stride(rows=feature_map.shape[2])

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature map (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self._to_map(self._features(images), images.shape[-2:])

    def normalise(self, images: Tensor) -> Tensor:
        """Bring images (B, 3, H, W) with values in 0..255, mostly uint8, to the scale of pre-training.

        Returns float32 on the images' device: values over 255, less ``mean``, over ``std``.
        """
        mean, std = (value.to(images.device)[:, None, None] for value in (self.mean, self.std))
        return (images.to(torch.float32) / 255 - mean) / std

    def accepts(self, size: int) -> bool:
        """Return whether square images of this side in pixels can go through.

        Found by a dry run, once for each size, which leaves modes, buffers and random state as they were.
        """
        if size not in self._accepted:
            self._accepted[size] = size > 0 and self._survives(size)
        return self._accepted[size]

    def _survives(self, size: int) -> bool:
        with _probing(self.network), torch.no_grad():
            try:
                feature_map = self._dry_run(size)
            except torch.OutOfMemoryError:
                raise
            except (*_REFUSALS, ConfigError):
                return False
        return feature_map.ndim == 4 and feature_map.shape[1] == self.num_features and feature_map.numel() > 0

    def _dry_run(self, size: int) -> Tensor:
        parameter = next(self.network.parameters())
        return self(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))

    def _features(self, images: Tensor) -> Tensor:
        """Compute timm's features, normalised as the head does, in timm's layout."""
        network: Any = self.network
        features = network.forward_features(images)
        norm = _head_norm(network)
        return norm(features) if norm is not None and isinstance(features, Tensor) else features

    def _to_map(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Bring features of an input of ``size`` (H, W) pixels from timm's layout to (B, D, h, w)."""
        if self._layout == "NCHW":
            return features
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        tokens = features[:, _prefix_tokens(self.network) :]
        return tokens.transpose(1, 2).unflatten(2, self._token_grid(tokens.shape[1], size))

    def _first_run(self) -> Tensor:
        """Compute the features of an empty image; raises :class:`ConfigError` if that gives no map."""
        try:
            features = self._features(torch.zeros(1, 3, self.image_size, self.image_size))
        except _REFUSALS as error:
            raise ConfigError(_size_message(self.network, self.architecture, self.image_size, error)) from error
        if isinstance(features, Tensor) and features.ndim in (3, 4):
            return features
        raise ConfigError(
            f"{self.architecture} gives no spatial feature map (B, D, h, w) but {_describe(features)}: there are no "
            f"patches to look at. Some that work: {_SOME_THAT_WORK}."
        )

    def _find_layout(self, features: Tensor) -> str:
        """Return how the network lays out its features: ``NCHW``, ``NHWC`` or ``NLC``."""
        if features.ndim == 3:
            return "NLC"
        channels = getattr(self.network, "num_features", features.shape[1])
        last = features.shape[1] != channels and features.shape[3] == channels
        return "NHWC" if last or str(getattr(self.network, "output_fmt", "")).endswith("NHWC") else "NCHW"

    def _token_grid(self, tokens: int, size: Sequence[int]) -> tuple[int, int]:
        """Return rows and columns of ``tokens`` patch tokens for an input of ``size`` (H, W) pixels."""
        patch_embed: Any = getattr(self.network, "patch_embed", None)
        if hasattr(patch_embed, "dynamic_feat_size"):
            rows, columns = patch_embed.dynamic_feat_size(size)
            if rows * columns == tokens:
                return rows, columns
        height, width = size
        rows, columns = round(math.sqrt(tokens * height / width)), round(math.sqrt(tokens * width / height))
        if rows * columns != tokens or tokens == 0:
            raise ConfigError(
                f"{self.architecture} gives {tokens} tokens for {height}x{width} px, which make no grid, so it has "
                f"no spatial feature map. Some that work: {_SOME_THAT_WORK}."
            )
        return rows, columns

    def _find_stride(self, *, rows: int) -> int:
        """Return the input pixels per cell, from the map's rows at ``image_size`` or at a size without a rest.

        Networks round up the number of cells, so 100 px may be 4 cells of 32 px. Where two or more rows
        divide the size into cells of a power of two, that is the stride.
        """
        side, rest = divmod(self.image_size, rows)
        if rest == 0 and rows > 1 and side & (side - 1) == 0:
            return side
        size = -(-self.image_size // _LARGEST_STRIDE) * _LARGEST_STRIDE
        if not self.accepts(size):
            return max(1, round(self.image_size / rows))
        with _probing(self.network), torch.no_grad():
            return size // self._dry_run(size).shape[2]


def build_backbone(
    config: BackboneConfig, *, image_size: int, report: Callable[[str], None] = lambda text: None
) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        config: Architecture and weights.
        image_size: Side in pixels of the square images it will see.
        report: Called with a line for the user on which weights were loaded.

    Raises:
        ConfigError: for an unknown architecture (naming the nearest ones), one without a spatial
            feature map, or an ``image_size`` it does not take.
        WeightsError: if the weights cannot be had or do not fit.
    """
    architecture = find_architecture(config.architecture)
    source = find_weights(architecture, config.weights)
    backbone = Backbone(
        create_network(architecture, image_size=image_size), architecture=architecture, image_size=image_size
    )
    load_weights(
        backbone.network,
        source,
        create=lambda **arguments: create_network(architecture, image_size=image_size, **arguments),
        report=report,
    )
    return backbone


def find_architecture(name: str) -> str:
    """Return the timm name for a name or alias; raises :class:`ConfigError` naming the nearest if there is none."""
    wanted = ALIASES.get(name, name)
    base, _, tag = wanted.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, [*timm.list_models(), *ALIASES], n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" Some that work: {_SOME_THAT_WORK}."
        raise ConfigError(f"timm has no network {name!r}.{hint} `concept-tuning backbones` lists common ones.")
    tags = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ConfigError(f"{base} has no pre-trained weights {tag!r}; there are: {', '.join(tags) or 'none'}.")
    return wanted


def create_network(architecture: str, *, image_size: int, **arguments: Any) -> nn.Module:
    """Create a timm network, as free of its input size as timm lets it be; without classifier but for ``num_classes``.

    Raises:
        ConfigError: if it cannot be built for ``image_size``.
    """
    for freedom in ({"img_size": image_size, **extra} for extra in _SIZE_ARGUMENTS):
        # A constructor without the argument raises TypeError before it does anything.
        with contextlib.suppress(TypeError):
            return _create(architecture, image_size, {**arguments, **freedom})
    return _create(architecture, image_size, arguments)


def last_batch_norm(backbone: Backbone) -> nn.Module | None:
    """Return the batch norm that runs last before the feature map, or None where there is none."""
    ran: list[nn.Module] = []
    norms = [module for module in backbone.network.modules() if isinstance(module, _BatchNorm)]
    handles = [norm.register_forward_hook(lambda module, inputs, output: ran.append(module)) for norm in norms]
    try:
        with _probing(backbone.network), torch.no_grad():
            backbone._dry_run(backbone.image_size)
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else None


def _create(architecture: str, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    arguments = {"num_classes": 0, **arguments}
    if arguments.get("pretrained"):
        return timm.create_model(architecture, **arguments)
    try:
        return timm.create_model(architecture, **arguments)
    except _REFUSALS as error:
        raise ConfigError(_size_message(None, architecture, image_size, error)) from error


def _size_message(network: nn.Module | None, architecture: str, image_size: int, error: Exception) -> str:
    pretrained = timm.get_pretrained_cfg(architecture)
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    advice = ["another value"] if pretrained is None else [f"{pretrained.input_size[-1]}, as in its pre-training"]
    if isinstance(patch, tuple):
        advice.insert(0, f"a multiple of {patch[0]}")
    return (
        f"{architecture} does not take images of {image_size}x{image_size} px ({str(error) or type(error).__name__}). "
        f"Set data.image_size to {', for example '.join(advice)}."
    )


def _describe(features: object) -> str:
    if isinstance(features, Tensor):
        return f"a tensor of shape {tuple(features.shape)}"
    return f"a {type(features).__name__}" + (
        f" of {len(features)}" if isinstance(features, list | tuple | dict) else ""
    )


def _prefix_tokens(network: nn.Module) -> int:
    """Return how many tokens come before the patch tokens."""
    count = getattr(network, "num_prefix_tokens", None)
    return int(isinstance(getattr(network, "cls_token", None), Tensor)) if count is None else int(count)


def _head_norm(network: nn.Module) -> nn.Module | None:
    """Return the layer norm that the network's head applies to pooled features, before anything it learns."""
    layer_norms = (nn.LayerNorm, nn.RMSNorm, RmsNorm, RmsNorm2d)
    fc_norm = getattr(network, "fc_norm", None)
    if isinstance(fc_norm, layer_norms):
        return fc_norm
    head = getattr(network, "head", None)
    for name, part in head.named_children() if isinstance(head, nn.Module) else ():
        if name == "norm":
            return part if isinstance(part, layer_norms) else None
        if next(part.parameters(), None) is not None:
            return None
    return None


def _freeze_unused(network: nn.Module, feature_map: Tensor) -> None:
    """Freeze parameters without a path to the feature map: they would never get a gradient.

    Distributed training waits for a gradient of every parameter that asks for one.
    """
    used: set[int] = set()
    seen: set[Any] = set()
    waiting = [feature_map.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            used.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)


@contextlib.contextmanager
def _probing(network: nn.Module) -> Iterator[None]:
    """Within the block the network is in evaluation mode; modes and random state are put back after it."""
    modes = [(module, module.training) for module in network.modules()]
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            network.eval()
            yield
        finally:
            # Some networks keep computed position biases while evaluating; `train` makes them forget.
            network.train()
            for module, training in modes:
                module.training = training
