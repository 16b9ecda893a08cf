"""A dashboard that strangers share: addresses, server folders and the uploads of another session."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import state
from app.views import train_data, train_places
from concept_tuning.engine.records import read_run
from concept_tuning.errors import DataError, RunError

PATHS = ["../../etc", "../../../../etc/passwd", "/etc/passwd", "..", "file:///etc/passwd", "a\0b", "x" * 5000]
MARKUP = "<script>alert(1)</script>[x](javascript:alert(1))"
PAGES = ("start", "attention", "rare", "spurious", "embedding", "compare", "learn", "train")
KEYS = ("run", "diagnosis", "picture", "part", "lesson", "compare-run", "rare-view", "run-name")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of runs of a dashboard whose visitors may use the folder ``data`` beside it."""
    monkeypatch.setattr(state, "DEMO", Path(state.__file__).resolve().parents[1] / "assets" / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "runs"


def opened(name: str, **query: str) -> AppTest:
    page = AppTest.from_function(_render, default_timeout=120, kwargs={"name": name})
    for key, value in query.items():
        page.query_params[key] = value
    return page.run()


def _render(name: str) -> None:
    import importlib as loader

    from app.errors import shown_errors

    with shown_errors():
        loader.import_module(f"app.views.{name}").render()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as found:
        for place in range(12):
            image = io.BytesIO()
            noise = np.random.default_rng(place).integers(0, 255, (24, 24, 3), np.uint8)
            Image.fromarray(noise).save(image, "PNG")
            found.writestr(f"{'owl' if place % 2 else 'wren'}/{place}.png", image.getvalue())
    return out.getvalue()


def train_page() -> AppTest:
    page = opened("train")
    page.segmented_control(key="train_kind").set_value("upload").run()
    assert not page.exception
    return page


def offered(page: AppTest) -> list[str]:
    return [option for box in page.selectbox if box.key == "train_uploaded" for option in box.options]


@pytest.mark.parametrize("value", [*PATHS, MARKUP])
def test_no_address_is_made_a_path_of(root: Path, value: str) -> None:
    with pytest.raises(RunError, match="There is no run"):
        read_run(value, root)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("value", ["../../etc/passwd", MARKUP])
def test_a_deep_link_opens_nothing_outside_and_runs_no_mark_up(root: Path, page: str, value: str) -> None:
    shown = opened(page, **dict.fromkeys(KEYS, value))
    assert not shown.exception
    assert not [error.value for error in shown.error if "unexpected" in error.value]
    told = [block.value for kind in (shown.markdown, shown.caption, shown.warning, shown.error) for block in kind]
    assert not [text for text in told if "root:" in text]
    assert not [text for text in told if "<script" in re.sub(r"\\[^\w\s]", "", text)]


def test_a_link_that_is_put_into_the_allowed_folder_later_leads_nowhere(root: Path, tmp_path: Path) -> None:
    allowed = train_places.allowed_root()
    (tmp_path / "secret").mkdir()
    (allowed / "pets").mkdir()
    assert train_places.inside(allowed, "pets") == allowed / "pets"
    (allowed / "pets").rmdir()
    (allowed / "pets").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="is outside"):
        train_places.inside(allowed, "pets")
    assert train_places.suggestions(allowed) == []


def test_what_is_typed_into_the_page_for_a_server_folder_cannot_leave_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret" / "owl"
    secret.mkdir(parents=True)
    Image.new("RGB", (24, 24)).save(secret / "secret-picture.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    typed = ["../secret", str(tmp_path / "secret"), "link"]
    monkeypatch.setattr(train_data, "suggestions", lambda root: typed)  # a test can choose only what is offered
    for text in typed:
        page = opened("train")
        page.segmented_control(key="train_kind").set_value("server").run()
        page.selectbox(key="train_server").set_value(text).run()
        assert not page.exception
        assert "is outside" in page.error[0].value
        assert not page.get("image")


def test_what_is_in_the_upload_field_is_of_one_session(root: Path) -> None:
    first, second = train_page(), train_page()
    first.get("file_uploader")[0].upload("private.zip", archive(), "application/zip").run()
    assert not first.exception
    assert "train_saved" in first.session_state
    second.run()
    assert "train_saved" not in second.session_state


def test_private_uploads_are_neither_offered_nor_reached_by_another_session(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCEPT_TUNING_PRIVATE_UPLOADS", "1")
    first, second = train_page(), train_page()
    first.get("file_uploader")[0].upload("private.zip", archive(), "application/zip").run()
    (kept,) = (root / "uploads").rglob("*.zip")
    own = kept.parent.name
    assert re.fullmatch(r"[0-9a-f]{32}", own)  # 122 random bits: no session can guess another's
    second.run()
    assert offered(second) == []
    assert second.session_state["train_own_uploads"] != own
    # Taking the same file again, as one who has it can, neither finds nor replaces that of the other.
    second.get("file_uploader")[0].upload("private.zip", archive(), "application/zip").run()
    assert len(list((root / "uploads").rglob("*.zip"))) == 2
    first.get("file_uploader")[0].set_value(None)
    first.run()
    assert offered(first) == ["private.zip"]


def test_uploads_of_a_trusting_group_are_offered_to_all_unless_they_are_private(root: Path) -> None:
    first, second = train_page(), train_page()
    first.get("file_uploader")[0].upload("shared.zip", archive(), "application/zip").run()
    second.run()
    assert offered(second) == ["shared.zip"]
