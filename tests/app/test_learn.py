from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.views.learn import LESSONS
from concept_tuning.diagnostics.diagnose import Entry, Overview, RunCard
from concept_tuning.diagnostics.lessons import guess_by_habitat
from concept_tuning.diagnostics.picture_maps import PictureMaps
from concept_tuning.diagnostics.results import save_result
from concept_tuning.diagnostics.sanity import SanityCheck
from concept_tuning.diagnostics.thumbnails import pack_thumbnails

NAMES = [name for name, _, _ in LESSONS]


def _render() -> None:
    from app.errors import shown_errors
    from app.views import learn

    with shown_errors():
        learn.render()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path)
    return tmp_path


def lesson(name: str) -> AppTest:
    page = AppTest.from_function(_render, default_timeout=60)
    page.query_params["lesson"] = name
    page.run()
    assert not page.exception
    assert not page.error
    return page


def words(page: AppTest) -> str:
    return " ".join(part.value for part in page.markdown)


def write_diagnosis(folder: Path, *, checked: bool = True) -> None:
    """Write a diagnosis with a sanity check and maps of a picture.

    Of the kinds of maps, grad-cam forgets with its network, eigen-cam does not, occlusion is always alike, and
    saliency is blank.
    """
    means = np.array([[0.9, 0.18], [1.0, 0.8], [1.0, 0.72], [np.nan, np.nan]])
    correlation = np.repeat(means[..., None], 2, axis=2)
    check = SanityCheck(
        subject="vanilla",
        keys=("a", "b"),
        maps=("grad-cam", "eigen-cam", "occlusion", "saliency"),
        stages=("heads", "all"),
        correlation=correlation,
        similarity=correlation,
        chance=np.array([0.66, 0.1, 0.79, np.nan]),
        seed=0,
    )
    (folder / "results").mkdir(parents=True)
    save_result(check, folder / "results" / "00_sanity.json")
    maps = PictureMaps(
        run="vanilla",
        keys=("b", "a"),
        names=("grad-cam", "eigen-cam"),
        values=np.random.default_rng(0).random((2, 2, 4, 4), np.float32),
        predicted=np.array([0, 1]),
        probabilities=np.eye(2, dtype=np.float32),
        labels=np.array([0, 1]),
        class_names=("x", "y"),
    )
    save_result(maps, folder / "results" / "01_picture-maps.json")
    card = RunCard(
        name="vanilla", method="vanilla", backbone="r", source="planted", seed=0, validation_note="like training"
    )
    entry = Entry(
        analysis="sanity",
        run="vanilla",
        file="results/00_sanity.json" if checked else None,
        reason=None if checked else "It needs two pictures.",
    )
    drawn = Entry(analysis="picture-maps", run="vanilla", file="results/01_picture-maps.json", reason=None)
    overview = Overview(
        runs=(card,),
        class_names=("x", "y"),
        split="test",
        pictures=2,
        total=2,
        limit=None,
        only=(),
        source_folder=False,
        seed=0,
        entries=(entry, drawn),
    )
    save_result(overview, folder / "diagnosis.json")
    thumbnails = pack_thumbnails(["a"], np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64))
    save_result(thumbnails, folder / "results" / "thumbnails.json")


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_lesson_opens_by_its_address(name: str) -> None:
    page = lesson(name)
    assert page.header[0].value == next(title for key, title, _ in LESSONS if key == name)
    assert "**Question.**" in words(page) or page.info


def test_an_unknown_lesson_is_the_first() -> None:
    assert lesson("nothing").header[0].value == LESSONS[0][1]


def test_rare_features_reveals_the_part_after_the_guess() -> None:
    page = lesson("rare")
    assert "**Answer.**" not in words(page)
    page.pills[0].set_value("crest").run()
    assert "Not the crest but the feet" in page.warning[0].value
    assert "% of the pixels" in words(page)
    page.button(key="learn_rare_next").click().run()
    assert "**Answer.**" not in words(page)
    page.pills[0].set_value("crest").run()
    assert page.success[0].value.startswith("Yes, the crest")


