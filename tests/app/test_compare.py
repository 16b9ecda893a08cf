from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from app import state
from app.views import compare_downloads, compare_mistakes
from app.views.compare_runs import run_places
from concept_tuning.diagnostics.background import FOLDER
from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.errors import RunError
from concept_tuning.report.blocks import Source, percent_interval
from concept_tuning.report.picture_lists import cell_pictures, commonest_mistake


def box(page, key: str):
    return next(one for one in page.selectbox if one.key == key)


def told(page) -> str:
    return "\n".join(text.value for text in (*page.markdown, *page.caption, *page.info)).replace("\\", "")


@pytest.fixture
def root(tiny_diagnosis, subjects, tmp_path) -> Path:
    """Return a folder with the diagnosis and, a level deeper, its two runs."""
    shutil.copytree(tiny_diagnosis, tmp_path / "runs" / "tiny")
    for subject in subjects:
        shutil.copytree(subject.run.folder.path, tmp_path / "runs" / "birds" / subject.name)
    return tmp_path / "runs"


@pytest.fixture
def cards(tiny_diagnosis):
    return {card.name: card for card in load_diagnosis(tiny_diagnosis).overview.runs}


def test_runs_verdict_findings_and_ledger_are_told(show, tiny_diagnosis) -> None:
    page = show("compare")
    assert not page.exception
    assert not page.error
    found = load_diagnosis(tiny_diagnosis)
    table = page.dataframe[0].value
    for place, name in enumerate(("vanilla", "concept-tuning")):
        assert table.iloc[place]["accuracy [95 %]"] == percent_interval(found.results["predictions", name].accuracy)
    assert found.results["verdict", None].verdicts[0].accuracy.sentence in told(page)
    assert "Train a run of the method “From scratch”" in told(page)
    assert told(page).count("It needs a run trained from scratch") == 1


def test_the_intervals_and_the_classes_open_when_asked_for(show) -> None:
    page = show("compare")
    charts = len(page.get("plotly_chart"))
    next(one for one in page.toggle if one.key == "compare-intervals").set_value(True).run()
    assert len(page.get("plotly_chart")) == charts + 1
    tables = len(page.dataframe)
    next(one for one in page.toggle if one.key == "compare-classes").set_value(True).run()
    assert len(page.dataframe) == tables + 1
    assert not page.exception


def test_the_commonest_mistake_is_open_at_first(show, tiny_diagnosis) -> None:
    page = show("compare")
    found = load_diagnosis(tiny_diagnosis).results["predictions", "vanilla"]
    label, said = commonest_mistake(found)
    assert box(page, "compare-label").value == found.class_names[label]
    assert box(page, "compare-said").value == found.class_names[said]
    keys = cell_pictures(found, label, said)
    assert keys
    assert len(page.get("image")) == len(keys)
    assert f"{len(keys)} pictures of this cell" in told(page)


def test_run_and_cell_come_from_the_address(show, tiny_diagnosis) -> None:
    found = load_diagnosis(tiny_diagnosis).results["predictions", "concept-tuning"]
    label, said = found.class_names[1], found.class_names[0]
    page = show("compare", **{"compare-run": "concept-tuning", "compare-label": label, "compare-said": said})
    assert page.button_group[0].value == "concept-tuning"
    assert f"{label}, of which concept-tuning says {said}" in told(page)
    assert f"{len(found.cell(1, 0))} pictures of this cell" in told(page)


def test_an_address_with_an_unknown_run_or_class_is_passed_over(show) -> None:
    page = show("compare", **{"compare-run": "gone", "compare-label": "<b>"})
    assert not page.exception
    assert page.button_group[0].value == "vanilla"


def test_a_click_on_a_cell_chooses_it_and_a_second_click_keeps_it(tiny_diagnosis, monkeypatch) -> None:
    found = load_diagnosis(tiny_diagnosis).results["predictions", "vanilla"]
    session = {"chart": {"selection": {"points": [{"curve_number": 1, "customdata": [2, 0]}]}}}
    monkeypatch.setattr(compare_mistakes.st, "session_state", session)
    compare_mistakes._take_click("chart", found)
    assert session["compare-label"] == found.class_names[2]
    assert session["compare-said"] == found.class_names[0]
    session["chart"]["selection"]["points"] = []
    compare_mistakes._take_click("chart", found)
    assert session["compare-label"] == found.class_names[2]


def test_other_classes_after_a_change_of_the_diagnosis_are_no_error(show, tiny_diagnosis, tmp_path) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "a")
    shutil.copytree(tiny_diagnosis, tmp_path / "b")
    names = load_diagnosis(tiny_diagnosis).overview.class_names
    for path in (tmp_path / "b").rglob("*.json"):
        path.write_text(path.read_text().replace(names[0], "puffin"))
    os.utime(tmp_path / "a" / "diagnosis.json", (2e9, 2e9))
    page = show("compare", tmp_path)
    box(page, "compare-label").set_value(names[0]).run()
    page.sidebar.selectbox[0].set_value("b").run()
    assert not page.exception
    assert not page.error
    assert box(page, "compare-label").value in load_diagnosis(tmp_path / "b").overview.class_names


