from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.views.learn import LESSONS
from concept_tuning.diagnostics.diagnose import Entry, Overview, RunCard
from concept_tuning.diagnostics.lessons import guess_by_habitat
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
    """Write a diagnosis with a sanity check: grad-cam forgets with its network, eigen-cam does not."""
    correlation = np.array([[[0.9, 0.9], [0.1, 0.1]], [[1.0, 1.0], [0.8, 0.8]]])
    check = SanityCheck(
        subject="vanilla",
        keys=("a", "b"),
        maps=("grad-cam", "eigen-cam"),
        stages=("heads", "all"),
        correlation=correlation,
        similarity=correlation,
        chance=np.array([0.1, 0.1]),
        seed=0,
    )
    (folder / "results").mkdir(parents=True)
    save_result(check, folder / "results" / "00_sanity.json")
    card = RunCard(
        name="vanilla", method="vanilla", backbone="r", source="planted", seed=0, validation_note="like training"
    )
    entry = Entry(
        analysis="sanity",
        run="vanilla",
        file="results/00_sanity.json" if checked else None,
        reason=None if checked else "It needs two pictures.",
    )
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
        entries=(entry,),
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


def test_the_shortcut_pays_as_much_as_rho_says() -> None:
    page = lesson("shortcut")
    page.slider[0].set_value(1.0).run()
    assert [metric.value for metric in page.metric] == ["100 %", "25 %"]
    page.slider[0].set_value(0.5).run()
    assert page.metric[0].value == f"{100 * guess_by_habitat(0.5).train:.0f} %"


def test_cutting_the_arrow_makes_what_is_seen_true() -> None:
    page = lesson("graph")
    assert "is too much by 0.29" in words(page)
    page.toggle[0].set_value(True).run()
    assert "With dice, what one sees is what is true" in words(page)
    page.toggle[0].set_value(False).run()
    page.slider[0].set_value(0.0).run()
    assert "all three agree" in words(page)


def test_a_moved_patch_finds_another_partner_and_stays_where_it_was_put() -> None:
    page = lesson("transport")
    assert "Patch 1 takes 100 % of its share from patch 1" in words(page)
    page.slider(key="learn_transport_x_0").set_value(0.75).run()
    page.slider(key="learn_transport_y_0").set_value(0.1).run()
    assert "Patch 1 takes 100 % of its share from patch 4" in words(page)
    page.segmented_control(key="learn_transport_which").set_value(3).run()
    page.segmented_control(key="learn_transport_which").set_value(1).run()
    assert (page.slider(key="learn_transport_x_0").value, page.slider(key="learn_transport_y_0").value) == (0.75, 0.1)


def test_doubting_a_map_reads_the_measurement(root: Path) -> None:
    write_diagnosis(root / "tiny")
    page = lesson("doubt")
    page.radio[0].set_value("They stay much the same").run()
    assert page.warning[0].value == "It was measured otherwise."
    assert "by 0.1; chance is 0.1, so the map does depend" in words(page)
    page.selectbox(key="learn_doubt_map").set_value("eigen-cam").run()
    page.radio[0].set_value("They stay much the same").run()
    assert page.success
    assert "by 0.8; chance is 0.1, so the map shows the picture" in words(page)


def test_doubting_a_map_without_a_measurement_says_why(root: Path) -> None:
    assert "diagnose them first" in lesson("doubt").info[0].value
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
