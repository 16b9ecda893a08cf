"""Time and memory of a training step of Concept-Tuning in each mode, or of its rivals, over a vanilla step.

All modes are timed in one process, in turn, round after round, so that a slow spell of the machine meets all of
them; a ratio is the median over the rounds. A step is the trainer's own: normalisation, forward, backward,
optimiser, momentum copy and queues, the queues full, without the loading of the data: making four views of a
picture instead of one is not in the ratios. The pictures are noise and the weights random (pre-trained where a rival
needs them), which cost as much as any. `reference` is the slow step of ``naive_reference.py``.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --backbone resnet50 --image-size 224 --batch-size 8 --rounds 3
    python benchmarks/step_cost.py --no-reference --rivals
    python benchmarks/step_cost.py --no-reference --profile
    python benchmarks/step_cost.py --rounds 7 --record step_cost_lite0_128    # writes it to results/, too

Memory is the peak of the bytes of all live tensors: parameters, buffers (the queues among them), optimiser
state, gradients, activations and the tensors in between, of the mode at hand alone. On a CPU it is read from
torch's profiler in two steps that are not timed; scratch space inside library kernels, which torch's
allocator never sees, is not in it. On CUDA it is the allocator's own peak.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from naive_reference import NaiveConceptTuning
from records import RESULTS, keep, machine
from rich.console import Console
from rich.table import Table
from step_stages import stage_seconds
from torch import Tensor
from torch.nn import functional as F

from concept_tuning.engine.runs import RunFolder, StatusWriter
from concept_tuning.engine.trainer import Trainer
from concept_tuning.methods.base import Batch, StepContext
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import build_backbone
from concept_tuning.models.class_queue import ClassQueue
from concept_tuning.progress import ConsoleWatcher
from concept_tuning.settings import build_config

#: Settings of Concept-Tuning in each mode.
MODES: Mapping[str, Mapping[str, Any]] = {
    "vanilla": {},
    "faithful": {"views": 4, "patches": "encoder"},
    "faithful-bf16-keys": {"views": 4, "patches": "encoder", "key_precision": "bf16"},
    "two-view": {"views": 2, "patches": "encoder"},
    "two-view-bf16-keys": {"views": 2, "patches": "encoder", "key_precision": "bf16"},
    "feature-map": {"views": 4, "patches": "feature-map"},
    "feature-map-two-view": {"views": 2, "patches": "feature-map"},
    "feature-map-two-view-bf16-keys": {"views": 2, "patches": "feature-map", "key_precision": "bf16"},
    "front-door": {"image_weight": 0, "concept_weight": 0},
    "image-contrast": {"concept_weight": 0, "front_door": False},
}
#: Rival methods whose steps are not vanilla's or a probe's; they begin with pre-trained weights, as some need.
RIVALS = ("l2-sp", "delta", "bss", "stoch-norm", "co-tuning", "bi-tuning", "lwf", "core-tuning")
WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: one network, input size and batch."""

    backbone: str = "tf_efficientnet_lite0"
    image_size: int = 128
    batch_size: int = 32
    classes: int = 8
    queue_size: int = 40
    device: str = "auto"


class _Noise:
    """Pictures that a method may look at before its first step: one batch of noise."""

    def __init__(self, case: Case) -> None:
        labels = torch.arange(case.batch_size) % case.classes
        images = torch.randn(case.batch_size, 3, case.image_size, case.image_size)
        self._batch = Batch(images, labels, groups=None)

    def batches(self, split: str) -> Iterator[Batch]:
        """Yield the batch, for any split."""
        yield self._batch

    def group_counts(self) -> None:
        """Return that there are no groups."""


class Step:
    """The trainer's step of one mode, on one fixed batch."""

    def __init__(self, case: Case, mode: str, folder: Path) -> None:
        overrides: dict[str, Any] = {
            "weights": "random",
            "image_size": case.image_size,
            "batch_size": case.batch_size,
            "device": case.device,
            "epochs": 10_000,
            "schedule": "constant",
        }
        overrides |= MODES.get(mode, {})
        if mode in RIVALS:
            del overrides["weights"]
        if mode not in {"vanilla", "front-door", *RIVALS} or mode == "bi-tuning":
            overrides["queue_size"] = case.queue_size
        method_name = mode if mode in {"vanilla", *RIVALS} else "concept-tuning"
        config = build_config(method=method_name, backbone=case.backbone, overrides=overrides)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            backbone = build_backbone(config.backbone, image_size=case.image_size)
            method = build_method(config, backbone, case.classes)
            shape = (case.batch_size, len(method.view_kinds), 3, case.image_size, case.image_size)
            self.views = torch.randint(256, shape, dtype=torch.uint8)
            self.groups = torch.full((case.batch_size,), -1)
            method.prepare(_Noise(case))
            for queue in method.modules():
                if isinstance(queue, ClassQueue):
                    _fill(queue)
        self.labels = torch.arange(case.batch_size) % case.classes
        run_folder = RunFolder.create(folder / mode, config)
        # A step needs of the data no more than their number.
        data: Any = SimpleNamespace(splits={"train": range(case.batch_size)}, group_names=())
        self.trainer = Trainer(
            config,
            method.train(),
            data,
            run_folder,
            accelerator=Accelerator(cpu=case.device == "cpu"),
            status=StatusWriter(run_folder),
            watcher=ConsoleWatcher(quiet=True),
        )
        self.device = self.trainer.accelerator.device

    def __call__(self) -> None:
        """Do one step, to its end also on an accelerator."""
        self.trainer._step(self.views, self.labels, self.groups)
        _wait(self.device)

    def persistent_bytes(self) -> int:
        """Return the bytes of parameters, buffers and optimiser state, with no gradients left."""
        method, optimizer = self.trainer.method, self.trainer.optimizer
        optimizer.zero_grad()
        state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
        tensors = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers(), *state)}
        return sum(tensor.nbytes for tensor in tensors.values())


