"""The training loop: one code path for one CPU and for many processes, by Hugging Face Accelerate."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import DataBundle
from concept_tuning.engine.batches import batch_plan, training_loader
from concept_tuning.engine.checkpoint import (
    in_short,
    is_out_of_memory,
    load_last_checkpoint,
    save_checkpoint,
    save_weights,
    storage_message,
    sync,
    what_is_left,
)
from concept_tuning.engine.evaluation import Evaluation, evaluate, predict_split
from concept_tuning.engine.run_pictures import RunPictures
from concept_tuning.engine.runs import RunFolder, StatusWriter
from concept_tuning.engine.schedule import build_optimizer, put_back, rate_factor, set_learning_rates
from concept_tuning.errors import DivergedError, RunError, TrainingError
from concept_tuning.methods.base import Method, StepContext

#: What a checkpoint's state must have, and its best epoch; with the last only where that one chooses.
_STATE = ("step", "best", "metrics_bytes", "optimizer", "random_states", "scaler")
_BEST = {"step", "accuracy", "loss"}
_WORST = "worst_group_accuracy"


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """Training was interrupted; the run folder ``path`` holds its state."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"stopped: {path}")
        self.path = path


class Watcher(Protocol):
    """Told of what happens, for a progress bar or a log."""

    def message(self, text: str) -> None:
        """A stage begins, in words."""

    def step(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """An optimiser step is done; ``values`` are loss terms and ``images_per_second``."""


@dataclass
class Progress:
    """Where training stands; the plain half of a checkpoint."""

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    metrics_bytes: int = 0


class Trainer:
    """Trains one method on one data bundle inside one run folder."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        data: DataBundle,
        folder: RunFolder,
        *,
        accelerator: Accelerator,
        status: StatusWriter,
        watcher: Watcher,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.accelerator = accelerator
        self.watcher = watcher
        self.plan = batch_plan(
            data.splits["train"],
            even_groups=method.even_groups,
            batch_size=config.optim.batch_size,
            seed=config.engine.seed,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        epochs = config.optim.epochs * self.plan.steps_per_epoch
        self.total_steps = min(epochs, config.optim.max_steps or epochs)
        self.status = status
        self.progress = Progress()
        self.method = method.to(accelerator.device)
        if config.engine.channels_last:
            for name, module in method.named_modules():
                if name == "backbone" or name.endswith(".backbone"):
                    module.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(method, config.optim)
        self.module, self.prepared = accelerator.prepare(method, self.optimizer)
        self._began = time.monotonic()
        self._trained_images = 0
        self._training_seconds = self._loading_seconds = 0.0
        self._saved = time.monotonic()
        self._saved_step: int | None = None

    def run(self) -> None:
        """Train to the last step, from the newest checkpoint where there is one.

        Raises:
            Stopped: after an interrupt, when the checkpoint is written.
            TrainingError: on non-finite losses, weights or predictions, or a full disk; the last good checkpoint stays.
        """
        self._restore()
        if self.progress.step == 0:
            self.method.prepare(RunPictures(self.config, self.method, self.data, self.accelerator.device))
        self._cut_metrics()
        loader = training_loader(
            self.data.splits["train"],
            self.method.view_kinds,
            self.plan,
            self.config.data,
            start=self.progress.step,
            stop=self.total_steps,
            workers=self.config.engine.workers,
        )
        self.status.update(state="training", message="Training", total_steps=self.total_steps, step=self.progress.step)
        with _interrupts() as interrupted:
            self.method.train()
            started = time.monotonic()
            for views, labels, groups in loader:
                self._loading_seconds += time.monotonic() - started
                terms = self._step(views, labels, groups)
                self._training_seconds += time.monotonic() - started
                self._report(terms)
                self._evaluate_if_due()
                if self._any(interrupted()):
                    self._check_weights()
                    self._save()
                    raise Stopped(self.folder.path)
                self._save_if_due()
                started = time.monotonic()

    def _step(self, views: Tensor, labels: Tensor, groups: Tensor) -> dict[str, float]:
        """Do one optimiser step and return the values of the loss terms."""
        step = self.progress.step
        set_learning_rates(self.optimizer, rate_factor(self.config.optim, step, self.total_steps))
        device = self.accelerator.device
        inputs = self._normalised(views.to(device, non_blocking=True))
        terms, keep = self.module(inputs, labels.to(device), self._context(step, groups.to(device)))
        total = self.method.total(terms)
        values = self._means({**terms, "loss": total})
        self._check_finite(values)
        self.prepared.zero_grad()
        self.accelerator.backward(total)
        self.prepared.step()
        self.method.after_step({name: self.accelerator.gather(value) for name, value in keep.items()})
        self.progress.step += 1
        self._trained_images += len(labels) * self.accelerator.num_processes
        return values

    def _normalised(self, views: Tensor) -> Tensor:
        batch, count = views.shape[:2]
        inputs = self.method.backbone.normalise(views.flatten(0, 1))
        inputs = inputs.reshape(batch, count, *inputs.shape[1:])
        if not self.config.engine.channels_last:
            return inputs
        # each view, a (B, 3, H, W) slice, becomes channels-last
        return inputs.permute(1, 0, 3, 4, 2).contiguous().permute(1, 0, 4, 2, 3)

    def _context(self, step: int, groups: Tensor) -> StepContext:
        seed = int(np.random.SeedSequence([self.config.engine.seed, step, 0xC0]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(seed)
        return StepContext(
            generator,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            progress=step / self.total_steps,
            groups=groups if self.data.group_names else None,
        )

    def _means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return scalar values averaged over the processes."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        if self.accelerator.num_processes > 1:
            stacked = self.accelerator.reduce(stacked, reduction="mean")
        return dict(zip(values, stacked.tolist(), strict=True))

    def _check_finite(self, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged("The loss", self.progress.step + 1, bad)

    def _check_weights(self) -> None:
        """Refuse weights that a last step made non-finite although its own loss was finite."""
        bad = [name for name, value in self.method.state_dict().items() if not value.isfinite().all()]
        if self._any(bool(bad)):
            raise self._diverged("The weights", self.progress.step, bad[:5])

    def _diverged(self, what: str, step: int, names: list[str]) -> DivergedError:
        return DivergedError(
            f"{what} became non-finite at step {step} ({', '.join(names) or 'on another process'}). Training stopped. "
            f"{what_is_left(self.folder.checkpoints)}. Try a smaller learning rate (`lr`), some warm-up "
            "(`warmup_fraction=0.1`) or `precision=no` in a new run."
        )

    def _report(self, terms: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        step = self.progress.step
        rate = self._trained_images / max(self._training_seconds, 1e-9)
        elapsed = time.monotonic() - self._began
        done_here = self._trained_images / self.plan.global_batch
        left = (self.total_steps - step) * elapsed / max(done_here, 1)
        self._append({"kind": "step", "step": step, "epoch": (step - 1) // self.plan.steps_per_epoch, **terms})
        self.status.update(
            step=step,
            epoch=(step - 1) // self.plan.steps_per_epoch,
            images_per_second=round(rate, 1),
            loading_share=round(self._loading_seconds / max(self._training_seconds, 1e-9), 3),
            seconds_left=round(left),
            loss_terms={name: round(value, 5) for name, value in terms.items()},
        )
        self.watcher.step(step, self.total_steps, {**terms, "images_per_second": rate})

    def _evaluate_if_due(self) -> None:
        step = self.progress.step
        epoch_end = step % (self.plan.steps_per_epoch * self.config.engine.evaluate_every) == 0
        if not (epoch_end or step == self.total_steps):
            return
        self._check_weights()
        result, failure = None, None
        if self.accelerator.is_main_process:
            try:
                result = self._validate()
            except DivergedError as error:
                failure = error
        if self._any(failure is not None):
            raise self._diverged("The probabilities", step, ["validation"]) from failure
        if result is not None:
            self._append({"kind": "evaluation", "step": step, **_summary(result)})
            if self._improves(result):
                self.progress.best = {"step": step, **self._reached(result)}
                save_weights(self.folder.best_weights, self.method.inference_state(), {"step": str(step)})
        self.accelerator.wait_for_everyone()
        self._save()

    def _validate(self) -> Evaluation:
        predictions = predict_split(
            self.method,
            self.data.splits["val"],
            image_size=self.config.data.image_size,
            batch_size=self.config.engine.eval_batch_size,
            device=self.accelerator.device,
            channels_last=self.config.engine.channels_last,
        )
        return evaluate(predictions, split="val", class_names=self.data.class_names, group_names=self.data.group_names)

    def _reached(self, result: Evaluation) -> dict[str, float]:
        """Return what is kept of the best epoch's evaluation."""
        found = {"accuracy": result.accuracy, "loss": result.loss}
        if self.config.engine.select_by == "worst-group":
            assert result.worst_group_accuracy is not None  # refused before the training, see the session
            found[_WORST] = result.worst_group_accuracy
        return found

    def _improves(self, result: Evaluation) -> bool:
        best = self.progress.best
        return not best or self._rank(self._reached(result)) > self._rank(best)

    def _rank(self, reached: Mapping[str, float]) -> tuple[float, ...]:
        """Return what the measure that was set makes of an epoch, the greater the better."""
        if self.config.engine.select_by == "loss":
            return (-reached["loss"],)
        first = (reached[_WORST],) if self.config.engine.select_by == "worst-group" else ()
        return (*first, reached["accuracy"], -reached["loss"])

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved >= self.config.engine.checkpoint_seconds
        if self._any(due) and self.progress.step < self.total_steps:
            self._check_weights()
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of this step, once: to replace one is to be without it for a moment."""
        if self._saved_step == self.progress.step:
            return
        self._saved, self._saved_step = time.monotonic(), self.progress.step
        random_states = [torch.get_rng_state()]
        if torch.cuda.is_available():
            random_states.append(torch.cuda.get_rng_state(self.accelerator.device))
        every_rank = _gather_random_states(self.accelerator, random_states)
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {
            "step": self.progress.step,
            "best": self.progress.best,
            "metrics_bytes": self._stored_metrics(),
            "optimizer": self.optimizer.state_dict(),
            "random_states": every_rank,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
        }
        save_checkpoint(self.folder.checkpoints, step=self.progress.step, weights=self.method.state_dict(), state=state)

    def _stored_metrics(self) -> int:
        """Return how many bytes of metrics there are, once they are on the disk: a checkpoint never counts more."""
        file = self.folder.metrics_file
        if not file.exists():
            return 0
        try:
            sync(file)
            return file.stat().st_size
        except OSError as error:
            raise TrainingError(storage_message(error, file, checkpoints=self.folder.checkpoints)) from error

    def _restore(self) -> None:
        loaded = load_last_checkpoint(self.folder.checkpoints, *_STATE)
        if loaded is None:
            return
        try:
            self._put_back(*loaded)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise RunError(
                f"The run cannot go on from the newest checkpoint in {self.folder.checkpoints} ({in_short(error)}): it "
                "is damaged, or of other settings. Put back the config.json that it was made with, remove the "
                "checkpoint so that the one before is used, or start a new run."
            ) from error

    def _put_back(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        step, size, best = state["step"], state["metrics_bytes"], state["best"]
        counted = type(step) is int and type(size) is int and 0 <= step <= self.total_steps and size >= 0
        reached = all(isinstance(value, (int, float)) and math.isfinite(value) for value in best.values())
        wanted = _BEST | {_WORST} if self.config.engine.select_by == "worst-group" else _BEST
        if not (counted and reached and set(best) in (set(), wanted)):
            raise ValueError("it does not tell where the run stood")
        self.method.load_state_dict(weights)
        put_back(self.optimizer, state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        own = state["random_states"][min(self.accelerator.process_index, len(state["random_states"]) - 1)]
        torch.set_rng_state(own[0])
        if torch.cuda.is_available() and len(own) > 1:
            torch.cuda.set_rng_state(own[1], self.accelerator.device)
        self.progress = Progress(step, dict(best), size)

    def _cut_metrics(self) -> None:
        """Drop the lines of steps after the checkpoint: they will be written again, the same."""
        if not self.accelerator.is_main_process:
            return
        with self.folder.metrics_file.open("ab") as file:
            if file.tell() < self.progress.metrics_bytes:
                raise RunError(
                    f"{self.folder.metrics_file} is shorter than the checkpoint says, so the run folder is damaged. "
                    "Put the file back, or start a new run."
                )
            file.truncate(self.progress.metrics_bytes)

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            with self.folder.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            message = storage_message(error, self.folder.metrics_file, checkpoints=self.folder.checkpoints)
            raise TrainingError(message) from error

    def _any(self, value: bool) -> bool:
        """Return whether the value is true on any process."""
        if self.accelerator.num_processes == 1:
            return value
        flag = torch.tensor([int(value)], device=self.accelerator.device)
        return bool(self.accelerator.gather(flag).max())


def _summary(result: Evaluation) -> dict[str, Any]:
    return {
        "split": result.split,
        "n": result.n,
        "accuracy": result.accuracy,
        "loss": result.loss,
        "worst_group_accuracy": result.worst_group_accuracy,
        "heads": dict(result.heads),
    }


def _gather_random_states(accelerator: Accelerator, states: list[Tensor]) -> list[list[Tensor]]:
    if accelerator.num_processes == 1:
        return [states]
    gathered: list[list[Tensor]] = [[] for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather_object(gathered, states)
    return gathered


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag; a second one ends the process as usual."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        caught.append(number)

    try:
        previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
