"""Runs of one configuration: which may be pooled as seeds of one thing, and what that thing is called."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from concept_tuning.config import RunConfig
from concept_tuning.diagnostics.pictures import Subject

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
    return {
        _name(group[0], settings[group], [settings[other] for other in found if other[0] == group[0]]): sorted(
            runs, key=lambda subject: subject.run.config.engine.seed
        )
        for group, runs in found.items()
    }


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
    """Return the settings that may change a result, by full name; sections that are not in use are left out."""
    unused = {
        "planted": config.data.source != "planted",
        "elpv": config.data.source != "elpv",
        "concept_tuning": config.method != "concept-tuning",
    }
    return {
        f"{section}.{field}": value
        for section, part in config.to_dict().items()
        if isinstance(part, dict) and not unused.get(section)
        for field, value in part.items()
        if f"{section}.{field}" not in _INDIFFERENT
    }


def _name(method: str, own: dict[str, Any], all_of_method: Sequence[dict[str, Any]]) -> str:
    """Call a group by its method and the settings in which the groups of that method differ, the fields alone."""
    keys = dict.fromkeys(key for settings in all_of_method for key in settings)
    differ = [key for key in keys if len({json.dumps(settings.get(key)) for settings in all_of_method}) > 1]
    told = ", ".join(f"{key.split('.')[1]}={_written(own.get(key))}" for key in differ)
    return f"{method} ({told})" if told else method


def _written(value: Any) -> str:
    """Write a value as on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
