"""The rows that `benchmarks/step_cost.py` prints, on the smallest case, and its arithmetic on made-up times."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import records
import step_cost
import torch
from step_cost import MODES, Case, Step, main, measure, peak_bytes

from concept_tuning.models.class_queue import ClassQueue

SMALLEST = [
    "--backbone",
    "test_resnet",
    "--image-size",
    "64",
    "--batch-size",
    "2",
    "--classes",
    "3",
    "--queue-size",
    "2",
]
QUICK = [*SMALLEST, "--rounds", "2", "--json"]


def rows(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict]:
    main([*QUICK, *options])
    printed = json.loads(capsys.readouterr().out)
    assert isinstance(printed, list)
    return printed


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out warming up and the measurement of memory."""
    monkeypatch.setattr(step_cost, "WARM_UP", 0)
    monkeypatch.setattr(step_cost, "peak_bytes", lambda step: 1)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    """Have every step take a known time: its mode's number of views, in seconds, and 40 for the reference."""

    def timed(step: object) -> float:
        return 40.0 if isinstance(step, step_cost.ReferenceStep) else float(step.views.shape[1])  # type: ignore[attr-defined]

    monkeypatch.setattr(step_cost, "timed", timed)
    monkeypatch.setattr(step_cost.ReferenceStep, "__call__", lambda self: None)


def test_json_is_a_list_of_rows_with_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--mode", "faithful")
    assert [row["mode"] for row in found] == ["vanilla", "faithful"]
    for row in found:
        assert (row["backbone"], row["image_size"], row["batch_size"]) == ("test_resnet", 64, 2)
        assert (row["classes"], row["queue_size"], row["rounds"]) == (3, 2, 2)
        for name in ("time_over_vanilla", "reference_over_time", "memory_over_vanilla"):
            assert math.isfinite(row[name]), (row["mode"], name)
            assert row[name] > 0, (row["mode"], name)
        assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
    vanilla, faithful = found
    assert vanilla["time_over_vanilla"] == vanilla["memory_over_vanilla"] == 1
    # Key encoder and queues are held besides all that vanilla holds.
    assert faithful["memory_over_vanilla"] > 1
    assert faithful["peak_bytes"] / vanilla["peak_bytes"] == faithful["memory_over_vanilla"]


