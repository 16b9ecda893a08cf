"""A run's data: its own pictures and groups again, whatever its source has gained, and what was left out."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from whole_runs import Recorder, csv_config, same_run, write_listing

from concept_tuning.data.registry import load_data
from concept_tuning.engine.loading import evaluate_run, load_run
from concept_tuning.engine.run_data import problem_lines
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.trainer import Stopped
from concept_tuning.errors import DataError, RunError


def test_resuming_on_other_pictures_is_refused(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "run", Recorder())
    settings = folder.read_json("config.json")
    settings["planted"]["rho"] = 0.1
    folder.write_json("config.json", settings)
    folder.write_json("status.json", {"state": "stopped"})
    with pytest.raises(DataError, match="start a new run"):
        resume_run(folder.path, Recorder())


def gain_a_group(listing: Path) -> None:
    """Add a picture for training, of a group that comes before the others."""
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(listing.parent / "extra.png")
    with listing.open("a") as file:
        file.write("extra.png,cat,train,a new group\n")


def test_groups_keep_their_names_when_the_listing_gains_one(tiny, tmp_path: Path) -> None:
    listing = write_listing(tmp_path, ("x", "y"))
    folder = start_run(csv_config(tiny, listing, epochs=1), tmp_path / "run", Recorder())
    before = evaluate_run(load_run(folder.path), "test")
    gain_a_group(listing)
    assert evaluate_run(load_run(folder.path), "test") == before
    assert {cell.name for cell in before.groups} == {"cat | x", "cat | y", "dog | x", "dog | y"}
    data = folder.read_json("data.json")
    folder.write_json("data.json", data | {"group_names": ["x"]})
    with pytest.raises(RunError, match="lacks the names of groups"):
        load_run(folder.path).data()


def test_group_dro_goes_on_with_its_groups_when_the_listing_gains_one(tiny, tmp_path: Path) -> None:
    listing = write_listing(tmp_path, ("x", "y"))
    config = csv_config(tiny, listing, "group-dro", epochs=3)
    undisturbed = start_run(config, tmp_path / "undisturbed", Recorder())

    class StopAtTwo(Recorder):
        def step(self, done: int, total: int, values: Mapping[str, float]) -> None:
            if done == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        start_run(config, tmp_path / "run", StopAtTwo())
    gain_a_group(listing)
    same_run(resume_run(tmp_path / "run", Recorder()), undisturbed)


def test_pictures_left_out_are_named_up_to_twenty(tiny, tmp_path: Path) -> None:
    listing = write_listing(tmp_path, ("x",))
    with listing.open("a") as file:
        for number in range(22):
            (tmp_path / f"broken{number:02}.png").write_bytes(b"no picture")
            file.write(f"broken{number:02}.png,cat,train,x\n")
    watcher = Recorder()
    folder = start_run(csv_config(tiny, listing, max_steps=1), tmp_path / "run", watcher)
    left_out = [text for text in watcher.messages if text.startswith("Left out broken")]
    assert len(left_out) == 20
    assert "... and 2 more; all are listed in the run's data.json" in watcher.messages
    assert len(folder.read_json("data.json")["problems"]) == 22


def test_a_class_gained_since_is_told_as_such_and_not_as_a_lack_of_pictures(tiny, tmp_path: Path) -> None:
    listing = write_listing(tmp_path, ("x",))
    folder = start_run(csv_config(tiny, listing, max_steps=1), tmp_path / "run", Recorder())
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "ant.png")
    with listing.open("a") as file:
        file.write("ant.png,ant,train,x\n")
    told = r"The classes are now ant, cat, dog, and were cat, dog when the run began\. Put the old ones back"
    with pytest.raises(DataError, match=told):
        evaluate_run(load_run(folder.path), "test")
    with pytest.raises(DataError, match=told):
        load_run(folder.path).data()  # as diagnose does
    folder.write_json("status.json", {"state": "stopped"})
    with pytest.raises(DataError, match=told):
        resume_run(folder.path, Recorder())


def test_one_picture_in_two_classes_is_told_with_its_names_and_not_as_too_good(tiny, tmp_path: Path) -> None:
    listing = write_listing(tmp_path, ("x",))
    (tmp_path / "9.png").write_bytes((tmp_path / "0.png").read_bytes())  # a dog of validation, a cat of training
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes())  # both of training
    (tmp_path / "16.png").write_bytes((tmp_path / "4.png").read_bytes())  # two cats
    watcher = Recorder()
    folder = start_run(csv_config(tiny, listing, max_steps=1), tmp_path / "run", watcher)
    told = [text for text in watcher.messages if "different classes" in text]
    assert told == [
        "Pairs of files that show the same picture and are of different classes: 2 (first: 3.png of dog, 2.png of "
        "cat); look which is right; all are listed in the run's data.json"
    ]
    too_good = [text for text in watcher.messages if "too good" in text]
    assert len(too_good) == 1
    assert too_good[0].startswith("1 validation or test pictures are copies of training pictures (first: 16.png of 4")
    data = folder.read_json("data.json")
    assert data["copies"] == [["16.png", "4.png"]]
    assert data["conflicts"] == [["3.png", "dog", "2.png", "cat"], ["9.png", "dog", "0.png", "cat"]]
    folder.write_json("data.json", {key: value for key, value in data.items() if key != "conflicts"})
    assert load_run(folder.path).data().conflicts  # a run from before they were noted opens


@pytest.mark.skipif(os.name != "posix", reason="file names with new lines are those of POSIX")
def test_names_with_new_lines_make_no_lines_of_their_own(tiny, tmp_path: Path) -> None:
    forged = "a\nFinished: all is well.png"
    root = tmp_path / "photos"
    for number in range(12):
        folder = root / ("cat\nnip", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number // 4).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / (f"{number}{forged}"))
    (root / "dog" / f"broken{forged}").write_bytes(b"no picture")
    data = load_data(csv_config(tiny, root))
    assert data.copies
    assert data.conflicts
    lines = problem_lines(data)
    assert len(lines) == 3
    assert not any("\n" in line for line in lines)
    assert lines[0].startswith("Left out dog/brokena\\nFinished: all is well.png: ")
