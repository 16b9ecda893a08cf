"""The page of rare features: threshold, chosen concept, table and file, and what cannot be said."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figures.examples import MISSING, rare_features

from app import state
from concept_tuning.diagnostics.diagnose import load_diagnosis
from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result

SHARE, CONCEPT = "rare-share", "rare-concept-0"


@pytest.fixture
def rare_root(tiny_diagnosis: Path, tmp_path: Path) -> Path:
    """Return a folder of runs whose diagnosis has rare features of three views, the last without frequencies."""
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_diagnosis, folder)
    pictures = load_diagnosis(folder).thumbnails
    # Of the first two classes, since that is how many the example has.
    kept = [key for key, label in zip(pictures.keys, pictures.labels, strict=True) if label < 2]

    def view(name: str, **changes: object) -> RareFeatures:
        found = rare_features(view=name, class_frequency=np.array([[0.75, 0.5, 1, 0, 0.25], [0.5] * 5]), **changes)
        return replace(found, gallery=replace(found.gallery, keys=(*kept[:2], "gone.png")))

    report = RareFeaturesReport(
        analyses=(view("channels"), view("groups"), view("factors", source=MISSING, rarity=MISSING)),
        missing=(Unavailable(analysis="clusters", reason="There were *too* few patches."),),
        note="",
    )
    save_result(report, next((folder / "results").glob("*_rare-features.json")))
    return folder.parent


def texts(page) -> str:
    return "\n".join(text.value for text in (*page.markdown, *page.caption, *page.info))


def test_the_threshold_says_which_are_rare(show, rare_root) -> None:
    page = show("rare", rare_root)
    assert not page.exception
    assert not page.error
    # The diagnosis took 60 %, more than the slider has.
    assert page.slider(key=SHARE).value == 50
    page.slider(key=SHARE).set_value(20).run()
    assert "**1 of 5 channels are rare**: of the 1 seen least" in texts(page)
    page.slider(key=SHARE).set_value(40).run()
    assert "**1 of 5 channels are rare**: of the 2 seen least" in texts(page)


def test_the_chosen_concept_shows_its_patches_classes_and_networks(show, rare_root) -> None:
    page = show("rare", rare_root)
    assert page.selectbox(key=CONCEPT).value == "channel 0"
    page.selectbox(key=CONCEPT).set_value("channel 2").run()
    said = texts(page)
    assert "Marks **gull**" in said
    assert "pre-trained 0.7, vanilla 0.8" in said
    assert "of 5 pictures were kept" in said
    classes = next(table.value for table in page.dataframe if "have it" in table.value)
    assert classes.values.tolist() == [["gull", 100.0], ["jay", 50.0]]


def test_none_rare_is_said_and_no_chart_is_empty(show, rare_root) -> None:
    path = next((rare_root / "tiny" / "results").glob("*_rare-features.json"))
    report = load_result(RareFeaturesReport, path)
    first = report.analyses[0]
    presence = replace(first.presence, useful=np.zeros(5, bool))
    point = replace(first.rarity.threshold, rare=0)
    rarity = replace(first.rarity, rare=np.zeros(5, bool), threshold=point)
    save_result(replace(report, analyses=(replace(first, presence=presence, rarity=rarity),)), path)
    page = show("rare", rare_root, **{SHARE: "40"})
    assert not page.exception
    assert "**None of 5 channels is rare**" in texts(page)
    assert "nothing to follow from before fine-tuning" in texts(page)
    assert "Before and after" not in texts(page)
    assert "Coverage" not in texts(page)


def test_the_sections_below_name_the_share_they_are_of(show, rare_root) -> None:
    page = show("rare", rare_root, **{SHARE: "20"})
    assert "What fine-tuning makes of them, at 60 %" in [head.value for head in page.subheader]
    assert "those of the 60 % seen least" in texts(page).replace("\\", "")


def test_threshold_view_and_concept_come_back_from_the_address(show, rare_root) -> None:
    page = show("rare", rare_root, **{"rare-view": "groups", SHARE: "20", "rare-concept-1": "channel 3"})
    assert page.button_group(key="rare-view").value == "groups"
    assert page.slider(key=SHARE).value == 20
    assert page.selectbox(key="rare-concept-1").value == "channel 3"
    page = show("rare", rare_root, **{"rare-view": "no such", SHARE: "2000", CONCEPT: "channel 99"})
    assert not page.exception
    assert page.selectbox(key=CONCEPT).value == "channel 0"


def test_a_click_chooses_the_concept() -> None:
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import streamlit as st
        from figures.examples import rare_features

        from app.views import rare_concepts

        st.session_state["chart"] = {"selection": {"points": [{"customdata": [3, 0.1, 0.2, 0, 0, 0, 0, 0]}]}}
        rare_concepts._take_click("chart", rare_features(), 0)
        st.session_state["empty"] = {"selection": {"points": []}}
        rare_concepts._take_click("empty", rare_features(), 1)

    page = AppTest.from_function(script).run()
    assert not page.exception
    assert page.session_state[CONCEPT] == "channel 3"
    assert "rare-concept-1" not in page.session_state


def test_a_click_leaves_the_chart_as_it_is_and_all_else_moves_the_ring() -> None:
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import streamlit as st
        from figures.examples import rare_features

        from app.views import rare_concepts
        from concept_tuning.diagnostics.rare_choice import choose_rare

        result, rings = rare_features(), []
        # Nothing is clicked; 3 is clicked; then 1 is chosen by name; 2 is clicked, and then the threshold moves.
        for place, chosen, share in ((None, 0, 0.4), (3, 3, 0.4), (3, 1, 0.4), (2, 2, 0.4), (2, 2, 0.2)):
            points = [] if place is None else [{"customdata": [place]}]
            st.session_state["chart"] = {"selection": {"points": points}}
            rings.append(rare_concepts._ringed("chart", result, choose_rare(result, share), chosen))
        st.session_state["rings"] = rings

    page = AppTest.from_function(script).run()
    assert not page.exception
    assert page.session_state["rings"] == [0, 0, 1, 1, 2]


def test_the_table_lists_rare_ones_and_the_file_all(show, rare_root) -> None:
    from concept_tuning.diagnostics.rare_choice import choose_rare
    from concept_tuning.report.rare_csv import concepts_csv

    page = show("rare", rare_root, **{SHARE: "40"})
    table = next(table.value for table in page.dataframe if "band (nats)" in table.value)
    assert table["concept"].tolist() == ["channel 0"]
    page.toggle(key="rare-all").set_value(True).run()
    table = next(table.value for table in page.dataframe if "band (nats)" in table.value)
    rows = list(csv.DictReader(io.StringIO(concepts_csv(rare_features(), choose_rare(rare_features(), 0.4)))))
    assert table["concept"].tolist() == [row["concept"] for row in rows]
    assert len(rows) == 5


def test_without_source_frequencies_it_says_why_and_shows_the_rest(show, rare_root) -> None:
    page = show("rare", rare_root, **{"rare-view": "factors"})
    assert not page.exception
    assert "There is no batch norm." in page.info[0].value
    assert not [slider for slider in page.slider if slider.key == SHARE]
    assert page.selectbox(key="rare-concept-2").value == "channel 0"
    # What another view lacks is told, and its words do not act as Markdown.
    assert "There were \\*too\\* few patches." in texts(page)


def test_every_toggle_opens(show, rare_root) -> None:
    page = show("rare", rare_root)
    for toggle in page.toggle:
        toggle.set_value(True)
    page.run()
    assert not page.exception
    assert not page.error
    assert "at other shares" in texts(page)


def test_runs_without_pretraining_say_so_and_where_to_look(show) -> None:
    page = show("rare")
    assert "random weights" in page.info[0].value
    assert "the demo" in page.caption[0].value


def test_it_shows_the_demo(show, monkeypatch, tmp_path) -> None:
    demo = Path(state.__file__).resolve().parents[1] / "assets" / "demo"
    page = show("rare", tmp_path)
    assert page.info
    monkeypatch.setattr(state, "DEMO", demo)
    page = show("rare", tmp_path)
    assert not page.exception
    assert not page.error
    assert "are rare" in texts(page)


def test_an_empty_view_or_share_in_the_address_is_the_first(show, rare_root) -> None:
    page = show("rare", rare_root, **{"rare-view": "", SHARE: "", CONCEPT: ""})
    assert not page.exception
    assert not page.error
    assert page.button_group(key="rare-view").value == "channels"
    assert page.slider(key=SHARE).value == 50
