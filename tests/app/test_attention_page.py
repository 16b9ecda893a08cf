"""The page of concept attention: gallery and filters, live pictures, clicked cells, switches, links, and the guess."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app import state
from app.views import attention_gallery, attention_guess, attention_looks, attention_switches
from concept_tuning.diagnostics.diagnose import diagnose, load_diagnosis
from concept_tuning.diagnostics.workbench import Workbench

ANALYSES = ("predictions", "picture-maps", "concept-maps", "position-attention", "switches", "transport")
DEMO = Path(state.__file__).resolve().parents[1] / "assets" / "demo"
PART = "part"


@pytest.fixture(scope="module")
def looked(subjects, tmp_path_factory) -> Path:
    """Return a folder of runs with two runs and a diagnosis of 12 of their 16 pictures, 8 of which have maps."""
    root = tmp_path_factory.mktemp("attention")
    for subject in subjects:
        shutil.copytree(subject.run.folder.path, root / subject.name)
    diagnose(Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=12), root / "seen", only=ANALYSES)
    return root


@pytest.fixture
def bare(looked, tmp_path) -> Path:
    """Return a folder with the diagnosis alone: its runs are gone."""
    shutil.copytree(looked / "seen", tmp_path / "runs" / "seen")
    return tmp_path / "runs"


def found(root: Path):
    return load_diagnosis(root / "seen")


def told(page) -> str:
    parts = (*page.markdown, *page.caption, *page.info, *page.subheader)
    return "\n".join(text.value for text in parts).replace("\\", "")


def well(page) -> None:
    assert not page.exception
    assert not page.error


def tiles(page) -> list[str]:
    return [button.key for button in page.button if str(button.key).startswith("attention-open-gallery-")]


def outside(root: Path) -> str:
    """Return a picture that was diagnosed without maps."""
    diagnosis = found(root)
    kept = diagnosis.results["picture-maps", "vanilla"].keys
    return next(key for key in diagnosis.results["predictions", "vanilla"].keys if key not in kept)


def test_it_opens_on_a_picture_with_maps_and_both_runs_answer(show, looked) -> None:
    page = show("attention", looked)
    well(page)
    first = found(looked).results["picture-maps", "vanilla"].keys[0]
    assert page.query_params["picture"] == first
    assert len(tiles(page)) == 8
    assert told(page).count("says **") == 2
    assert "1 to 8 of 12 pictures" in told(page)
    page.slider(key="attention-opacity").set_value(0.9).run()
    page.button_group(key="attention-map").set_value("occlusion").run()
    well(page)


def test_a_click_on_a_thumbnail_puts_the_picture_in_the_address(show, looked) -> None:
    page = show("attention", looked)
    page.button(key="attention-open-gallery-3").click().run()
    well(page)
    wanted = found(looked).results["picture-maps", "vanilla"].keys[3]
    assert page.query_params["picture"] == wanted
    assert wanted in told(page)
    again = show("attention", looked, picture=wanted)
    assert again.query_params["picture"] == wanted


def test_filters_react_and_an_empty_result_says_what_to_do(show, looked) -> None:
    page = show("attention", looked)
    predictions = found(looked).results["predictions", "vanilla"]
    label = predictions.class_names[int(predictions.labels[0])]
    page.selectbox(key="attention-class").set_value(label).run()
    assert len(tiles(page)) == min(8, int((predictions.labels == predictions.labels[0]).sum()))
    assert f"pictures: {label}" in told(page)
    page.multiselect(key="attention-answers").set_value(["vanilla wrong"]).run()
    wrong = (predictions.labels == predictions.labels[0]) & ~predictions.right
    assert len(tiles(page)) == int(wrong.sum())
    page.multiselect(key="attention-answers").set_value(["vanilla right", "vanilla wrong"]).run()
    well(page)
    assert not tiles(page)
    assert "Take a filter back" in told(page)
    page.button(key="attention-reset").click().run()
    well(page)
    assert len(tiles(page)) == 8


def test_groups_narrow_the_gallery(show, looked) -> None:
    page = show("attention", looked)
    predictions = found(looked).results["predictions", "vanilla"]
    page.selectbox(key="attention-group").set_value(predictions.group_names[0]).run()
    well(page)
    assert len(tiles(page)) == min(8, int((predictions.groups == 0).sum()))


def test_the_whole_split_can_be_leafed_through_and_is_looked_at_live(show, looked) -> None:
    page = show("attention", looked)
    page.selectbox(key="attention-scope").set_value("whole split").run()
    assert "1 to 8 of 16" in told(page)
    page.button(key="attention-on").click().run()
    assert "9 to 16 of 16" in told(page)
    page.button(key="attention-open-gallery-7").click().run()
    well(page)
    key = page.query_params["picture"]
    assert key not in found(looked).results["predictions", "vanilla"].keys
    assert told(page).count("says **") == 2
    # Answers are known of diagnosed pictures alone.
    page.multiselect(key="attention-answers").set_value(["vanilla right"]).run()
    assert "known of diagnosed pictures alone" in told(page)


@pytest.mark.parametrize(
    ("part", "charts"), [("concepts", (2, 2)), ("cells", (1, 1)), ("switches", (0, 0)), ("links", (2, 0))]
)
def test_every_part_shows_a_picture_of_the_diagnosis_and_a_live_one(show, looked, part: str, charts) -> None:
    stored = found(looked).results["picture-maps", "vanilla"].keys[0]
    for key, drawn in zip((stored, outside(looked)), charts, strict=True):
        page = show("attention", looked, picture=key, **{PART: part})
        well(page)
        assert page.query_params["picture"] == key
        if part in ("cells", "switches"):
            assert "has no front-door head" in told(page)
        # A chart for each run that has the part; the live picture has no second one to be matched with yet.
        assert len(page.get("plotly_chart")) == drawn


def test_a_live_picture_without_its_run_is_a_sentence(show, bare) -> None:
    page = show("attention", bare, picture=outside(bare))
    well(page)
    assert "so its model cannot be asked" in told(page)
    # What the diagnosis knows is shown all the same.
    assert told(page).count("says **") == 2
    page = show("attention", bare, picture="test/no such")
    well(page)
    assert "There is no picture test/no such here" in told(page)


def test_stored_maps_need_no_run(show, bare) -> None:
    page = show("attention", bare)
    well(page)
    assert "cannot be asked" not in told(page)


def test_a_broken_run_is_a_sentence(show, looked, bare) -> None:
    for name in ("vanilla", "concept-tuning"):
        shutil.copytree(looked / name, bare / name)
    (bare / "vanilla" / "best" / "model.safetensors").write_bytes(b"broken")
    page = show("attention", bare, picture=outside(bare))
    well(page)
    assert "vanilla cannot be asked" in told(page)
    assert "the run folder is damaged" in told(page)
    assert told(page).count("says **") == 2


def test_a_run_of_the_same_name_that_says_other_things_is_told(show, looked, bare) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(looked / "vanilla", bare / "vanilla")
    path = bare / "vanilla" / "best" / "model.safetensors"
    values = load_file(path)
    save_file({name: -one if "classifier" in name else one for name, one in values.items()}, path)
    page = show("attention", bare, picture=outside(bare))
    well(page)
    assert "may be another run of the same name" in page.warning[0].value


def test_the_cell_is_chosen_by_numbers_and_by_concept(show, looked) -> None:
    page = show("attention", looked, **{PART: "cells"})
    page.number_input(key="attention-row").set_value(1).run()
    page.number_input(key="attention-column").set_value(2).run()
    well(page)
    assert "the cell in row 1, column 2 reads most" in told(page)
    page.button_group(key="attention-concept").set_value(3).run()
    well(page)
    concepts = found(looked).results["concept-maps", "concept-tuning"]
    peak = divmod(int(concepts.maps[0, 2].argmax()), concepts.maps.shape[3])
    assert f"the cell in row {peak[0] + 1}, column {peak[1] + 1} reads most" in told(page)
    page.number_input(key="attention-row").set_value(1 if peak[0] else 2).run()
    assert page.button_group(key="attention-concept").value is None  # that is another cell now
    page.button_group(key="attention-concept").set_value(3).run()
    assert f"the cell in row {peak[0] + 1}, column {peak[1] + 1} reads most" in told(page)


def test_the_concept_of_one_picture_is_not_that_of_the_next(show, looked) -> None:
    page = show("attention", looked, **{PART: "cells"})
    page.button_group(key="attention-concept").set_value(3).run()
    page.query_params["picture"] = found(looked).results["concept-maps", "concept-tuning"].keys[1]
    page.run()
    well(page)
    assert page.button_group(key="attention-concept").value is None


def test_a_click_on_a_cell_chooses_it_and_one_beside_does_nothing() -> None:
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import streamlit as st

        from app.views import attention_cells

        st.session_state["chart"] = {"selection": {"points": [{"customdata": [1, 0]}]}}
        attention_cells._take_click("chart")
        for points in ([], [{"customdata": "a picture"}]):
            st.session_state["chart"] = {"selection": {"points": points}}
            attention_cells._take_click("chart")

    page = AppTest.from_function(script).run()
    assert not page.exception
    assert (page.session_state["attention-row"], page.session_state["attention-column"]) == (2, 1)


def test_a_switch_shows_what_it_does_and_asks_for_probabilities(show, looked) -> None:
    page = show("attention", looked, **{PART: "switches"})
    assert "Switch an attention off" in told(page)
    page.toggle(key="attention-position-on").set_value(False).run()
    well(page)
    assert "With patch attention off the head" in told(page)
    page.toggle(key="attention-channel-on").set_value(False).run()
    page.toggle(key="attention-switch-ask").set_value(True).run()
    well(page)
    assert "With both attentions off the head" in told(page)
    assert "of the probability moves" in told(page)


def test_a_second_picture_is_matched_from_the_diagnosis_or_live(show, looked) -> None:
    page = show("attention", looked, **{PART: "links"})
    pairs = found(looked).results["transport", "vanilla"].pairs
    assert page.query_params["picture"] == pairs[0].keys[0]
    assert page.selectbox(key="attention-second").value == pairs[0].keys[1]
    assert told(page).count("Transport distance") == 2
    other = outside(looked)
    page.selectbox(key="attention-second").set_value(other).run()
    well(page)
    assert told(page).count("Transport distance") == 2
    page.toggle(key="attention-plan-vanilla").set_value(True).run()
    well(page)
    page.button(key="attention-open-second-0").click().run()
    well(page)


def test_a_match_without_the_runs_says_why(show, bare) -> None:
    page = show("attention", bare, **{PART: "links"})
    assert told(page).count("Transport distance") == 2
    page.selectbox(key="attention-second").set_value(outside(bare)).run()
    well(page)
    assert "cannot be asked" in told(page)


def test_a_guess_hides_the_maps_until_it_is_revealed_and_is_scored(show, looked) -> None:
    page = show("attention", looked)
    key = page.query_params["picture"]
    page.toggle(key="attention-guess").set_value(True).run()
    well(page)
    assert "says **" not in told(page)
    assert page.button(key="attention-reveal-button").disabled
    marks = page.multiselect(key=f"attention-marks-{key}")
    marks.set_value(["row 3, column 3", "row 3, column 4"]).run()
    page.button(key="attention-reveal-button").click().run()
    well(page)
    assert "says **" in told(page)
    assert told(page).count("points.** Your 2 cells hold") == 2
    assert "of your 2 marked cells" in told(page)
    assert "Running score:" in told(page)
    assert "(n = 1)" in told(page)
    page.button(key="attention-next").click().run()
    well(page)
    assert page.query_params["picture"] != key
    assert "says **" not in told(page)


def test_a_guess_without_masks_is_scored_all_the_same(show, bare) -> None:
    page = show("attention", bare)
    page.toggle(key="attention-guess").set_value(True).run()
    page.multiselect(key=f"attention-marks-{page.query_params['picture']}").set_value(["row 1, column 1"]).run()
    page.button(key="attention-reveal-button").click().run()
    well(page)
    assert "points.** Your cell holds" in told(page)
    assert "the object" not in told(page)


def test_clicks_mark_cells_and_take_marks_back(monkeypatch) -> None:
    cells = [f"row {row + 1}, column {column + 1}" for row in range(6) for column in range(6)]
    session: dict = {}
    monkeypatch.setattr(attention_guess, "st", SimpleNamespace(session_state=session))
    for row, column in ((0, 0), (1, 2), (0, 0), (5, 5), (4, 4), (3, 3)):
        monkeypatch.setattr(attention_guess, "clicked", lambda key, at=(row, column): {"customdata": list(at)})
        attention_guess._mark("chart", "marks", cells)
    # The first was taken back, and a fourth is one too many.
    assert session["marks"] == ["row 2, column 3", "row 6, column 6", "row 5, column 5"]
    monkeypatch.setattr(attention_guess, "clicked", lambda key: None)
    attention_guess._mark("chart", "marks", cells)
    assert len(session["marks"]) == 3


def test_it_shows_the_demo_with_the_badges_of_its_controls(show, monkeypatch, tmp_path) -> None:
    page = show("attention", tmp_path)
    monkeypatch.setattr(state, "DEMO", DEMO)
    page = show("attention", tmp_path)
    well(page)
    assert "-badge[" in told(page)
    page.toggle(key="attention-controls").set_value(True).run()
    well(page)


def test_a_badge_says_what_it_counts_and_is_orange_for_none_alone(show, monkeypatch, tmp_path) -> None:
    page = show("attention", tmp_path)
    monkeypatch.setattr(state, "DEMO", DEMO)
    page.run()
    (badges, *_) = [text for text in page.markdown if "-badge[" in text.value and "beats" in text.value]
    assert ":gray-badge[outside mass: beats 2 of 4]" in badges.value
    assert "orange-badge[:material/remove: pointing at part: beats 0 of 4]" in badges.value
    assert "share of the map outside the object, 0–1; lower is better" in badges.help


def test_one_patch_for_all_concepts_is_said() -> None:
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[1, 2] = 1
    result = SimpleNamespace(keys=("a", "b"), boxes=boxes)
    assert "all 3 concepts" in attention_looks._one_patch(result, "a")
    assert attention_looks._one_patch(result, "b") is None


def test_attention_is_told_in_times_of_what_even_attention_gives(show, looked) -> None:
    from concept_tuning.figures.labels import number

    page = show("attention", looked, **{PART: "cells"})
    page.number_input(key="attention-row").set_value(1).run()
    page.number_input(key="attention-column").set_value(2).run()
    weights = found(looked).results["position-attention", "concept-tuning"].weights[0, 0, 1]
    times = weights / weights.mean()
    assert f": {number(float(times.max()), 2)} times what even attention would give it" in told(page)
    assert f"and {number(float(times[0, 1]), 2)} times from itself" in told(page)
    assert times.max() > 1


def test_the_share_of_probability_that_moves_is_counted_once() -> None:
    switched = {"everything on": np.array([0.7, 0.2, 0.1]), "both off": np.array([0.2, 0.6, 0.2])}
    overview = SimpleNamespace(class_names=("gull", "jay", "wren"))
    pictures = SimpleNamespace(diagnosis=SimpleNamespace(overview=overview))
    one = SimpleNamespace(live=lambda run: SimpleNamespace(switched=switched), pictures=pictures)
    said = attention_switches._rule(one, "run", "both off", True)
    assert "gives gull 70.0 % with everything on and 20.0 % so, so that it says jay; 50.0 % of the" in said


def test_another_filter_opens_its_first_page_also_with_as_many_pictures(monkeypatch) -> None:
    session: dict = {}
    monkeypatch.setattr(attention_gallery, "st", SimpleNamespace(session_state=session))
    first, other = [str(number) for number in range(20)], ["0", *(f"b{number}" for number in range(19))]
    assert attention_gallery._page(first) == first[:8]
    attention_gallery._turn(1)
    attention_gallery._turn(1)
    assert attention_gallery._page(first) == first[16:]
    assert attention_gallery._page(other) == other[:8]
    attention_gallery._turn(1)
    assert attention_gallery._page(other) == other[8:16]


def test_a_class_called_any_can_be_filtered_by(show, looked, tmp_path) -> None:
    shutil.copytree(looked / "seen", tmp_path / "seen")
    predictions = found(looked).results["predictions", "vanilla"]
    name = predictions.class_names[0]
    for path in (tmp_path / "seen").rglob("*.json"):
        path.write_text(path.read_text().replace(f'"{name}"', '"any"'))
    page = show("attention", tmp_path)
    assert page.selectbox(key="attention-class").value is None
    assert len(tiles(page)) == 8
    page.selectbox(key="attention-class").set_value("any").run()
    assert len(tiles(page)) == min(8, int((predictions.labels == 0).sum()))
    assert "pictures: any" in told(page)


def test_a_picture_of_the_split_needs_no_predictions(show, looked, tmp_path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(looked, root)
    path = root / "seen" / "diagnosis.json"
    overview = json.loads(path.read_text())
    overview["entries"] = [entry for entry in overview["entries"] if entry["analysis"] != "predictions"]
    path.write_text(json.dumps(overview))
    data = state.run_data(looked / "vanilla")
    split = data.splits["test"]
    key = next(key for key in split.keys if key not in found(looked).thumbnails.keys)
    page = show("attention", root, picture=key)
    well(page)
    assert page.query_params["picture"] == key
    assert page.subheader[0].value.endswith(f", {data.group_names[int(split.groups[split.keys.index(key)])]}")


def test_a_damaged_split_is_a_sentence(show, looked, bare) -> None:
    key = outside(bare)
    shutil.copytree(looked / "vanilla", bare / "vanilla")
    (bare / "vanilla" / "split.json").write_text(json.dumps({"train": 5, "val": 3, "test": [1]}))
    page = show("attention", bare, picture=key)
    well(page)
    assert "holds no lists of names; the run folder is damaged" in told(page)
