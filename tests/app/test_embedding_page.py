"""The page of layouts: what is drawn, which points are chosen, and the pictures behind them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.diagnostics.embedding import Embedding
from concept_tuning.diagnostics.results import save_result

CHOSEN = "embedding-chosen-embedding"


@pytest.fixture
def layouts(tiny_diagnosis: Path) -> Embedding:
    return load_diagnosis(tiny_diagnosis).results["embedding", None]


@pytest.fixture
def patch_root(tiny_diagnosis: Path, layouts: Embedding, tmp_path: Path) -> Path:
    """Return a folder of runs whose diagnosis has only layouts of patches, one for each picture."""
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_diagnosis, folder)
    overview = json.loads((folder / "diagnosis.json").read_text())
    for entry in overview["entries"]:
        if entry["analysis"] == "embedding":
            entry["analysis"] = "concept-embedding"
            path = folder / entry["file"]
    (folder / "diagnosis.json").write_text(json.dumps(overview))
    count = len(layouts.labels)
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), (count, 1))
    patches = replace(layouts, kind="concepts", concept=np.arange(count) % 3, boxes=boxes, image_size=16)
    save_result(patches, path)
    return folder.parent


def texts(page) -> str:
    return "\n".join(text.value for text in (*page.markdown, *page.caption))


def test_colours_and_ways_of_choosing_are_offered(show, layouts) -> None:
    page = show("embedding")
    assert f"{len(layouts.labels)} of {layouts.total} pictures, coloured by class" in texts(page)
    for colour, said in (("right", "right or wrong"), ("run", "run")):
        page.button_group(key="embedding-colour").set_value(colour).run()
        assert f"coloured by {said}" in texts(page)
        assert not page.exception
    page.button_group(key="embedding-drawing").set_value("click").run()
    assert "Click one to see" in texts(page)
    page.toggle(key="embedding-pictures").set_value(True).run()
    assert not page.exception
    assert not page.error


def test_the_chosen_are_shown_counted_and_let_go(show, layouts) -> None:
    page = show("embedding")
    assert not [button for button in page.button if button.key == "embedding-clear"]
    keys = [layouts.keys[int(place)] for place in layouts.picture]
    page.session_state[CHOSEN] = [*keys[:14], "gone.png"]
    page.run()
    said = texts(page)
    assert "14 pictures" in said
    assert "Right of 14\\: " in said
    assert "12 of 14 pictures." in said
    page.button(key="embedding-clear").click().run()
    assert "14 pictures" not in texts(page)
    assert not page.exception


def test_one_picture_is_found_by_name_and_comes_back_from_the_address(show, layouts) -> None:
    page = show("embedding")
    key = layouts.keys[int(layouts.picture[3])]
    page.selectbox(key="embedding-name").set_value(key).run()
    assert "##### 1 picture\\: " in texts(page)
    assert page.query_params["picture"] == key
    again = show("embedding", picture=key)
    assert "##### 1 picture\\: " in texts(again)
    assert "##### " not in texts(show("embedding", picture="no such.png"))


def test_networks_can_be_left_out_and_never_all(show, layouts) -> None:
    page = show("embedding")
    networks = next(group for group in page.button_group if group.label == "Networks")
    networks.set_value([]).run()
    assert not page.exception
    assert not page.error


def test_patches_are_shown_in_their_pictures(show, layouts, patch_root) -> None:
    page = show("embedding", patch_root)
    assert "concept patches, coloured by class" in texts(page)
    keys = [layouts.keys[int(place)] for place in layouts.picture]
    page.session_state["embedding-chosen-concept-embedding"] = [[keys[0], 0], [keys[1], 1], [keys[1], 2]]
    page.run()
    assert not page.exception
    assert "2 patches of 2 pictures" in texts(page)
    assert "2 of 2 patches, each framed in its picture." in texts(page)
    page.selectbox(key="concept-embedding-name").set_value(keys[1]).run()
    assert not page.exception
    count = keys.count(keys[1])
    assert f"{count} of {count} patches, each framed in its picture." in texts(page)


def test_a_lasso_is_remembered_as_names() -> None:
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import streamlit as st

        from app.views import embedding

        for kind, data in (("embedding", ["a", ["b"], "a"]), ("concept-embedding", [["a", 1], ["a", 2], ["a", 1]])):
            points = [*({"customdata": one} for one in data), {"x": 0}]
            st.session_state["map"] = {"selection": {"points": points}}
            embedding._take_points("map", kind)

    page = AppTest.from_function(script).run()
    assert not page.exception
    assert page.session_state[CHOSEN] == ["a", "b"]
    assert page.session_state["embedding-chosen-concept-embedding"] == [["a", 1], ["a", 2]]


def test_without_layouts_it_says_so(show, tiny_diagnosis, tmp_path) -> None:
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_diagnosis, folder)
    overview = json.loads((folder / "diagnosis.json").read_text())
    overview["entries"] = [entry for entry in overview["entries"] if entry["analysis"] != "embedding"]
    (folder / "diagnosis.json").write_text(json.dumps(overview))
    page = show("embedding", folder.parent)
    assert "diagnose the runs again" in page.info[0].value
    overview["entries"].append({"analysis": "embedding", "run": None, "file": None, "reason": "Too *few* points."})
    (folder / "diagnosis.json").write_text(json.dumps(overview))
    page = show("embedding", folder.parent)
    assert page.info[0].value == "Too \\*few\\* points."


def test_each_network_has_a_map_of_its_own_unless_colours_tell_them(show, layouts) -> None:
    page = show("embedding")
    assert len(page.get("plotly_chart")) == len(layouts.layouts)
    assert any("●" in part.proto.body and layouts.class_names[0] in part.proto.body for part in page.get("html"))
    page.button_group(key="embedding-colour").set_value("run").run()
    assert len(page.get("plotly_chart")) == 1


@pytest.mark.parametrize(("key", "first"), [("embedding-kind", "embedding"), ("embedding-colour", "class")])
def test_an_empty_choice_in_the_address_is_the_first(show, key: str, first: str) -> None:
    page = show("embedding", **{key: ""})
    assert not page.exception
    assert not page.error
    assert page.button_group(key=key).value == first
    assert "coloured by class" in texts(page)
