"""Whether torch.compile or bfloat16 makes a training step faster on this machine, and after how many steps it pays.

All steps are timed in one process, in turn, round after round; a ratio is the median over the rounds of a step over
the plain one of the same mode. What a step costs before the first round (tracing, code generation, the compiler) is
the start-up, and the steps after which it is won back are told where there are any. Networks are compiled by
`torch.nn.Module.compile` with inductor, the rest of the step is as it is; for bfloat16 the whole forward pass is under
autocast, as with `precision=bf16`.

    python benchmarks/faster_step.py
    python benchmarks/faster_step.py --backbone resnet50 --image-size 224 --batch-size 8 --record faster_step_resnet50

Compiling needs a C++ compiler and some minutes; bfloat16 takes many on a processor without instructions for it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from records import RESULTS, keep, machine
from rich.console import Console
from rich.table import Table
from step_cost import MODES, Case, Step, ratios, timed

from concept_tuning.models.backbone import Backbone

WAYS = ("plain", "compiled", "bfloat16")
_WARM_UP = 3


def measure(case: Case, modes: Sequence[str], ways: Sequence[str], *, rounds: int) -> list[dict[str, Any]]:
    """Measure a case and return one row for each mode and way, the plain one of each mode first.

    Args:
        case: Network, input size and batch.
        modes: Of :data:`step_cost.MODES`.
        ways: Of :data:`WAYS`; ``plain`` is added.
        rounds: Rounds of timed steps.
    """
    steps: dict[tuple[str, str], Callable[[], None]] = {}
    warm_up: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in modes:
            for way in ("plain", *(way for way in ways if way != "plain")):
                step = _step(case, mode, way, Path(folder) / way)
                started = time.perf_counter()
                for _ in range(_WARM_UP):
                    step()
                warm_up[mode, way] = time.perf_counter() - started
                steps[mode, way] = step
                seconds[mode, way] = []
        for _ in range(rounds):
            for key, step in steps.items():
                seconds[key].append(timed(step))
    median = {key: statistics.median(times) for key, times in seconds.items()}
    start_up = {key: warm_up[key] - _WARM_UP * median[key] for key in seconds}
    return [
        {
            "mode": mode,
            "way": way,
            "seconds": median[mode, way],
            "over_plain": statistics.median(ratios(times, seconds[mode, "plain"])),
            "over_vanilla_of_the_same_way": statistics.median(ratios(times, vanilla)) if vanilla else None,
            "start_up_seconds": start_up[mode, way],
            "pays_after_steps": pays_after(
                start_up[mode, way] - start_up[mode, "plain"], median[mode, "plain"] - median[mode, way]
            ),
        }
        for (mode, way), times in seconds.items()
        for vanilla in [seconds.get(("vanilla", way))]
    ]


def pays_after(start_up: float, won: float) -> float | None:
    """Return after how many steps a start-up (s) is won back; None if a step wins nothing (s)."""
    return None if won <= 0 else max(0.0, start_up / won)


def _step(case: Case, mode: str, way: str, folder: Path) -> Callable[[], None]:
    """Return a step of a mode, made faster in some way or plain."""
    step = Step(case, mode, folder)
    if way == "compiled":
        for module in step.trainer.method.modules():
            if isinstance(module, Backbone):
                module.compile()

    if way == "bfloat16":
        method = step.trainer.method
        method.forward = torch.autocast(step.device.type, torch.bfloat16)(method.forward)
    return step


def instructions() -> list[str]:
    """Return the vector and bfloat16 instructions of the processor, as torch names them."""
    told = torch.cpu.get_capabilities()
    return sorted(name for name, has in told.items() if has is True and name.startswith(("avx", "amx")))


def table(case: Case, rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows for the eye."""
    shown = Table(title=f"{case.backbone}, {case.image_size} px, batch {case.batch_size}")
    for name in ("mode", "way", "seconds", "over plain", "over vanilla", "start-up, s", "pays after steps"):
        shown.add_column(name, justify="left" if name in ("mode", "way") else "right")
    for row in rows:
        vanilla, after = row["over_vanilla_of_the_same_way"], row["pays_after_steps"]
        shown.add_row(
            row["mode"],
            row["way"],
            f"{row['seconds']:.3f}",
            f"{row['over_plain']:.2f}",
            "" if vanilla is None else f"{vanilla:.2f}",
            f"{row['start_up_seconds']:.0f}",
            "never" if after is None else f"{after:.0f}",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one case."""
    parser = argparse.ArgumentParser(description="What torch.compile and bfloat16 do to a training step.")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--mode", action="append", choices=MODES, help="may be repeated (vanilla and the cheapest)")
    parser.add_argument("--way", action="append", choices=WAYS, help="may be repeated; all if none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", metavar="NAME", help="write what was measured to results/NAME.json, too")
    options = parser.parse_args(arguments)
    case = Case(backbone=options.backbone, image_size=options.image_size, batch_size=options.batch_size)
    modes = options.mode or ["vanilla", "feature-map-two-view"]
    rows = measure(case, modes, options.way or WAYS, rounds=options.rounds)
    Console().print(table(case, rows))
    if options.record:
        told = {"machine": machine(), "processor": instructions(), "torch": torch.__version__, "case": vars(case)}
        keep(RESULTS / f"{options.record}.json", "faster_step.py", arguments, **told, rows=rows)


if __name__ == "__main__":
    main()
