from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from lacking_results import leave_out

from app import state
from app.views import spurious, spurious_groups, spurious_lab_runs, spurious_looks
from concept_tuning.diagnostics.background import FOLDER
from concept_tuning.diagnostics.diagnose import Entry, Overview, diagnose, load_diagnosis
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.results import Interval, load_result, save_result
from concept_tuning.diagnostics.slices import Slice, SliceTable
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.engine import jobs
from concept_tuning.report.blocks import Source
from concept_tuning.report.findings import findings

LAB = "lab-rho-0.80"
ANALYSES = ("predictions", "groups", "counterfactuals", "properties", "concept-effects")


@pytest.fixture(scope="module")
def made(subjects, tmp_path_factory) -> Path:
    """Return a folder of runs with a diagnosis of one run, named as in the lab, that has every part of the page."""
    root = tmp_path_factory.mktemp("spurious")
    run = Subject(name=LAB, run=subjects[0].run)
    diagnose(Workbench(subjects=(run,), bundle=run.run.data(), count=None), root / "one", only=ANALYSES)
    add_slices(root / "one")
    return root


def add_slices(folder: Path) -> None:
    """Add slices, which so few pictures do not give, to a diagnosis."""
    keys = load_diagnosis(folder).results["predictions", LAB].keys
    slices = [
        Slice(
            accuracy=Interval(value=0.5, low=0.2, high=0.8, n=8),
            lift=0.0,
            excess=excess,
            classes=(("gull [x]", 1.0),),
            predicted=(("jay", 1.0),),
            keys=part,
        )
        for excess, part in ((1.5, keys[:8]), (-1.5, keys[8:]))
    ]
    accuracy = Interval(value=0.5, low=0.3, high=0.7, n=16)
    table = SliceTable(accuracy=accuracy, slices=tuple(slices), n_slices=2, small=0, p_value=0.04)
    save_result(table, folder / "results" / "99_slices.json")
    path = folder / "diagnosis.json"
    overview = load_result(Overview, path)
    entry = Entry(analysis="slices", run=LAB, file="results/99_slices.json", reason=None)
    values = {name: getattr(overview, name) for name in overview.__dataclass_fields__}
    save_result(Overview(**(values | {"entries": (*overview.entries, entry)})), path)


def box(page, key: str):
    return next(one for one in page.selectbox if one.key == key)


def told(page) -> str:
    return "\n".join(text.value for text in (*page.markdown, *page.caption, *page.info)).replace("\\", "")


@pytest.mark.parametrize("part", ["groups", "counterfactuals", "concept-effects", "properties", "slices", "switches"])
def test_every_part_shows_its_findings_and_its_charts(show, made, part: str) -> None:
    page = show("spurious", made, part=part)
    assert not page.exception
    assert not page.error
    if part == "switches":
        assert "made without switches" in told(page)
    else:
        assert page.get("plotly_chart")
        said = [one.text for one in findings(Source(load_diagnosis(made / "one"))) if one.chapter == part]
        assert said
        assert all(text.replace("\\", "") in told(page) for text in said)


def test_the_worst_cell_is_told_in_words_and_its_mistakes_are_shown(show, made) -> None:
    page = show("spurious", made)
    found = load_diagnosis(made / "one")
    table, predictions = found.results["groups", LAB], found.results["predictions", LAB]
    assert f"{table.worst.class_name} | {table.worst.group}: the worst cell of this run" in told(page)
    place = table.class_names.index(table.worst.class_name), table.group_names.index(table.worst.group)
    wrong = int((table.counts - table.right)[place])
    assert wrong
    assert f"Its {wrong} mistakes" in told(page)
    assert len(page.get("image")) == wrong
    inside = (predictions.labels == place[0]) & (predictions.groups == place[1]) & ~predictions.right
    assert wrong == int(inside.sum())


def test_another_cell_can_be_chosen_and_is_in_the_address(show, made) -> None:
    table = load_diagnosis(made / "one").results["groups", LAB]
    cell = max(table.cells, key=lambda cell: cell.accuracy.value)
    page = show("spurious", made, **{"spurious-class": cell.class_name, "spurious-group": cell.group})
    assert f"{cell.class_name} | {cell.group}: " in told(page)
    other = next(one for one in table.cells if one.group != cell.group)
    box(page, "spurious-group").set_value(other.group)
    box(page, "spurious-class").set_value(other.class_name).run()
    assert f"{other.class_name} | {other.group}: " in told(page)


