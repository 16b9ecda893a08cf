"""The detector sweep on the smallest case, and its arithmetic on made-up runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import detector_sweep as module
import numpy as np
import pytest
from detector_sweep import (
    add_row,
    all_properties,
    all_runs,
    overrides,
    read_rows,
    settings_of,
    sweep,
    write_record,
)
from sweep_measures import (
    away_from_home,
    concept_list,
    either_auc,
    place_concepts,
    score_concepts,
    score_properties,
    score_slices,
    slice_errors,
)
from sweep_tables import PLACES, SCORES, detection, places, tables, values_of
from tiny_runs import TINY

from concept_tuning.diagnostics.concept_effects import concept_effects
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.pictures import choose_pictures
from concept_tuning.diagnostics.properties import property_table
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.slices import find_slices

SMALLEST = {
    **{key: value for key, value in TINY.items() if key not in ("queue_size", "concept_channels", "epochs")},
    "architecture": "test_resnet",
    "validation_images": 48,
    "test_images": 48,
    "max_steps": 2,
    "epochs": 1,
}


@pytest.fixture
def smallest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a root for a sweep of two runs of two steps; all stages write below it or beside it."""
    monkeypatch.setattr(module, "COMMON", SMALLEST)
    monkeypatch.setattr(module, "RESULT", tmp_path / "results" / "detector_sweep.json")
    monkeypatch.setattr(module, "RHOS", (0.95,))
    monkeypatch.setattr(module, "RUN_SEEDS", 1)
    monkeypatch.setattr(module, "PROPERTY_SEEDS", 1)
    return tmp_path / "sweep"


def made_up(values: dict[str, list[float | None]], key: str) -> list[dict]:
    return [{"set": name, key: value} for name, found in values.items() for value in found]


def test_no_two_cells_share_a_seed_of_pictures_or_training() -> None:
    cells = sweep(module.PROPERTY_SEEDS)
    assert len({cell.seed for cell in cells}) == len(cells) == 5 * module.PROPERTY_SEEDS
    assert {cell.group: cell.rho for cell in cells} == {"reference": 0, "0.0": 0, "0.5": 0.5, "0.8": 0.8, "0.95": 0.95}
    assert sweep(2) == cells[:10]  # runs are of the same pictures as the first properties, and come set by set
    for cell in cells:
        assert overrides(cell)["seed"] == overrides(cell)["data_seed"] == cell.seed
    config = settings_of(cells[-1])
    assert (config.planted.rho, config.engine.seed, config.data.data_seed) == (0.95, cells[-1].seed, cells[-1].seed)


def test_detection_counts_the_pairs_that_are_in_order() -> None:
    values = {"reference": [1, 2, 3], "0.0": [2, 2, 4], "0.5": [4, 5, 6], "0.95": [0, 0, 0.5]}
    found = {row["rho"]: row for row in detection(made_up(values, "slices.test"))}
    for rho, row in found.items():
        above, clean = values[str(rho)], values["reference"]
        pairs = [float(a > b) + 0.5 * (a == b) for a in above for b in clean]
        assert row["auc"] == pytest.approx(sum(pairs) / 9)
        assert row["low"] <= row["auc"] <= row["high"]
        assert row["runs"] == [3, 3]
    assert [found[rho]["auc"] for rho in (0.5, 0.95)] == [1, 0]
    # of the 20 ways to deal out six runs, one is as far in order as that
    assert found[0.5]["p"] == pytest.approx(1 / 20, abs=0.02)
    assert found[0.95]["p"] == 1
    assert found[0.5]["mean"] == 5
    assert found[0.5]["mean_clean"] == 2


def test_runs_without_a_number_are_left_out_and_counted() -> None:
    rows = made_up({"reference": [0.5, None, 0.7], "0.95": [0.9, 1.0, None], "0.5": [None, None]}, "place.slices")
    assert values_of(rows, "0.95", "place.slices").tolist() == [0.9, 1.0]
    found = {row["set"]: row for row in places(rows)}
    assert set(found) == {"reference", "0.95"}
    assert found["0.95"]["mean"] == pytest.approx(0.95)
    assert found["reference"]["runs"] == 2


def test_the_property_that_tells_most_is_the_number() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 60, (60, 3, 20, 20), dtype=np.uint8)
    images[labels == 1, 0, :2] = 255  # a red rim
    table = property_table(images, labels, class_names=("a", "b"), keys=[str(i) for i in range(60)])
    found = score_properties(table)
    assert found["properties"] == max(one.strength for one in table.properties) > 0.9
    assert found["properties.border"] > 0.5  # the centre knows nothing
    assert score_properties(Unavailable(analysis="", reason="")) == {"properties": 0, "properties.border": 0}


def test_slices_give_each_picture_the_error_of_its_look() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    odd = rng.random(120) < 0.3  # a look in which all of class 1 is wrong
    embeddings = rng.normal(size=(120, 6)) + 12 * odd[:, None] + 12 * labels[:, None] * np.eye(6)[0]
    wrong = odd & (labels == 1)
    probabilities = np.where(np.eye(2)[np.where(wrong, 1 - labels, labels)] > 0, 0.9, 0.1)
    keys = [str(i) for i in range(120)]
    table = find_slices(
        embeddings=embeddings, labels=labels, probabilities=probabilities, keys=keys, class_names=("a", "b"), draws=20
    )
    found = score_slices(table, "test")
    assert found["slices.test"] == table.slices[0].excess / 120 > 0.02
    assert found["slices.test.p"] == pytest.approx(1 - 1 / 21)
    errors = slice_errors(table, [*keys, "elsewhere"])
    assert errors[:-1][wrong].min() > 0.9
    assert errors[:-1][~wrong].max() < 0.1
    assert errors[-1] == pytest.approx(wrong.mean())
    assert either_auc(errors[:-1], wrong) == 1
    assert either_auc(errors[:-1], np.ones(120, dtype=bool)) is None


