"""The second part of Train: which network, which methods, how long, and every other setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import streamlit as st

from app import state
from app.method_words import method_label
from app.views.train_data import Choice
from concept_tuning.config import METHOD_NAMES, PRESET_NAMES, RunConfig
from concept_tuning.settings import PRESETS, Setting

#: Settings that only some methods know, by their beginning; the others go without them.
ONLY_FOR: Mapping[str, frozenset[str]] = {
    "concept_tuning.": frozenset({"concept-tuning"}),
    "data.mild_scale_min": frozenset({"concept-tuning"}),
    "backbone.weights": frozenset(METHOD_NAMES) - {"scratch"},
    "optim.backbone_lr_scale": frozenset({"vanilla", "concept-tuning"}),
}
_ELSEWHERE = {"data.source", "backbone.architecture", "elpv.task"} | {
    f"planted.{name}" for name in ("species", "images", "rho", "rarity")
}
_SECTIONS = {
    "data": "Data",
    "planted": "Planted birds",
    "backbone": "Network",
    "concept_tuning": "Concept-Tuning",
    "optim": "Optimiser",
    "engine": "Computer",
}
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
        METHOD_NAMES,
        selection_mode="multi",
        default=["vanilla", "concept-tuning"],
        format_func=method_label,
        wrap=True,
        key="train_methods",
    )
    repeats = right.number_input(
        "Runs of each, with different seeds",
        1,
        _MOST_REPEATS,
        1,
        key="train_repeats",
        help="Three or more tell how much of a difference is chance.",
    )
    backbone = left.selectbox("Network", _backbones(), format_func=_backbone_label, key="train_backbone")
    preset = right.segmented_control(
        "How long", PRESET_NAMES, default="quick", required=True, key="train_preset", help=_preset_help()
    )
    preset = preset or "quick"
    right.caption(_preset_text(preset))
    explain_methods()
    overrides = _overrides(source, preset)
    chosen = tuple(name for name in METHOD_NAMES if name in methods)
    return Plan(chosen, backbone, preset, int(repeats), overrides)


def planned_runs(choice: Choice, plan: Plan, name: str) -> dict[str, RunConfig]:
    """Return the settings of each run by its name.

    Raises:
        ConfigError: if a setting is unknown, out of range, or would do nothing.
    """
    found = {}
    for method in plan.methods:
        typed = {**choice.overrides, **{key: text for key, text in plan.overrides.items() if knows(method, key)}}
        first = int(typed.pop("engine.seed", 0)) if str(typed.get("engine.seed", 0)).isdigit() else None
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


def knows(method: str, key: str) -> bool:
    """Whether a setting does something for a method."""
    return all(method in methods for start, methods in ONLY_FOR.items() if key.startswith(start))


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
    entry = next(entry for entry in state.backbones() if entry.name == name)
    note = f", {entry.note}" if entry.note else ""
    return f"{name} · {entry.parameters:g} M · {entry.weights if entry.offline else 'needs the network'}{note}"


def _preset_text(preset: str) -> str:
    values = PRESETS[preset]
    steps = values.get("optim.max_steps")
    most = f", at most {steps} steps" if steps else ""
    return f"{values['optim.epochs']} passes over the training pictures{most}."


def _preset_help() -> str:
    return (
        "smoke: seconds, to see that all works. quick: a few minutes on two cores. small: an hour. paper: as in the "
        "paper, for an accelerator."
    )


def _overrides(source: str, preset: str) -> dict[str, str]:
    """Let the user change any setting; what was changed is kept, and told, while the fields are folded away."""
    kept = st.session_state.setdefault(_KEPT, {})
    box = st.expander("All settings", icon=":material/tune:", on_change="rerun", key="train_settings")
    if box.open:
        with box:
            st.caption("Leave a field empty for its default. What a method does not know is left out for it.")
            kept = st.session_state[_KEPT] = _all_settings(source, preset, kept)
    found = {key: text for key, text in kept.items() if source == "planted" or not key.startswith("planted.")}
    if found:
        st.caption("Changed: " + ", ".join(f"`{key}` = {text}" for key, text in found.items()))
    return found


def _all_settings(source: str, preset: str, kept: Mapping[str, str]) -> dict[str, str]:
    """Show a field for every setting that is not shown elsewhere; return those that are changed."""
    rows = [row for row in state.setting_rows() if row.key not in _ELSEWHERE and _section(row) in _SECTIONS]
    rows = [row for row in rows if _section(row) != "planted" or source == "planted"]
    sections = {name: list(group) for name, group in groupby(rows, key=_section)}
    changed = {}
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
    shown = "none" if default is None else str(default)
    key = f"train_set_{row.key}"
    choices = ["true", "false"] if row.type == "boolean" else row.type.split("|") if "|" in row.type else []
    if choices:
        picked = st.selectbox(
            label, choices, choices.index(kept) if kept in choices else None, placeholder=shown, help=row.help, key=key
        )
        return picked or ""
    return st.text_input(label, kept or "", placeholder=shown, help=row.help, key=key).strip()
