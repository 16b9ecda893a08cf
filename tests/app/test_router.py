from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import look, state
from app.look import fit_key
from app.pages import PAGES
from concept_tuning.errors import RunError

MAIN = Path(__file__).parents[2] / "app" / "main.py"
NAMES = [name for name, _, _ in PAGES]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")


def at(name: str) -> AppTest:
    """Open the dashboard at the address of a page."""
    app = AppTest.from_file(str(MAIN), default_timeout=60).run()
    found = [key for key, info in app._registered_pages.items() if (info["url_pathname"] or NAMES[0]) == name]
    app._page_hash = found[0] if found else "no such page"
    return app.run()


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts another render function in the place of a page's."""

    def put(name: str, render) -> None:
        module = ModuleType(f"app.views.{name}")
        module.render = render
        monkeypatch.setitem(sys.modules, f"app.views.{name}", module)

    return put


@pytest.mark.parametrize("name", NAMES)
def test_every_page_is_reachable_and_has_one_view(view, name: str) -> None:
    module = import_module(f"app.views.{name}")
    public = [part for part in vars(module).values() if getattr(part, "__module__", "") == module.__name__]
    assert module.render in public
    view(name, lambda: st.title(f"the page {name}"))
    assert [title.value for title in at(name).title] == [f"the page {name}"]


def test_pages_have_titles_icons_and_addresses_of_their_own() -> None:
    assert len(set(NAMES)) == len(PAGES) == len({title for _, title, _ in PAGES})
    app = AppTest.from_file(str(MAIN), default_timeout=60).run()
    assert [info["url_pathname"] for info in app._registered_pages.values()] == ["", *NAMES[1:]]  # the first by default


def test_both_schemes_have_a_theme_and_neither_is_forced() -> None:
    theme = tomllib.loads((MAIN.parents[1] / ".streamlit" / "config.toml").read_text())["theme"]
    assert set(theme) == {"light", "dark"}


def test_a_chart_is_cut_no_shorter_than_it_is_high() -> None:
    for height in (0.01, 0.3, 0.5, 1.0, 1.07, 2.4, 20.0):
        step = int(fit_key(height, "chart").split("-")[1])
        rule = next(line for line in look._fits().splitlines() if f'"st-key-fit-{step}-"' in line)
        cut = float(re.search(r"\* ([\d.]+)", rule)[1])
        assert cut >= min(height, 7.9)
        assert cut <= 1.05 * max(height, 0.25)
    assert fit_key(1, "chart").endswith("-chart")


def test_an_unknown_page_is_the_first(view) -> None:
    view("start", lambda: st.title("the first page"))
    app = at("nowhere")
    assert not app.exception
    assert [title.value for title in app.title] == ["the first page"]


def _refuse() -> None:
    raise RunError("The run vanished; choose another.")


def _fail() -> None:
    raise ZeroDivisionError("secret detail")


@pytest.mark.parametrize(("render", "words"), [(_refuse, "The run vanished"), (_fail, "Something unexpected")])
def test_a_failing_view_becomes_a_sentence(view, render, words: str) -> None:
    view("start", render)
    app = at("start")
    assert not app.exception
    assert words in app.error[0].value
    assert "secret" not in app.error[0].value
