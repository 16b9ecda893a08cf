"""Runs of one configuration: which may be pooled as seeds of one thing, and what that thing is called."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from concept_tuning.config import RunConfig
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.settings import why_idle

#: What tells two runs of one configuration apart (the seed), what says where things lie, and what changes nothing
#: that is learnt. The pictures are checked by content, so that their path says nothing more.
_INDIFFERENT = frozenset(
    {
        "engine.seed",
        "engine.device",
        "engine.workers",
        "engine.threads",
        "engine.channels_last",
        "engine.eval_batch_size",
        "engine.checkpoint_seconds",
        "data.source",
        "data.root",
        "data.download",
        "data.cache_dir",
        "data.max_pixels",
        "data.max_archive_entries",
        "data.max_archive_bytes",
        "data.max_archive_ratio",
    }
)


def group_runs(subjects: Iterable[Subject]) -> dict[str, list[Subject]]:
    """Group runs that differ at most in the seed and in what changes no result, such as device and threads.

    Args:
        subjects: The runs; comparable.

    Returns:
        The groups in the order of their first runs, each sorted by seed. A group is called by its method, and where
        several share a method, with the settings that differ between them, as in ``concept-tuning (views=2)``.
    """
    found: dict[tuple[str, str], list[Subject]] = defaultdict(list)
    for subject in subjects:
        config = subject.run.config
        found[config.method, json.dumps(_settings(config))].append(subject)
    settings = {group: _settings(runs[0].run.config) for group, runs in found.items()}
    named: dict[str, list[Subject]] = {}
    for group, runs in found.items():
        name = _name(group[0], settings[group], [settings[other] for other in found if other[0] == group[0]])
        # Groups that differ only in whether a setting does anything, such as drawn birds and a folder of them.
        taken = sum(one == name or one.startswith(f"{name} #") for one in named)
        named[f"{name} #{taken + 1}" if taken else name] = sorted(runs, key=lambda one: one.run.config.engine.seed)
    return named


def repeated_seed(name: str, runs: Sequence[Subject]) -> str:
    """Say which runs of a group are the same seed again, as a sentence for the user; empty if none are."""
    counts = Counter(subject.run.config.engine.seed for subject in runs)
    for seed, count in counts.items():
        if count > 1:
            alike = " and ".join(subject.name for subject in runs if subject.run.config.engine.seed == seed)
            return (
                f"{alike} are runs of {name} with the same seed, {seed}: one run again, and not another seed. "
                "Leave one out."
            )
    return ""


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that may change a result, by full name; those that do nothing in this run are left out."""
    everything = {
        f"{section}.{field}": value
        for section, part in config.to_dict().items()
        if isinstance(part, dict)
        for field, value in part.items()
    }
    return {key: value for key, value in everything.items() if key not in _INDIFFERENT and not _unused(key, config)}


def _unused(key: str, config: RunConfig) -> bool:
    """Whether a setting does nothing in a run; of the data none does, for whether it does hangs on where they lie."""
    if key == "backbone.weights":
        return config.method == "scratch"
    return not key.startswith("data.") and why_idle(key, config) is not None


def _name(method: str, own: dict[str, Any], all_of_method: Sequence[dict[str, Any]]) -> str:
    """Call a group by its method and the settings in which the groups of that method differ, the fields alone.

    A setting that does nothing in some of the groups, and is the same in all others, follows from those that are told.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for settings in all_of_method:
        for key, value in settings.items():
            values[key].add(json.dumps(value))
    told = ", ".join(f"{key.split('.')[1]}={_written(own[key])}" for key in own if len(values[key]) > 1)
    return f"{method} ({told})" if told else method


def _written(value: Any) -> str:
    """Write a value as on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
