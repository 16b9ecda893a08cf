"""Where the time of a training step goes, stage by stage."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from concept_tuning.engine.trainer import Trainer
from concept_tuning.losses import rare_concept
from concept_tuning.methods import concept_tuning as concept_method
from concept_tuning.models.class_queue import ClassQueue


class Stopwatch:
    """Gives every moment to one stage: the innermost that was entered."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._entered: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Within the block time goes to ``name``."""
        self._tick()
        self._entered.append(name)
        try:
            yield
        finally:
            self._tick()
            self._entered.pop()

    def switch(self, name: str) -> None:
        """Give what follows to ``name`` instead of the innermost stage."""
        self._tick()
        self._entered[-1] = name

    def _tick(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._entered:
            self.seconds[self._entered[-1]] += now - self._since
        self._since = now


def stage_seconds(trainer: Trainer, step: Callable[[], None], *, rounds: int) -> dict[str, float]:
    """Return the median seconds of each stage of a step, the longest first.

    Args:
        trainer: Does the step.
        step: Calls it.
        rounds: Steps that are timed.
    """
    watches = []
    for _ in range(rounds):
        watch = Stopwatch(trainer.accelerator.device)
        with _instrumented(trainer, watch), watch.stage("other"):
            step()
        watches.append(watch.seconds)
    stages = {name: statistics.median(seconds.get(name, 0.0) for seconds in watches) for name in watches[0]}
    return dict(sorted(stages.items(), key=lambda item: -item[1]))


@contextlib.contextmanager
def _instrumented(trainer: Trainer, watch: Stopwatch) -> Iterator[None]:
    """Put the stopwatch around the stages of a step, and take it away again."""
    method, batch = trainer.method, trainer.plan.global_batch
    with contextlib.ExitStack() as stack:
        functions: list[tuple[Any, str, str]] = [
            (trainer, "_normalised", "normalisation"),
            (trainer.accelerator, "backward", "loss backward"),
            (trainer.prepared, "step", "optimiser"),
            (concept_method, "find_concepts", "concept search"),
            (concept_method, "crop_patches", "patch crops"),
            (concept_method, "pool_boxes", "patch pooling"),
            (concept_method, "image_contrast", "image contrast"),
            (concept_method, "concept_contrast", "concept contrast"),
            (concept_method, "update_momentum_copy", "momentum copy"),
            (rare_concept, "solve_transport", "transport"),
            (ClassQueue, "enqueue", "queues"),
        ]
        for owner, name, stage in functions:
            stack.enter_context(mock.patch.object(owner, name, _timed(getattr(owner, name), watch, stage)))
        modules: list[tuple[nn.Module, str]] = [(method.backbone, "q")]
        if hasattr(method, "key_encoder"):
            modules.append((method.key_encoder.backbone, "k"))
        front_door = getattr(method, "front_door", None)
        if front_door is not None:
            modules += [
                (front_door, "front door"),
                (front_door.position, "position attention"),
                (front_door.channel, "channel attention"),
            ]
        for module, stage in modules:
            wrapped = _timed_module(module.forward, watch, stage, batch)
            stack.enter_context(mock.patch.object(module, "forward", wrapped))
        yield


def _timed(function: Callable[..., Any], watch: Stopwatch, stage: str) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        with watch.stage(stage):
            return function(*arguments, **options)

    return wrapper


def _timed_module(forward: Callable[..., Any], watch: Stopwatch, stage: str, batch: int) -> Callable[..., Any]:
    """Time a module's forward, and its backward from the moment the gradient of its output is there.

    The passes of one backward run one after the other, the last of the forward first, so each ends where
    the next begins.
    """

    def wrapper(images: Tensor, *arguments: Any, **options: Any) -> Any:
        name = stage if len(images) == batch else f"{stage} patches"
        with watch.stage(f"{name} forward"):
            output = forward(images, *arguments, **options)
        tensor = output if isinstance(output, Tensor) else output.logits
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: watch.switch(f"{name} backward"))
        return output

    return wrapper