@pytest.mark.usefixtures("unmeasured")
def test_rivals_steps_are_measured_over_vanillas(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_cost, "RIVALS", ("delta", "bi-tuning"))
    small = ["--image-size", "64", "--batch-size", "4", "--classes", "2", "--rounds", "1"]
    main([*small, "--rivals", "--no-reference", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["mode"] for row in found] == ["vanilla", *step_cost.RIVALS]
    assert {row["backbone"] for row in found} == {"tf_efficientnet_lite0"}
    assert all(row["time_over_vanilla"] > 0 for row in found)


@pytest.mark.usefixtures("ticking")
def test_ratios_are_over_vanilla_and_under_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    modes = ("faithful", "two-view", "front-door")
    found = {row["mode"]: row for row in rows(capsys, *(part for mode in modes for part in ("--mode", mode)))}
    assert {mode: row["time_over_vanilla"] for mode, row in found.items()} == {
        "vanilla": 1,
        "faithful": 4,
        "two-view": 2,
        "front-door": 1,
    }
    assert {mode: row["reference_over_time"] for mode, row in found.items()} == {
        "vanilla": 40,
        "faithful": 10,
        "two-view": 20,
        "front-door": 40,
    }


@pytest.mark.usefixtures("ticking")
def test_several_sizes_are_rows_of_one_list_without_a_reference(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--image-size", "96", "--mode", "feature-map", "--no-reference")
    assert [(row["image_size"], row["mode"]) for row in found] == [
        (64, "vanilla"),
        (64, "feature-map"),
        (96, "vanilla"),
        (96, "feature-map"),
    ]
    assert [row["reference_over_time"] for row in found] == [None] * 4
    assert [row["time_over_vanilla"] for row in found] == [1, 4, 1, 4]


@pytest.mark.usefixtures("unmeasured")
def test_a_ratio_is_the_median_over_rounds_measured_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slows down tenfold for the second round; the ratios do not see it."""
    times = iter([1.0, 3.0, 10.0, 20.0, 1.0, 7.0])
    monkeypatch.setattr(step_cost, "timed", lambda step: next(times))
    case = Case(backbone="test_resnet", image_size=64, batch_size=2, classes=3, queue_size=2)
    _, row = measure(case, ["image-contrast"], rounds=3, reference_rounds=0)
    assert row["time_over_vanilla"] == 3
    assert row["time_over_vanilla_spread"] == {"min": 2, "median": 3, "max": 7}
    assert row["seconds"] == {"min": 3, "median": 7, "max": 20}


def test_a_profile_gives_stages_by_mode_and_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    main([*QUICK, "--no-reference", "--profile", "--mode", "vanilla", "--mode", "faithful"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["backbone"], row["image_size"], row["batch_size"]) == ("test_resnet", 64, 2)
    seconds = row["seconds"]
    assert set(seconds["q forward"]) == set(seconds["sum"]) == {"vanilla", "faithful"}
    assert set(seconds["k forward"]) == set(seconds["transport"]) == {"faithful"}
    for mode, total in seconds["sum"].items():
        parts = [stage[mode] for name, stage in seconds.items() if name != "sum" and mode in stage]
        assert total == pytest.approx(sum(parts))
        assert all(part >= 0 for part in parts)


@pytest.mark.usefixtures("ticking")
def test_what_is_recorded_is_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_cost, "RESULTS", tmp_path)
    monkeypatch.setattr(records, "commit", lambda: "abcdef0")
    options = ("--mode", "faithful", "--no-reference", "--record", "step_cost_small")
    found = rows(capsys, *options)
    record = json.loads((tmp_path / "step_cost_small.json").read_text())
    assert record["rows"] == found
    assert record["command"] == " ".join(["python benchmarks/step_cost.py", *QUICK, *options])
    assert record["commit"] == "abcdef0"


def test_peak_memory_counts_what_is_kept_and_what_is_made(tmp_path: Path) -> None:
    case = Case(backbone="test_resnet", image_size=64, batch_size=2, classes=3, queue_size=2)
    step = Step(case, "vanilla", tmp_path)
    step()
    method = step.trainer.method
    parameters = sum(value.nbytes for value in method.parameters())
    buffers = sum(value.nbytes for value in method.buffers())
    # SGD's momentum is one more copy of the parameters.
    kept = step.persistent_bytes()
    assert kept == 2 * parameters + buffers
    peak = peak_bytes(step)
    # At the end of the backward pass there is at least a gradient of each parameter.
    assert kept + parameters <= peak < 100 * kept


@pytest.mark.parametrize("mode", step_cost.RIVALS)
def test_every_rival_is_itself_with_full_queues(mode: str, tmp_path: Path) -> None:
    step = Step(Case(image_size=64, batch_size=4, classes=2, queue_size=3), mode, tmp_path)
    assert step.trainer.method.name == mode
    queues = [module for module in step.trainer.method.modules() if isinstance(module, ClassQueue)]
    assert len(queues) == (2 if mode == "bi-tuning" else 0)
    assert all(queue.filled.tolist() == [3, 3] for queue in queues)


def test_modes_and_rivals_are_not_asked_for_together() -> None:
    with pytest.raises(SystemExit):
        main(["--rivals", "--mode", "faithful"])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_what_its_name_says_with_full_queues(mode: str, tmp_path: Path) -> None:
    case = Case(backbone="test_resnet", image_size=64, batch_size=2, classes=3, queue_size=2)
    step = Step(case, mode, tmp_path)
    method = step.trainer.method
    assert method.name == ("vanilla" if mode == "vanilla" else "concept-tuning")
    assert step.views.shape[1] == len(method.view_kinds)
    settings = method.config.concept_tuning
    assert all(getattr(settings, name) == value for name, value in MODES[mode].items())
    for name in ("image_queue", "concept_queue"):
        queue = getattr(method, name, None)
        if queue is not None:
            assert queue.filled.tolist() == [2, 2, 2]
            torch.testing.assert_close(queue.keys.norm(dim=-1).cpu(), torch.ones(queue.keys.shape[:-1]))
