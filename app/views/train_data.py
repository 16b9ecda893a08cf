"""The first part of Train: which pictures, what they look like, and what is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from app import state
from app.errors import shown_errors
from app.views.train_places import UPLOAD_MEGABYTES, allowed_root, inside, save_upload, suggestions, uploads
from concept_tuning.config import ARCHIVE_SUFFIXES, PlantedConfig, RunConfig

if TYPE_CHECKING:
    from concept_tuning.data.survey import Survey

_KINDS = {
    "planted": "Planted birds",
    "elpv": "Solar cells (ELPV)",
    "upload": "Upload an archive",
    "server": "Folder on the server",
}
_DRAWN, _THUMBNAIL = 6, 120
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Choice:
    """The pictures that were chosen.

    Attributes:
        source: Value of ``data.source``.
        name: A short name for the runs.
        overrides: Settings that were changed, by full name.
    """

    source: str
    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


def choose() -> Choice | None:
    """Let the user choose the pictures; None while there are none."""
    kinds = [kind for kind in _KINDS if kind != "elpv" or find_spec("elpv_dataset") is not None]
    kind = st.segmented_control(
        "Which pictures?",
        kinds,
        default="planted",
        required=True,
        format_func=_KINDS.__getitem__,
        key="train_kind",
    )
    if "elpv" not in kinds:
        st.caption("2,624 photographs of solar cells come with `pip install elpv-dataset`.")
    return {"planted": _planted, "elpv": _elpv, "upload": _upload, "server": _server}[kind or "planted"]()


def _planted() -> Choice:
    default = PlantedConfig()
    first, second = st.columns(2)
    values: dict[str, Any] = {
        "species": first.select_slider(
            "Species (they come in look-alike pairs)", list(range(2, 17, 2)), default.species, key="train_species"
        ),
        "images": int(second.number_input("Training pictures", 8, 20_000, default.images, step=50, key="train_images")),
        "rho": first.slider(
            "How often a bird is at home (rho)",
            0.0,
            1.0,
            default.rho,
            0.01,
            key="train_rho",
            help="The shortcut. 0: habitats say nothing about the species; 1: every bird is before its own habitat.",
        ),
        "rarity": second.slider(
            "How often the telling part can be seen (rarity)",
            0.05,
            1.0,
            default.rarity,
            0.05,
            key="train_rarity",
            help="The rare feature: the only part in which the two species of a pair differ. Always seen in the test.",
        ),
    }
    config = dataclasses.replace(default, **values)
    drawn = state.drawn_birds(config, 0, _DRAWN)
    _grid([image for _, image in drawn], [text for text, _ in drawn])
    from concept_tuning.data.planted import species_pairs

    lines = [
        f"{pair.names[0]} ({pair.homes[0]}) and {pair.names[1]} ({pair.homes[1]}) differ only in the {pair.part}"
        for pair in species_pairs(config)
    ]
    st.caption(f"The first training pictures. Species, with their homes: {'; '.join(lines)}.")
    changed = {f"planted.{name}": value for name, value in values.items() if value != getattr(default, name)}
    return Choice("planted", "birds", changed)


def _elpv() -> Choice:
    task = st.radio(
        "What to tell",
        ["defective", "four-class"],
        captions=["functional or defective", "defect probability in four steps"],
        horizontal=True,
        key="train_elpv_task",
    )
    return Choice("elpv", "solar-cells", {"elpv.task": task} if task != "defective" else {})


def _upload() -> Choice | None:
    folder = state.ROOT / "uploads"
    given = st.file_uploader(
        f"A zip or tar archive, at most {UPLOAD_MEGABYTES} MB",
        type=[suffix.lstrip(".") for suffix in ARCHIVE_SUFFIXES],
        max_upload_size=UPLOAD_MEGABYTES,
        key="train_upload",
        help="One folder for each class, or train, val and test folders with the class folders inside, or a CSV file "
        "that names each picture and its label. For more, use a folder on the server.",
    )
    if given is not None:
        with shown_errors():
            path = save_upload(given.name, given, folder)
            return Choice(str(path), _name_of(path))
        return None
    known = {path.name: path for path in uploads(folder)}
    if not known:
        st.caption("Inside: one folder for each class, with at least three pictures each.")
        return None
    name = st.selectbox("Or one that was uploaded before", list(known), index=None, key="train_uploaded")
    return Choice(str(known[name]), _name_of(known[name])) if name in known else None


def _server() -> Choice | None:
    root = allowed_root()
    text = st.selectbox(
        f"A folder, archive or CSV file below {root}",
        suggestions(root),
        index=None,
        accept_new_options=True,
        placeholder="Choose, or type a path",
        key="train_server",
        help="Whoever runs the server sets this folder by the environment variable CONCEPT_TUNING_DATA.",
    )
    if not text:
        return None
    with shown_errors():
        path = inside(root, text)
        return Choice(str(path), _name_of(path))
    return None


def show_survey(config: RunConfig) -> None:
    """Show what is in the chosen pictures: counts, pictures, files that are left out."""
    drawn = config.data.source == "planted"
    with shown_errors():
        found = state.survey_data(config)
        if not drawn and not found.checked and st.button("Check every picture", key="train_check"):
            bar = st.progress(0.0, text="Decoding the pictures")

            def tell(done: int, total: int) -> None:
                bar.progress(done / max(1, total), text=f"{done} of {total} pictures")

            found = state.check_data(config, tell)
            bar.empty()
        _show_counts(found)
        if not drawn:
            texts = [
                sample.label if not sample.group else f"{sample.label}, {sample.group}" for sample in found.samples
            ]
            _grid([sample.image for sample in found.samples], texts)
            _show_problems(found)


def _show_counts(found: Survey) -> None:
    counts = pd.DataFrame({label: found.counts[name] for name, label in _SPLITS.items()}, index=list(found.class_names))
    first, second = st.columns(2)
    first.dataframe(counts, width="stretch", height="content" if len(counts) <= 10 else 320)
    totals = ", ".join(f"{counts[label].sum()} {label}" for label in counts)
    first.caption(f"Pictures of each class: {totals}. Validation is drawn {found.validation_note}.")
    if found.cells is None:
        return
    cells = pd.DataFrame(found.cells, columns=list(found.group_names), index=list(found.class_names))
    second.dataframe(cells, width="stretch", height="content" if len(cells) <= 10 else 320)
    second.caption(
        "Training pictures of each class in each group. Where a class is nearly always in one group, the group is a "
        "shortcut that a network may take."
    )


def _show_problems(found: Survey) -> None:
    if found.problems:
        st.warning(
            f"{len(found.problems)} files cannot be used and are left out.",
            icon=":material/warning:",
        )
        rows = [{"file": problem.key, "why": problem.reason} for problem in found.problems]
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    elif found.checked:
        st.success("Every picture can be read.", icon=":material/check:")
    if found.copies:
        st.warning(
            f"{len(found.copies)} pictures of validation or test are also training pictures, such as "
            f"{found.copies[0][0]}; what is measured on them is too good.",
            icon=":material/content_copy:",
        )


def _grid(images: list[Any], captions: list[str]) -> None:
    with st.container(horizontal=True, gap="small"):
        for image, caption in zip(images, captions, strict=True):
            st.image(image, caption=caption, alt=caption, width=_THUMBNAIL)


def _name_of(path: Path) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in path.name.split(".")[0])
    return plain.strip("-")[:40] or "pictures"
