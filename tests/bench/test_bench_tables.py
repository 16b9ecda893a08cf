"""The tables of a bench from made run folders: differences, verdicts, trials, and what was published."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import shutil
from pathlib import Path

import made_runs
import numpy as np
import pytest

from concept_tuning.bench.cells import final_cells, final_path, note_failure, trial_cells
from concept_tuning.bench.published import ARCHITECTURE
from concept_tuning.bench.spec import BenchSpec, check_spec, settings_of
from concept_tuning.bench.tables import FILES, summary, summary_against, trial_rows, write_tables
from concept_tuning.diagnostics.statistics import false_alarms
from concept_tuning.diagnostics.verdict import ROUGH
from concept_tuning.engine.evaluation import Predictions
from concept_tuning.errors import RunError

SPEC = {
    "name": "made",
    "data": [{"name": "birds", "source": "planted"}],
    "methods": ["vanilla", "lp-ft", "l2-sp"],
    "backbones": ["test_resnet"],
    "seeds": [1, 2, 3],
    "trials": 3,
    "search": {"all": {"lr": {"low": 0.01, "high": 0.1}}, "l2-sp": {"l2_sp.backbone_decay": {"choices": [0.5, 0.7]}}},
}
PICTURES = 400


def right(share: float, seed: int, *, shift: int = 0) -> np.ndarray:
    """Return (N,) correctness: the first share of the pictures, and some others by chance."""
    chance = np.random.default_rng(seed).random(PICTURES) < 0.02
    return (np.arange(PICTURES) + shift < share * PICTURES) ^ chance


def made(tmp_path: Path, *, groups: np.ndarray | None = None, shares: tuple[float, ...] = (0.6, 0.9, 0.6)) -> BenchSpec:
    spec = check_spec(SPEC)
    for setting, share in zip(settings_of(spec), shares, strict=True):
        made_runs.write_trials(spec, tmp_path, setting, [0.5, 0.8, 0.7])
        for seed in spec.seeds:
            made_runs.write_final(tmp_path, setting, seed, right(share, seed), groups=groups, speed=10.0 + seed)
    return spec


def test_the_difference_to_the_first_method_is_paired_and_has_its_interval(tmp_path: Path) -> None:
    rows = summary(made(tmp_path), tmp_path)
    assert rows[0]["difference"] is None
    assert rows[0]["verdict"] == ""
    better, equal = rows[1]["difference"], rows[2]["difference"]
    assert better["value"] == pytest.approx(rows[1]["accuracy"]["mean"] - rows[0]["accuracy"]["mean"])
    assert 0.2 < better["low"] < better["value"] < better["high"] < 0.4
    assert better["level"] == 0.95
    assert (equal["value"], equal["low"], equal["high"]) == (0, 0, 0)  # the same pictures right with the same seeds
    text = write_tables(check_spec(SPEC), tmp_path)
    low, high = (f"+{100 * better[end]:.1f}" for end in ("low", "high"))
    assert f"| +{100 * better['value']:.1f} ({low} to {high}) |" in text
    assert "lp-ft is better than vanilla in accuracy" in text
    assert "2 comparisons are made here" in text
    assert "worst-group" not in text
    assert "So few seeds" not in text
    assert text.count("these intervals are rough, since seeds are few") == 1


def test_any_method_can_be_the_one_that_others_are_compared_with(tmp_path: Path) -> None:
    values = {**SPEC, "data": [*SPEC["data"], {"name": "cells", "source": "elpv", "methods": ["vanilla", "l2-sp"]}]}
    before, spec = summary(made(tmp_path), tmp_path), check_spec(values)
    text = summary_against(spec, tmp_path, "lp-ft")
    assert "the differences to `lp-ft` in points" in text
    rows = {line.split("|")[4].strip(): line for line in text.splitlines() if line.startswith("| birds")}
    assert list(rows) == ["`lp-ft`", "`vanilla`", "`l2-sp`"]
    assert rows["`lp-ft`"].endswith("| – | – |")
    difference = before[1]["difference"]
    low, high = (f"{100 * difference[end]:.1f}" for end in ("low", "high"))
    assert f"| −{100 * difference['value']:.1f} (−{high} to −{low}) |" in rows["`vanilla`"]
    assert "vanilla is worse than lp-ft in accuracy" in text
    assert "cells" not in text  # where lp-ft was not to be run
    assert not any((tmp_path / name).exists() for name in FILES)


def test_runs_are_paired_by_seed_and_those_without_a_partner_left_out(tmp_path: Path) -> None:
    spec = made(tmp_path)
    vanilla = settings_of(spec)[0]
    status = final_path(tmp_path, vanilla, 2) / "status.json"
    status.write_text(json.dumps({"state": "training"}))
    row = summary(spec, tmp_path)[1]
    assert row["seeds"] == 3
    assert "over 2 seeds each" in row["verdict"]
    first, third = (right(0.9, seed).mean() - right(0.6, seed).mean() for seed in (1, 3))
    assert row["difference"]["value"] == pytest.approx((first + third) / 2)
    assert summary(spec, tmp_path)[0]["seeds"] == 2


def test_the_worst_group_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    places = np.arange(PICTURES)
    groups = (places >= PICTURES // 2).astype(np.int64)  # the second half is a group, of which vanilla has the least
    rows = summary(made(tmp_path, groups=groups), tmp_path)
    found = rows[1]["worst_group_difference"]
    assert found["value"] == pytest.approx(rows[1]["worst_group"]["mean"] - rows[0]["worst_group"]["mean"])
    assert found["value"] > rows[1]["difference"]["value"] + 0.1
    assert "lp-ft is better than vanilla in worst-group accuracy" in rows[1]["worst_group_verdict"]
    text = write_tables(check_spec(SPEC), tmp_path)
    assert rows[1]["worst_group_verdict"].removesuffix(f" {ROUGH}") in text
    assert "4 comparisons are made here" in text
    assert "The smallest of 4 accuracies is biased low" in text


def test_runs_on_other_pictures_are_not_compared(tmp_path: Path) -> None:
    spec = made(tmp_path)
    made_runs.write_final(tmp_path, settings_of(spec)[1], 1, right(0.9, 1)[:-1])
    row = summary(spec, tmp_path)[1]
    assert row["difference"] is None
    assert "not tested on the same pictures" in row["verdict"]


def test_every_trial_is_a_row_with_what_was_drawn_and_reached(tmp_path: Path) -> None:
    spec = made(tmp_path)
    rows = trial_rows(spec, tmp_path)
    assert len(rows) == 9
    own = [row for row in rows if row["method"] == "l2-sp"]
    assert [row["accuracy"] for row in own] == [0.5, 0.8, 0.7]
    assert [row["loss"] for row in own] == pytest.approx([0.5, 0.2, 0.3])
    assert [row["chosen"] for row in own] == [False, True, False]
    assert own[0]["optim.lr"] == 0.01  # the default
    assert own[0]["l2_sp.backbone_decay"] == 0.1
    chosen = summary(spec, tmp_path)[2]["chosen"]
    assert (own[1]["optim.lr"], own[1]["l2_sp.backbone_decay"]) == (chosen["lr"], chosen["l2_sp.backbone_decay"])
    assert own[1]["l2_sp.backbone_decay"] in {0.5, 0.7}


def test_before_the_search_has_ended_nothing_is_chosen(tmp_path: Path) -> None:
    spec = check_spec(SPEC)
    setting = settings_of(spec)[0]
    made_runs.write_trials(spec, tmp_path, setting, [0.5, 0.8])
    row = summary(spec, tmp_path)[0]
    assert (row["chosen"], row["open_trials"], row["failed_trials"]) == (None, 1, 0)
    assert not any(one["chosen"] for one in trial_rows(spec, tmp_path))
    assert [one["state"] for one in trial_rows(spec, tmp_path)][:3] == ["finished", "finished", "open"]
    assert "| 2 of 3 | 0 |" in write_tables(spec, tmp_path)


def test_a_method_whose_trials_all_failed_says_so_in_place_of_a_verdict(tmp_path: Path) -> None:
    spec = check_spec(SPEC)
    *searched, in_vain = settings_of(spec)
    for setting in searched:
        made_runs.write_trials(spec, tmp_path, setting, [0.5, 0.8, 0.7])
        made_runs.write_final(tmp_path, setting, 1, right(0.6, 1))
    for cell in trial_cells(spec, tmp_path):
        if cell.setting == in_vain:
            note_failure(cell.path, f"Trial {cell.number} diverged.")
    row = summary(spec, tmp_path)[2]
    assert row["verdict"] == "All 3 trials of l2-sp failed; the first: Trial 0 diverged."
    assert (row["failed_trials"], row["chosen"], row["accuracy"]) == (3, None, None)
    assert row["verdict"] in write_tables(spec, tmp_path)


def test_methods_that_learnt_from_other_pictures_are_not_compared(tmp_path: Path) -> None:
    spec = made(tmp_path)
    vanilla, lp_ft, l2_sp = settings_of(spec)
    for setting, found in ((vanilla, "before"), (lp_ft, "before"), (l2_sp, "changed")):
        for seed in spec.seeds:
            known = {"used_fingerprint": found, "counts": dict.fromkeys(("train", "val", "test"), 1)}
            path = final_path(tmp_path, setting, seed)
            (path / "data.json").write_text(json.dumps(known | {"problems": [], "copies": []}))
    rows = summary(spec, tmp_path)
    assert rows[1]["difference"] is not None
    assert (rows[2]["difference"], rows[2]["worst_group_difference"]) == (None, None)
    assert rows[2]["verdict"].startswith("l2-sp and vanilla did not learn from the same pictures")


@pytest.mark.parametrize("changed", ["split", "units"])
def test_methods_whose_splits_are_other_ones_are_not_compared(changed: str, tmp_path: Path) -> None:
    spec = made(tmp_path)
    for number, setting in enumerate(settings_of(spec)):
        for seed in spec.seeds:
            path, other = final_path(tmp_path, setting, seed), number == 2
            units = "plants" if other and changed == "units" else None
            test = ["b"] if other and changed == "split" else ["a"]
            known = {"used_fingerprint": "f", "units": units, "counts": dict.fromkeys(("train", "val", "test"), 1)}
            (path / "data.json").write_text(json.dumps(known | {"problems": [], "copies": []}))
            (path / "split.json").write_text(json.dumps({"train": [], "val": [], "test": test}))
    rows = summary(spec, tmp_path)
    assert rows[1]["difference"] is not None
    assert rows[2]["difference"] is None
    assert "the data, or their split, have changed between their runs" in rows[2]["verdict"]


def test_intervals_of_a_bench_are_over_units_where_pictures_have_them(tmp_path: Path) -> None:
    spec = made(tmp_path)
    before = summary(spec, tmp_path)[1]["difference"]
    for setting in settings_of(spec):
        for seed in spec.seeds:
            path = final_path(tmp_path, setting, seed) / "predictions" / "test.safetensors"
            found = Predictions.load(path)
            dataclasses.replace(found, units=np.arange(len(found.labels)) // 8).save(path)
    row = summary(spec, tmp_path)[1]
    assert row["difference"]["value"] == before["value"]
    assert (row["difference"]["low"], row["difference"]["high"]) != (before["low"], before["high"])
    assert " units" in row["verdict"]


def test_what_was_chosen_is_what_ran_defaults_and_a_variants_own_values_too(tmp_path: Path) -> None:
    gentle = {"gentle": {"method": "l2-sp", "set": {"l2_sp.backbone_decay": 0.3}, "tuned_as": "l2-sp"}}
    spec = check_spec(SPEC | {"methods": ["vanilla", "l2-sp", "gentle"], "variants": gentle})
    vanilla, l2_sp, _ = settings_of(spec)
    made_runs.write_trials(spec, tmp_path, vanilla, [0.9, 0.8, 0.7])
    made_runs.write_trials(spec, tmp_path, l2_sp, [0.5, 0.8, 0.7])
    rows = summary(spec, tmp_path)
    assert rows[0]["chosen"] == {"lr": 0.01}
    assert rows[2]["chosen"] == {"lr": rows[1]["chosen"]["lr"], "l2_sp.backbone_decay": 0.3}
    assert rows[1]["chosen"]["l2_sp.backbone_decay"] in {0.5, 0.7}


def test_the_summary_says_how_many_comparisons_chance_may_make(tmp_path: Path) -> None:
    text = write_tables(made(tmp_path), tmp_path)
    share = false_alarms(3)
    assert 0.05 < share < false_alarms(2)
    assert "2 comparisons are made here" in text
    assert f"up to {100 * share:.0f} % of them leave zero out with 3 seeds" in text
    assert f"So up to {2 * share:.1f} of these may leave zero by chance." in text


def test_methods_on_three_data_have_a_table_over_them(tmp_path: Path) -> None:
    data = [
        {"name": name, "source": "planted", "set": {"data_seed": at}} for at, name in enumerate(("one", "two", "three"))
    ]
    spec = check_spec(SPEC | {"data": data, "trials": 0, "search": {}})
    for setting in settings_of(spec):
        for seed in spec.seeds if (setting.data, setting.method) != ("three", "l2-sp") else (1, 2):
            made_runs.write_final(tmp_path, setting, seed, right(0.9 if setting.method == "lp-ft" else 0.6, seed))
    text = write_tables(spec, tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("| `")]
    assert line.startswith("| `lp-ft` | 3 | +")
    assert "| in 3 | 0.250 |" in line
    assert "over several data" not in write_tables(made(tmp_path / "one"), tmp_path / "one")


def test_the_files_hold_every_run_and_no_formula(tmp_path: Path) -> None:
    spec = made(tmp_path)
    failed = final_path(tmp_path, settings_of(spec)[2], 3)
    failed.with_name("seed-3.failure.txt").write_text("=1+1 diverged")
    write_tables(spec, tmp_path)
    assert all((tmp_path / name).is_file() for name in FILES)
    cells = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    assert [float(row["images_per_second"] or "nan") for row in cells[:3]] == [11, 12, 13]
    assert (cells[-1]["state"], cells[-1]["failure"]) == ("failed", "'=1+1 diverged")
    assert cells[-1]["images_per_second"] == ""
    trials = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert (trials[0]["l2_sp.backbone_decay"], trials[-1]["trial"]) == ("", "2")
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 3


def test_a_row_says_whose_choice_it_has_and_what_it_reached_on_validation(tmp_path: Path) -> None:
    half = {"half": {"method": "vanilla", "set": {"weight_decay": 0.1}, "tuned_as": "vanilla"}}
    later = {"name": "later", "source": "planted", "set": {"rho": 0.5}, "tuned_on": "birds", "sample_rates": [50]}
    values = SPEC | {"data": [*SPEC["data"], later], "methods": ["vanilla", "half"], "variants": half}
    spec = check_spec(values | {"search": {"all": SPEC["search"]["all"]}})
    made_runs.write_trials(spec, tmp_path, settings_of(spec)[0], [0.5, 0.8, 0.7])
    for setting in settings_of(spec)[1:]:
        made_runs.write_final(tmp_path, setting, 1, right(0.7, 1))
    rows = summary(spec, tmp_path)
    assert rows[0]["tuned_as"] is None
    assert rows[3]["validation"] == {"mean": 0.75, "deviation": None, "values": [0.75]}
    text = write_tables(spec, tmp_path)
    trials = [line.split("|")[5].strip() for line in text.splitlines() if line.startswith(("| birds", "| later"))]
    assert trials == ["3", "3 of `vanilla`", "3 of birds, 100 %", "3 of birds, 100 %, `vanilla`"]
    assert "All runs: preset none; seeds 1, 2, 3, which share one split and one sample of each data. Version" in text
    assert "- `half` is `vanilla` with weight_decay = 0.1." in text


def test_what_data_or_a_variant_changes_is_not_said_of_all_runs(tmp_path: Path) -> None:
    longer = {"longer": {"method": "vanilla", "set": {"optim.epochs": 9}}}
    data = [*SPEC["data"], {"name": "small", "source": "planted", "set": {"image_size": 64}}]
    values = {"data": data, "methods": ["vanilla", "longer"], "variants": longer, "search": {}, "trials": 0}
    spec = check_spec(SPEC | values | {"set": {"epochs": 2, "image_size": 96, "batch_size": 8}})
    text = write_tables(spec, tmp_path)
    told = "batch_size = 8; unless a variant or data below has another, epochs = 2, image_size = 96; seeds 1, 2, 3"
    assert f"All runs: preset none, {told}" in text
    assert "- `longer` is `vanilla` with optim.epochs = 9." in text


def test_the_versions_are_those_of_the_runs_and_several_are_said(tmp_path: Path) -> None:
    spec = made(tmp_path)
    for setting, number in zip(settings_of(spec), ("0.1", "0.1", "0.2"), strict=True):
        for seed in spec.seeds:
            known = {"concept-tuning-studio": number, "torch": "2.9", "python": "3.11"}
            (final_path(tmp_path, setting, seed) / "versions.json").write_text(json.dumps(known))
    text = write_tables(spec, tmp_path)
    assert "The runs are of different versions, by which they may differ too: Concept-Tuning Studio 0.1" in text
    assert "Concept-Tuning Studio 0.2, torch 2.9. " in text
    for cell in (cell for cell in final_cells(spec, tmp_path) if cell.setting.method == "l2-sp"):
        (cell.path / "versions.json").unlink()
    assert "Versions: Concept-Tuning Studio 0.1, torch 2.9. " in write_tables(spec, tmp_path)


def test_the_outcome_of_a_verdict_is_kept_beside_its_interval(tmp_path: Path) -> None:
    groups = np.arange(PICTURES) // 2 % 2
    rows = summary(made(tmp_path, groups=groups), tmp_path)
    assert [row["outcome"] for row in rows] == [None, "better", "no difference shown"]
    assert [row["worst_group_outcome"] for row in rows] == [None, "better", "no difference shown"]


def test_validation_pictures_that_were_fitted_to_are_told(tmp_path: Path) -> None:
    train = {"dfr-train": {"method": "dfr", "set": {"dfr.data": "training"}}}
    values = {"methods": ["vanilla", "dfr", "dfr-train"], "variants": train, "search": {}, "trials": 0}
    spec = check_spec(SPEC | values)
    for setting in settings_of(spec):
        made_runs.write_final(tmp_path, setting, 1, right(0.7, 1))
    assert [row["fitted_to_validation"] for row in summary(spec, tmp_path)] == [False, True, False]
    assert "The validation accuracy of `dfr` is of pictures that the last layer was fitted to" in write_tables(
        spec, tmp_path
    )


@pytest.mark.parametrize("damaged", ['{"best": null, "splits": {}}', '{"best": {}, "splits": {}}', None])
def test_a_finished_trial_that_does_not_tell_what_it_reached_is_a_sentence(damaged: str | None, tmp_path: Path) -> None:
    """Else another trial would be chosen without a word."""
    spec = made(tmp_path)
    file = trial_cells(spec, tmp_path)[1].path / "results.json"
    file.unlink() if damaged is None else file.write_text(damaged)
    with pytest.raises(RunError, match=r"results\.json"):
        write_tables(spec, tmp_path)


def test_a_run_whose_splits_are_damaged_is_a_sentence(tmp_path: Path) -> None:
    spec = made(tmp_path)
    (final_path(tmp_path, settings_of(spec)[1], 2) / "results.json").write_text('{"best": {}, "splits": null}')
    with pytest.raises(RunError, match="does not hold what it should"):
        write_tables(spec, tmp_path)


def test_a_failure_noted_in_other_letters_is_read(tmp_path: Path) -> None:
    spec = made(tmp_path)
    path = final_path(tmp_path, settings_of(spec)[1], 3)
    path.with_name(f"{path.name}.failure.txt").write_bytes(b"Kein Platz f\xfcr mehr")
    assert "Kein Platz f\ufffdr mehr" in write_tables(spec, tmp_path)


def test_settings_of_which_nothing_was_run_are_named_below_the_table(tmp_path: Path) -> None:
    later = {"name": "later", "source": "planted", "set": {"rho": 0.5}, "tuned_on": "birds"}
    spec = check_spec(SPEC | {"data": [*SPEC["data"], later]})
    vanilla, _, l2_sp = settings_of(spec)[:3]
    assert "| birds |" not in write_tables(spec, tmp_path)
    assert "Not begun are 6 of 6 settings: birds; later." in write_tables(spec, tmp_path)
    made_runs.write_trials(spec, tmp_path, vanilla, [0.5, 0.8, 0.7])
    made_runs.write_final(tmp_path, vanilla, 1, right(0.6, 1))
    made_runs.write_trials(spec, tmp_path, l2_sp, [0.5])
    text = write_tables(spec, tmp_path)
    assert [line.split("|")[4].strip() for line in text.splitlines() if line.startswith("| birds")] == [
        "`vanilla`",
        "`l2-sp`",
    ]
    assert text.endswith(
        "no seed is finished on both sides yet: `l2-sp`\n\nNot begun are 4 of 6 settings: birds (`lp-ft`); later.\n"
    )


def test_without_a_search_none_is_claimed(tmp_path: Path) -> None:
    values = {name: value for name, value in SPEC.items() if name not in ("trials", "search")}
    text = write_tables(check_spec(values), tmp_path)
    assert "Nothing was searched." in text
    assert "chosen on validation" not in text


def test_published_figures_have_a_column_and_a_footnote_each(tmp_path: Path) -> None:
    values = SPEC | {
        "data": [{"name": "birds", "source": "cub200"}],
        "methods": ["vanilla", "l2-sp", "concept-tuning"],
        "backbones": [ARCHITECTURE],
        "preset": "paper",
    }
    for setting in settings_of(check_spec(values)):
        made_runs.write_trials(check_spec(values), tmp_path, setting, [0.5, 0.8, 0.7])
    text = write_tables(check_spec(values), tmp_path)
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = ["published elsewhere", "---", "81.8 [^1]", "–", "85.1 [^2]"]
    assert [line.split("|")[-2].strip() for line in table] == cells
    assert "are of the same data and test pictures, network, pre-trained weights, picture size and sample rate" in text
    notes = [line for line in text.splitlines() if line.startswith("[^")]
    assert "Transfer-Learning-Library" in notes[0]
    assert (
        ". Otherwise than here: 10,000 steps at every sample rate, the learning rate a tenth after 6,000 (" in notes[0]
    )
    assert "chosen on test" in notes[1]
    assert ". Otherwise than here: 20,000 steps" in notes[1]
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [row["published"] and row["published"]["accuracy"] for row in rows] == [0.818, None, 0.8514]
    assert "published" not in write_tables(check_spec(SPEC), tmp_path)


@pytest.mark.parametrize(("batches", "shown"), [([32, 48], None), ([48, 32], 0.818)])
def test_a_published_figure_is_of_the_settings_that_were_chosen(
    batches: list[int], shown: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of what the figure fixes may choose otherwise; until it has chosen, nothing is said."""
    values = SPEC | {
        "data": [{"name": "birds", "source": "cub200"}],
        "methods": ["vanilla"],
        "backbones": [ARCHITECTURE],
        "preset": "paper",
        "search": {"all": {"batch_size": {"choices": [48, 32]}}},
    }
    spec = check_spec(values)
    (setting,) = settings_of(spec)
    draws = [{}, *({"batch_size": size} for size in batches)]
    monkeypatch.setattr("concept_tuning.bench.cells.draw_trials", lambda *_: draws)
    assert summary(spec, tmp_path)[0]["published"] is None
    made_runs.write_trials(spec, tmp_path, setting, [0.5, 0.8, 0.7])
    known = summary(spec, tmp_path)[0]["published"]
    assert (known and known["accuracy"]) == shown


