"""A run's data, opened with the run's own splits and noted in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.config import RunConfig
from concept_tuning.data.printable import printable
from concept_tuning.data.registry import DataBundle, load_data
from concept_tuning.data.splits import splits_to_json
from concept_tuning.data.table import SPLITS
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import DataError, RunError


def open_data(config: RunConfig, folder: RunFolder, report: Any) -> DataBundle:
    """Open a run's data with the splits that its folder notes; raises :class:`DataError` if the data changed."""
    saved: dict[str, Sequence[str]] | None = None
    if (folder.path / "split.json").is_file():
        saved = folder.read_json("split.json", *SPLITS)
        if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in saved.values()):
            raise RunError(f"{folder.path / 'split.json'} holds no lists of names; the run folder is damaged.")
    noted = folder.read_json("data.json", "used_fingerprint") if (folder.path / "data.json").is_file() else None
    # A run from before units were known drew its split picture by picture.
    data = load_data(
        config,
        report=report,
        splits=saved,
        class_names=None if noted is None else noted_names(folder, "class_names"),
        units=noted is None or "units" in noted,
    )
    if noted is not None:
        before, source = noted["used_fingerprint"], Path(config.data.source).name
        if before != data.used_fingerprint:
            raise DataError(
                f"The pictures of {source} are not those that the run {folder.path.name} began with (fingerprint "
                f"{data.used_fingerprint[:12]}, then {str(before)[:12]}). Put the old ones back or start a new run."
            )
        if noted.get("units", data.unit_fingerprints) != data.unit_fingerprints:
            raise DataError(
                f"Which pictures of {source} show one plant or patient is not told as when the run {folder.path.name} "
                "began, so that its split may part them. Put the old names or list back, or start a new run."
            )
        data = _with_groups_of(data, noted_names(folder, "group_names"))
    return data


def _with_groups_of(data: DataBundle, names: tuple[str, ...]) -> DataBundle:
    """Number the groups as the run began, whatever groups the source has gained or lost among unused pictures."""
    if names == data.group_names or not data.group_names:
        return data
    numbers = np.array([names.index(name) if name in names else -1 for name in data.group_names], dtype=np.int64)
    splits = {
        name: split if split.groups is None else dataclasses.replace(split, groups=numbers[split.groups])
        for name, split in data.splits.items()
    }
    if any(split.groups is not None and split.groups.min() < 0 for split in splits.values()):
        raise RunError("data.json lacks the names of groups that the run's pictures have; the run folder is damaged.")
    return dataclasses.replace(data, group_names=names, splits=splits)


def noted_names(folder: RunFolder, key: str) -> tuple[str, ...]:
    """Return the names of classes or groups that a run folder tells; raises :class:`RunError` unless they are texts."""
    found = folder.read_json("data.json", "class_names", "group_names")[key]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise RunError(f"{folder.path / 'data.json'} holds no list of names as {key}; the run folder is damaged.")
    return tuple(found)


def save_data_files(folder: RunFolder, data: DataBundle) -> None:
    """Note the splits and what the data are in the run's folder, unless they are noted there already."""
    if (folder.path / "data.json").is_file():
        return
    folder.write_json(
        "split.json", splits_to_json({name: split.rows for name, split in data.splits.items()}, data.table.keys)
    )
    folder.write_json(
        "data.json",
        {
            "source": data.source,
            "class_names": list(data.class_names),
            "group_names": list(data.group_names),
            "counts": {name: len(split) for name, split in data.splits.items()},
            "fingerprint": data.fingerprint,
            "used_fingerprint": data.used_fingerprint,
            "units": dict(data.unit_fingerprints),
            "validation_note": data.validation_note,
            "copies": data.copies,
            "conflicts": data.conflicts,
            "problems": [dataclasses.asdict(problem) for problem in data.problems],
        },
    )


def problem_lines(data: DataBundle, shown: int = 20) -> list[str]:
    """Say what is wrong with the pictures; data.json lists all of it."""
    lines = [f"Left out {printable(problem.key)}: {printable(problem.reason)}" for problem in data.problems[:shown]]
    if len(data.problems) > shown:
        lines.append(f"... and {len(data.problems) - shown} more; all are listed in the run's data.json")
    if data.copies:
        copy, original = map(printable, data.copies[0])
        lines.append(
            f"{len(data.copies)} validation or test pictures are copies of training pictures (first: {copy} "
            f"of {original}), so accuracy will look too good; all are listed in the run's data.json"
        )
    if data.conflicts:
        key, name, other, other_name = map(printable, data.conflicts[0])
        lines.append(
            f"Pairs of files that show the same picture and are of different classes: {len(data.conflicts)} (first: "
            f"{key} of {name}, {other} of {other_name}); look which is right; all are listed in the run's data.json"
        )
    return lines
