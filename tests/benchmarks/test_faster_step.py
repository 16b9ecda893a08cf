"""The rows of `benchmarks/faster_step.py` on the smallest case, and when a start-up is won back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faster_step
import pytest
import torch
from faster_step import measure, pays_after
from step_cost import Case, Step

SMALLEST = Case(backbone="test_resnet", image_size=64, batch_size=2, classes=3, queue_size=2, device="cpu")


@pytest.mark.parametrize(
    ("start_up", "won", "after"), [(30.0, 0.5, 60.0), (-1.0, 0.5, 0.0), (30.0, 0.0, None), (30.0, -0.1, None)]
)
def test_a_start_up_is_won_back_only_by_a_faster_step(start_up: float, won: float, after: float | None) -> None:
    assert pays_after(start_up, won) == after


def test_every_mode_is_compared_with_its_own_plain_step_and_with_vanilla(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cost = [0.0], {"vanilla": 1.0, "faithful": 3.0}
    made: list[str] = []

    def step(case: Case, mode: str, way: str, folder: Path):
        made.append(f"{mode} {way}")
        first = [way == "bfloat16"]

        def run() -> None:
            clock[0] += cost[mode] * (0.5 if way == "bfloat16" else 1.0) + (6.0 if first.pop() else 0.0)
            first.append(False)

        return run

    monkeypatch.setattr(faster_step, "_step", step)
    monkeypatch.setattr(faster_step.time, "perf_counter", lambda: clock[0])
    rows = measure(SMALLEST, ["vanilla", "faithful"], ["bfloat16"], rounds=3)
    assert made == ["vanilla plain", "vanilla bfloat16", "faithful plain", "faithful bfloat16"]
    assert [row["over_plain"] for row in rows] == [1.0, 0.5, 1.0, 0.5]
    assert [row["over_vanilla_of_the_same_way"] for row in rows] == [1.0, 1.0, 3.0, 3.0]
    assert [row["start_up_seconds"] for row in rows] == [0.0, 6.0, 0.0, 6.0]
    assert [row["pays_after_steps"] for row in rows] == [None, 12.0, None, 4.0]


@pytest.mark.parametrize(("way", "dtype"), [("plain", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_step_in_bfloat16_computes_in_it_and_a_plain_one_does_not(
    way: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    class Watched(Step):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.trainer.method.classifier.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))

    monkeypatch.setattr(faster_step, "Step", Watched)
    faster_step._step(SMALLEST, "vanilla", way, tmp_path)()
    assert seen == [dtype]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_is_measured() -> None:
    rows = measure(SMALLEST, ["vanilla"], ["compiled"], rounds=1)
    assert [row["way"] for row in rows] == ["plain", "compiled"]
    assert rows[1]["start_up_seconds"] > rows[0]["start_up_seconds"]