def test_tables_that_cannot_be_written_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = made(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("concept_tuning.bench.tables.write_atomically", full)
    with pytest.raises(RunError, match=r"tables in .* cannot be written: the disk is full"):
        write_tables(spec, tmp_path)


def test_the_chance_of_a_false_difference_is_by_the_seeds_that_both_have(tmp_path: Path) -> None:
    spec = made(tmp_path)
    for seed in (2, 3):
        shutil.rmtree(final_path(tmp_path, settings_of(spec)[0], seed))
    text = write_tables(spec, tmp_path)
    assert "leave zero out with 1 seed" in text
    assert f"up to {100 * false_alarms(1):.0f} % of them" in text


def test_what_the_runs_of_a_method_warned_of_stands_below_the_table(tmp_path: Path) -> None:
    spec = made(tmp_path)
    assert not any(row["caution"] for row in summary(spec, tmp_path))
    setting = next(one for one in settings_of(spec) if one.method == "l2-sp")
    for seed in spec.seeds:
        file = final_path(tmp_path, setting, seed) / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"caution": "Few pictures."}))
    assert [row["caution"] for row in summary(spec, tmp_path) if row["caution"]] == ["Few pictures."]
    text = write_tables(spec, tmp_path)
    place = f"{setting.data}, {setting.backbone}, {setting.sample_rate:g} %"
    assert text.splitlines().count(f"- {place}, `l2-sp`: Few pictures.") == 1


