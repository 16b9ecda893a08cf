"""Names of runs, classes and groups that are written to act as Markdown or as links: no page lets them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lacking_results import leave_out

from app import state
from app.markdown import plain

DEMO = Path(state.__file__).resolve().parents[1] / "assets" / "demo" / "diagnosis"
EVIL = (
    "![x](https://evil.example/p.png) [l](https://evil.example) www.evil.example me@evil.example _x_ $x$ "
    "<script>alert(1)</script> &lt; `c` :red[r]"
)
#: What must not be left once escaped signs are taken out.
ACTING = re.compile(r"\]\(|://|www\.|@evil|_x_|\$x|<script|&lt|`c`|:red")
#: Elements whose text is Markdown, and the fields of their messages that hold it.
FIELDS = ("body", "label", "caption", "text", "help", "content")
#: These show their options as they are.
LITERAL = ("selectbox", "multiselect", "arrow_data_frame", "plotly_chart")
PAGES = [
    *(("attention", {"part": part}) for part in ("concepts", "cells", "switches", "links")),
    ("rare", {}),
    *(("spurious", {"part": part}) for part in ("groups", "counterfactuals", "concept-effects", "properties")),
    *(("spurious", {"part": part}) for part in ("slices", "switches")),
    ("embedding", {}),
    ("compare", {}),
    ("learn", {"lesson": "doubt"}),
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """Return a folder of runs with the demo's diagnosis, in which every run, class and group has a hostile name."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(DEMO, root / "seen")
    overview = json.loads((DEMO / "diagnosis.json").read_text())
    groups = json.loads((DEMO / "results" / "00_predictions.json").read_text())["group_names"]
    names = [*(run["name"] for run in overview["runs"]), *overview["class_names"], *groups]
    evil = {name: f"{EVIL} {place}" for place, name in enumerate(sorted(names, key=len, reverse=True))}
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in evil))
    for path in (root / "seen").rglob("*.json"):
        if path.name != "thumbnails.json":
            path.write_text(json.dumps(renamed(json.loads(path.read_text()), pattern, evil)))
    # Kinds of map are named in sentences too, and a file of a stranger may call one anything.
    for path in (root / "seen" / "results").glob("*_sanity.json"):
        values = json.loads(path.read_text())
        values["maps"] = [f"{EVIL} {name}" for name in values["maps"]]
        path.write_text(json.dumps(values))
    return root


def renamed(value: Any, pattern: re.Pattern[str], evil: dict[str, str], field: str = "") -> Any:
    """Return JSON in which the names are replaced wherever they stand, also in sentences."""
    if isinstance(value, dict):
        return {key: renamed(part, pattern, evil, key) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, pattern, evil, field) for part in value]
    if isinstance(value, str) and field not in ("method", "methods", "analysis", "file", "base64"):
        return pattern.sub(lambda found: evil[found[0]], value)
    return value


def texts(page) -> Iterator[tuple[str, str]]:
    """Yield every text that the browser takes for Markdown, with the kind of its element."""
    for element in page:
        proto = getattr(element, "proto", None)
        kind = element.type
        if proto is None or kind in LITERAL:
            continue
        for part in (proto, *getattr(proto, "imgs", ()), *(getattr(proto, "options", None) or ())):
            if not isinstance(part, str):
                yield from ((kind, str(getattr(part, field))) for field in FIELDS if getattr(part, field, None))


def acts(text: str) -> bool:
    return ACTING.search(re.sub(r"\\[^\w\s]", "", text)) is not None


@pytest.mark.parametrize(("name", "query"), PAGES)
def test_no_name_acts_on_any_page(show, hostile, name: str, query: dict[str, str]) -> None:
    page = show(name, hostile, **query)
    for toggle in page.toggle:
        if toggle.key != "attention-guess":
            toggle.set_value(True)
    page.run()
    assert not page.exception
    assert not page.error
    found = list(texts(page))
    assert [text for _, text in found if "evil" in text] or query == {"part": "properties"}
    assert [(kind, text) for kind, text in found if acts(text) and kind != "html"] == []
    assert not [part for part in page.get("html") if "<script" in part.proto.body]


def test_the_check_itself_sees_names_that_act() -> None:
    for part in EVIL.split():
        assert acts(part) == (part not in ("r]",))
        assert not acts(plain(part))


def test_words_of_a_choice_are_shown_as_they_are(show, hostile) -> None:
    page = show("spurious", hostile, part="slices")
    (slices,) = [box for box in page.selectbox if box.key == "spurious-slice"]
    assert "\\" not in "".join(slices.options)
    assert EVIL in slices.options[0]


def test_an_address_without_such_a_diagnosis_is_told_in_plain_words(show, hostile) -> None:
    page = show("rare", hostile, diagnosis=EVIL)
    assert "evil" in page.warning[0].value
    assert not acts(page.warning[0].value)


def test_lines_and_links_are_disarmed() -> None:
    assert plain("a\n\n# b") == "a \\# b"
    assert plain("https://a.b WWW.a.b me@a.b") == "https\\:\u2060//a.b WWW\u2060.a.b me@\u2060a.b"


def test_a_reason_of_a_strangers_diagnosis_does_not_act_in_a_lesson(show, hostile, tmp_path) -> None:
    shutil.copytree(hostile / "seen", tmp_path / "seen")
    leave_out(tmp_path / "seen", ["sanity"], EVIL)
    page = show("learn", tmp_path, lesson="doubt")
    assert "evil" in page.info[0].value
    assert not acts(page.info[0].value)