def test_without_a_slice_there_is_nothing_to_be_seen() -> None:
    nothing = Unavailable(analysis="slices", reason="All pictures are right.")
    assert score_slices(nothing, "val") == {"slices.val": 0, "slices.val.p": 0}
    assert slice_errors(nothing, ["a", "b"]).tolist() == [0, 0]


def concepts_at(outside: list[float]) -> SimpleNamespace:
    """Four concepts of suspicion 0.8, 0.4, 0.2 and none, in another order than their places."""
    concepts = tuple(
        SimpleNamespace(index=index, suspicion=suspicion, energy=energy)
        for index, suspicion, energy in ((2, 0.8, 0.1), (0, 0.4, 0.3), (3, 0.2, 0.4), (1, None, 0.2))
    )
    masks = SimpleNamespace(outside=np.array(outside), even=np.array([0.8, 0.6, 0.8, 0.4]))
    return SimpleNamespace(concepts=concepts, masks=masks)


def test_concepts_are_told_apart_by_where_they_are() -> None:
    # background: 1, which is never ranked, 2 and 3; the one other concept lies between 2 and 3
    effects = concepts_at([0.5, 0.7, 0.9, 0.6])
    assert score_concepts(effects, "val") == pytest.approx(
        {"concepts.val": 0.8, "concepts.val.mean": 0.08 + 0.12 + 0.08}
    )
    # the outermost for its area is 3, the least suspicious
    assert place_concepts(effects, "test") == {"place.concepts.test": 0.5, "place.concepts.test.half": 0}
    # no concept is outside for more than the area; 2 is the outermost
    assert place_concepts(concepts_at([0.5, 0.7, 0.7, 0.2]), "val") == {
        "place.concepts.val": None,
        "place.concepts.val.half": 1,
    }
    without = SimpleNamespace(concepts=effects.concepts, masks=Unavailable(analysis="", reason=""))
    assert set(place_concepts(without, "val").values()) == {None}


def test_home_is_the_habitat_a_species_has_in_training(subjects) -> None:
    run = subjects[0].run
    bundle = run.data()
    away = {
        split: away_from_home(choose_pictures(bundle, split=split, count=None), run.config)
        for split in ("train", "test")
    }
    assert away["test"].mean() == 0.75  # balanced over the four habitats
    assert away["train"].mean() < 0.2  # rho is 0.93


def test_a_real_run_has_every_number(subjects, pictures) -> None:
    effects = concept_effects(subjects[0], pictures, compute_features(subjects[0], pictures))
    found = score_concepts(effects, "test")
    assert found["concepts.test"] == (effects.concepts[0].suspicion or 0)
    assert 0 <= found["concepts.test.mean"] <= found["concepts.test"]
    listed = concept_list(effects)
    background = np.array([one["outside"] > one["even"] for one in listed])
    suspicion = np.array([one["suspicion"] for one in listed], dtype=float)
    known = ~np.isnan(suspicion)
    assert place_concepts(effects, "test")["place.concepts.test"] == either_auc(suspicion[known], background[known])


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped_and_is_recorded(smallest: Path) -> None:
    marker = smallest.parent / "launched"
    launcher = shlex.split(f"sh -c 'echo x >> {marker}; exec \"$@\"' sh")
    all_properties(smallest)
    all_runs(smallest, launcher)
    rows = read_rows(smallest / "runs.jsonl")
    assert [(row["set"], row["seed"]) for row in rows] == [(c.group, c.seed) for c in sweep(1)]
    assert marker.read_text().count("x") == 2
    assert not (smallest / "cache").exists()
    for row in rows:
        assert {key for key in SCORES if key.startswith(("concepts", "slices", "home"))} <= set(row)
        assert set(PLACES) <= set(row)

    kept = (smallest / "runs.jsonl").read_text().splitlines()
    (smallest / "runs.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    all_runs(smallest, launcher)
    again = read_rows(smallest / "runs.jsonl")
    assert marker.read_text().count("x") == 2  # the lost row comes of the finished run, which is not trained again
    assert {**again[-1], "commit": ""} == {**rows[-1], "commit": ""}

    write_record(smallest)
    record = json.loads(module.RESULT.read_text())
    assert {(row["score"], row["rho"]) for row in record["detection"]} == {(key, 0.95) for key in SCORES}
    assert "rho 0.95" in tables(record)
    assert str(smallest) not in module.RESULT.read_text()


def test_other_settings_are_not_mixed(smallest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_row(smallest / "runs.jsonl", sweep(1)[0], {"slices.test": 0.1})
    monkeypatch.setattr(module, "COMMON", {**SMALLEST, "max_steps": 3})
    with pytest.raises(SystemExit, match="other settings"):
        read_rows(smallest / "runs.jsonl")


def test_a_cell_that_fails_stops_the_sweep(smallest: Path) -> None:
    with pytest.raises(SystemExit, match="exit code 1"):
        all_runs(smallest, ["false"])
    assert not (smallest / "runs.jsonl").exists()