def test_a_click_on_a_cell_chooses_run_class_and_group(monkeypatch) -> None:
    point = {"curve_number": 3, "customdata": ["gull", "sea"]}
    session = {"spurious-groups-chart": {"selection": {"points": [point]}}}
    monkeypatch.setattr(spurious_groups.st, "session_state", session)
    spurious_groups._take_click(["a", "b"])
    assert [session[f"spurious-{name}"] for name in ("run", "class", "group")] == ["b", "gull", "sea"]
    session["spurious-groups-chart"]["selection"]["points"] = []
    spurious_groups._take_click(["a", "b"])
    assert session["spurious-run"] == "b"


def test_a_click_on_a_slice_chooses_it(made, monkeypatch) -> None:
    table = load_diagnosis(made / "one").results["slices", LAB]
    point = {"curve_number": 0, "customdata": list(table.slices[1].keys[:4])}
    session = {"chart": {"selection": {"points": [point]}}}
    monkeypatch.setattr(spurious_looks.st, "session_state", session)
    spurious_looks._take_slice("chart", table)
    assert session["spurious-slice"] == 2


def test_concept_property_picture_and_slice_can_be_chosen(show, made) -> None:
    page = show("spurious", made, part="concept-effects")
    concept = box(page, "spurious-concept")
    concept.set_value(2).run()
    effect = load_diagnosis(made / "one").results["concept-effects", LAB].concepts[1]
    assert f"In {100 * effect.present.value:.0f} % of the pictures" in told(page)
    page = show("spurious", made, part="properties")
    box(page, "spurious-property").set_value("contrast").run()
    assert "Contrast of the pictures of each class" in told(page)
    page = show("spurious", made, part="slices")
    box(page, "spurious-slice").set_value(2).run()
    assert "1.5 errors fewer" in told(page)
    assert len(page.get("image")) == 8
    page = show("spurious", made, part="counterfactuals")
    pictures = page.button_group[1]
    pictures.set_value(pictures.options[1]).run()
    assert not page.exception


def test_the_pictures_behind_a_change_are_chosen_by_name_or_by_a_click(show, made) -> None:
    page = show("spurious", made, part="counterfactuals")
    found = load_diagnosis(made / "one").results["counterfactuals", None]
    assert "change by this" not in told(page)
    (run,) = found.runs
    for outcome in run.outcomes:
        page.selectbox(key="spurious-flips-edit").set_value(outcome.kind).run()
        assert not page.exception
        assert f"{round(outcome.flips.value * outcome.flips.n)} predictions of {LAB} change by this" in told(page)


def test_a_click_on_a_rate_chooses_its_run_and_edit(made) -> None:
    from streamlit.testing.v1 import AppTest

    def script(folder: str) -> None:
        import dataclasses

        import streamlit as st

        from app.views import spurious_backgrounds
        from concept_tuning.diagnostics.diagnose import load_diagnosis

        found = load_diagnosis(folder).results["counterfactuals", None]
        found = dataclasses.replace(found, runs=(found.runs[0], dataclasses.replace(found.runs[0], run="other")))
        st.session_state["spurious-flips"] = {"selection": {"points": [{"curve_number": 1, "point_index": 1}]}}
        spurious_backgrounds._take_click(found)

    page = AppTest.from_function(script, default_timeout=120, args=(made / "one",)).run()
    assert not page.exception
    run = load_diagnosis(made / "one").results["counterfactuals", None].runs[0]
    assert page.session_state["spurious-flips-run"] == "other"
    assert page.session_state["spurious-flips-edit"] == run.outcomes[1].kind


def test_without_predictions_the_matrix_is_shown_all_the_same(show, made, tmp_path) -> None:
    shutil.copytree(made / "one", tmp_path / "one")
    path = tmp_path / "one" / "diagnosis.json"
    values = json.loads(path.read_text())
    values["entries"] = [entry for entry in values["entries"] if entry["analysis"] != "predictions"]
    path.write_text(json.dumps(values))
    page = show("spurious", tmp_path)
    assert not page.exception
    assert "analysis “predictions” as well" in told(page)


