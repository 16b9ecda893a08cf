"""The classifier that came with pre-trained weights, for methods that go on using it.

Learning without forgetting (arXiv 1606.09282) and Co-Tuning (You et al., NeurIPS 2020) train the source
task's last layer along with the backbone. It can be taken over where it is one linear layer on the
average-pooled feature map, which is tried out and not told from names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from concept_tuning.config import BackboneConfig
from concept_tuning.errors import ConfigError, WeightsError
from concept_tuning.models.backbone import Backbone, create_network
from concept_tuning.models.state import State, read_state
from concept_tuning.models.weights import WEIGHT_SUFFIXES, WeightsSource, find_weights

#: What wrappers put before a network's names; those of self-supervised trainers lead to no classifier.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")

_PROBE_CLASSES = 5
_INSTEAD = (
    "Use the packaged weights or timm's of a network such as tf_efficientnet_lite0 or resnet50, or another method."
)


def load_source_head(backbone: Backbone, config: BackboneConfig) -> nn.Linear:
    """Load the pre-trained classifier on the pooled feature map, D features to the source classes.

    Args:
        backbone: The backbone that the weights were loaded into.
        config: Where those weights come from.

    Returns:
        A layer on the CPU, with a bias (zeros where the weights have none).

    Raises:
        ConfigError: for random weights, a file without classifier, or a classifier of another form.
        WeightsError: if the weights cannot be had.
    """
    classes = source_classes(backbone, config)
    source = find_weights(backbone.architecture, config.weights)
    if source.kind == "timm" or source.path is None:
        return _timm_head(backbone, source, classes)
    state = read_state(source.path)
    if source.kind == "file":
        return _file_head(backbone, state, source.path)
    weight, bias = list(state.values())[-2:]
    return _linear(weight, bias, backbone, f"the packaged file of {backbone.architecture}")


def source_classes(backbone: Backbone, config: BackboneConfig) -> int:
    """Return the number of source classes, without the weights being at hand.

    It is read from a file where there still is one, and else guessed, as timm states it for the network's
    weights or as 1: a run that goes on or is only looked at has its weights, and so the number, in its own folder.

    Raises:
        ConfigError: for random weights, weights or a file without classifier, or a classifier of another form.
    """
    name = backbone.architecture
    if config.weights == "random":
        raise ConfigError(
            "This method goes on using the pre-trained classifier, and backbone.weights=random has none. "
            "Use pre-trained weights, or another method."
        )
    if not _has_linear_head(name, backbone.image_size):
        raise ConfigError(
            "This method needs a pre-trained classifier that is one linear layer on the average-pooled feature map, "
            f"and that of {name} is not. {_INSTEAD}"
        )
    path = Path(config.weights).expanduser()
    of_file = path.name.endswith(WEIGHT_SUFFIXES)
    if of_file and path.is_file():
        try:
            state = read_state(path)
        except WeightsError:  # damaged after the run began, which has its own copy
            state = None
        if state is not None:
            return _file_head(backbone, state, path).out_features
    pretrained = timm.get_pretrained_cfg(name)
    classes = 0 if pretrained is None else int(pretrained.num_classes)
    if classes == 0 and not of_file:
        raise ConfigError(
            f"This method needs a pre-trained classifier, and the weights of {name} have none. {_INSTEAD}"
        )
    return max(classes, 1)


def adopt_shapes(module: nn.Module, state: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Give parameters and buffers the shapes that they have in a state dictionary, so that it can be loaded.

    For what depends on the number of source classes, where the file that tells it is gone. The tensors stay
    the same objects, so an optimiser that holds them goes on to do so.

    Args:
        module: Changed in place.
        state: The state dictionary to be loaded.
        names: Full names of the tensors that may change.
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name in names:
        if name in state and state[name].shape != own[name].shape:
            own[name].data = own[name].data.new_zeros(state[name].shape)


def _timm_head(backbone: Backbone, source: WeightsSource, classes: int) -> nn.Linear:
    overlay = {} if source.path is None else {"file": str(source.path)}
    try:
        network: Any = create_network(
            backbone.architecture,
            image_size=backbone.image_size,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=classes,
        )
    except Exception as error:  # network, storage and shape errors of three libraries
        raise WeightsError(f"timm's classifier of {backbone.architecture} cannot be loaded ({error}).") from error
    layer = network.get_classifier()
    return _linear(layer.weight, layer.bias, backbone, f"timm's classifier of {backbone.architecture}")


def _file_head(backbone: Backbone, state: State, path: Path) -> nn.Linear:
    """Find the classifier of a file under timm's name, an older one of timm's, or this tool's own."""
    stripped = {_strip(key): value for key, value in state.items()}
    name = _classifier_name(backbone.network)
    for found in (name, name.partition(".")[0], "classifier"):
        weight = stripped.get(f"{found}.weight")
        if weight is not None:
            return _linear(weight, stripped.get(f"{found}.bias"), backbone, str(path))
    raise ConfigError(
        f"This method needs a pre-trained classifier, and {path} holds none ({name}.weight and {name}.bias). {_INSTEAD}"
    )


def _strip(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


def _linear(weight: Tensor, bias: Tensor | None, backbone: Backbone, name: str) -> nn.Linear:
    """Make a layer of given values; raises :class:`ConfigError` if they are none on the backbone's features."""
    weight = weight.detach().flatten(1) if weight.ndim > 1 else weight
    width = backbone.num_features
    if weight.ndim != 2 or weight.shape[1] != width or (bias is not None and bias.shape != weight.shape[:1]):
        raise ConfigError(
            f"This method needs a pre-trained classifier on {width} features, and {name} holds one of shape "
            f"{tuple(weight.shape)}. {_INSTEAD}"
        )
    layer = nn.utils.skip_init(nn.Linear, width, weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_() if bias is None else layer.bias.copy_(bias)
    return layer


def _classifier_name(network: Any) -> str:
    name = network.pretrained_cfg.get("classifier") or "classifier"
    return name if isinstance(name, str) else name[0]


@functools.lru_cache(maxsize=8)
def _has_linear_head(architecture: str, image_size: int) -> bool:
    """Try out, with random weights and a random image, whether the head is linear in the pooled feature map."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network: Any = create_network(architecture, image_size=image_size, num_classes=_PROBE_CLASSES)
        classifier = network.get_classifier()
        if not isinstance(classifier, nn.Linear):
            return False
        nn.init.normal_(classifier.weight)  # some begin with zeros
        probe = Backbone(network, architecture=architecture, image_size=image_size).eval()
        if probe.num_features != classifier.in_features:
            return False
        images = torch.randn(2, 3, image_size, image_size)
        by_hand, whole = classifier(probe(images).mean((2, 3))), network(images)
        return bool(torch.allclose(by_hand, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max())))