def test_trials_that_chose_by_the_worst_group_show_its_accuracy(tmp_path: Path) -> None:
    spec = made(tmp_path)
    assert "worst_group_accuracy" not in trial_rows(spec, tmp_path)[0]
    for number, cell in enumerate(trial_cells(spec, tmp_path)):
        file = cell.path / "results.json"
        if file.is_file():
            best = {"step": 3, "accuracy": 0.5, "loss": 0.5, "worst_group_accuracy": number / 100}
            file.write_text(json.dumps({"best": best, "splits": {}}))
    rows = trial_rows(spec, tmp_path)
    assert [row["worst_group_accuracy"] for row in rows if row["state"] == "finished"][:3] == [0, 0.01, 0.02]
    assert [row["trial"] for row in rows if row["chosen"]] == [2, 2, 2]
    write_tables(spec, tmp_path)
    assert ",failure,worst_group_accuracy,optim.lr" in (tmp_path / "trials.csv").read_text().splitlines()[0]


def test_where_seeds_of_some_methods_are_few_the_sentence_stays_theirs(tmp_path: Path) -> None:
    spec = check_spec(SPEC | {"seeds": [1, 2, 3, 4, 5]})
    for setting in settings_of(spec):
        made_runs.write_trials(spec, tmp_path, setting, [0.5, 0.8, 0.7])
        for seed in spec.seeds[: 3 if setting.method == "l2-sp" else 5]:
            made_runs.write_final(tmp_path, setting, seed, right(0.6, seed))
    text = write_tables(spec, tmp_path)
    assert "these intervals are rough" not in text
    (line,) = [line for line in text.splitlines() if ROUGH in line]
    assert "between l2-sp and vanilla" in line


