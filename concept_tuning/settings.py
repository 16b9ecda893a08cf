"""From names and ``key=value`` texts to a validated configuration.

``build_config`` layers the defaults, a preset and overrides, in that order, and refuses what it does
not know by name, suggesting the nearest setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from concept_tuning.config import (
    ARCHIVE_SUFFIXES,
    HUB_PREFIX,
    KNOWN_DATA,
    METHOD_NAMES,
    PRESET_NAMES,
    RunConfig,
    validate,
)
from concept_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting as the command line and the interface present it."""

    key: str
    """Full name, ``section.field``."""
    default: Any
    help: str
    type: str


#: Presets set how long a run takes, and learning rates that suit so few steps; ``paper`` is the paper's recipe.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "planted.images": 64,
        "planted.validation_images": 32,
        "planted.test_images": 64,
        "optim.epochs": 2,
        "optim.max_steps": 6,
        "optim.batch_size": 16,
        "data.image_size": 96,
    },
    "quick": {"optim.epochs": 6, "optim.max_steps": 100, "optim.lr": 0.03, "optim.backbone_lr_scale": 1.0},
    "small": {"optim.epochs": 20, "optim.max_steps": 1000, "optim.lr": 0.03, "optim.backbone_lr_scale": 1.0},
    "paper": {
        "data.image_size": 224,
        "optim.epochs": 100,
        "optim.batch_size": 48,
        "optim.lr": 0.01,
        "concept_tuning.image_weight": 1.0,
        "concept_tuning.concept_weight": 1.0,
    },
}

#: The sections that belong to methods, by name, each with the method.
METHOD_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "concept_tuning": ("concept-tuning",),
    "lp_ft": ("lp-ft",),
    "l2_sp": ("l2-sp",),
    "delta": ("delta",),
    "bss": ("bss",),
    "stoch_norm": ("stoch-norm",),
    "co_tuning": ("co-tuning",),
    "bi_tuning": ("bi-tuning",),
    "lwf": ("lwf",),
    "core_tuning": ("core-tuning",),
    "group_dro": ("group-dro",),
    "dfr": ("dfr",),
}

#: Methods that need group labels, and those that need pre-trained weights; the classes say so too, but load torch.
NEEDS_GROUPS = ("group-dro", "dfr")
NEEDS_PRETRAINED = ("l2-sp", "delta", "co-tuning", "lwf")


def _regularises(config: RunConfig, method: str) -> bool:
    """Whether Concept-Tuning takes a rival's regulariser in."""
    return config.method == "concept-tuning" and config.concept_tuning.regulariser == method


#: Settings (by pattern) that have no effect where the condition holds, and why. Naming one is then an
#: error, not a silent no-op.
_IDLE: Sequence[tuple[str, Callable[[RunConfig], bool], str]] = (
    (r"planted\..*", lambda c: c.data.source != "planted", "it belongs to the data `planted`"),
    (
        r"data\.(root|download)",
        lambda c: c.data.source not in KNOWN_DATA and not c.data.source.startswith(HUB_PREFIX),
        "it belongs to the known data sets and the Hub",
    ),
    (r"elpv\..*", lambda c: c.data.source != "elpv", "it belongs to the data `elpv`"),
    *(
        (
            rf"{section}\..*",
            lambda c, users=users: not any(c.method == user or _regularises(c, user) for user in users),
            f"it belongs to the method `{users[0]}`",
        )
        for section, users in METHOD_SECTIONS.items()
    ),
    (
        r"data\.(validation|test)_fraction",
        lambda c: c.data.source == "planted",
        "planted birds are drawn with planted.validation_images and planted.test_images",
    ),
    (
        r"backbone\.weights",
        lambda c: c.method == "scratch" and c.backbone.weights != "random",
        "`scratch` begins with random weights",
    ),
    (
        r"optim\.backbone_lr_scale",
        lambda c: c.method in {"scratch", "linear-probe"},
        "this method trains no pre-trained backbone",
    ),
    (
        r"concept_tuning\.(position_attention|channel_attention|bottleneck|aggregate|latent_dim|prediction)",
        lambda c: not c.concept_tuning.front_door,
        "concept_tuning.front_door is off",
    ),
    (
        r"concept_tuning\.(beta|kl_deviation)",
        lambda c: not (c.concept_tuning.front_door and c.concept_tuning.bottleneck),
        "there is no latent bottleneck",
    ),
    (
        r"concept_tuning\.aggregate",
        lambda c: not (c.concept_tuning.position_attention and c.concept_tuning.channel_attention),
        "it joins two attentions, and one is off",
    ),
    (
        r"concept_tuning\.(patches|views|concepts|concept_channels|concept_step|confusing_\w+|patch_fraction|\w+_pairs|transport_\w+)",
        lambda c: c.concept_tuning.concept_weight == 0,
        "concept_tuning.concept_weight is 0",
    ),
    (
        r"concept_tuning\.(queue_size|temperature|encoder_momentum|key_precision)",
        lambda c: c.concept_tuning.image_weight == 0 and c.concept_tuning.concept_weight == 0,
        "both contrasts have weight 0",
    ),
    (
        r"data\.mild_scale_min",
        lambda c: c.method != "concept-tuning" or c.concept_tuning.views == 2 or c.concept_tuning.concept_weight == 0,
        "only Concept-Tuning with four views takes mild crops",
    ),
    (
        r"data\.max_archive_\w+",
        lambda c: not c.data.source.lower().endswith(ARCHIVE_SUFFIXES),
        "the data is no archive",
    ),
    (
        r"data\.max_pixels",
        lambda c: c.data.source == "planted",
        "planted birds are drawn at planted.draw_size",
    ),
    (r"optim\.sgd_momentum", lambda c: c.optim.optimizer != "sgd", "optim.optimizer is not sgd"),
    (r"optim\.step_(points|factor)", lambda c: c.optim.schedule != "step", "optim.schedule is not step"),
)


