"""Points of a layout that were chosen, in words: what they are, and how right each run is on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from concept_tuning.diagnostics.embedding import Embedding
from concept_tuning.report.picture_lists import ListedPicture


def chosen_words(result: Embedding, places: Sequence[int]) -> list[str]:
    """Return sentences on some points: how many, of which classes and groups, and how many each run gets right.

    Of patches, those pictures are counted that they are of.

    Args:
        result: The layouts.
        places: Of the points.
    """
    at = _first_of_each_picture(result, places)
    many = "picture" if len(at) == 1 else "pictures"
    what = f"{len(at)} {many}" if result.concept is None else f"{len(places)} patches of {len(at)} {many}"
    said = [f"{what}: {_counts(result.labels[at], result.class_names)}."]
    if result.groups is not None:
        said.append(f"Groups: {_counts(result.groups[at], result.group_names)}.")
    right = [
        f"{layout.run} {int((layout.predicted[at] == result.labels[at]).sum())}"
        for layout in result.layouts
        if layout.predicted is not None
    ]
    return [*said, f"Right of {len(at)}: {', '.join(right)}."] if right else said


def chosen_pictures(result: Embedding, places: Sequence[int]) -> list[ListedPicture]:
    """Return the pictures of some points, each once, with its class and the answers of the runs."""
    listed = []
    for place in _first_of_each_picture(result, places):
        label = int(result.labels[place])
        marks = [
            f"{layout.run} " + ("✓" if layout.predicted[place] == label else _mistake(result, layout.predicted[place]))
            for layout in result.layouts
            if layout.predicted is not None
        ]
        text = "; ".join([result.class_names[label], *marks])
        listed.append(ListedPicture(key=result.keys[int(result.picture[place])], text=text))
    return listed


def _first_of_each_picture(result: Embedding, places: Sequence[int]) -> np.ndarray:
    at = np.asarray(places, dtype=int)
    _, first = np.unique(result.picture[at], return_index=True)
    return at[np.sort(first)]


def _counts(values: np.ndarray, names: Sequence[str]) -> str:
    counts = np.bincount(values, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{counts[index]} {names[index]}" for index in order if counts[index])


def _mistake(result: Embedding, said: int) -> str:
    return f"✗ {result.class_names[int(said)]}"