def test_the_reason_for_what_is_missing_is_told(show, made, tmp_path) -> None:
    shutil.copytree(made / "one", tmp_path / "one")
    leave_out(tmp_path / "one", ["groups"], "These pictures have no groups.")
    page = show("spurious", tmp_path, part="groups")
    assert f"Not made for {LAB}: These pictures have no groups." in told(page)


def test_parts_with_results_come_first_and_the_first_of_them_is_open(show, made, tmp_path) -> None:
    shutil.copytree(made / "one", tmp_path / "one")
    leave_out(tmp_path / "one", ("groups", "counterfactuals"), "These pictures have none.")
    page = show("spurious", tmp_path)
    (parts,) = [group for group in page.button_group if group.key == "spurious-part"]
    assert parts.value == "concept-effects"
    shown = [spurious.PARTS[name] for name in ("concept-effects", "properties", "slices", "lab", "groups")]
    assert [option.content for option in parts.proto.options][:5] == shown


def test_the_open_part_moves_on_with_a_diagnosis_that_lacks_it(show, made, tmp_path) -> None:
    for name in "ab":
        shutil.copytree(made / "one", tmp_path / name)
    leave_out(tmp_path / "b", ["groups"], "These pictures have no groups.")
    page = show("spurious", tmp_path, diagnosis="a", part="groups")
    page.sidebar.selectbox[0].set_value("b").run()
    assert not page.exception
    assert page.query_params["part"] == "counterfactuals"


def test_the_concept_that_is_told_of_is_open(show, made, monkeypatch) -> None:
    from concept_tuning.report import spurious as chapter

    found = load_diagnosis(made / "one").results["concept-effects", LAB]
    monkeypatch.setattr(chapter, "telling_concept", lambda result: result.concepts[1])
    assert box(show("spurious", made, part="concept-effects"), "spurious-concept").value == found.concepts[1].rank


def test_the_lab_is_there_without_any_diagnosis(show, tmp_path) -> None:
    page = show("spurious", tmp_path)
    assert not page.exception
    assert "Homes: red-footed gull: water" in told(page)
    page.slider[0].set_value(0.5).run()
    assert page.button[0].label == "Train at rho 0.50"


def test_the_button_queues_a_small_run_at_this_rho(show, tmp_path, monkeypatch) -> None:
    started = []
    monkeypatch.setattr(jobs, "start", lambda config, root, name: started.append((config, root, name)))
    page = show("spurious", tmp_path)
    page.slider[0].set_value(0.3).run()
    page.button[0].click().run()
    (config, root, name) = started[0]
    assert (root, name) == (tmp_path, "lab-rho-0.30")
    assert config.planted.rho == 0.3
    assert config.optim.max_steps == 60
    assert config.planted.images == 300


def test_a_run_that_was_refused_is_a_sentence(show, tmp_path) -> None:
    (tmp_path / "lab-rho-0.95").mkdir()
    page = show("spurious", tmp_path)
    page.button[0].click().run()
    assert "is taken" in page.error[0].value
    assert not page.exception


@pytest.fixture
def lab(subjects, tmp_path) -> Path:
    """Return a folder of runs with a finished run of the lab."""
    shutil.copytree(subjects[0].run.folder.path, tmp_path / LAB)
    return tmp_path


def test_a_finished_run_can_be_shown_to_the_detectors(show, lab, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        spurious_lab_runs, "start_diagnosis", lambda runs, root, name, **more: asked.append((name, more))
    )
    page = show("spurious", lab)
    assert "Trained." in told(page)
    assert list(page.dataframe[0].value.columns) == ["measure", "rho 0.80"]
    page.slider[0].set_value(0.8).run()
    assert page.button[0].disabled
    next(one for one in page.button if one.label == "Let the detectors look").click().run()
    assert asked[0][0] == LAB
    assert set(ANALYSES) <= set(asked[0][1]["only"])


