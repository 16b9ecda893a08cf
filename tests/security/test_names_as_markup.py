"""Names of runs, classes, groups and files that hold HTML: nothing of it acts in the report or in any figure."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.errors import RunError
from concept_tuning.report.page import render_report

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo" / "diagnosis"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>x</a></script>{{7*7}}"
#: What plotly draws as mark-up, of which its own lists allow these; the project writes no other.
DRAWN = {"b", "br", "i", "sub", "sup", "span", "em", "extra"}


class Markup(HTMLParser):
    """The tags of a page with their attributes, and what its block of figures holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self._figures = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._figures = dict(attrs).get("id") == "figures"

    def handle_data(self, data: str) -> None:
        if self._figures:
            self.figures = json.loads(data)
            self._figures = False


def renamed(value: Any, pattern: re.Pattern[str], evil: dict[str, str], field: str = "") -> Any:
    """Return JSON in which the names are replaced wherever they stand, also in sentences and keys of pictures."""
    if isinstance(value, dict):
        return {key: renamed(part, pattern, evil, key) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, pattern, evil, field) for part in value]
    if isinstance(value, str) and field not in ("method", "methods", "analysis", "file", "base64", "files", "dtype"):
        return pattern.sub(lambda found: evil[found[0]], value)
    return value


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the report of the demo's diagnosis in which every run, class, group and picture has a hostile name."""
    folder = tmp_path_factory.mktemp("markup") / "seen"
    shutil.copytree(DEMO, folder)
    overview = json.loads((DEMO / "diagnosis.json").read_text())
    stored = json.loads((DEMO / "results" / "00_predictions.json").read_text())
    names = [*(run["name"] for run in overview["runs"]), *overview["class_names"], *stored["group_names"]]
    names += stored["keys"]
    evil = {name: f"{EVIL}{place}" for place, name in enumerate(sorted(names, key=len, reverse=True))}
    pattern = re.compile("|".join(rf"(?<![\w/]){re.escape(name)}(?![\w/])" for name in evil))
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(renamed(json.loads(path.read_text()), pattern, evil)))
    return render_report(load_diagnosis(folder))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def test_no_name_is_mark_up_in_the_report(hostile_report: str) -> None:
    assert EVIL not in hostile_report
    assert "<img src=x" not in hostile_report
    assert "javascript:alert" in hostile_report  # the names are shown, as text
    assert "{{7*7}}" in hostile_report  # and are no template
    page = Markup(hostile_report)
    plain = Markup(render_report(load_diagnosis(DEMO)))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == sum(tag == "script" for tag, _ in plain.tags)
    attributes = [(name, value or "") for _, attrs in page.tags for name, value in attrs.items()]
    assert [name for name, _ in attributes if name.startswith("on")] == []
    assert [value for name, value in attributes if name in ("href", "src") and "javascript" in value] == []


def drawn(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure without what plotly never shows: data for clicks, and names of traces that have no legend."""
    legend = figure["layout"].get("showlegend") is not False
    traces = []
    for trace in figure["data"]:
        hover = trace.get("hovertemplate", "") or ""
        shown = dict(trace)
        if "customdata" not in hover + (trace.get("texttemplate") or ""):
            shown.pop("customdata", None)
        named = legend and trace.get("showlegend") is not False and trace["type"] not in ("heatmap", "image")
        boxed = trace.get("hoverinfo") != "skip" and "<extra></extra>" not in hover
        if not named and not boxed:
            shown.pop("name", None)
        shown.pop("legendgroup", None)
        traces.append(shown)
    return figure | {"data": traces}


def test_no_name_is_mark_up_in_any_figure(hostile_report: str) -> None:
    figures = Markup(hostile_report).figures
    assert len(figures) > 20
    written = [text for figure in figures for text in texts(drawn(figure)) if "alert" in text]
    assert len(written) > 100  # names do stand in the figures
    tags = {tag.lower() for text in written for tag in re.findall(r"<\s*/?\s*([a-zA-Z]+)", text)}
    assert tags <= DRAWN


def test_a_stored_picture_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "seen")
    file = tmp_path / "seen" / "results" / "thumbnails.json"
    stored = json.loads(file.read_text())
    stored["files"] = [f'{one[:40]}"><script>alert(1)</script>' for one in stored["files"]]
    file.write_text(json.dumps(stored))
    with pytest.raises(RunError, match="is damaged"):
        render_report(load_diagnosis(tmp_path / "seen"))
