from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import concept_tuning.settings as setting_module
from app import state
from app.views import (
    train_diagnose,
    train_places,
    train_runs,
    train_settings,
    train_survey,
    train_time,
    train_upload,
)
from app.views.train_data import Choice
from app.views.train_settings import Plan, knows, planned_runs
from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.diagnostics import background
from concept_tuning.engine import jobs
from concept_tuning.engine.records import list_runs, read_run
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
        "groups": [{"name": "a | b", "n": 4, "accuracy": 0.25, "low": 0.05, "high": 0.7}],
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


def zipped_names(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def zipped(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    return file.getvalue()


def words(page: AppTest) -> str:
    return " ".join(part.value for kind in (page.markdown, page.caption) for part in kind).replace("\\", "")


def test_it_opens_with_birds_counts_and_no_runs(root: Path) -> None:
    page = opened()
    assert not page.error
    assert len(page.get("image")) == 6
    assert "600 training, 200 validation, 800 test" in words(page)
    assert "No runs yet" in page.info[0].value
    assert "Finished runs can be diagnosed" in page.info[1].value
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
    hidden = train_settings._ELSEWHERE | train_settings.SERVER_ONLY
    expected = {row.key: row.help for row in settings() if row.key not in hidden}
    assert {key.removeprefix("train_set_"): field.help for key, field in fields.items()} == expected
    fields["train_set_optim.lr"].set_value("fast").run()
    assert "optim.lr" in page.error[0].value


def _fields() -> None:
    from app.errors import shown_errors
    from app.views.train_data import Choice
    from app.views.train_settings import Plan, _all_settings, planned_runs
    from concept_tuning.config import METHOD_NAMES

    with shown_errors():
        changed = _all_settings("planted", "quick", METHOD_NAMES, {})
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
    methods = [name for name in METHOD_NAMES if value != "random" or name not in setting_module.NEEDS_PRETRAINED]
    plan = Plan(tuple(methods), "resnet18", "quick", 1, {key: value})
    assert len(planned_runs(Choice("planted", "b"), plan, "b")) == len(methods)


def test_a_setting_that_is_not_valid_stops_the_start(root: Path) -> None:
    page = opened()
    page.session_state["train_overrides"] = {"optim.lr": "-1"}
    page.run()
    assert "optim.lr" in page.error[0].value
    assert page.button(key="train_start").disabled


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
    assert page.warning[0].value == "1 file cannot be used and is left out."  # so few are checked by themselves
    assert list(page.dataframe[-1].value["file"]) == ["cats/broken.png"]
    page.button(key="train_start").click().run()
    assert {RunFolder(path).config().data.source for path in begun} == {str(kept)}
    assert [path.name for path in begun] == ["My-cats-dogs-vanilla", "My-cats-dogs-concept-tuning"]
    assert "My-cats-dogs-2-vanilla" in words(page)  # the next ones need a name of their own


def test_many_pictures_are_checked_when_that_is_asked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_survey, "SMALL", 11)
    folder = write_pictures(tmp_path / "data" / "pets")
    for name in ("0", "1"):
        (folder / "cats" / f"{name}.png").write_bytes(b"no picture")
    (folder / "dogs" / "2.png").write_bytes((folder / "cats" / "2.png").read_bytes())
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    page.selectbox(key="train_server").set_value("pets").run()
    page.button(key="train_check").click().run()
    assert [warning.value for warning in page.warning] == [
        "2 files cannot be used and are left out.",
        "1 pair of files shows the same picture in different classes, such as dogs/2.png (dogs) and cats/2.png (cats); "
        "look which is right.",
    ]


def test_an_upload_is_hashed_once_and_earlier_ones_can_be_deleted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    usual = train_places._digest
    monkeypatch.setattr(train_places, "_digest", lambda stream: (hashed.append(1), usual(stream))[1])
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    content = zipped(write_pictures(tmp_path / "pictures"))
    page.file_uploader[0].set_value(("pets.zip", content, "application/zip")).run()
    page.run()
    assert hashed == [1]
    (kept,) = (root / "uploads").iterdir()
    assert re.fullmatch(r"pets-[0-9a-f]{16}\.zip", kept.name)
    other = opened()
    other.segmented_control(key="train_kind").set_value("upload").run()
    other.selectbox(key="train_uploaded").set_value(kept.name).run()
    run = put_run(root, "busy", results=False, state="training", pid=os.getpid())
    config = json.loads((run / "config.json").read_text())
    config["data"]["source"] = str(kept)
    (run / "config.json").write_text(json.dumps(config))
    with RunFolder(run).locked():
        other.button(key="train_upload_dropped").click().run()
    assert "pets.zip is being used by the run busy" in other.error[0].value
    write_status(RunFolder(run), state="stopped")
    other.button(key="train_upload_dropped").click().run()
    assert not kept.exists()
    assert not other.exception


def test_what_was_chosen_is_there_again_after_another_page(root: Path, tmp_path: Path) -> None:
    """A page that is not shown loses the state of plain widgets; here it is left and opened again."""

    def pages() -> None:
        import streamlit as st

        from app.views import train

        if not st.session_state.get("elsewhere"):
            train.render()

    def elsewhere_and_back() -> None:
        page.session_state["elsewhere"] = True
        page.run()
        assert not page.selectbox
        page.session_state["elsewhere"] = False
        page.run()
        assert not page.exception

    page = AppTest.from_function(pages, default_timeout=120).run()
    page.slider(key="train_rho").set_value(0.5)
    page.button_group(key="train_methods").set_value(["concept-tuning"])
    page.multiselect(key="train_rivals").set_value(["bss"])
    page.number_input(key="train_repeats").set_value(3)
    page.segmented_control(key="train_preset").set_value("small").run()
    elsewhere_and_back()
    assert page.slider(key="train_rho").value == 0.5
    assert page.multiselect(key="train_rivals").value == ["bss"]
    assert page.button(key="train_start").label == "Start 6 runs"
    assert page.segmented_control(key="train_preset").value == "small"

    page.segmented_control(key="train_kind").set_value("upload").run()
    page.file_uploader[0].set_value(("pets.zip", zipped(write_pictures(tmp_path / "own")), "application/zip")).run()
    elsewhere_and_back()
    (kept,) = (root / "uploads").iterdir()
    assert page.selectbox(key="train_uploaded").value == kept.name  # the field of files itself comes back empty
    assert "pets-concept-tuning-seed0" in words(page)
    page.segmented_control(key="train_kind").set_value("planted").run()
    assert page.slider(key="train_rho").value == 0.5


def test_an_archive_that_is_taken_out_again_is_not_chosen(root: Path, tmp_path: Path) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    page.file_uploader[0].set_value(("pets.zip", zipped(write_pictures(tmp_path / "own")), "application/zip")).run()
    page.file_uploader[0].clear().run()
    assert page.selectbox(key="train_uploaded").value is None
    assert page.info[0].value.startswith("Choose pictures first")


def test_a_refused_upload_does_not_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    page.file_uploader[0].set_value(("pictures.zip", b"no zip at all", "application/zip")).run()
    told = page.error[0].value
    assert "pictures.zip" in told
    assert list((root / "uploads").iterdir()) == []
    monkeypatch.setattr(train_upload, "save_upload", None)  # it is not written again and again
    page.run()
    assert page.error[0].value == told


@pytest.mark.parametrize("content", [b"no zip at all", b"", zipped_names()])
def test_a_wrong_upload_is_a_sentence(root: Path, content: bytes) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    page.file_uploader[0].set_value(("pictures.zip", content, "application/zip")).run()
    assert not page.exception
    assert "pictures.zip" in page.error[0].value
    assert str(root) not in page.error[0].value
    assert page.button(key="train_start").disabled
    assert "Choose other pictures first" in words(page)


def test_a_class_with_two_pictures_is_a_sentence(root: Path, tmp_path: Path) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("upload").run()
    content = zipped(write_pictures(tmp_path / "few", count=2))
    page.file_uploader[0].set_value(("few.zip", content, "application/zip")).run()
    assert not page.exception
    assert "cats" in page.error[0].value
    assert page.button(key="train_start").disabled
    page.segmented_control(key="train_kind").set_value("planted").run()
    assert not page.button(key="train_start").disabled


def test_planted_settings_that_leave_a_class_empty_cannot_be_started(root: Path) -> None:
    page = opened()
    page.select_slider(key="train_species").set_value(16)
    page.number_input(key="train_images").set_value(8).run()
    assert page.error
    assert page.button(key="train_start").disabled


def test_a_server_folder_below_the_allowed_one_is_offered(root: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "pets")
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    box = page.selectbox(key="train_server")
    assert "pets" in box.options
    box.set_value("pets").run()
    assert not page.error
    assert len(page.get("image")) == 12 - 4  # of twelve pictures, those for validation and test are not shown


def test_a_known_data_set_is_offered_and_its_layout_said_where_it_is_not_there(root: Path, tmp_path: Path) -> None:
    page = opened()
    page.segmented_control(key="train_kind").set_value("known").run()
    assert page.info[0].value.startswith("Choose pictures first")
    page.selectbox(key="train_known").set_value("cub200").run()
    assert not page.exception
    assert "11,788 photographs" in words(page)
    assert "images.txt" in page.error[0].value
    assert page.button(key="train_start").disabled


def test_files_of_a_known_data_set_are_found_in_the_servers_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "CUB_200_2011").mkdir(parents=True)
    page = opened()
    page.segmented_control(key="train_kind").set_value("known").run()
    page.selectbox(key="train_known").set_value("cub200").run()
    assert not page.exception
    assert str(tmp_path.name).replace("_", "\\_") in page.error[0].value  # there, and not whole