def test_downloads_wipe_nothing(show, root) -> None:
    page = show("compare", root)
    buttons = page.get("download_button")
    assert [button.proto.label for button in buttons] == [
        "Report (HTML)",
        "Predictions (CSV)",
        "Results (zip)",
        "Weights (safetensors)",
        "Whole model (ONNX)",
    ]
    assert all(button.proto.ignore_rerun for button in buttons)


def few_results(folder: Path):
    """Return a diagnosis of predictions alone, whose report is soon drawn."""
    whole = load_diagnosis(folder)
    few = {place: result for place, result in whole.results.items() if place[0] == "predictions"}
    return dataclasses.replace(whole, results=few)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_report_that_lies_with_a_diagnosis_is_never_handed_out(root, tmp_path, kind: str, monkeypatch) -> None:
    (tmp_path / "secret").write_text("secret words <script>alert(1)</script>")
    stored = root / "tiny" / "report.html"
    if kind == "link":
        stored.symlink_to(tmp_path / "secret")
    else:
        shutil.copyfile(tmp_path / "secret", stored)
    monkeypatch.setattr(compare_downloads.st, "session_state", {})
    made: dict[str, object] = {}
    monkeypatch.setattr(
        compare_downloads.st, "download_button", lambda label, data, *_, **__: made.update({label: data})
    )
    compare_downloads.show(Source(few_results(root / "tiny")), root / "tiny")
    drawn = made["Report (HTML)"]()
    assert b"<html" in drawn[:300]
    for label in ("Report (HTML)", "Predictions (CSV)", "Results (zip)"):
        assert b"secret words" not in made[label]()
    assert made["Report (HTML)"]() is drawn  # drawn once


def test_the_predictions_begin_with_a_mark_for_spreadsheets(root) -> None:
    found = load_diagnosis(root / "tiny")
    data = compare_downloads.predictions_file(Source(found))
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["picture"] for row in rows] == list(found.results["predictions", "vanilla"].keys)


def test_the_bundle_holds_the_settings_of_runs_that_are_known_for_sure(root, subjects) -> None:
    places = {"vanilla": [root / "birds" / "vanilla"], "concept-tuning": [root / "a", root / "b"]}
    with zipfile.ZipFile(io.BytesIO(compare_downloads.bundle(root / "tiny", places))) as archive:
        names = archive.namelist()
        prints = {one["name"]: one["data_fingerprint"] for one in json.loads(archive.read("manifest.json"))["runs"]}
    assert "runs/1-vanilla/config.json" in names
    assert not any("concept-tuning" in name for name in names)
    assert prints["vanilla"]
    assert prints["concept-tuning"] is None


def test_a_model_can_be_taken_away(root) -> None:
    from safetensors.numpy import load

    run = root / "birds" / "vanilla"
    exported = load(state.exported_model(run, "safetensors"))
    kept = load((run / "best" / "model.safetensors").read_bytes())
    assert exported.keys() <= kept.keys()
    assert all(np.array_equal(value, kept[name]) for name, value in exported.items())


