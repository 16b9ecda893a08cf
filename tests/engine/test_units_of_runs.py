"""A run on pictures of plants: its split, its intervals, and what a diagnosis and a report say of the plants."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import CONCEPT_KEYS, TINY
from whole_runs import Recorder

from concept_tuning.cli import main
from concept_tuning.diagnostics.diagnose import Diagnosis, diagnose, load_subjects
from concept_tuning.diagnostics.pictures import check_comparable
from concept_tuning.diagnostics.verdict import Verdict
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.engine.evaluation import Predictions
from concept_tuning.engine.run_data import open_data, save_data_files
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import start_run
from concept_tuning.errors import DataError, RunError
from concept_tuning.report.page import render_report
from concept_tuning.settings import build_config

PLANTS, PICTURES = 40, 3
#: Of what is drawn of a tiny run, which needs none of the planted birds' settings.
DRAWN = ("images", "validation_images", "test_images", "draw_size")
ANALYSES = ("predictions", "verdict", "properties", "slices")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """Train two runs on leaves whose names tell the plant."""
    place = tmp_path_factory.mktemp("plants")
    rng = np.random.default_rng(0)
    for plant in range(PLANTS):
        colour = rng.integers(60, 200, 3)
        for number in range(PICTURES):
            leaf = np.clip(colour + rng.normal(0, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
            path = place / "leaves" / ("rust", "well")[plant % 2] / f"plant{plant}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(leaf).save(path)
    done = []
    for method in ("vanilla", "linear-probe"):
        values = {name: value for name, value in TINY.items() if name not in (*DRAWN, *CONCEPT_KEYS)}
        own = {"source": str(place / "leaves"), "units": "prefix", "epochs": 1, "cache_dir": str(place / "cache")}
        config = build_config(method=method, backbone="test_resnet", overrides={**values, **own})
        done.append(start_run(config, place / "runs" / method, Recorder()).path)
    return done[0], done[1]


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory) -> Diagnosis:
    subjects = load_subjects(runs)
    bench = Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None)
    return diagnose(bench, tmp_path_factory.mktemp("diagnosis"), only=ANALYSES)


def test_no_plant_is_in_two_splits_and_the_test_tells_how_many_it_has(runs) -> None:
    for path in runs:
        splits = json.loads((path / "split.json").read_text())
        plants = {name: {key.split("_")[0] for key in keys} for name, keys in splits.items()}
        assert {name: len(found) for name, found in plants.items()} == {"train": 24, "val": 8, "test": 8}
        assert not plants["train"] & (plants["val"] | plants["test"])
        (test,) = (
            one for one in json.loads((path / "results.json").read_text())["splits"].values() if one["split"] == "test"
        )
        assert (test["n"], test["units"]) == (24, 8)
        assert len(np.unique(Predictions.load(RunFolder.open(path).predictions_file("test")).units)) == 8


def test_evaluate_tells_them(runs, capsys) -> None:
    assert main(["evaluate", str(runs[0])]) == 0
    assert "n = 24 of 8 units" in capsys.readouterr().out


def test_a_diagnosis_keeps_their_number_and_takes_its_verdict_over_them(made) -> None:
    assert made.overview.units == 8
    (verdict,) = made.results["verdict", None].verdicts
    assert isinstance(verdict, Verdict)
    assert verdict.accuracy.units == 8
    assert verdict.accuracy.sentence.startswith("Too few pictures (24)")
    assert "on 24 pictures of 8 units" in verdict.accuracy.sentence


def test_the_report_says_where_intervals_are_over_them_and_where_not(made) -> None:
    page = render_report(made)
    assert "They show 8 units (plants, patients or the like), none of which is in another split" in page
    assert page.count("Here they are taken as drawn one by one") == 1  # where pictures go wrong together


def test_properties_are_cross_validated_by_plants_of_training(made) -> None:
    found = made.results["properties", None]
    assert (len(found.keys), found.units) == (72, 24)


def test_a_run_is_not_opened_where_other_pictures_show_one_plant(runs, tmp_path) -> None:
    config = RunFolder.open(runs[0]).config()
    elsewhere = tmp_path / "leaves"
    shutil.copytree(config.data.source, elsewhere)
    again = dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(elsewhere)))
    open_data(again, RunFolder.open(runs[0]), print)
    for plants in (dataclasses.replace(again.data, units="none"), dataclasses.replace(again.data, units="listed")):
        with pytest.raises(
            DataError, match="Which pictures of leaves show one plant or patient is not told as when the run"
        ):
            open_data(dataclasses.replace(again, data=plants), RunFolder.open(runs[0]), print)


def test_a_run_from_before_plants_were_known_has_none(runs, tmp_path) -> None:
    old = tmp_path / "old"
    shutil.copytree(runs[0], old)
    noted = json.loads((old / "data.json").read_text())
    del noted["units"]
    (old / "data.json").write_text(json.dumps(noted))
    data = open_data(RunFolder.open(old).config(), RunFolder.open(old), print)
    assert all(split.units is None for split in data.splits.values())
    assert data.unit_fingerprints == {"train": None, "val": None, "test": None}
    assert data.validation_note == "like training"
    with pytest.raises(RunError, match="which of them show one plant or patient is not told alike"):
        check_comparable(load_subjects([runs[1], old]), split="test")


def test_runs_on_a_part_of_the_training_pictures_are_comparable(runs, tmp_path) -> None:
    config = RunFolder.open(runs[0]).config()
    part = dataclasses.replace(config, data=dataclasses.replace(config.data, sample_rate=50.0))
    folder = start_run(part, tmp_path / "half", Recorder())
    check_comparable(load_subjects([runs[0], folder.path]), split="test")


def test_a_list_that_now_has_pictures_of_one_plant_on_two_sides_is_told_of(runs, tmp_path) -> None:
    pictures = RunFolder.open(runs[0]).config().data.source
    keys = sorted(path.relative_to(pictures).as_posix() for path in Path(pictures).rglob("*.png"))
    shutil.copytree(pictures, tmp_path / "in")

    def listed(units: list[str]) -> None:
        lines = [f"{key},{key.split('/')[0]},{unit}" for key, unit in zip(keys, units, strict=True)]
        (tmp_path / "in" / "list.csv").write_text("\n".join(["path,label,unit", *lines]))

    listed(list(map(str, range(len(keys)))))
    config = RunFolder.open(runs[0]).config()
    own = dataclasses.replace(config.data, source=str(tmp_path / "in" / "list.csv"), units="listed")
    folder = RunFolder.create(tmp_path / "run", dataclasses.replace(config, data=own))
    save_data_files(folder, open_data(folder.config(), folder, print))
    open_data(folder.config(), folder, print)
    listed([str(number // 3) for number in range(len(keys))])
    with pytest.raises(DataError, match=r"Pictures of the unit '.*' are in the train and the"):
        open_data(folder.config(), folder, print)