def charts(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


@pytest.mark.parametrize("name", ["shortcut", "graph", "transport"])
def test_the_answer_waits_until_it_is_asked_for(name: str) -> None:
    page = lesson(name)
    assert "**Answer.**" not in words(page)
    assert not page.metric
    assert all(trace["mode"] != "lines" for chart in charts(page) for trace in chart["data"])
    page.button(key=f"learn_{name}_show").click().run()
    assert not page.exception
    assert "**Answer.**" in words(page)
    assert not page.button
    page.run()
    assert "**Answer.**" in words(page)


def test_the_shortcut_pays_as_much_as_rho_says() -> None:
    page = lesson("shortcut")
    page.slider[0].set_value(1.0).run()
    assert [metric.value for metric in page.metric] == ["100 %", "25 %"]
    page.slider[0].set_value(0.5).run()
    assert page.metric[0].value == f"{100 * guess_by_habitat(0.5).train:.0f} %"


def test_cutting_the_arrow_makes_what_is_seen_true() -> None:
    page = lesson("graph")
    page.toggle[0].set_value(True).run()
    assert "With dice, what one sees is what is true" in words(page)
    assert "imitates the formula's average over all pictures" in words(page)
    page.toggle[0].set_value(False).run()
    assert "is too much by 0.29" in words(page)
    page.slider[0].set_value(0.0).run()
    assert "all three agree" in words(page)


def test_a_moved_patch_finds_another_partner_and_stays_where_it_was_put() -> None:
    page = lesson("transport")
    page.slider(key="learn_transport_x_1_0").set_value(0.75).run()
    page.slider(key="learn_transport_y_1_0").set_value(0.1).run()
    assert "Patch 1 of the second picture takes 100 % of its share from patch 4" in words(page)
    page.segmented_control(key="learn_transport_which").set_value(4).run()
    assert "from patch 3 of the first picture, although patch 4 is nearer: that one is needed elsewhere" in words(page)
    page.segmented_control(key="learn_transport_which").set_value(1).run()
    assert (page.slider(key="learn_transport_x_1_0").value, page.slider(key="learn_transport_y_1_0").value) == (
        0.75,
        0.1,
    )


def test_the_patches_of_the_first_picture_move_too() -> None:
    page = lesson("transport")
    page.segmented_control(key="learn_transport_side").set_value("first picture").run()
    page.slider(key="learn_transport_x_0_0").set_value(0.9).run()
    page.slider(key="learn_transport_y_0_0").set_value(0.5).run()
    assert "Patch 1 of the first picture gives" in words(page)
    assert "to patch 4 of the second picture" in words(page)
    assert page.session_state["learn_transport_points"][0][0] == [0.9, 0.5]


def test_a_soft_plan_is_not_explained_by_who_is_needed() -> None:
    page = lesson("transport")
    page.slider(key="learn_transport_x_1_0").set_value(0.65).run()
    page.select_slider(key="learn_transport_epsilon").set_value(1.0).run()
    assert "Patch 1 of the second picture takes 26 % of its share from patch 1 of the first picture" in words(page)
    assert "that is the softness" in words(page)
    assert "At the least softness it goes with patch 3." in words(page)
    assert "needed elsewhere" not in words(page)


@pytest.mark.parametrize(
    ("kind", "right", "sentence"),
    [
        (
            "grad-cam",
            "changed",
            "by only 0.18 (1: the same); the trained maps of two different pictures are alike",
        ),
        ("eigen-cam", "same", "by 0.8; the trained maps of two different pictures are less alike, by 0.1. So the map"),
        ("occlusion", None, "by 0.72. That is much, but the trained maps of two different pictures are about as alike"),
        ("saliency", None, "Too many of the saliency maps are blank"),
    ],
)
def test_doubting_a_map_judges_the_guess_by_the_measurement(
    root: Path, kind: str, right: str | None, sentence: str
) -> None:
    write_diagnosis(root / "tiny")
    for guess in ("changed", "same"):
        page = lesson("doubt")
        page.selectbox(key="learn_doubt_map").set_value(kind).run()
        assert not charts(page)
        page.radio[0].set_value(guess).run()
        assert not page.exception
        assert bool(page.success) == (guess == right)
        assert bool(page.warning) == (right not in (None, guess))
        assert bool(page.info) == (right is None)
        assert sentence in words(page)
        assert {trace["legendgroup"] for trace in charts(page)[0]["data"]} == {kind}


def test_doubting_a_map_shows_maps_that_the_diagnosis_has(root: Path) -> None:
    write_diagnosis(root / "tiny")
    page = lesson("doubt")
    assert len(page.get("image")) == 1
    assert any("random network are not kept" in caption.value for caption in page.caption)
    page.selectbox(key="learn_doubt_map").set_value("occlusion").run()
    assert not page.get("image")


def test_doubting_a_map_without_a_measurement_says_why(root: Path) -> None:
    assert "diagnose them there" in lesson("doubt").info[0].value
    write_diagnosis(root / "tiny", checked=False)
    assert "It needs two pictures." in lesson("doubt").info[0].value


def test_a_broken_diagnosis_is_a_sentence(root: Path) -> None:
    write_diagnosis(root / "tiny")
    (root / "tiny" / "results" / "00_sanity.json").write_text("{")
    page = AppTest.from_function(_render, default_timeout=60)
    page.query_params["lesson"] = "doubt"
    page.run()
    assert not page.exception
    assert "run the diagnosis again" in page.error[0].value