def test_the_summary_says_how_many_pictures_there_were_and_what_is_wrong_with_their_files(tmp_path: Path) -> None:
    spec = made(tmp_path)
    assert "training pictures" not in write_tables(spec, tmp_path)  # made runs tell nothing of their pictures
    counts = {"train": 1200, "val": 99, "test": 400}
    problem = {"key": "owl/a`b\n.png", "reason": "It is cut off."}
    told = {"counts": counts, "problems": [problem], "copies": []}
    file = final_path(tmp_path, settings_of(spec)[0], 1) / "data.json"
    file.write_text(json.dumps(told))
    line = "- birds (planted), 100 %: training pictures 1,200, validation 99, test 400"
    assert f"\n{line}; 1 problem with its files, `owl/a'b .png`: It is cut off.\n" in write_tables(spec, tmp_path)
    two = {"copies": [["a", "b"]] * 2, "conflicts": [["a", "owl", "b", "gull"]] * 4}
    file.write_text(json.dumps(told | {"problems": [problem] * 3} | two))
    text = write_tables(spec, tmp_path)
    assert f"\n{line}; 3 problems with its files, the first `owl/a'b .png`: It is cut off; copies of training" in text
    assert "pictures among validation and test pictures: 2, which flatters all methods; pictures that are in " in text
    assert "in two classes: 4, one of which is wrong." in text