def test_runs_are_found_below_the_folder_of_runs(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    for name, card in cards.items():
        assert run_places(root / "tiny", card) == [(root / "birds" / name).resolve()]


def test_runs_of_another_seed_method_or_name_do_not_fit(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    config = root / "birds" / "vanilla" / "config.json"
    values = json.loads(config.read_text())
    values["engine"]["seed"] = 7
    config.write_text(json.dumps(values))
    assert run_places(root / "tiny", cards["vanilla"]) == []
    (root / "birds" / "concept-tuning").rename(root / "birds" / "vanilla2")
    assert run_places(root / "tiny", cards["concept-tuning"]) == []


def test_of_several_that_fit_those_beside_the_diagnosis_count(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    shutil.copytree(root / "birds" / "vanilla", root / "others" / "vanilla")
    assert len(run_places(root / "tiny", cards["vanilla"])) == 2
    shutil.copytree(root / "tiny", root / "others" / "tiny")
    assert run_places(root / "others" / "tiny", cards["vanilla"]) == [(root / "others" / "vanilla").resolve()]


def test_the_runs_that_a_diagnosis_was_started_with_count_first(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    shutil.copytree(root / "birds" / "vanilla", root / "vanilla")
    shutil.copytree(root / "tiny", root / FOLDER / "mine")
    record = {"runs": ["birds/vanilla", "birds/concept-tuning"], "total": 3, "started": 0.0}
    (root / FOLDER / "mine.job.json").write_text(json.dumps(record))
    assert run_places(root / FOLDER / "mine", cards["vanilla"]) == [(root / "birds" / "vanilla").resolve()]


@pytest.mark.parametrize("named", ["../vanilla", "foreign/vanilla", "foreign/../../vanilla", "{outside}/vanilla"])
def test_a_diagnosis_cannot_name_runs_outside_the_folder_of_runs(root, cards, monkeypatch, tmp_path, named) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    (root / "birds" / "vanilla").rename(root.parent / "vanilla")
    (root / "foreign").mkdir()
    (root / "foreign" / "vanilla").symlink_to(root.parent / "vanilla")
    shutil.copytree(root / "tiny", root / FOLDER / "mine")
    record = {"runs": [named.format(outside=root.parent.resolve())], "total": 3, "started": 0.0}
    (root / FOLDER / "mine.job.json").write_text(json.dumps(record))
    assert run_places(root / FOLDER / "mine", cards["vanilla"]) == []


def test_a_run_that_is_linked_into_the_folder_of_runs_is_found(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    (root / "birds" / "vanilla").rename(root.parent / "vanilla")
    (root / "vanilla").symlink_to(root.parent / "vanilla")
    shutil.copytree(root / "tiny", root / FOLDER / "mine")
    record = {"runs": ["vanilla"], "total": 3, "started": 0.0}
    (root / FOLDER / "mine.job.json").write_text(json.dumps(record))
    assert run_places(root / FOLDER / "mine", cards["vanilla"]) == [root.resolve() / "vanilla"]


def test_a_run_whose_weights_lead_elsewhere_is_not_handed_out(root, cards, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    (root / "birds" / "vanilla" / "best").rename(tmp_path / "private")
    (root / "birds" / "vanilla" / "best").symlink_to(tmp_path / "private")
    assert run_places(root / "tiny", cards["vanilla"]) == []


def test_where_several_fit_the_user_chooses(show, root) -> None:
    shutil.copytree(root / "birds" / "vanilla", root / "others" / "vanilla")
    page = show("compare", root)
    folder = box(page, "compare-folder-vanilla")
    assert folder.options == ["birds/vanilla", "others/vanilla"]
    folder.set_value((root / "others" / "vanilla").resolve()).run()
    assert "Best weights of others/vanilla" in told(page)


def test_where_no_run_is_known_it_says_so(show, root) -> None:
    shutil.rmtree(root / "birds" / "vanilla")
    page = show("compare", root)
    assert "No folder is known for vanilla" in told(page)
    assert "Best weights of birds/concept-tuning" in told(page)
    shutil.rmtree(root / "birds")
    page = show("compare", root)
    assert "No folder is known for vanilla, concept-tuning" in told(page)
    assert len(page.get("download_button")) == 3


def test_names_from_data_do_not_act_as_markdown(show, tiny_diagnosis, tmp_path) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "hostile")
    first = load_diagnosis(tiny_diagnosis).overview.class_names[0]
    evil = ":red[x](http)"
    for path in (tmp_path / "hostile").rglob("*.json"):
        path.write_text(path.read_text().replace(first, evil))
    page = show("compare", tmp_path)
    assert not page.exception
    box(page, "compare-label").set_value(evil).run()
    text = next(text.value for text in page.markdown if "pictures of this cell" in text.value)
    assert evil not in text
    assert evil in text.replace("\\", "")


def test_an_empty_run_in_the_address_is_the_first_and_others_can_be_chosen(show) -> None:
    page = show("compare", **{"compare-run": ""})
    assert not page.exception
    assert page.button_group(key="compare-run").value == "vanilla"
    page.button_group(key="compare-run").set_value("concept-tuning").run()
    assert page.button_group(key="compare-run").value == "concept-tuning"
    assert "of which concept-tuning" in told(page)


def test_a_part_of_the_page_that_fails_is_a_sentence(show, monkeypatch) -> None:
    def fail(*found: object) -> None:
        raise RunError("The *pictures* vanished.")

    monkeypatch.setattr(compare_mistakes, "_cell", fail)
    page = show("compare")
    assert not page.exception
    assert page.error[0].value == "The \\*pictures\\* vanished."
    # What comes after the failed part is there.
    assert "Take away" in [head.value for head in page.subheader]


def test_why_a_file_could_not_be_made_is_said_when_the_page_is_shown_again(show, root) -> None:
    failed: list[str] = []
    make = compare_downloads.kept_errors(lambda: compare_downloads.bundle(root / "gone", {}), failed)
    with pytest.raises(RunError):
        make()
    unread = compare_downloads.kept_errors(lambda: (root / "gone" / "report.html").read_bytes(), failed)
    with pytest.raises(OSError, match="No such file"):
        unread()
    assert failed[0].startswith("The file could not be made: ")
    assert "No such file or directory" in failed[1]
    page = show("compare", root)
    assert not page.error
    page.session_state["compare-failed"] += failed
    page.run()
    assert len(page.error) == 2
    assert "No such file or directory" in page.error[1].value
    assert not page.run().error


def test_where_the_diagnosis_vanished_nothing_is_offered_to_take_away(show, root, monkeypatch) -> None:
    monkeypatch.setattr(state, "chosen_folder", lambda: root / "gone")
    page = show("compare", root)
    assert not page.exception
    assert not page.error
    assert "The folder gone of this diagnosis is not there any more" in told(page)
    assert not page.get("download_button")