class ReferenceStep:
    """The slow reference's step on the batch of the faithful mode."""

    def __init__(self, faithful: Step) -> None:
        method = faithful.trainer.method
        if not isinstance(method, ConceptTuning):
            raise TypeError(f"The reference is of concept-tuning, not of {method.name}.")
        self.faithful = faithful
        self.method = method
        self.reference = NaiveConceptTuning(method)

    def __call__(self) -> None:
        """Do one step, normalisation and draws included."""
        batch, device = len(self.faithful.labels), self.faithful.device
        views = self.method.backbone.normalise(self.faithful.views.to(device).flatten(0, 1))
        context = StepContext(torch.Generator().manual_seed(0))
        noise = context.normal(batch, self.reference.front_door.latent_dim, device=device)
        draws = context.uniform(batch, 1 + self.reference.parts.queue_size, device=device)
        labels = self.faithful.labels.to(device)
        self.reference.step(views.unflatten(0, self.faithful.views.shape[:2]), labels, noise, draws)
        _wait(device)


def measure(case: Case, modes: Sequence[str], *, rounds: int, reference_rounds: int) -> list[dict[str, Any]]:
    """Measure a case and return one row for each mode, vanilla first.

    Args:
        case: Network, input size and batch.
        modes: Of :data:`MODES` and :data:`RIVALS`; ``vanilla``, and ``faithful`` if the reference is asked for, are
            added.
        rounds: Rounds of timed steps.
        reference_rounds: Rounds that the reference takes part in, the first ones; 0 leaves it out.
    """
    wanted = {"vanilla", *modes, *(["faithful"] if reference_rounds else [])}
    seconds: dict[str, list[float]] = {mode: [] for mode in (*MODES, *RIVALS) if mode in wanted}
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Any] = {mode: Step(case, mode, Path(folder)) for mode in seconds}
        for step in steps.values():
            for _ in range(WARM_UP):
                step()
        memory = {mode: peak_bytes(step) for mode, step in steps.items()}
        device = str(steps["vanilla"].device)
        if reference_rounds:
            steps["reference"] = ReferenceStep(steps["faithful"])
            steps["reference"]()
            seconds["reference"] = []
        for number in range(rounds):
            for mode, step in steps.items():
                if mode != "reference" or number < reference_rounds:
                    seconds[mode].append(timed(step))
    reference = seconds.pop("reference", [])
    return [
        {
            "mode": mode,
            "backbone": case.backbone,
            "image_size": case.image_size,
            "batch_size": case.batch_size,
            "classes": case.classes,
            "queue_size": case.queue_size,
            "device": device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rounds": rounds,
            "seconds": _spread(times),
            "time_over_vanilla": statistics.median(ratios(times, seconds["vanilla"])),
            "time_over_vanilla_spread": _spread(ratios(times, seconds["vanilla"])),
            "reference_over_time": statistics.median(ratios(reference, times)) if reference else None,
            "memory_over_vanilla": memory[mode] / memory["vanilla"],
            "peak_bytes": memory[mode],
        }
        for mode, times in seconds.items()
    ]


def peak_bytes(step: Step) -> int:
    """Return the peak of the bytes of live tensors over two steps; see the module's text for what counts."""
    persistent = step.persistent_bytes()
    if step.device.type == "cuda":
        torch.cuda.synchronize()
        others = torch.cuda.memory_allocated() - persistent
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return torch.cuda.max_memory_allocated() - others

    def two_steps() -> None:
        step()
        step()  # While the second one runs, the first one's gradients are still there.

    return persistent + traced_peak(two_steps)


