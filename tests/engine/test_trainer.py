"""The training loop: what it refuses, which epoch it keeps, how it hears interrupts."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from concept_tuning.engine import trainer as trainer_module
from concept_tuning.engine.evaluation import Evaluation
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import resume_run, start_run
from concept_tuning.engine.trainer import Stopped, Trainer, _interrupts
from concept_tuning.errors import ConfigError, DivergedError, RunError, TrainingError
from concept_tuning.methods.base import Method
from concept_tuning.models.backbone import Backbone
from concept_tuning.progress import ConsoleWatcher
from concept_tuning.settings import build_config

QUIET = ConsoleWatcher(quiet=True)


@pytest.mark.parametrize("channels_last", [True, False])
def test_all_pictures_come_in_the_memory_format_that_was_set(
    channels_last: bool, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of training, of evaluation, and of a method that looks at them after the training, as dfr does."""
    seen: dict[bool, set[bool]] = {True: set(), False: set()}
    forward = Backbone.forward

    def watched(self: Backbone, images: Tensor) -> Tensor:
        if len(images) > 1:  # a dry run has one
            seen[torch.is_grad_enabled()].add(images.is_contiguous(memory_format=torch.channels_last))
        weight = next(value for value in self.parameters() if value.ndim == 4 and value.shape[1] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last or len(images) == 1
        return forward(self, images)

    monkeypatch.setattr(Backbone, "forward", watched)
    start_run(tiny("dfr", channels_last=channels_last, max_steps=1), tmp_path / "run", QUIET)
    assert seen == {True: {channels_last}, False: {channels_last}}


def test_a_non_finite_loss_is_refused_before_it_reaches_the_weights(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    calls: list[int] = []
    real = Method.cross_entropy

    def infinite_at_the_third(self: Method, logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return real(self, logits, labels) * (float("inf") if len(calls) == 3 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(Method, "cross_entropy", infinite_at_the_third)
        with pytest.raises(DivergedError, match=r"The loss became non-finite at step 3 \(cross_entropy, loss\)"):
            start_run(config, tmp_path / "run", QUIET)
    resumed, undisturbed = resume_run(tmp_path / "run", QUIET), start_run(config, tmp_path / "undisturbed", QUIET)
    assert resumed.metrics_file.read_bytes() == undisturbed.metrics_file.read_bytes()
    assert resumed.best_weights.read_bytes() == undisturbed.best_weights.read_bytes()


def test_weights_that_are_finite_but_too_large_to_predict_with_end_the_run_as_diverged(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the very last step overshoots: its loss was that of the weights before."""
    real = Trainer._step

    def overshooting(self: Trainer, *batch: Tensor) -> dict[str, float]:
        terms = real(self, *batch)
        if self.progress.step == self.total_steps:
            with torch.no_grad():
                for value in self.method.classifier.parameters():
                    value.copy_(torch.full_like(value, 3e38))
        return terms

    monkeypatch.setattr(Trainer, "_step", overshooting)
    with pytest.raises(DivergedError, match=r"The probabilities became non-finite at step 8 \(validation\)"):
        start_run(tiny(), tmp_path / "run", QUIET)
    folder = RunFolder(tmp_path / "run")
    assert folder.status()["state"] == "failed"
    assert "NaN" not in folder.metrics_file.read_text()
    assert not (folder.path / "results.json").exists()


def test_a_checkpoint_whose_best_epoch_is_not_finite_is_refused(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "run", QUIET)
    folder.write_json("status.json", {"state": "stopped"})
    for checkpoint in folder.checkpoints.iterdir():
        state = torch.load(checkpoint / "state.pt", weights_only=True)
        torch.save(state | {"best": state["best"] | {"loss": float("nan")}}, checkpoint / "state.pt")
    with pytest.raises(RunError, match="does not tell where the run stood"):
        resume_run(folder.path, QUIET)


@pytest.mark.parametrize(("measure", "best"), [("accuracy", 1), ("loss", 2), ("worst-group", 3)])
def test_the_best_epoch_is_chosen_by_the_measure_that_was_set(
    measure: str, best: int, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([(0.5, 3.0, 0.1), (0.75, 2.5, 0.3), (0.5, 1.0, 0.4), (0.6, 2.0, 0.4)])
    weights: list[dict[str, Tensor]] = []
    real = Trainer._validate

    def forced(self: Trainer) -> Evaluation:
        weights.append({name: value.clone() for name, value in self.method.inference_state().items()})
        accuracy, loss, worst = next(measured)
        return dataclasses.replace(real(self), accuracy=accuracy, loss=loss, worst_group_accuracy=worst)

    monkeypatch.setattr(Trainer, "_validate", forced)
    folder = start_run(tiny(epochs=4, select_by=measure), tmp_path / "run", QUIET)
    kept = load_file(folder.best_weights)
    same = [all(torch.equal(kept[name], value) for name, value in each.items()) for each in weights]
    assert same == [epoch == best for epoch in range(4)]
    kept_best = folder.read_json("results.json", "best")["best"]
    assert kept_best.get("worst_group_accuracy") == (0.4 if measure == "worst-group" else None)


class _StopAt(ConsoleWatcher):
    """Interrupts a run after so many steps."""

    at = 5

    def step(self, done: int, total: int, values: object) -> None:
        if done == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_chooses_by_the_worst_group_goes_on_to_the_same_and_by_nothing_else(tiny, tmp_path: Path) -> None:
    config = tiny(epochs=3, select_by="worst-group")
    whole = start_run(config, tmp_path / "whole", QUIET)
    with pytest.raises(Stopped):
        start_run(config, tmp_path / "cut", _StopAt(quiet=True))
    file = tmp_path / "cut" / "config.json"
    text = file.read_text()
    file.write_text(text.replace('"worst-group"', '"accuracy"'))
    with pytest.raises(RunError, match="is damaged, or of other settings"):
        resume_run(tmp_path / "cut", QUIET)
    file.write_text(text)
    cut = resume_run(tmp_path / "cut", QUIET)
    for name in ("results.json", "metrics.jsonl", "best/model.safetensors"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes()
    evaluations = [json.loads(line) for line in whole.metrics_file.read_text().splitlines()]
    worst = [line["worst_group_accuracy"] for line in evaluations if line["kind"] == "evaluation"]
    assert whole.read_json("results.json")["best"]["worst_group_accuracy"] == max(worst)


def test_to_choose_by_the_worst_group_of_data_without_groups_is_refused_with_a_sentence(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    values = {"weights": "random", "image_size": 64, "max_steps": 1, "select_by": "worst-group", "device": "cpu"}
    config = build_config(data=str(tmp_path / "pictures"), backbone="test_resnet", overrides=values)
    words = r"select_by=worst-group needs group labels, and pictures has none\. Choose by `accuracy` or `loss`, or use"
    with pytest.raises(ConfigError, match=words):
        start_run(config, tmp_path / "run", QUIET)


@pytest.mark.parametrize(
    ("last", "left"), [(2, "There is no checkpoint yet"), (5, "The last good checkpoint is intact")]
)
def test_metrics_that_cannot_be_written_are_said(last: int, left: str, tiny, tmp_path: Path) -> None:
    class Replacer(ConsoleWatcher):
        """Puts a folder in the place of the metrics."""

        def step(self, done: int, total: int, values: object) -> None:
            if done == last:
                (tmp_path / "run" / "metrics.jsonl").unlink()
                (tmp_path / "run" / "metrics.jsonl").mkdir()

    with pytest.raises(TrainingError, match=rf"metrics\.jsonl could not be written: .*{left}"):
        start_run(tiny(checkpoint_seconds=1000), tmp_path / "run", Replacer(quiet=True))
    assert "could not be written" in RunFolder(tmp_path / "run").status()["message"]


def test_the_first_interrupt_is_remembered_and_the_second_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ended = []
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number, signal.getsignal(number))))
    with _interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert ended == [(os.getpid(), signal.SIGTERM, signal.SIG_DFL)]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_in_a_thread_leaves_the_signals_to_others(tiny, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=start_run, args=(tiny(max_steps=1), tmp_path / "run", QUIET))
    thread.start()
    thread.join()
    assert RunFolder(tmp_path / "run").status()["state"] == "finished"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_step_is_saved_once(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that evaluates may be the one that is interrupted: replacing its checkpoint could lose the only one."""
    saved: list[int] = []
    real = trainer_module.save_checkpoint

    def save(root: Path, *, step: int, **more: Any) -> Path:
        saved.append(step)
        return real(root, step=step, **more)

    monkeypatch.setattr(trainer_module, "save_checkpoint", save)
    config = tiny(epochs=2)
    steps = config.planted.images // config.optim.batch_size
    watcher = _StopAt(quiet=True)
    watcher.at = steps
    with pytest.raises(Stopped):
        start_run(config, tmp_path / "run", watcher)
    assert saved == list(range(1, steps + 1))
