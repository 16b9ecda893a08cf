"""Archives that visitors of Train upload: kept once, offered again, and removed."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.views.train_places import UPLOAD_MEGABYTES, called_upload, delete_upload, save_upload, uploads, uploads_root
from concept_tuning.config import ARCHIVE_SUFFIXES
from concept_tuning.engine.records import list_runs
from concept_tuning.errors import DataError

#: What became of the archive in the field: its identity with its place, or with the reason why it was refused.
_SAVED = "train_saved"
#: The earlier upload that is chosen. One in the field becomes that once the page is left, which empties the field.
_CHOSEN = "train_uploaded"
#: Name of the session's own folder, where uploads are private.
_OWN = "train_own_uploads"


def choose_upload() -> tuple[Path, str] | None:
    """Let the user upload an archive or take an earlier one; return its place and what it is called, None without."""
    folder = _folder()
    given = st.file_uploader(
        f"A zip or tar archive, at most {UPLOAD_MEGABYTES} MB",
        type=[suffix.lstrip(".") for suffix in ARCHIVE_SUFFIXES],
        max_upload_size=UPLOAD_MEGABYTES,
        key="train_upload",
        on_change=_forget_choice,
        help="One folder for each class, or train, val and test folders with the class folders inside, or a CSV file "
        "that names each picture and its label. For more, use a folder on the server.",
    )
    if given is not None:
        with shown_errors():
            return _kept(given, folder), given.name
        return None
    known: dict[str, Path] = {}
    with shown_errors():
        known = {path.name: path for path in uploads(folder)}
    if not known:
        st.caption("Inside: one folder for each class, with at least three pictures each.")
        return None
    words = _upload_words(list(known.values()))
    name = st.selectbox(
        "Or one that was uploaded before",
        list(known),
        index=None,
        format_func=words.__getitem__,
        key=_CHOSEN,
        persist_state="session",
    )
    if name not in known:
        return None
    called = called_upload(known[name])
    _offer_deletion(known[name], called)
    return known[name], called


def _folder() -> Path:
    """Return where uploads are kept: one folder for all visitors, or one that only this session knows."""
    if os.environ.get("CONCEPT_TUNING_PRIVATE_UPLOADS", "0") in ("", "0"):
        return uploads_root()
    own: str = st.session_state.setdefault(_OWN, uuid.uuid4().hex)
    return uploads_root() / own


def forget_upload(path: Path, reason: str) -> None:
    """Remove an upload that cannot be read, and keep the reason for as long as it is in the field."""
    delete_upload(path, state.ROOT)
    saved = st.session_state.get(_SAVED)
    if saved is not None and saved[1] == path:
        st.session_state[_SAVED] = saved[0], reason


def _kept(given: Any, folder: Path) -> Path:
    """Return where the archive in the field lies, saved once; raises DataError for one that was refused before."""
    known, place = st.session_state.get(_SAVED, ("", None))
    if known == given.file_id and isinstance(place, str):
        raise DataError(place)
    if known != given.file_id or not place.is_file():
        place = save_upload(given.name, given, folder)
        st.session_state[_SAVED] = given.file_id, place
        st.session_state[_CHOSEN] = place.name
    return place


def _forget_choice() -> None:
    """Choose no earlier upload; for the field's callback, since taking an archive out of it must not choose it."""
    st.session_state[_CHOSEN] = None


def _offer_deletion(path: Path, called: str) -> None:
    with st.popover("Delete this upload", icon=":material/delete:", key="train_upload_drop"):
        count = sum(Path(run.source) == path.resolve() for run in list_runs(state.ROOT))
        runs = "1 run was" if count == 1 else f"{count} runs were"
        lost = f" {runs} trained on it; without it there can be no new diagnosis of that." if count else ""
        st.markdown(f"The archive **{plain(called)}** will be gone for good.{lost}")
        if st.button("Delete for good", icon=":material/delete_forever:", key="train_upload_dropped"):
            with shown_errors():
                delete_upload(path, state.ROOT)
                st.rerun()


def _upload_words(paths: list[Path]) -> dict[str, str]:
    """Return what each upload is called in the choice; those of one name with the time of the upload."""
    often = Counter(called_upload(path) for path in paths)
    words = {}
    for path in paths:
        name = called_upload(path)
        when = datetime.fromtimestamp(path.stat().st_mtime)
        words[path.name] = name if often[name] == 1 else f"{name} ({when:%d %b %H:%M:%S})"
    return words