def traced_peak(work: Callable[[], object]) -> int:
    """Return the peak of the bytes that some work on the CPU holds, without those that were there before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows of one case for the eye."""
    first = rows[0]
    title = f"{first['backbone']}, {first['image_size']} px, batch {first['batch_size']}, {first['device']}"
    shown = Table(title=title)
    for name in ("mode", "seconds (min-max)", "time / vanilla", "memory / vanilla", "peak MB", "reference / time"):
        shown.add_column(name, justify="left" if name == "mode" else "right")
    for row in rows:
        seconds, slower = row["seconds"], row["reference_over_time"]
        shown.add_row(
            row["mode"],
            f"{seconds['median']:.3f} ({seconds['min']:.3f}-{seconds['max']:.3f})",
            f"{row['time_over_vanilla']:.2f}",
            f"{row['memory_over_vanilla']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            "" if slower is None else f"{slower:.1f}",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case asked for."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    console = Console()
    rows: list[dict[str, Any]] = []
    modes = options.mode or list(RIVALS if options.rivals else MODES)
    for backbone in options.backbone or ["tf_efficientnet_lite0"]:
        for image_size in options.image_size or [128]:
            case = Case(
                backbone=backbone,
                image_size=image_size,
                batch_size=options.batch_size,
                classes=options.classes,
                queue_size=options.queue_size,
                device=options.device,
            )
            if options.profile:
                measured = [{**asdict(case), "seconds": profile(case, modes, rounds=options.rounds)}]
            else:
                reference_rounds = min(options.rounds, options.reference_rounds) if options.reference else 0
                measured = measure(case, modes, rounds=options.rounds, reference_rounds=reference_rounds)
            rows.extend(measured)
            if not options.json:
                console.print(profile_table(measured[0]) if options.profile else table(measured))
            gc.collect()
    if options.json:
        print(json.dumps(rows, indent=2))
    if options.record:
        keep(RESULTS / f"{options.record}.json", "step_cost.py", arguments, machine=machine(), rows=rows)


def profile(case: Case, modes: Sequence[str], *, rounds: int) -> dict[str, dict[str, float]]:
    """Return the seconds of a step by stage and mode; a mode without the stage has no entry there."""
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in modes:
            step = Step(case, mode, Path(folder))
            for _ in range(WARM_UP):
                step()
            columns[mode] = stage_seconds(step.trainer, step, rounds=rounds)
    stages = dict.fromkeys(stage for column in columns.values() for stage in column)
    seconds = {stage: {mode: column[stage] for mode, column in columns.items() if stage in column} for stage in stages}
    return {**seconds, "sum": {mode: sum(column.values()) for mode, column in columns.items()}}


def profile_table(row: Mapping[str, Any]) -> Table:
    """Return where the time of a step goes in each mode, for the eye."""
    title = f"{row['backbone']}, {row['image_size']} px, batch {row['batch_size']}: seconds of a step"
    shown = Table(title=title)
    modes = list(row["seconds"]["sum"])
    shown.add_column("stage")
    for mode in modes:
        shown.add_column(mode, justify="right")
    for stage, seconds in row["seconds"].items():
        if stage == "sum":
            shown.add_section()
        shown.add_row(stage, *(f"{seconds[mode]:.3f}" if mode in seconds else "" for mode in modes))
    return shown


def _fill(queue: ClassQueue) -> None:
    """Fill a queue with random unit vectors."""
    classes, size = queue.keys.shape[:2]
    for label in range(classes):
        keys = F.normalize(torch.randn(size, *queue.keys.shape[2:]), dim=-1)
        queue.enqueue(keys, torch.full((size,), label))


def timed(step: Any) -> float:
    """Return the seconds of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratios of the rounds that both took part in."""
    return [a / b for a, b in zip(above, below, strict=False)]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time and memory of a training step, over a vanilla step.")
    parser.add_argument("--backbone", action="append", help="timm name; may be repeated (tf_efficientnet_lite0)")
    parser.add_argument("--image-size", action="append", type=int, help="side in pixels; may be repeated (128)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--queue-size", type=int, default=40, help="keys of each class")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--mode", action="append", choices=[*MODES, *RIVALS], help="may be repeated; all but rivals by default"
    )
    modes.add_argument("--rivals", action="store_true", help="all rival methods")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each mode")
    parser.add_argument(
        "--reference", action=argparse.BooleanOptionalAction, default=True, help="time the slow reference, too"
    )
    parser.add_argument("--reference-rounds", type=int, default=1, help="rounds that the reference takes part in")
    parser.add_argument("--threads", type=int, help="computing threads")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--json", action="store_true", help="print a JSON list of rows")
    parser.add_argument("--profile", action="store_true", help="measure where the time goes, instead of the ratios")
    parser.add_argument("--record", metavar="NAME", help="write what was measured to results/NAME.json, too")
    return parser


if __name__ == "__main__":
    main()
