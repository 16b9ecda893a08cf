"""What is in the chosen pictures of Train: counts, a few pictures, and the files that are left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.views.train_places import as_called, uploads_root
from app.views.train_upload import forget_upload
from concept_tuning.config import RunConfig
from concept_tuning.errors import ArchiveError, StudioError

if TYPE_CHECKING:
    from concept_tuning.data.survey import Survey

#: Sources of at most as many pictures are decoded and checked without being asked.
SMALL = 300
_THUMBNAIL = 120
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def show_survey(config: RunConfig, called: str) -> Survey | None:
    """Show what is in the chosen pictures and return it; None, with the reason on the page, where they are refused.

    Args:
        config: The settings of a run on them.
        called: What the user calls them, for messages.
    """
    with shown_errors():
        try:
            found = state.survey_data(config)
            if config.data.source != "planted":
                found = _checked(config, found)
        except StudioError as error:
            told = as_called(str(error), config.data.source, called)
            if isinstance(error, ArchiveError) and uploads_root() in Path(config.data.source).parents:
                forget_upload(Path(config.data.source), told)
            raise type(error)(told) from error
        _show_counts(found)
        if config.data.source != "planted":
            texts = [
                sample.label if not sample.group else f"{sample.label}, {sample.group}" for sample in found.samples
            ]
            show_grid([sample.image for sample in found.samples], texts)
            _show_problems(found)
        return found
    return None


def show_grid(images: list[Any], captions: list[str]) -> None:
    """Show small pictures in a row, with their captions."""
    with st.container(horizontal=True, gap="small"):
        for image, caption in zip(images, captions, strict=True):
            st.image(image, caption=plain(caption), alt=caption, width=_THUMBNAIL)


def _checked(config: RunConfig, found: Survey) -> Survey:
    """Decode every picture where they are few, or where the user asks for it."""
    few = sum(int(counts.sum()) for counts in found.counts.values()) <= SMALL
    if found.checked or not (few or st.button("Check every picture", key="train_check")):
        return found
    bar = st.progress(0.0, text="Decoding the pictures")

    def tell(done: int, total: int) -> None:
        bar.progress(done / max(1, total), text=f"{done} of {total} pictures")

    try:
        return state.check_data(config, tell)
    finally:
        bar.empty()


def _show_counts(found: Survey) -> None:
    counts = pd.DataFrame({label: found.counts[name] for name, label in _SPLITS.items()}, index=list(found.class_names))
    first, second = st.columns(2)
    totals = ", ".join(f"{counts[label].sum()} {label}" for label in counts)
    caption = f"Pictures of each class: {totals}. Validation is drawn {found.validation_note}."
    if found.units is not None:
        shown = ", ".join(f"{found.units[name]} {label}" for name, label in _SPLITS.items())
        caption += f" Plants, patients or places (units): {shown}; none is in two splits."
    first.dataframe(counts, width="stretch", height="content" if len(counts) <= 10 else 320, alt=caption)
    first.caption(caption)
    if found.cells is None:
        return
    cells = pd.DataFrame(found.cells, columns=list(found.group_names), index=list(found.class_names))
    caption = (
        "Training pictures of each class in each group. Where a class is nearly always in one group, the group is a "
        "shortcut that a network may take."
    )
    second.dataframe(cells, width="stretch", height="content" if len(cells) <= 10 else 320, alt=caption)
    second.caption(caption)


def _show_problems(found: Survey) -> None:
    if found.problems:
        count = len(found.problems)
        text = "1 file cannot be used and is" if count == 1 else f"{count} files cannot be used and are"
        st.warning(f"{text} left out.", icon=":material/warning:")
        rows = [{"file": problem.key, "why": problem.reason} for problem in found.problems]
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    elif found.checked:
        st.success("Every picture can be read.", icon=":material/check:")
    if found.copies:
        count = len(found.copies)
        first = plain(found.copies[0][0])
        text = (
            f"1 picture of validation or test is also a training picture: {first}"
            if count == 1
            else f"{count} pictures of validation or test are also training pictures, such as {first}"
        )
        st.warning(f"{text}; what is measured on them is too good.", icon=":material/content_copy:")
    if found.conflicts:
        key, name, other, other_name = map(plain, found.conflicts[0])
        pairs = "1 pair of files shows" if len(found.conflicts) == 1 else f"{len(found.conflicts)} pairs of files show"
        st.warning(
            f"{pairs} the same picture in different classes, such as {key} ({name}) and {other} ({other_name}); look "
            "which is right.",
            icon=":material/compare:",
        )
