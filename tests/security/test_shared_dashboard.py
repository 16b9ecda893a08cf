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
from app.views import train_data, train_places, train_settings
from concept_tuning.data.survey import survey
from concept_tuning.engine import jobs
from concept_tuning.engine.records import list_runs, read_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.turns import write_status
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


def test_private_uploads_are_reached_by_no_server_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCEPT_TUNING_PRIVATE_UPLOADS", "1")
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(tmp_path))  # as where the server starts, above the folder of runs
    (tmp_path / "data" / "pets").mkdir()
    first = train_page()
    first.get("file_uploader")[0].upload("private.zip", archive(), "application/zip").run()
    assert not first.error  # the session's own is looked at
    assert first.text_input(key="train_name").value == "private"
    (kept,) = (root / "uploads").rglob("*.zip")
    (tmp_path / "link").symlink_to(kept.parent)
    allowed = train_places.allowed_root()
    for text in ("runs/uploads", f"runs/uploads/{kept.parent.name}", str(kept), f"runs/../{kept.relative_to(allowed)}",
                 "link", f"link/{kept.name}", "runs/uploads/none"):  # fmt: skip
        with pytest.raises(DataError, match="may hold what others uploaded"):
            train_places.inside(allowed, text)
    with pytest.raises(DataError, match="may hold what others uploaded"):
        train_settings._allowed({"backbone.weights": str(kept)})
    assert train_places.suggestions(allowed) == ["data", "data/pets", "runs"]
    assert train_places.inside(allowed, "data/pets") == allowed / "data" / "pets"
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(root))  # whose suggestions go as deep as the folders of sessions
    assert train_places.suggestions(train_places.allowed_root()) == []
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(kept.parent.parent))
    assert train_places.suggestions(train_places.allowed_root()) == []


def test_what_was_unpacked_from_an_upload_is_reached_by_no_server_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_places, "user_cache_path", lambda name: tmp_path / "Library" / name)
    unpacked = tmp_path / "Library" / "concept-tuning" / "archives" / "0123" / "owl"
    unpacked.mkdir(parents=True)
    for text in ("Library", "Library/concept-tuning/archives", "Library/concept-tuning/archives/0123/owl"):
        with pytest.raises(DataError, match="may hold what others uploaded"):
            train_places.inside(tmp_path, text)
    (tmp_path / "Library").rename(tmp_path / ".cache")  # hidden folders are left out of the pictures of those above
    monkeypatch.setattr(train_places, "user_cache_path", lambda name: tmp_path / ".cache" / name)
    assert train_places.inside(tmp_path, ".") == tmp_path
    with pytest.raises(DataError, match="may hold what others uploaded"):
        train_places.inside(tmp_path, ".cache")


def test_a_run_of_a_private_upload_goes_on_after_the_session_has_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCEPT_TUNING_PRIVATE_UPLOADS", "1")
    launched: list[Path] = []
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: launched.append(folder.path))
    page = train_page()
    page.get("file_uploader")[0].upload("private.zip", archive(), "application/zip").run()
    page.button(key="train_start").click().run()
    assert not page.exception
    config = RunFolder(launched[0]).config()
    assert len(survey(config).class_names) == 2  # by the path in its settings, whoever asks
    write_status(RunFolder(launched[0]), state="stopped")
    (run,) = [run for run in list_runs(root) if run.path == launched[0]]
    jobs.resume(run)
    assert launched[-1] == run.path


def test_a_refused_private_upload_does_not_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCEPT_TUNING_PRIVATE_UPLOADS", "1")
    page = train_page()
    page.get("file_uploader")[0].upload("private.zip", b"no zip at all", "application/zip").run()
    assert "private.zip" in page.error[0].value
    assert list((root / "uploads").rglob("*.zip")) == []


def test_uploads_of_a_trusting_group_are_offered_to_all_unless_they_are_private(root: Path) -> None:
    first, second = train_page(), train_page()
    first.get("file_uploader")[0].upload("shared.zip", archive(), "application/zip").run()
    second.run()
    assert offered(second) == ["shared.zip"]
