"""Which pictures of a diagnosis to look at: by class, by group, and by what the runs say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from concept_tuning.diagnostics.predictions import Predictions


def answer_choices(found: Mapping[str, Predictions]) -> dict[str, np.ndarray]:
    """Return what pictures can be chosen by, in words, each with the pictures of which it holds, (n,) bool.

    Lost and rescued are told of the first two runs, disagreement of every two.

    Args:
        found: The predictions of runs on the same n pictures.
    """
    choices: dict[str, np.ndarray] = {}
    runs = list(found)
    for first, second in combinations(runs, 2):
        choices[f"{first} and {second} disagree"] = found[first].predicted != found[second].predicted
    if len(runs) > 1:
        before, after = (found[run].right for run in runs[:2])
        choices[f"lost: {runs[0]} right, {runs[1]} wrong"] = before & ~after
        choices[f"rescued: {runs[0]} wrong, {runs[1]} right"] = ~before & after
    for run, predictions in found.items():
        choices[f"{run} right"] = predictions.right
        choices[f"{run} wrong"] = ~predictions.right
    return choices


def choose_keys(
    found: Mapping[str, Predictions],
    *,
    label: int | None = None,
    group: int | None = None,
    answers: Sequence[str] = (),
    first: Sequence[str] = (),
) -> list[str]:
    """Return the names of the pictures for which all of it holds.

    Args:
        found: The predictions of runs on the same pictures; of at least one run.
        label: The class wanted; None: any.
        group: The group wanted; None: any, the only possibility where pictures have no groups.
        answers: Some of :func:`answer_choices`; unknown ones are left out.
        first: Names of pictures that come first, in their order, if they are among them.
    """
    any_run = next(iter(found.values()))
    kept = np.ones(len(any_run.keys), bool)
    if label is not None:
        kept &= any_run.labels == label
    if group is not None and any_run.groups is not None:
        kept &= any_run.groups == group
    choices = answer_choices(found)
    for answer in answers:
        kept &= choices.get(answer, True)
    keys = [any_run.keys[place] for place in np.flatnonzero(kept)]
    known = set(keys)
    leading = [key for key in first if key in known]
    return leading + [key for key in keys if key not in set(leading)]
