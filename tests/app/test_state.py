"""The choice of a diagnosis on folders of strangers: no name breaks the page, and each choice opens its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from app import state
from app.state import DEMO_LABEL

DEMO = Path(state.__file__).resolve().parents[1] / "assets" / "demo" / "diagnosis"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of runs with one sound diagnosis, the demo's."""
    folder = tmp_path / "runs"
    put(folder, "own")
    return folder


def put(root: Path, name: str) -> Path:
    """Put the demo's diagnosis into a folder of runs."""
    (root / name).mkdir(parents=True)
    shutil.copy(DEMO / "diagnosis.json", root / name)
    shutil.copytree(DEMO / "results", root / name / "results", copy_function=os.link)
    return root / name


def choices(page) -> list[str]:
    """Return the diagnoses that a page offers."""
    (box,) = [box for box in page.selectbox if box.label == "Diagnosis"]
    return box.options


@pytest.mark.parametrize("name", ["\ud800", "x" * 100_000, "\udcff" * 300, 5, None, ["\ud800"], {"\udfff": 1}])
def test_no_name_of_a_run_breaks_the_choice_of_a_diagnosis(show, root: Path, name: object) -> None:
    (root / "foreign").mkdir()
    (root / "foreign" / "diagnosis.json").write_text(json.dumps({"runs": [{"name": name}]}))
    page = show("compare", root, diagnosis="own")
    assert not page.exception
    assert not page.error
    own, foreign = sorted(choices(page), key=lambda words: words.startswith("foreign: "))
    assert own.startswith("own: vanilla")
    assert foreign.startswith("foreign: ")
    assert len(foreign) <= 200
    assert "\ud800" not in foreign


def test_a_folder_whose_name_is_not_unicode_is_offered_and_opened(show, root: Path) -> None:
    name = os.fsdecode(b"odd \xff")
    try:
        put(root, name)
    except OSError:
        pytest.skip("this system has no such names")
    page = show("compare", root, diagnosis="own")
    assert not page.exception
    assert not page.error
    page = show("compare", root, diagnosis="odd \\udcff")
    assert not page.exception
    assert not page.error
    assert not page.warning
    assert any(words.startswith("odd \\udcff: vanilla") for words in choices(page))


def test_what_cannot_be_read_is_called_by_a_label_that_can_be_shown(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(state, "ROOT", root)
    (root / os.fsdecode(b"\xff")).mkdir()
    (root / os.fsdecode(b"\xff") / "diagnosis.json").write_text("{}")
    labels = {source.label: source.path for source in state.diagnoses()}
    assert labels["\\udcff"] == root / os.fsdecode(b"\xff")
    assert state._all_words(labels)["\\udcff"] == "\\udcff"


def chosen(page, begin: str) -> str:
    """Choose the diagnosis whose words begin so, and return the one that is then shown."""
    (box,) = [box for box in page.selectbox if box.label == "Diagnosis"]
    (words,) = [words for words in box.options if words.startswith(begin)]
    box.select(words).run()
    assert not page.exception
    (box,) = [box for box in page.selectbox if box.label == "Diagnosis"]
    assert box.value == page.session_state["diagnosis"]
    return box.value


def test_one_can_be_chosen_after_another(show, root: Path) -> None:
    for name in "abc":
        put(root, name)
    page = show("compare", root)
    for name in "abcab":
        assert chosen(page, f"{name}: ") == name
    page.session_state["diagnosis"] = "c"  # as a button of another page does
    page.run()
    assert page.session_state["diagnosis"] == "c"
    assert chosen(page, "a: ") == "a"


def test_two_that_read_the_same_are_told_apart(show, root: Path, monkeypatch) -> None:
    put(root, "a/same")
    put(root, "b/same")
    page = show("compare", root)
    found = choices(page)
    assert len(set(found)) == len(found) == 3
    for label in ("a/same", "b/same"):
        (words,) = [words for words in found if words.endswith(f" ({label})")]
        assert chosen(page, words) == label
    monkeypatch.setattr(state, "DEMO", DEMO.parent)
    kind, name = DEMO_LABEL.split(": ")
    (root / kind).mkdir()
    (root / kind / "diagnosis.json").write_text(json.dumps({"runs": [{"name": name}]}))
    monkeypatch.setattr(state, "ROOT", root)
    known = {source.label: source.path for source in state.diagnoses()}
    words = state._all_words(known)
    assert [label for label, text in words.items() if text == DEMO_LABEL] == [DEMO_LABEL]
