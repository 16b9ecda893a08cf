from __future__ import annotations

import html
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from concept_tuning.diagnostics.catalogue import BY_NAME
from concept_tuning.diagnostics.diagnose import Diagnosis, diagnose, load_diagnosis
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.errors import RunError
from concept_tuning.report.chapters import CHAPTERS
from concept_tuning.report.page import PAGE, render_report, write_report

#: Quick analyses, among them one without a result and one that shows pictures.
QUICK = ("predictions", "groups", "verdict", "ledger", "concept-maps", "position-attention", "transport", "switches")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("diagnosis")


@pytest.fixture(scope="module")
def made(subjects, folder) -> Diagnosis:
    bench = Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None)
    return diagnose(bench, folder, only=QUICK)


@pytest.fixture(scope="module")
def rendered(made: Diagnosis) -> str:
    return render_report(made)


class Page(HTMLParser):
    """Tags, the text outside scripts, and the figures of a report."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.figures: list[dict] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = "figures" if dict(attrs).get("id") == "figures" else tag

    def handle_endtag(self, tag) -> None:
        self._inside = ""

    def handle_data(self, data) -> None:
        if self._inside == "figures":
            self.figures = json.loads(data)
        elif self._inside not in {"script", "style"}:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def test_every_analysis_has_a_chapter() -> None:
    assert set(CHAPTERS) == set(BY_NAME)


def test_the_page_needs_no_network_and_nothing_beside_it(rendered) -> None:
    page = Page(rendered)
    assert not page.values("src")
    assert all(target.startswith("#") for target in page.values("href"))
    assert {target[1:] for target in page.values("href")} <= set(page.values("id"))
    assert not any(tag == "link" for tag, _ in page.tags)
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_every_figure_is_on_the_page_once_with_words_for_it(rendered) -> None:
    page = Page(rendered)
    boxes = [attrs for _, attrs in page.tags if "data-figure" in attrs]
    assert [int(box["data-figure"]) for box in boxes] == list(range(len(page.figures)))
    assert len(boxes) > 20
    assert all(len(box["aria-label"]) > 20 for box in boxes)
    assert all(figure["data"] for figure in page.figures)


def test_what_is_missing_is_said_with_its_reason(made, rendered) -> None:
    text = Page(rendered).text
    entry = next(entry for entry in made.overview.entries if entry.analysis == "ledger")
    assert f"Not made: {entry.reason}" in text
    assert "Not made for vanilla: " in text


def test_the_summary_tells_each_runs_accuracy(made, rendered) -> None:
    text = Page(rendered).text
    for card in made.overview.runs:
        found = made.results["predictions", card.name].accuracy
        assert f"{card.name} has {100 * found.value:.1f} % of {found.n} pictures [" in text


def test_a_saved_diagnosis_gives_the_same_page(made, folder, rendered) -> None:
    assert render_report(load_diagnosis(folder)) == rendered
    written = write_report(made, folder)
    assert written == folder / PAGE
    assert written.read_text(encoding="utf-8") == rendered


def test_names_cannot_bring_mark_up(made, folder, tmp_path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    shutil.copytree(folder, tmp_path / "hostile")
    for path in (tmp_path / "hostile").rglob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(made.overview.class_names[0], evil), encoding="utf-8")
    text = render_report(load_diagnosis(tmp_path / "hostile"))
    page = Page(text)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert evil not in text
    assert html.escape(evil, quote=False) in page.text.replace("<", "&lt;").replace(">", "&gt;")
    assert len(page.figures) > 20


def test_a_folder_that_cannot_be_written_is_named(made, tmp_path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_report(made, tmp_path / "gone")
