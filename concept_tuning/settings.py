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

#: Known data sets that always come with a validation or a test split, as the catalogue says in words. ISIC's test may
#: lack its labels, and the Hub's data are each of their own kind.
GIVES_VALIDATION = ("aircraft", "dtd", "flowers102", "waterbirds")
GIVES_TEST = (
    *GIVES_VALIDATION,
    "cub200",
    "stanford-cars",
    "cifar10",
    "cifar100",
    "oxford-pets",
    "food101",
    "fashion-mnist",
    "imagenet-folder",
)
#: Known data sets whose pictures lie in arrays of one size, and are no files with a header.
IN_ARRAYS = ("cifar10", "cifar100", "fashion-mnist")


def _regularises(config: RunConfig, method: str) -> bool:
    """Whether Concept-Tuning takes a rival's regulariser in."""
    return config.method == "concept-tuning" and config.concept_tuning.regulariser == method


_NAMED_DATA = ("planted", "elpv", *KNOWN_DATA)

#: Settings (by pattern) that have no effect where the condition holds, and why. Naming one is then an
#: error, not a silent no-op. At most it would change the record of a term whose weight is 0.
#: ``optim.weight_decay`` is not among them: `l2-sp`, `delta` and Concept-Tuning with a regulariser have terms of their
#: own in its place for all parameters, but a bench and the Train page give one decay to all the methods they compare.
_IDLE: Sequence[tuple[str, Callable[[RunConfig], bool], str]] = (
    (r"planted\..*", lambda c: c.data.source != "planted", "it belongs to the data `planted`"),
    (
        r"data\.(root|download)",
        lambda c: c.data.source not in KNOWN_DATA and not c.data.source.startswith(HUB_PREFIX),
        "it belongs to the known data sets and the Hub",
    ),
    (
        r"data\.units",
        lambda c: c.data.source in _NAMED_DATA or c.data.source.startswith(HUB_PREFIX),
        "it belongs to pictures of your own",
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
        r"data\.validation_fraction",
        lambda c: c.data.source in GIVES_VALIDATION,
        "these data come with a validation split",
    ),
    (r"data\.test_fraction", lambda c: c.data.source in GIVES_TEST, "these data come with a test split"),
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
    (r"delta\.attention", lambda c: c.delta.weight == 0, "delta.weight is 0"),
    (r"bss\.singular_values", lambda c: c.bss.weight == 0, "bss.weight is 0"),
    (r"lwf\.temperature", lambda c: c.lwf.weight == 0, "lwf.weight is 0"),
    (
        r"core_tuning\.(focal|projection_dim|temperature)",
        lambda c: c.core_tuning.weight == 0,
        "core_tuning.weight is 0",
    ),
    (
        r"bi_tuning\.projection_dim",
        lambda c: c.bi_tuning.projector_weight == 0,
        "bi_tuning.projector_weight is 0",
    ),
    (
        r"bi_tuning\.(queue_size|temperature|encoder_momentum)",
        lambda c: c.bi_tuning.classifier_weight == 0 and c.bi_tuning.projector_weight == 0,
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
    (r"data\.max_pixels", lambda c: c.data.source in IN_ARRAYS, "these pictures lie in arrays of one small size"),
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
    for key, value in (("data.source", data), ("backbone.architecture", backbone)):
        if value is not None and given.get(key, value) != value:
            raise ConfigError(f"Setting {key} is given twice, as {value} and as {given[key]}. Leave one out.")
    flat.update(given)
    nested: dict[str, Any] = {"method": method}
    for key, value in flat.items():
        section, field = key.split(".")
        nested.setdefault(section, {})[field] = value
    config = validate(nested)
    _refuse_idle(given, config)
    return config


def resolve_key(key: str, method: str | None = None, regulariser: str | None = None) -> str:
    """Return the full name of a setting; a bare name that several methods have means that of ``method``.

    Args:
        key: A full name, or a bare one.
        method: The method of the run; None: a bare name must be in one section alone.
        regulariser: The method whose regulariser Concept-Tuning takes in. A bare name that ``method`` itself does not
            have means that method's.

    Raises:
        ConfigError: if there is none, naming the nearest, or if there are several.
    """
    by_bare_name = _by_bare_name()
    if key in by_bare_name.get(key.rpartition(".")[2], ()):
        return key
    matches = list(by_bare_name.get(key, ()))
    if len(matches) > 1 and method is not None:
        own = [name for name in matches if method in METHOD_SECTIONS.get(name.split(".")[0], (method,))]
        taken_in = [name for name in matches if regulariser in METHOD_SECTIONS.get(name.split(".")[0], ())]
        matches = own or taken_in or matches[:1]  # of another method: refused as idle, with that reason
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"Setting {key!r} is in several sections: {', '.join(matches)}. Give the full name.")
    full_names = [setting.key for setting in settings()]
    bare = [name.split(".")[1] for name in full_names]
    close = difflib.get_close_matches(key, full_names + bare, n=1, cutoff=0.5) or difflib.get_close_matches(
        key.rsplit(".", 1)[-1], bare, n=1, cutoff=0.5
    )
    known = _OTHER_NAMES.get(key.rsplit(".", 1)[-1], close[0] if close else None)
    hint = f" Did you mean {known!r}?" if known else ""
    raise ConfigError(f"Unknown setting {key!r}.{hint} `concept-tuning settings` lists them all.")


@functools.cache
def _by_bare_name() -> dict[str, tuple[str, ...]]:
    """Return the full names of the settings, in order of the sections, by the name without the section."""
    found: dict[str, tuple[str, ...]] = {}
    for setting in settings():
        bare = setting.key.split(".")[1]
        found[bare] = (*found.get(bare, ()), setting.key)
    return found


def _parse_overrides(overrides: Mapping[str, Any] | Iterable[str], method: str) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        regulariser = _given_regulariser(overrides.items(), method)
        return resolve_keys(overrides.items(), method, regulariser)
    pairs = [_split_override(text) for text in overrides]
    texts = resolve_keys(pairs, method, _given_regulariser(pairs, method))
    return {key: _parse_value(key, text) for key, text in texts.items()}


def resolve_keys(
    pairs: Iterable[tuple[str, Any]], method: str | None = None, regulariser: str | None = None
) -> dict[str, Any]:
    """Return values by the full names of their settings; raises as :func:`resolve_key`, and for one given twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        full = resolve_key(key, method, regulariser)
        if full in found:
            raise ConfigError(f"Setting {full} is given twice.")
        found[full] = value
    return found


def _split_override(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"Cannot read setting {text!r}; write it as key=value, e.g. lr=0.03.")
    return key.strip(), value.strip()


def _given_regulariser(pairs: Iterable[tuple[str, Any]], method: str) -> Any:
    """Return the regulariser that overrides of Concept-Tuning name, wherever they do; None without one."""
    if method != "concept-tuning":
        return None
    return next((value for key, value in pairs if key in {"regulariser", "concept_tuning.regulariser"}), None)


def _parse_value(key: str, text: str) -> Any:
    """Read one command-line value: none where that is no choice by name, a list where the field is one, or as it is."""
    kind = next(setting.type for setting in settings() if setting.key == key)
    if text.lower() in {"none", "null"} and text not in kind.split("|"):
        return None
    if kind == "list":
        return [part for part in text.strip("[]()").replace(" ", "").split(",") if part]
    if re.fullmatch(r"\d+(\|\d+)+", kind) and text.isdigit():
        return int(text)
    return text


def _refuse_idle(given: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse a setting that the rest of the configuration leaves without effect."""
    for key in given:
        reason = why_idle(key, config)
        if reason is not None:
            acting = ", or ".join(["", *(f"give {name}, which does something" for name in _namesakes(key, config))])
            raise ConfigError(f"Setting {key} would do nothing here: {reason}. Leave it out{acting}.")


def why_idle(key: str, config: RunConfig) -> str | None:
    """Return why a setting has no effect; None where it has one."""
    return next((reason for idle, reason in _idle_conditions(key) if idle(config)), None)


@functools.cache
def _idle_conditions(key: str) -> tuple[tuple[Callable[[RunConfig], bool], str], ...]:
    """Return when a setting has no effect, and why, in order."""
    return tuple((idle, reason) for pattern, idle, reason in _IDLE if re.fullmatch(pattern, key))


def _namesakes(key: str, config: RunConfig) -> list[str]:
    """Return the full names of what a setting of a method may have been meant for: namesakes that have an effect."""
    section, field = key.split(".")
    if section not in METHOD_SECTIONS:
        return []
    others = [f"{other}.{field}" for other in METHOD_SECTIONS if other != section]
    known = {setting.key for setting in settings()}
    return [name for name in others if name in known and why_idle(name, config) is None]


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
