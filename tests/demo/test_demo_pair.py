"""The pair of runs: the same numbers everywhere, runs that cannot be compared, tables and words of a batch."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app.demo import words
from app.demo.intake import UploadError
from app.demo.one_picture import OnePicture
from app.demo.page import build_demo
from app.demo.pair import Pair, load_pair
from app.demo.worker import Worker
from concept_tuning.diagnostics.example_pictures import ExamplePicture
from concept_tuning.diagnostics.given_picture import predict_given
from concept_tuning.errors import RunError


def _upload(folder: Path, seed: int, name: str | None = None) -> dict[str, str]:
    path = folder / (name or f"{seed}.png")
    pixels = np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return {"path": str(path), "orig_name": path.name}


@pytest.fixture
def strangers(subjects, tmp_path: Path) -> Pair:
    """Return a pair of runs that share one class alone."""
    run = subjects[1].run
    renamed = dataclasses.replace(run, class_names=(run.class_names[0], *(f"other {n}" for n in run.class_names[1:])))
    other = dataclasses.replace(subjects[1], run=renamed)
    return Pair((subjects[0], other), Worker(waiting=2, seconds=60), tmp_path)


def test_compare_gives_each_run_its_name_probabilities_and_top_class(pair: Pair, tmp_path: Path) -> None:
    upload = _upload(tmp_path, 0)
    found = pair.compare(upload)
    pixels = np.asarray(Image.open(upload["path"]))
    for side, subject in zip("ab", pair.subjects, strict=True):
        expected = predict_given(subject, [pixels])[0]
        assert found[side]["name"] == subject.name
        assert list(found[side]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert found[side]["top_class"] == subject.run.class_names[int(expected.argmax())]
    assert found["agree"] is (found["a"]["top_class"] == found["b"]["top_class"])


def test_looking_gives_the_same_probabilities_as_comparing(pair: Pair, tmp_path: Path) -> None:
    upload = _upload(tmp_path, 1)
    looked, compared = pair.look_at_upload(upload), pair.compare(upload)
    for side, answer in zip("ab", looked.answers, strict=True):
        assert dict(answer.ranking) == pytest.approx(compared[side]["probabilities"], abs=1e-5)


def test_a_slow_map_is_added_once_and_an_unknown_one_refused(pair: Pair, tmp_path: Path) -> None:
    looked = pair.look_at_upload(_upload(tmp_path, 2))
    more = pair.with_map(looked, "occlusion")
    assert "occlusion" not in looked.answers[0].maps
    assert more.answers[0].maps["occlusion"].shape == more.answers[0].maps["grad-cam"].shape
    assert pair.with_map(more, "occlusion") is more
    assert pair.with_map(looked, "grad-cam") is looked
    with pytest.raises(UploadError, match="no map 'lime'"):
        pair.with_map(looked, "lime")


def test_a_batch_has_disagreements_first_then_agreements_then_what_is_of_no_use(pair: Pair, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("text")
    uploads = [{"path": str(text), "orig_name": "notes.txt"}, *(_upload(tmp_path, seed) for seed in range(8))]
    rows = pair.compare_batch(uploads)
    assert len(rows) == 9
    order = [0 if row.agree is False else 1 if row.agree else 2 for row in rows]
    assert order == sorted(order)
    assert rows[-1].name == "notes.txt"
    assert rows[-1].tops == ()
    for row in rows[:-1]:
        one = pair.compare({"path": str(tmp_path / row.name)})
        assert row.tops == (one["a"]["top_class"], one["b"]["top_class"])
        assert row.probabilities == pytest.approx([max(one[side]["probabilities"].values()) for side in "ab"], abs=1e-5)


def test_runs_of_different_classes_are_shown_but_never_said_to_agree(strangers: Pair, tmp_path: Path) -> None:
    upload = _upload(tmp_path, 3)
    assert strangers.compare(upload)["agree"] is None
    assert not strangers.about()["same_classes"]
    looked = strangers.look_at_upload(upload)
    assert "(1 known to both)" in words.difference(looked, "grad-cam")
    rows = strangers.compare_batch([upload])
    assert rows[0].agree is None
    assert words.batch_table(rows)[0][1] == "cannot be compared"
    assert "agreement cannot be said" in words.batch_summary(rows, comparable=False)


def test_the_csv_cannot_hold_a_formula(pair: Pair, tmp_path: Path) -> None:
    rows = pair.compare_batch([_upload(tmp_path, 4, "=cmd()|x.png")])
    file = words.write_csv(pair, rows, tmp_path / "out.csv")
    table = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    assert table[0][:3] == ["picture", "agree", "vanilla says"]
    assert table[1][0] == "'=cmd()|x.png"
    assert float(table[1][3]) == pytest.approx(rows[0].probabilities[0], abs=1e-6)


def test_switch_words_say_what_moves_and_what_there_is_not(pair: Pair, tmp_path: Path) -> None:
    looked = pair.look_at_upload(_upload(tmp_path, 5))
    plain, tuned = looked.answers
    assert "no front-door head" in words.switched_words(plain, patch_attention=False, channel_attention=True)
    assert words.switched_for_slider(plain, patch_attention=True, channel_attention=True, opacity=0.5) is None
    assert "everything on" in words.switched_words(tuned, patch_attention=True, channel_attention=True)
    off = words.switched_words(tuned, patch_attention=False, channel_attention=False)
    before, after = tuned.switched["everything on"], tuned.switched["both off"]
    assert f"{50 * np.abs(after - before).sum():.1f} % of the probability moves" in off
    first, second = words.switched_for_slider(tuned, patch_attention=True, channel_attention=False, opacity=0.5) or ()
    assert first.shape == second.shape == (words.SIDE, words.SIDE, 3)


def test_both_maps_of_the_slider_have_one_size_and_no_alpha(pair: Pair, tmp_path: Path) -> None:
    looked = pair.look_at_upload(_upload(tmp_path, 6))
    for opacity in (0.0, 1.0):
        first, second = words.maps_for_slider(looked.answers, "grad-cam", opacity)
        assert first.shape == second.shape == (words.SIDE, words.SIDE, 3)
        assert first.dtype == np.uint8
    bare, _ = words.maps_for_slider(looked.answers, "grad-cam", 0.0)
    assert np.array_equal(bare, words.laid_over(looked.answers[0].view, None, side=words.SIDE))


def test_patches_show_every_concept_once(pair: Pair, tmp_path: Path) -> None:
    answer = pair.look_at_upload(_upload(tmp_path, 7)).answers[1]
    numbers = [int(text) for _, caption in words.patches(answer) for text in caption.split(" ", 1)[1].split(", ")]
    assert sorted(numbers) == list(range(1, len(answer.boxes) + 1))


def test_one_folder_twice_and_no_run_are_refused_and_equal_names_told_apart(subjects, tmp_path: Path) -> None:
    folder = subjects[0].run.folder.path
    with pytest.raises(RunError, match="given twice"):
        load_pair(folder, folder)
    with pytest.raises(RunError):
        load_pair(folder, tmp_path)
    other = tmp_path / "once" / folder.name
    other.parent.mkdir()
    shutil.copytree(subjects[1].run.folder.path, other)
    assert [subject.name for subject in load_pair(folder, other)] == [
        f"{folder.parent.name}-{folder.name}",
        f"once-{folder.name}",
    ]


def test_an_example_says_what_it_is_and_who_is_right(pair: Pair, strangers: Pair) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    looked = pair.look(pixels)
    first, second = looked.answers
    assert not words.difference(looked, "grad-cam").startswith("In truth")
    neither = next(name for name in first.class_names if name not in (first.top, second.top))
    for label, said in (
        (first.top, "Both are right" if first.top == second.top else f"Only {first.run} is right"),
        (neither, "Both are wrong"),
    ):
        example = ExamplePicture(label=label, group="sand", pixels=pixels)
        text = words.difference(pair.look(pixels, example), "grad-cam")
        assert text.startswith(f"In truth: {words.plain(label)} (sand). {words.plain(said)}.")
    elsewhere = strangers.look(pixels, ExamplePicture(label="wolf", group="", pixels=pixels))
    assert words.difference(elsewhere, "grad-cam").startswith("In truth: wolf, which not both were trained on.")


def test_the_page_is_called_by_what_it_compares_and_says_where_that_is_not_the_method(subjects, tmp_path: Path) -> None:
    def titles(*methods: str) -> tuple[str, bool]:
        runs = [
            dataclasses.replace(
                subject,
                name=f"run {place}",
                run=dataclasses.replace(subject.run, config=dataclasses.replace(subject.run.config, method=method)),
            )
            for place, (subject, method) in enumerate(zip(subjects, methods, strict=True), start=1)
        ]
        page = build_demo(Pair((runs[0], runs[1]), Worker(waiting=2, seconds=60), tmp_path), ())
        texts = [str(block.value) for block in page.blocks.values() if isinstance(block, gr.Markdown)]
        assert any(text.startswith(f"# {page.title}") for text in texts)
        return page.title, any(text.startswith("Neither of these two") for text in texts)

    assert titles("vanilla", "concept-tuning") == ("Vanilla against Concept-Tuning", False)
    assert titles("scratch", "bi-tuning") == ("From scratch against Bi-Tuning", True)
    assert titles("concept-tuning", "concept-tuning") == ("run 1 against run 2", False)


def test_a_picture_that_was_put_away_is_said_in_its_place(pair: Pair) -> None:
    with gr.Blocks():
        tab = OnePicture(pair, ())
        tab.listen()
    state, sentence, maps = tab._redraw(None, "grad-cam", 0.5)
    assert (state, maps) == (None, None)
    assert sentence == "### There is no picture, or it was put away after 30 minutes; choose one again."
