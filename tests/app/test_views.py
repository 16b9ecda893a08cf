"""Every page that reads a diagnosis: with one, without one, with a broken one."""

from __future__ import annotations

import shutil

import pytest

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
    assert "diagnose them first" in page.info[0].value


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
