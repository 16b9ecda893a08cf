"""Every page that reads a diagnosis: with one, without one, with a broken one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app import state

VIEWS = ("attention", "rare", "spurious", "embedding", "compare")


@pytest.mark.parametrize("name", VIEWS)
def test_a_page_shows_the_diagnosis(show, name: str) -> None:
    page = show(name)
    assert not page.exception
    assert not page.error
    assert page.title
    assert page.sidebar.selectbox[0].value == "tiny"


@pytest.mark.parametrize("name", VIEWS)
def test_without_a_diagnosis_it_says_what_to_do(show, name: str, tmp_path) -> None:
    page = show(name, tmp_path)
    assert not page.exception
    assert not page.error
    assert "diagnose them there" in page.info[0].value


@pytest.mark.parametrize("name", VIEWS)
def test_a_broken_diagnosis_is_a_sentence(show, name: str, tiny_diagnosis, tmp_path) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "broken")
    for path in (tmp_path / "broken" / "results").glob("*.json"):
        path.write_text("{")
    page = show(name, tmp_path)
    assert not page.exception
    assert "run the diagnosis again" in page.error[0].value


def test_the_part_of_spurious_is_in_the_address(show) -> None:
    page = show("spurious", part="switches")
    assert page.button_group[0].value == "switches"
    assert any("front-door head" in text.value for text in page.markdown)
    page.button_group[0].set_value("slices").run()
    assert not page.exception
    assert page.query_params["part"] == "slices"


def test_what_is_missing_is_said_on_its_page(show) -> None:
    page = show("rare")
    assert any("random weights" in text.value for text in (*page.caption, *page.info))
    page = show("spurious", part="counterfactuals")
    assert any("made without" in text.value for text in page.info)


def test_a_cell_of_the_confusion_matrix_opens_its_pictures(show) -> None:
    page = show("compare")
    label, said = (box for box in page.selectbox if box.key in ("compare-label", "compare-said"))
    said.set_value(label.options[0]).run()
    assert any("pictures of this cell" in text.value for text in page.markdown)
    assert not page.exception


def test_names_cannot_act_as_markdown() -> None:
    from app.blocks import plain

    assert plain("*a* [b](c) <d> $e$ :red[f]") == "\\*a\\* \\[b\\](c) \\<d\\> \\$e\\$ \\:red\\[f\\]"


def test_a_diagnosis_that_does_not_exist_is_said(show) -> None:
    page = show("rare", diagnosis="n*pe")
    assert page.warning[0].value == "There is no diagnosis n\\*pe; this is tiny."
    assert not show("rare", diagnosis="tiny").warning
    assert not show("rare").warning


def test_a_diagnosis_is_called_by_its_runs(show) -> None:
    assert show("rare").sidebar.selectbox[0].options == ["tiny: vanilla, concept-tuning"]


def test_the_address_names_every_diagnosis_but_the_demo(show, monkeypatch, tiny_diagnosis) -> None:
    page = show("compare")
    assert page.query_params["diagnosis"] == "tiny"
    demo = tiny_diagnosis.parent / "demo-of-test"
    shutil.copytree(tiny_diagnosis, demo / "diagnosis")
    monkeypatch.setattr(state, "DEMO", demo)
    try:
        page.run()
        assert page.query_params["diagnosis"] == "tiny"
        page.sidebar.selectbox[0].set_value(state.DEMO_LABEL).run()
        assert "diagnosis" not in page.query_params
    finally:
        shutil.rmtree(demo)


def test_a_folder_called_like_the_demo_does_not_take_its_place(monkeypatch, tiny_diagnosis, tmp_path) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "demo" / "diagnosis")
    shutil.copytree(tiny_diagnosis, tmp_path / "runs" / state.DEMO_LABEL)
    monkeypatch.setattr(state, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    found = {source.label: source.path for source in state.diagnoses()}
    assert found == {
        state.DEMO_LABEL: tmp_path / "demo" / "diagnosis",
        f"./{state.DEMO_LABEL}": tmp_path / "runs" / state.DEMO_LABEL,
    }


@pytest.mark.parametrize("name", ["attention", "spurious", "compare"])
def test_a_diagnosis_that_vanishes_meanwhile_is_a_sentence(show, monkeypatch, tiny_diagnosis, tmp_path, name) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "one")
    read = state.read_diagnosis

    def read_and_remove(path: Path) -> object:
        found = read(path)
        shutil.rmtree(path)
        return found

    monkeypatch.setattr(state, "read_diagnosis", read_and_remove)
    page = show(name, tmp_path)
    assert not page.exception
    assert not page.error


def test_a_diagnosis_that_vanishes_while_they_are_listed_is_passed_over(monkeypatch, tiny_diagnosis, tmp_path) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "one")
    glob = Path.glob
    gone = tmp_path / "gone" / "diagnosis.json"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [gone, *glob(self, pattern)])
    monkeypatch.setattr(state, "DEMO", tmp_path / "none")
    monkeypatch.setattr(state, "ROOT", tmp_path)
    assert [source.label for source in state.diagnoses()] == ["one", "gone"]


def damage(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("results/00_predictions.json", lambda values: values.update(keys=values["keys"][:5])),
        ("results/00_predictions.json", lambda values: values["labels"]["values"].__setitem__(0, 99)),
        ("results/00_predictions.json", lambda values: values["groups"]["values"].__setitem__(0, -1)),
        ("results/00_predictions.json", lambda values: values["probabilities"].update(shape=[-1, 1])),
        ("results/thumbnails.json", lambda values: values.update(files=values["files"][1:])),
        ("results/thumbnails.json", lambda values: values.update(files=["xx" for _ in values["files"]])),
        ("results/*_picture-maps.json", lambda values: values["predicted"]["values"].__setitem__(0, 99)),
        ("diagnosis.json", lambda values: values.update(class_names=[])),
    ],
)
@pytest.mark.parametrize("name", ["attention", "compare"])
def test_results_that_do_not_fit_together_are_a_sentence(show, tiny_diagnosis, tmp_path, name, file, change) -> None:
    shutil.copytree(tiny_diagnosis, tmp_path / "foreign")
    damage(sorted((tmp_path / "foreign").glob(file))[0], change)
    page = show(name, tmp_path)
    assert not page.exception
    assert "make it again" in page.error[0].value