def test_paths_outside_the_allowed_folder_are_refused(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "data", tmp_path / "secret"
    for folder in (allowed / "pets", secret):
        folder.mkdir(parents=True)
    (allowed / "link").symlink_to(secret)
    (tmp_path / "data-too").mkdir()
    for text in ("..", "../secret", str(secret), "link", "pets/../../secret", "../data-too", "/etc/passwd"):
        with pytest.raises(DataError, match="outside"):
            train_places.inside(allowed, text)
    with pytest.raises(DataError, match=f"There is no nothing in {allowed}.*CONCEPT_TUNING_DATA"):
        train_places.inside(allowed, "nothing")
    with pytest.raises(DataError, match="no path"):
        train_places.inside(allowed, "a\0b")
    for text in ("n" * 300, "n" * 5000):
        with pytest.raises(DataError, match=r"is no path|There is no") as told:
            train_places.inside(allowed, text)
        assert len(str(told.value)) < 600
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


@pytest.mark.parametrize(("typed", "begins"), [("my birds/2", "my-birds-2-vanilla"), (" ../ ", "birds-vanilla")])
def test_a_name_for_runs_is_made_one_that_can_be_used(root: Path, typed: str, begins: str) -> None:
    page = opened()
    page.text_input[0].set_value(typed).run()
    assert not page.error
    assert not page.button(key="train_start").disabled
    assert f"will be called {begins}" in words(page)


def test_a_name_that_is_too_long_keeps_the_button_but_disabled(root: Path) -> None:
    page = opened()
    page.text_input[0].set_value("b" * 101).run()
    assert "cannot be the name of a run" in page.error[0].value
    assert page.button(key="train_start").disabled


def test_places_without_permission_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", denied)
        with pytest.raises(DataError, match="no permission"):
            train_places.inside(tmp_path, "secret")
    for method in ("iterdir", "is_file", "unlink"):
        monkeypatch.setattr(Path, method, denied)
    with pytest.raises(RunError, match="cannot be listed"):
        train_places.uploads(tmp_path)
    with pytest.raises(RunError, match="cannot be kept"):
        train_places.save_upload("a.zip", io.BytesIO(b"x"), tmp_path)


def test_uploads_are_called_as_the_user_did(tmp_path: Path) -> None:
    kept = train_places.save_upload("empty.zip", io.BytesIO(b"1"), tmp_path)
    assert kept.name != "empty.zip"
    assert train_places.called_upload(kept) == "empty.zip"
    assert train_places.as_called(f"{kept}: there are no files in it.", str(kept), "empty.zip") == (
        "empty.zip: there are no files in it."
    )


def test_new_runs_join_the_curves_until_the_user_chooses(root: Path, begun: list[Path]) -> None:
    page = opened()
    page.text_input[0].set_value("new").run()
    page.button(key="train_start").click().run()
    for name in ("new-vanilla", "new-concept-tuning"):
        finish_run(root / name)
        page.run()
    assert page.multiselect(key="train_curves").value == ["new-vanilla", "new-concept-tuning"]
    assert "(#diagnose)" in page.success[0].value
    page.multiselect(key="train_curves").set_value(["new-vanilla"]).run()
    put_run(root, "later")
    page.run()
    assert page.multiselect(key="train_curves").value == ["new-vanilla"]
    assert page.query_params["run"] == "new-vanilla"


def finish_run(path: Path) -> None:
    write_status(RunFolder(path), state="finished", step=2, total_steps=2)
    RunFolder(path).write_json("results.json", {"splits": {}})


def test_resume_is_offered_only_where_it_can_help(root: Path) -> None:
    put_run(root, "bad", results=False, state="failed", step=0, message="Too few pictures.")
    put_run(root, "full", results=False, state="failed", step=1, message="The disk is full.")
    page = opened()
    keys = {button.key for button in page.button}
    assert "train_play_arrow_full" in keys
    assert "train_play_arrow_bad" not in keys
    assert "start new runs" in words(page)


def test_the_time_is_told_before_the_start(root: Path) -> None:
    page = opened()
    assert "100 steps on 600 training pictures" in words(page)
    assert re.search(r"Expect \d+ to \d+ min .* on two processor cores", words(page))
    page.segmented_control(key="train_preset").set_value("paper").run()
    assert "`paper` is meant for an accelerator" in words(page)


def test_times_are_near_those_that_were_measured() -> None:
    counts = {"train": 600, "val": 200, "test": 800}
    vanilla, tuned = (
        train_time.expected_seconds(build_config(method=method, preset="quick"), counts)
        for method in ("vanilla", "concept-tuning")
    )
    assert 60 < vanilla < 180  # the README's three minutes at most
    assert 180 < tuned < 360
    few = {"train": 12, "val": 4, "test": 4}
    config = build_config(preset="smoke")
    assert train_time.training_steps(config, 12) == 2
    assert "So few steps" in train_time.said_time([config], few, "smoke")
    assert "1 step on 1 training picture for" in train_time.said_time(
        [build_config(overrides={"optim.max_steps": 1})], {"train": 1, "val": 1, "test": 1}, "quick"
    )


RECORDS = Path(__file__).parents[2] / "benchmarks" / "results"


def step_ratios(record: str) -> dict[str, float]:
    rows = json.loads((RECORDS / f"step_cost_{record}.json").read_text())["rows"]
    return {row["mode"]: row["time_over_vanilla"] for row in rows}


def test_the_ratios_of_steps_are_those_of_the_records() -> None:
    counts = {"train": 100_000, "val": 1, "test": 1}  # so that steps are nearly all of the time
    vanilla = train_time.expected_seconds(build_config(preset="paper"), counts)
    modes = step_ratios("lite0_128")
    for mode, changed in (
        ("faithful", {}),
        ("two-view", {"views": 2}),
        ("feature-map", {"patches": "feature-map"}),
        ("feature-map-two-view", {"views": 2, "patches": "feature-map"}),
    ):
        config = build_config(method="concept-tuning", preset="paper", overrides=changed)
        assert train_time.expected_seconds(config, counts) / vanilla == pytest.approx(modes[mode], rel=0.03)
    for method, ratio in step_ratios("rivals_lite0_128").items():
        config = build_config(method=method, preset="paper")
        assert train_time.expected_seconds(config, counts) / vanilla == pytest.approx(ratio, rel=0.1), method


def test_a_network_that_needs_a_download_says_so(root: Path) -> None:
    page = opened()
    assert "its weights are on this machine" in words(page)
    page.selectbox(key="train_backbone").set_value("resnet18").run()
    assert "need a download" in words(page)


@pytest.mark.parametrize("key", [*sorted(train_settings.SERVER_ONLY), "data.source", "backbone.architecture"])
def test_paths_and_guards_of_the_server_are_not_for_visitors(root: Path, key: str) -> None:
    plan = Plan(("vanilla",), "resnet18", "quick", 1, {key: "1000000"})
    with pytest.raises(ConfigError, match=f"{key} cannot be changed here"):
        planned_runs(Choice("planted", "b"), plan, "b")


def test_weights_come_from_a_name_or_from_the_allowed_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.pth").touch()

    def weights(text: str) -> str:
        plan = Plan(("vanilla",), "resnet18", "quick", 1, {"backbone.weights": text})
        return planned_runs(Choice("planted", "b"), plan, "b")["b-vanilla"].backbone.weights

    assert [weights(text) for text in ("packaged", "timm", "random")] == ["packaged", "timm", "random"]
    assert weights("mine.pth") == str(tmp_path / "data" / "mine.pth")
    for text in ("/etc/passwd", "../secret.pth"):
        with pytest.raises(DataError, match="outside"):
            weights(text)


@pytest.mark.parametrize("text", ["²", "9" * 5000, "9" * 20, "-3", "1.5", "x"])
def test_a_seed_that_is_none_is_a_sentence(root: Path, text: str) -> None:
    page = opened()
    page.session_state["train_overrides"] = {"engine.seed": text}
    page.run()
    assert not page.exception
    assert "engine.seed" in page.error[0].value
    assert len(page.error[0].value) < 500
    assert page.button(key="train_start").disabled


def test_concept_tuning_gets_the_settings_of_the_rival_that_it_takes_in() -> None:
    given = {"concept_tuning.regulariser": "l2-sp", "l2_sp.backbone_decay": "0.5", "delta.weight": "0.5"}
    plan = Plan(("vanilla", "concept-tuning"), "resnet18", "quick", 1, given)
    assert planned_runs(Choice("planted", "b"), plan, "b")["b-concept-tuning"].l2_sp.backbone_decay == 0.5
    assert not knows("concept-tuning", "l2_sp.backbone_decay")
    assert not knows("vanilla", "l2_sp.backbone_decay", given)


def test_only_the_tabs_of_the_chosen_methods_are_shown_and_the_others_keep_their_values(root: Path) -> None:
    page = AppTest.from_function(_tabs, default_timeout=60).run()
    labels = {tab.label for tab in page.tabs}
    assert {"LP-FT", "Data"} <= labels
    assert not {"Concept-Tuning", "DELTA", "Planted birds"} & labels
    assert page.markdown[0].value == "{'delta.weight': '0.5', 'planted.rho': '0.5'}"


def _tabs() -> None:
    import streamlit as st

    from app.views.train_settings import _all_settings

    changed = _all_settings("elpv", "quick", ("vanilla", "lp-ft"), {"delta.weight": "0.5", "planted.rho": "0.5"})
    st.markdown(str(changed))


def test_what_methods_need_is_what_their_classes_say() -> None:
    from concept_tuning.methods.registry import METHODS

    needs_groups = [name for name, method in METHODS.items() if method.needs_groups]
    needs_pretrained = [name for name, method in METHODS.items() if method.needs_pretrained]
    assert needs_groups == list(setting_module.NEEDS_GROUPS)
    assert needs_pretrained == list(setting_module.NEEDS_PRETRAINED)


def test_rivals_are_chosen_below_and_need_pretrained_weights(root: Path, begun: list[Path]) -> None:
    page = opened()
    assert len(page.pills(key="train_methods").options) == 4
    page.pills(key="train_methods").set_value(["vanilla"])
    page.multiselect(key="train_rivals").set_value(["l2-sp", "group-dro"]).run()
    assert page.button(key="train_start").label == "Start 3 runs"
    page.session_state["train_overrides"] = {"backbone.weights": "random"}
    page.run()
    assert "L2-SP keeps to what the pre-trained network knows" in page.error[0].value
    assert page.button(key="train_start").disabled
    page.session_state["train_overrides"] = {}
    page.run()
    page.button(key="train_start").click().run()
    assert [path.name for path in begun] == ["birds-vanilla", "birds-l2-sp", "birds-group-dro"]


def test_methods_that_need_groups_are_refused_before_the_start_where_there_are_none(root: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "pets")
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    page.selectbox(key="train_server").set_value("pets").run()
    page.multiselect(key="train_rivals").set_value(["group-dro", "dfr"]).run()
    assert page.error[0].value.startswith("Group DRO and Deep feature reweighting need group labels")
    assert page.button(key="train_start").disabled
    page.multiselect(key="train_rivals").set_value([]).run()
    assert not page.error
    assert not page.button(key="train_start").disabled


def test_defaults_are_called_so(root: Path) -> None:
    page = AppTest.from_function(_fields, default_timeout=60).run()
    fields = {field.key: field for field in page.text_input}
    assert fields["train_set_data.validation_fraction"].placeholder == "default: 0.2"


def test_no_more_test_pictures_are_offered_than_there_are(root: Path) -> None:
    for name in ("one", "two"):
        put_run(root, name)  # measured on 16 pictures
    page = opened()
    assert "Too few test pictures (16)" in page.warning[0].value
    assert "All 16 test pictures" in words(page)
    assert not [slider for slider in page.select_slider if (slider.key or "").startswith("train_diagnose")]


def test_runs_are_shown_renamed_and_deleted(root: Path) -> None:
    path = put_run(root, "one")
    put_run(root, "two", results=False, state="stopped", message="Stopped; resume goes on from here", step=1)
    page = opened()
    assert (
        "Test accuracy **87.5 %** [95 %: 50.0 to 95.0], n = 16; worst group 25.0 % [95 %: 5.0 to 70.0], n = 4 (a | b)"
        in words(page)
    )
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


def test_a_run_that_is_being_diagnosed_is_neither_deleted_nor_renamed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run(root, "one")
    waits = (sys.executable, "-c", "import time; time.sleep(100)", "-m", "concept_tuning", "diagnose")
    monkeypatch.setattr(background, "COMMAND", waits)
    job = background.start_diagnosis([read_run("one", root)], root, "now")
    page = opened()
    page.button(key="train_delete_forever_one").click().run()
    assert "one is being diagnosed (now)" in page.toast[0].value
    page.text_input(key="train_new_one").set_value("uno").run()
    page.button(key="train_check_one").click().run()
    assert "one is being diagnosed (now)" in page.toast[0].value
    assert [run.name for run in list_runs(root)] == ["one"]
    background.stop_diagnosis(job)
    page.button(key="train_delete_forever_one").click().run()
    assert list_runs(root) == []


def test_an_odd_run_does_not_take_the_others_down(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("odd", "good"):
        put_run(root, name)
    usual = train_runs._show_run

    def show(run) -> None:
        if run.name == "odd":
            raise ZeroDivisionError
        usual(run)

    monkeypatch.setattr(train_runs, "_show_run", show)
    page = opened()
    assert "ZeroDivisionError" in page.error[0].value
    assert "**good**" in words(page)
    assert len(page.get("plotly_chart")) == 3


def test_more_or_doubled_runs_in_the_address_are_cut(root: Path) -> None:
    for number in range(6):
        put_run(root, f"r{number}")
    page = AppTest.from_function(_render, default_timeout=120)
    page.query_params["run"] = ["r0", "r0", "r1", "r2", "r3", "r4", "none"]
    page.run()
    assert not page.exception
    assert not page.error
    assert page.multiselect(key="train_curves").value == ["r0", "r1", "r2", "r3"]


def test_two_people_who_start_at_once_get_names_of_their_own(root: Path, begun: list[Path]) -> None:
    here, there = opened(), opened()
    here.button(key="train_start").click().run()
    there.button(key="train_start").click().run()
    assert not there.error
    names = [f"{name}-{method}" for name in ("birds", "birds-2") for method in ("vanilla", "concept-tuning")]
    assert [path.name for path in begun] == names


def test_a_name_that_is_taken_in_the_very_moment_is_replaced_if_nobody_chose_it(
    root: Path, begun: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = jobs.start_together

    def late(runs, root):
        if not (root / "birds-concept-tuning").exists():
            put_run(root, "birds-concept-tuning")
        return usual(runs, root)

    monkeypatch.setattr(jobs, "start_together", late)
    page = opened()
    page.button(key="train_start").click().run()
    assert not page.error
    assert [path.name for path in begun] == ["birds-2-vanilla", "birds-2-concept-tuning"]
    assert page.session_state[train_runs.STARTED] == ["birds-2-vanilla", "birds-2-concept-tuning"]


def test_a_typed_name_stays_while_others_start_and_is_refused_where_it_is_taken(root: Path, begun: list[Path]) -> None:
    page = opened()
    page.text_input(key="train_name").set_value("mine").run()
    put_run(root, "birds-vanilla")
    page.run()
    assert page.text_input(key="train_name").value == "mine"
    put_run(root, "mine-concept-tuning")
    page.run()
    assert "'mine-concept-tuning' already" in page.error[0].value
    assert page.button(key="train_start").disabled
    assert begun == []


def test_names_of_data_are_no_markdown(root: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data" / "pets")
    (folder / "dogs").rename(folder / "![x](evil)")
    put_run(root, "[x](evil)", results=False, state="stopped", message="Of ![x](evil).")
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    page.selectbox(key="train_server").set_value("pets").run()
    assert not page.exception
    shown = [part.value for kind in (page.markdown, page.caption, page.warning, page.error) for part in kind]
    shown += [image.caption for picture in page.get("image") for image in picture.proto.imgs]
    assert any("evil" in text for text in shown)
    assert not [text for text in shown if "[x](evil)" in text]


def test_stop_asks_and_resume_queues(root: Path, begun: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(root, "busy", results=False, state="training", step=1, seconds_left=75, images_per_second=12.5)
    put_run(root, "rest", results=False, state="stopped")
    asked = []
    monkeypatch.setattr(jobs, "request_stop", lambda run: asked.append(run.name))
    with RunFolder(root / "busy").locked():
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
    assert labels == ["Concept attention", "Rare features", "Spurious correlations", "Embedding", "Compare and report"]
    page.button(key="train_dropped_both").click().run()
    assert not (root / "diagnoses" / "both").exists()


def test_one_finished_run_can_be_diagnosed_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(root, "only")
    started: list[list[str]] = []
    monkeypatch.setattr(
        train_diagnose, "start_diagnosis", lambda runs, *_, **__: started.append([r.name for r in runs])
    )
    page = opened()
    assert "One run alone is looked at" in words(page)
    page.button(key="train_diagnose_start").click().run()
    assert not page.error
    assert started == [["only"]]
    page.multiselect(key="train_diagnose").set_value([]).run()
    assert page.button(key="train_diagnose_start").disabled


@pytest.mark.parametrize("done", [True, False])
def test_a_stopped_diagnosis_says_what_it_has_and_opens_it(root: Path, done: bool) -> None:
    put_run(root, "one")
    folder = root / "diagnoses"
    (folder / "half").mkdir(parents=True)
    record = {"runs": ["one"], "total": 3, "started": 1.0, "stopped": True, "pid": 2**22 + 1, "process_started": 1.0}
    (folder / "half.job.json").write_text(json.dumps(record))
    if done:
        (folder / "half" / "diagnosis.json").write_text("{}")
    page = opened()
    assert ":orange-badge[stopped]" in words(page)
    assert ("the analyses that were done can be looked at" in words(page)) == done
    assert ("before there was anything to look at" in words(page)) != done
    assert any((button.key or "").startswith("train_open_half") for button in page.button) == done


def test_diagnoses_get_free_names_also_where_two_people_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        put_run(root, name)

    class Ended:
        pid = 2**22 + 1

    monkeypatch.setattr(background, "_launch", lambda command, log: (log.write_text("Error: x\n"), Ended())[1])
    here, there = opened(), opened()
    for page, following in ((here, "diagnosis-2"), (there, "diagnosis-3"), (here, "diagnosis-4")):
        page.button(key="train_diagnose_start").click().run()
        assert not page.error
        assert page.text_input(key="train_diagnose_name").value == following
    usual = train_diagnose.start_diagnosis

    def late(runs, root, name, **more):
        if name == "diagnosis-4":
            usual(runs, root, name, **more)  # somebody else, a moment before
        return usual(runs, root, name, **more)

    monkeypatch.setattr(train_diagnose, "start_diagnosis", late)
    here.button(key="train_diagnose_start").click().run()
    assert not here.error
    assert here.text_input(key="train_diagnose_name").value == "diagnosis-6"


def test_pictures_of_one_plant_are_kept_together_by_their_names(root: Path, tmp_path: Path, begun: list[Path]) -> None:
    folder = write_pictures(tmp_path / "data" / "pets")
    for name in ("cats", "dogs"):
        for old in sorted((folder / name).iterdir()):
            old.rename(old.with_name(f"{name}{int(old.stem) // 2}_{old.stem}.png"))
    page = opened()
    page.segmented_control(key="train_kind").set_value("server").run()
    page.selectbox(key="train_server").set_value("pets").run()
    assert "units" not in words(page)
    page.segmented_control(key="train_units").set_value("prefix").run()
    assert "Plants, patients or places (units):" in words(page)
    page.segmented_control(key="train_units").set_value("folder").run()
    assert "no class folder has folders with several pictures inside" in page.error[0].value
    assert page.button(key="train_start").disabled
    page.segmented_control(key="train_units").set_value("prefix").run()
    page.button(key="train_start").click().run()
    assert [RunFolder(path).config().data.units for path in begun] == ["prefix", "prefix"]