def test_what_the_detectors_said_stands_beside_the_accuracy(show, lab, made) -> None:
    shutil.copytree(made / "one", lab / FOLDER / LAB)
    shutil.copyfile(lab / LAB / "results.json", lab / "results.json")
    record = {"runs": [LAB], "total": 7, "started": time.time()}
    (lab / FOLDER / f"{LAB}.job.json").write_text(json.dumps(record))
    (lab / FOLDER / f"{LAB}.log").write_text("    1 s  Report\n")
    page = show("spurious", lab, part="lab")
    assert not page.exception
    row = dict(page.dataframe[0].value.itertuples(index=False))
    found = load_diagnosis(made / "one")
    assert row["strongest property (0–1)"].startswith(found.results["properties", None].properties[0].name)
    assert row["mistakes gather"] == "p = 0.04"
    assert "points" in row["more answers change with the background"]
    assert "**rho 0.80**: " in told(page)
    assert "suspicious concepts" in told(page)
    tested = json.loads((lab / LAB / "results.json").read_text())["splits"]["test"]
    low, high = 100 * tested["low"], 100 * tested["high"]
    interval = f"[95 %: {low:.0f} to {high:.0f}]"
    assert row["test accuracy"] == f"{100 * tested['accuracy']:.0f} % {interval}, n = {tested['n']}"
    assert re.fullmatch(r"\d+ % \[95 %: \d+ to \d+\], n = \d+ \(.* \| .*\)", row["worst group"])
    next(one for one in page.button if one.label == "Look closer at rho 0.80").click().run()
    assert page.session_state["diagnosis"] == f"{FOLDER}/{LAB}"
    assert page.query_params["part"] == "groups"


def test_a_diagnosis_of_an_earlier_run_of_the_name_is_not_taken_for_that_of_this_one(
    show, lab, made, monkeypatch
) -> None:
    shutil.copytree(made / "one", lab / FOLDER / LAB)
    record = {"runs": [LAB], "total": 7, "started": 1.0}
    (lab / FOLDER / f"{LAB}.job.json").write_text(json.dumps(record))
    (lab / FOLDER / f"{LAB}.log").write_text("    1 s  Report\n")
    asked = []
    monkeypatch.setattr(spurious_lab_runs, "start_diagnosis", lambda runs, root, name, **more: asked.append(name))
    page = show("spurious", lab, part="lab")
    assert "mistakes gather" not in list(page.dataframe[0].value["measure"])
    assert not [one for one in page.button if one.label.startswith("Look closer")]
    next(one for one in page.button if one.label == "Let the detectors look").click().run()
    assert asked == [f"{LAB}-2"]


def test_a_stopped_run_says_where_to_go_on(show, lab) -> None:
    path = lab / LAB / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "stopped", "message": "Stopped at step 3"}))
    assert "Stopped at step 3 Resume or delete it on the Train page" in told(show("spurious", lab))


def test_the_recorded_sweep_is_drawn_or_its_command_told(show, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(state, "SWEEP", tmp_path / "none.json")
    assert "benchmarks/detector_sweep.py" in told(show("spurious", tmp_path))
    row = {"score": "slices.test", "rho": 0.5, "auc": 0.9, "low": 0.7, "high": 1.0, "runs": [6, 6]}
    (tmp_path / "sweep.json").write_text(json.dumps({"detection": [row], "commands": ["python x.py"]}))
    monkeypatch.setattr(state, "SWEEP", tmp_path / "sweep.json")
    page = show("spurious", tmp_path)
    assert len(page.get("plotly_chart")) == 1
    assert "Made by `python x.py`" in told(page)
    (tmp_path / "sweep.json").write_text("{")
    assert "benchmarks/detector_sweep.py" in told(show("spurious", tmp_path))


@pytest.mark.parametrize("part", ["groups", "concept-effects", "slices"])
def test_an_empty_run_in_the_address_is_the_first(show, made, part: str) -> None:
    page = show("spurious", made, part=part, **{"spurious-run": ""})
    assert not page.exception
    assert not page.error
    assert page.button_group(key="spurious-run").value == LAB


def test_an_empty_picture_in_the_address_is_the_first(show, made) -> None:
    page = show("spurious", made, part="counterfactuals", **{"spurious-picture": ""})
    assert not page.exception
    assert not page.error
    assert page.get("plotly_chart")
    assert page.button_group(key="spurious-picture").value is not None