#: Names used elsewhere for a setting, for the suggestion when one is unknown.
_OTHER_NAMES = {"learning_rate": "lr", "batch": "batch_size", "momentum": "sgd_momentum", "model": "architecture"}


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Return every setting with its default, help text and type, in order of the sections."""
    default = RunConfig()
    found = []
    for section in dataclasses.fields(RunConfig):
        if section.name == "method":
            continue
        part = getattr(default, section.name)
        schema = TypeAdapter(type(part)).json_schema()["properties"]
        for field in dataclasses.fields(part):
            entry = schema[field.name]
            found.append(
                Setting(
                    key=f"{section.name}.{field.name}",
                    default=getattr(part, field.name),
                    help=entry.get("description", ""),
                    type=_type_name(entry),
                )
            )
    return tuple(found)


def build_config(
    *,
    data: str | None = None,
    backbone: str | None = None,
    method: str = "vanilla",
    preset: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
) -> RunConfig:
    """Layer the defaults, a preset and overrides into one validated configuration.

    Args:
        data: Value of ``data.source``.
        backbone: Value of ``backbone.architecture``.
        method: One of :data:`METHOD_NAMES`.
        preset: One of :data:`PRESET_NAMES`, or None.
        overrides: ``key=value`` strings or a mapping. A key is a full name (``planted.rho``) or a
            field's bare name where only one section has it (``rho``).

    Raises:
        ConfigError: for an unknown key (naming the nearest one), a value out of range, or a setting
            that would do nothing with the others.
    """
    _check_choice("method", method, METHOD_NAMES)
    flat: dict[str, Any] = {}
    if preset is not None:
        _check_choice("preset", preset, PRESET_NAMES)
        flat.update(PRESETS[preset])
    if data is not None:
        flat["data.source"] = data
    if backbone is not None:
        flat["backbone.architecture"] = backbone
    given = _parse_overrides(overrides, method)
    flat.update(given)
    nested: dict[str, Any] = {"method": method}
    for key, value in flat.items():
        section, field = key.split(".")
        nested.setdefault(section, {})[field] = value
    config = validate(nested)
    _refuse_idle(given, config)
    return config


def resolve_key(key: str, method: str | None = None) -> str:
    """Return the full name of a setting; a bare name that several methods have means that of ``method``.

    Raises:
        ConfigError: if there is none, naming the nearest, or if there are several.
    """
    full_names = [setting.key for setting in settings()]
    if key in full_names:
        return key
    matches = [name for name in full_names if name.split(".")[1] == key]
    if len(matches) > 1 and method is not None:
        own = [name for name in matches if method in METHOD_SECTIONS.get(name.split(".")[0], (method,))]
        matches = own or matches[:1]  # of another method: refused as idle, with that reason
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"Setting {key!r} is in several sections: {', '.join(matches)}. Give the full name.")
    bare = [name.split(".")[1] for name in full_names]
    close = difflib.get_close_matches(key, full_names + bare, n=1, cutoff=0.5) or difflib.get_close_matches(
        key.rsplit(".", 1)[-1], bare, n=1, cutoff=0.5
    )
    known = _OTHER_NAMES.get(key.rsplit(".", 1)[-1], close[0] if close else None)
    hint = f" Did you mean {known!r}?" if known else ""
    raise ConfigError(f"Unknown setting {key!r}.{hint} `concept-tuning settings` lists them all.")


def _parse_overrides(overrides: Mapping[str, Any] | Iterable[str], method: str) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        return {resolve_key(key, method): value for key, value in overrides.items()}
    parsed: dict[str, Any] = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"Cannot read setting {text!r}; write it as key=value, e.g. lr=0.03.")
        full = resolve_key(key.strip(), method)
        if full in parsed:
            raise ConfigError(f"Setting {full} is given twice.")
        parsed[full] = _parse_value(full, value.strip())
    return parsed


def _parse_value(key: str, text: str) -> Any:
    """Read one command-line value: none, a list where the field is one, else left to pydantic."""
    if text.lower() in {"none", "null"}:
        return None
    kind = next(setting.type for setting in settings() if setting.key == key)
    if kind == "list":
        return [part for part in text.strip("[]()").replace(" ", "").split(",") if part]
    if re.fullmatch(r"\d+(\|\d+)+", kind) and text.isdigit():
        return int(text)
    return text


def _refuse_idle(given: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse a setting that the rest of the configuration leaves without effect."""
    for key in given:
        for pattern, idle, reason in _IDLE:
            if re.fullmatch(pattern, key) and idle(config):
                raise ConfigError(f"Setting {key} would do nothing here: {reason}. Leave it out.")


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value in choices:
        return
    close = difflib.get_close_matches(value, choices, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"Unknown {what} {value!r}.{hint} There are: {', '.join(choices)}.")


def _type_name(entry: Mapping[str, Any]) -> str:
    if "enum" in entry:
        return "|".join(str(value) for value in entry["enum"])
    if "anyOf" in entry:
        return _type_name(entry["anyOf"][0]) + " or none"
    return {"array": "list"}.get(entry.get("type", ""), entry.get("type", ""))
