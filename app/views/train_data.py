"""The first part of Train: which pictures, and what the planted ones look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.views.train_places import allowed_root, inside, plain_name, suggestions
from app.views.train_survey import show_grid
from app.views.train_upload import choose_upload
from concept_tuning.config import PlantedConfig

_KINDS = {
    "planted": "Planted birds",
    "elpv": "Solar cells (ELPV)",
    "known": "Known data set",
    "upload": "Upload an archive",
    "server": "Folder on the server",
}
#: Values of ``data.units`` in words.
_UNITS = {
    "listed": "No, or a CSV file says so",
    "folder": "Yes, each has a folder in its class folder",
    "prefix": "Yes, their names begin alike: plant7_1.jpg, plant7_2.jpg",
}
_DRAWN = 6


@dataclass(frozen=True)
class Choice:
    """The pictures that were chosen.

    Attributes:
        source: Value of ``data.source``.
        name: A short name for the runs.
        overrides: Settings that were changed, by full name.
        called: What the user calls them, for messages; empty where that is the source.
    """

    source: str
    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    called: str = ""


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
        persist_state="session",
    )
    if "elpv" not in kinds:
        st.caption("2,624 photographs of solar cells come with `pip install elpv-dataset`.")
    return _CHOICES[kind or "planted"]()


def _planted() -> Choice:
    default = PlantedConfig()
    first, second = st.columns(2)
    values: dict[str, Any] = {
        "species": first.select_slider(
            "Species (they come in look-alike pairs)",
            list(range(2, 17, 2)),
            default.species,
            key="train_species",
            persist_state="session",
        ),
        "images": int(
            second.number_input(
                "Training pictures", 8, 20_000, default.images, step=50, key="train_images", persist_state="session"
            )
        ),
        "rho": first.slider(
            "Share of birds put at home (rho)",
            0.0,
            1.0,
            default.rho,
            0.01,
            key="train_rho",
            persist_state="session",
            help="The shortcut. The others are anywhere, home too. 0: habitats say nothing about the species; 1: every "
            "bird is before its own habitat.",
        ),
        "rarity": second.slider(
            "How often the telling part can be seen (rarity)",
            0.05,
            1.0,
            default.rarity,
            0.05,
            key="train_rarity",
            persist_state="session",
            help="The rare feature: the only part in which the two species of a pair differ. Always seen in the test.",
        ),
    }
    config = dataclasses.replace(default, **values)
    drawn = state.drawn_birds(config, 0, _DRAWN)
    show_grid([image for _, image in drawn], [text for text, _ in drawn])
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
        persist_state="session",
    )
    return Choice("elpv", "solar-cells", {"elpv.task": task} if task != "defective" else {})


def _known() -> Choice | None:
    from concept_tuning.data.known.catalogue import KNOWN

    found = {known.name: known for known in KNOWN}
    name = st.selectbox(
        "Which one",
        list(found),
        index=None,
        placeholder="Choose a data set by its name",
        key="train_known",
        persist_state="session",
    )
    if name is None:
        return None
    known = found[name]
    st.caption(plain(f"{known.description} {known.note}."))
    root = allowed_root()
    # Where whoever runs the server put the files; else where the command line downloads them to.
    there = any((root / path).exists() for path in ((known.folder,) if known.folder else known.needs[:1]))
    return Choice(name, name, {"data.root": str(root)} if there else {})


def _upload() -> Choice | None:
    found = choose_upload()
    if found is None:
        return None
    path, called = found
    return _own(path, called)


def _server() -> Choice | None:
    root = allowed_root()
    text = st.selectbox(
        f"A folder, archive or CSV file below {plain(str(root))}",
        suggestions(root),
        index=None,
        accept_new_options=True,
        placeholder="Choose, or type a path",
        key="train_server",
        persist_state="session",
        help="Folders elsewhere cannot be used. Whoever runs the server allows another one by the environment variable "
        "CONCEPT_TUNING_DATA.",
    )
    if not text:
        return None
    with shown_errors():
        path = inside(root, text)
        called = path.relative_to(root).as_posix() if path != root else path.name
        return _own(path, called)
    return None


def _own(path: Path, called: str) -> Choice:
    """Return the choice of a user's own pictures, once asked which of them belong together."""
    rule = st.segmented_control(
        "Do several photographs show the same plant, patient or place?",
        list(_UNITS),
        default="listed",
        required=True,
        format_func=_UNITS.__getitem__,
        key="train_units",
        persist_state="session",
        help="Pictures of one stay in one split: else the test asks about what training has seen, and its accuracy is "
        "too good. What is called alike in two classes counts as one. A CSV file tells them by a column `unit`, "
        "`subject` or `patient`.",
    )
    return Choice(str(path), _name_of(called), {"data.units": rule} if rule not in (None, "listed") else {}, called)


def _name_of(called: str) -> str:
    return plain_name(called.split(".")[0])[:40] or "pictures"


_CHOICES = {"planted": _planted, "elpv": _elpv, "known": _known, "upload": _upload, "server": _server}
