from __future__ import annotations

import io
import json
import os
import re
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import concept_tuning.settings as setting_module
from app import state
from app.views import train_places, train_settings
from app.views.train_data import Choice
from app.views.train_settings import Plan, knows, planned_runs
from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.diagnostics import background
from concept_tuning.engine import jobs
from concept_tuning.engine.records import list_runs
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.turns import write_status
from concept_tuning.errors import ConfigError, DataError, RunError
from concept_tuning.settings import build_config, settings


def _render() -> None:
    from app.errors import shown_errors
    from app.views import train

    with shown_errors():
        train.render()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(tmp_path / "data"))
    return tmp_path / "runs"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let no process start; return the folders of the runs that would have got one."""
    folders: list[Path] = []
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: folders.append(folder.path))
    return folders


def opened() -> AppTest:
    page = AppTest.from_function(_render, default_timeout=120).run()
    assert not page.exception
    return page


def put_run(root: Path, name: str, *, results: bool = True, **status: object) -> Path:
    folder = RunFolder.create(root / name, RunConfig())
    write_status(folder, **({"state": "finished", "step": 2, "total_steps": 2} | status))
    measured = {
        "accuracy": 0.875,
        "low": 0.5,
        "high": 0.95,
        "n": 16,
        "worst_group_accuracy": 0.25,
        "worst_group": "a | b",
    }
    if results:
        folder.write_json("results.json", {"splits": {"test": measured}})
    rows = [{"kind": "step", "step": step, "epoch": 0, "cross_entropy": 1.0, "loss": 1.0} for step in (1, 2)]
    rows.append({"kind": "evaluation", "step": 2, "accuracy": 0.5, "loss": 1.0})
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.path


def write_pictures(folder: Path, count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def zipped(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    return file.getvalue()


def words(page: AppTest) -> str:
    return " ".join(part.value for kind in (page.markdown, page.caption) for part in kind)


def test_it_opens_with_birds_counts_and_no_runs(root: Path) -> None:
    page = opened()
    assert not page.error
    assert len(page.get("image")) == 6
    assert "600 training, 200 validation, 800 test" in words(page)
    assert "No runs yet" in page.info[0].value
    assert "Two finished runs" in page.info[1].value
    page.slider(key="train_rho").set_value(1.0).run()
    cells = page.dataframe[1].value
    assert ((cells > 0).sum(axis=1) == 1).all()  # every species in its own habitat alone


def test_start_queues_one_process_for_each_method_and_seed(root: Path, begun: list[Path]) -> None:
    page = opened()
    page.segmented_control(key="train_preset").set_value("smoke")
    page.pills(key="train_methods").set_value(["linear-probe", "vanilla"])
    page.number_input(key="train_repeats").set_value(2)
    page.slider(key="train_rho").set_value(0.5).run()
    page.text_input[0].set_value("birds").run()
    assert page.button(key="train_start").label == "Start 4 runs"
    page.button(key="train_start").click().run()
    assert not page.error
    names = [f"birds-{method}-seed{seed}" for method in ("linear-probe", "vanilla") for seed in (0, 1)]
    assert [path.name for path in begun] == names
    configs = [RunFolder(path).config() for path in begun]
    assert [config.engine.seed for config in configs] == [0, 1, 0, 1]
    assert {(config.planted.rho, config.planted.images, config.optim.max_steps) for config in configs} == {(0.5, 64, 6)}
    assert all(f"**{name}**" in words(page) for name in names)  # another tab sees the same


def test_a_changed_setting_is_used_told_and_kept_while_folded_away(root: Path, begun: list[Path]) -> None:
    page = opened()
    page.session_state["train_overrides"] = {"optim.lr": "0.5", "concept_tuning.beta": "0.01"}
    page.run()
    assert "`optim.lr` = 0.5" in words(page)
    page.button(key="train_start").click().run()
    assert not page.error
    vanilla, tuned = (RunFolder(path).config() for path in begun)
    assert (vanilla.optim.lr, tuned.optim.lr, tuned.concept_tuning.beta) == (0.5, 0.5, 0.01)


def test_every_setting_has_a_field_with_its_help(root: Path) -> None:
    page = AppTest.from_function(_fields, default_timeout=60).run()
    assert not page.exception
    fields = {field.key: field for kind in (page.text_input, page.selectbox) for field in kind}
    expected = {row.key: row.help for row in settings() if row.key not in train_settings._ELSEWHERE}
    assert {key.removeprefix("train_set_"): field.help for key, field in fields.items()} == expected
    fields["train_set_optim.lr"].set_value("fast").run()
    assert "optim.lr" in page.error[0].value


def _fields() -> None:
    from app.errors import shown_errors
    from app.views.train_data import Choice
    from app.views.train_settings import Plan, _all_settings, planned_runs

    with shown_errors():
        changed = _all_settings("planted", "quick", {})
        planned_runs(Choice("planted", "b"), Plan(("vanilla",), "resnet18", "quick", 1, changed), "b")


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_method_gets_the_settings_that_it_knows_and_no_others(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in settings() if row.default is not None and row.key.split(".")[0] not in ("planted", "elpv")]
    monkeypatch.setattr(setting_module, "settings", cache(settings))  # which takes its time
    for row in rows:
        told = ""
        try:
            build_config(method=method, overrides={row.key: row.default})
        except ConfigError as error:
            told = str(error)
        for_the_method = re.search(r"belongs to the method|`scratch`|this method|only Concept-Tuning", told)
        assert knows(method, row.key) == (for_the_method is None), row.key


@pytest.mark.parametrize("key", ["backbone.weights", "optim.backbone_lr_scale", "data.mild_scale_min"])
def test_what_a_method_does_not_know_is_left_out_for_it(key: str) -> None:
    value = {"backbone.weights": "random", "optim.backbone_lr_scale": "0.5", "data.mild_scale_min": "0.4"}[key]
    plan = Plan(METHOD_NAMES, "resnet18", "quick", 1, {key: value})
    assert len(planned_runs(Choice("planted", "b"), plan, "b")) == len(METHOD_NAMES)


def test_a_setting_that_is_not_valid_stops_the_start(root: Path) -> None:
    page = opened()
    page.session_state["train_overrides"] = {"optim.lr": "-1"}
    page.run()
    assert "optim.lr" in page.error[0].value
    assert not [button for button in page.button if button.key == "train_start"]


def test_a_run_that_cannot_start_is_a_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder, root) -> None:
        raise RunError("The disk is full.")

    monkeypatch.setattr(jobs, "_launch", full)
    page = opened()
    page.button(key="train_start").click().run()
    assert not page.exception
    assert page.error[0].value == "The disk is full."
    assert list_runs(root) == []


def test_an_upload_is_kept_counted_and_checked(root: Path, tmp_path: Path, begun: list[Path]) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (folder / "cats" / "broken.png").write_bytes(b"no picture")
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    assert "at most 500 MB" in page.file_uploader[0].label
    page.file_uploader[0].set_value(("My cats & dogs.zip", zipped(folder), "application/zip")).run()
    assert not page.exception
    assert not page.error
    (kept,) = (root / "uploads").iterdir()
    assert kept.name.startswith("My-cats-dogs-")
    page.button(key="train_check").click().run()
    assert "1 files cannot be used" in page.warning[0].value
    assert list(page.dataframe[-1].value["file"]) == ["cats/broken.png"]
    page.button(key="train_start").click().run()
    assert {RunFolder(path).config().data.source for path in begun} == {str(kept)}


@pytest.mark.parametrize("content", [b"no zip at all", b""])
def test_a_wrong_upload_is_a_sentence(root: Path, content: bytes) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    page.file_uploader[0].set_value(("pictures.zip", content, "application/zip")).run()
    assert not page.exception
    assert "pictures" in page.error[0].value


def test_a_class_with_two_pictures_is_a_sentence(root: Path, tmp_path: Path) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    content = zipped(write_pictures(tmp_path / "few", count=2))
    page.file_uploader[0].set_value(("few.zip", content, "application/zip")).run()
    assert not page.exception
    assert "cats" in page.error[0].value


def test_a_server_folder_below_the_allowed_one_is_offered(root: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "pets")
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    box = page.selectbox(key="train_server")
    assert "pets" in box.options
    box.set_value("pets").run()
    assert not page.error
    assert len(page.get("image")) == 12 - 4  # of twelve pictures, those for validation and test are not shown


def test_paths_outside_the_allowed_folder_are_refused(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "data", tmp_path / "secret"
    for folder in (allowed / "pets", secret):
        folder.mkdir(parents=True)
    (allowed / "link").symlink_to(secret)
    (tmp_path / "data-too").mkdir()
    for text in ("..", "../secret", str(secret), "link", "pets/../../secret", "../data-too", "/etc/passwd"):
        with pytest.raises(DataError, match="outside"):
            train_places.inside(allowed, text)
    with pytest.raises(DataError, match="There is no"):
        train_places.inside(allowed, "nothing")
    with pytest.raises(DataError, match="no path"):
        train_places.inside(allowed, "a\0b")
    assert train_places.inside(allowed, " pets ") == allowed / "pets"
    assert train_places.suggestions(allowed) == ["pets"]


def test_an_upload_of_a_hostile_name_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "uploads"
    for name in ("../../x.zip", "/etc/x.zip", "..\\x.zip", "\0.tar.gz", ".zip"):
        assert train_places.save_upload(name, io.BytesIO(name.encode()), folder).parent == folder
    with pytest.raises(DataError, match="no archive"):
        train_places.save_upload("x.exe", io.BytesIO(b"x"), folder)
    again = train_places.save_upload("same.zip", io.BytesIO(b"1"), folder)
    assert train_places.save_upload("same.zip", io.BytesIO(b"1"), folder) == again
    assert train_places.save_upload("same.zip", io.BytesIO(b"2"), folder) != again

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(train_places.shutil, "copyfileobj", full)
    before = sorted(folder.iterdir())
    with pytest.raises(RunError, match="disk is full"):
        train_places.save_upload("more.zip", io.BytesIO(b"3"), folder)
    assert sorted(folder.iterdir()) == before


def test_runs_are_shown_renamed_and_deleted(root: Path) -> None:
    path = put_run(root, "one")
    put_run(root, "two", results=False, state="stopped", message="Stopped; resume goes on from here", step=1)
    page = opened()
    assert "Test accuracy **87.5 %** [50.0, 95.0], n = 16; worst group 25.0 % (a | b)" in words(page)
    assert [bar.text for bar in page.get("progress")] == ["step 1 of 2"]
    assert len(page.get("plotly_chart")) == 3
    page.text_input(key="train_new_one").set_value("uno").run()
    page.button(key="train_check_one").click().run()
    assert [run.name for run in list_runs(root)] == ["two", "uno"]
    page.button(key="train_delete_forever_uno").click().run()
    assert [run.name for run in list_runs(root)] == ["two"]
    assert not path.exists()


def test_a_name_that_is_not_allowed_is_told_and_nothing_changes(root: Path) -> None:
    put_run(root, "one")
    page = opened()
    page.text_input(key="train_new_one").set_value("../one").run()
    page.button(key="train_check_one").click().run()
    assert "cannot be the name of a run" in page.toast[0].value
    assert [run.name for run in list_runs(root)] == ["one"]


def test_stop_asks_and_resume_queues(root: Path, begun: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(root, "busy", results=False, state="training", step=1, seconds_left=75, images_per_second=12.5)
    put_run(root, "rest", results=False, state="stopped")
    asked = []
    monkeypatch.setattr(jobs, "request_stop", lambda run: asked.append(run.name))
    page = opened()
    assert "step 1 of 2, 1 min 15 s left, 12.5 images/s" in [bar.text for bar in page.get("progress")]
    assert not [button for button in page.button if button.key == "train_delete_forever_busy"]
    page.button(key="train_stop_busy").click().run()
    assert asked == ["busy"]
    page.button(key="train_play_arrow_rest").click().run()
    assert [path.name for path in begun] == ["rest"]


def test_broken_and_vanished_runs_do_not_break_the_page(root: Path) -> None:
    put_run(root, "one")
    damaged = put_run(root, "damaged")
    (damaged / "config.json").write_text("{")
    (root / "one" / "metrics.jsonl").write_text("no json\n{}\n")
    page = opened()
    assert not page.error
    assert ":red-badge[broken]" in words(page)
    assert "is damaged; the curves cannot be drawn" in page.warning[0].value
    page.button(key="train_delete_forever_damaged").click().run()
    assert [run.name for run in list_runs(root)] == ["one"]


def test_two_finished_runs_can_be_diagnosed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        put_run(root, name)
    lines: list[list[str]] = []

    class Ended:
        pid = 2**22 + 1

    def launch(command, log):
        lines.append(list(command))
        log.write_text("    3 s  Predictions\nError: The runs have different pictures.\n")
        return Ended()

    monkeypatch.setattr(background, "_launch", launch)
    page = opened()
    page.text_input(key="train_diagnose_name").set_value("both").run()
    page.button(key="train_diagnose_start").click().run()
    assert not page.error
    assert {str(root / "one"), str(root / "two"), str(root / "diagnoses" / "both")} <= set(lines[0])
    assert "The runs have different pictures." in words(page)
    (root / "diagnoses" / "both").mkdir()
    (root / "diagnoses" / "both" / "diagnosis.json").write_text("{}")
    (root / "diagnoses" / "both.log").write_text("    3 s  Predictions\n")
    page.run()
    labels = [button.label for button in page.button if (button.key or "").startswith("train_open_both")]
    assert labels == ["Concept attention", "Rare features", "Spurious correlations", "Compare and report"]
    page.button(key="train_dropped_both").click().run()
    assert not (root / "diagnoses" / "both").exists()
