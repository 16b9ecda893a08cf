"""Whole runs: every method, every backbone family, resume after a kill, several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from loaded_processes import Loaded
from PIL import Image
from safetensors.torch import load_file
from whole_runs import Recorder, csv_config, metrics, same_run, write_listing

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.engine.evaluation import Predictions, evaluate
from concept_tuning.engine.loading import evaluate_run, load_run
from concept_tuning.engine.runs import RunFolder
from concept_tuning.engine.session import refuse_inside_source, resume_run, start_run
from concept_tuning.engine.trainer import Trainer
from concept_tuning.engine.turns import write_status
from concept_tuning.errors import ConfigError, RunError, TrainingError, WeightsError
from concept_tuning.progress import ConsoleWatcher


@pytest.mark.parametrize("method", METHOD_NAMES[:4])
def test_every_method_trains_and_leaves_a_whole_run(method: str, tiny, tmp_path: Path) -> None:
    watcher = Recorder()
    folder = start_run(tiny(method), tmp_path / "run", watcher)
    assert folder.status()["state"] == "finished"
    steps = [entry for entry in metrics(folder) if entry["kind"] == "step"]
    evaluations = [entry for entry in metrics(folder) if entry["kind"] == "evaluation"]
    assert [entry["step"] for entry in steps] == list(range(1, 9))
    assert [entry["step"] for entry in evaluations] == [4, 8]
    expected = {"cross_entropy"}
    if method == "concept-tuning":
        expected |= {"front_door_cross_entropy", "bottleneck_kl", "image_contrast", "concept_contrast"}
    assert expected == set(steps[0]) - {"kind", "step", "epoch", "loss"}
    assert all(values["images_per_second"] > 0 for values in watcher.steps)
    splits = folder.read_json("split.json")
    assert {name: len(keys) for name, keys in splits.items()} == {"train": 32, "val": 16, "test": 16}
    results = folder.read_json("results.json")
    for name in splits:
        saved = Predictions.load(folder.predictions_file(name))
        info = folder.read_json("data.json")
        again = evaluate(
            saved, split=name, class_names=tuple(info["class_names"]), group_names=tuple(info["group_names"])
        )
        assert results["splits"][name] == json.loads(json.dumps(again.to_dict()))
        np.testing.assert_allclose(saved.probabilities["prediction"].sum(1), 1, rtol=1e-5)


def test_the_total_is_the_weighted_sum_of_the_terms(tiny, tmp_path: Path) -> None:
    config: RunConfig = tiny("concept-tuning", image_weight=0.25, concept_weight=0.5, beta=0.125)
    for entry in metrics(start_run(config, tmp_path / "run", Recorder())):
        if entry["kind"] == "step":
            total = (
                entry["cross_entropy"]
                + entry["front_door_cross_entropy"]
                + 0.125 * entry["bottleneck_kl"]
                + 0.25 * entry["image_contrast"]
                + 0.5 * entry["concept_contrast"]
            )
            assert entry["loss"] == pytest.approx(total, rel=1e-5)


def test_vanilla_learns_to_tell_pairs_apart(tiny, tmp_path: Path) -> None:
    config = tiny(rho=0.0, images=64, epochs=12, lr=0.1, backbone_lr_scale=1.0, batch_size=16, strong_scale_min=0.9)
    entries = [
        e["cross_entropy"] for e in metrics(start_run(config, tmp_path / "r", Recorder())) if e["kind"] == "step"
    ]
    assert np.mean(entries[-4:]) < 0.75 * np.mean(entries[:4])


def test_same_seed_same_bytes_other_seed_other_weights(tiny, tmp_path: Path) -> None:
    runs = [
        start_run(tiny("concept-tuning", seed=seed), tmp_path / str(index), Recorder())
        for index, seed in enumerate((5, 5, 6))
    ]
    same_run(runs[0], runs[1])
    assert runs[0].best_weights.read_bytes() != runs[2].best_weights.read_bytes()


def test_workers_do_not_change_a_run(tiny, tmp_path: Path) -> None:
    here = start_run(tiny(), tmp_path / "here", Recorder())
    workers = start_run(tiny(workers=2), tmp_path / "workers", Recorder())
    assert here.metrics_file.read_bytes() == workers.metrics_file.read_bytes()
    assert here.best_weights.read_bytes() == workers.best_weights.read_bytes()


def test_a_run_leaves_the_callers_random_state_alone(tiny, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    start_run(tiny("concept-tuning", epochs=1), tmp_path / "run", Recorder())
    assert torch.equal(torch.get_rng_state(), before)


def begin_or_go_on(config: RunConfig, path: Path) -> None:
    """Train in this process."""
    watcher = ConsoleWatcher(quiet=True)
    if (path / "config.json").exists():
        resume_run(path, watcher)
    else:
        start_run(config, path, watcher)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_ends_with_the_same_bytes(tiny, tmp_path: Path) -> None:
    config = tiny("concept-tuning", epochs=8)
    undisturbed = start_run(config, tmp_path / "undisturbed", Recorder())
    path = tmp_path / "killed"
    chance = random.Random(4)
    for _ in range(4):
        one = Loaded(begin_or_go_on, config, path, log=tmp_path / "said")
        wait_for_lines(path, chance.randint(1, 5), lambda one=one: one.process.is_alive())
        time.sleep(chance.random() * 0.1)
        one.kill()
        assert one.process.exitcode == -signal.SIGKILL  # and not the end of the run
    Loaded(begin_or_go_on, config, path, log=tmp_path / "said").end()
    same_run(undisturbed, RunFolder.open(path))


def wait_for_lines(path: Path, more: int, alive: Callable[[], bool], limit: float = 90) -> None:
    """Wait until a run has written some more lines of metrics, or is no more alive."""
    file = path / "metrics.jsonl"
    begin = file.stat().st_size if file.exists() else 0
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and alive():
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(min(begin, file.stat().st_size))
                if stream.read().count(b"\n") >= more:
                    return
        time.sleep(0.02)


@pytest.mark.slow
def test_interrupt_saves_leaves_with_130_and_resume_goes_on(tiny, tmp_path: Path) -> None:
    config = tiny(epochs=40, checkpoint_seconds=1000)
    path = tmp_path / "run"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "concept_tuning", "train", "--backbone", "test_resnet", "--run-dir", str(path),
            "--set", "weights=random", "image_size=64", "batch_size=8", "epochs=40", "images=32",
            "validation_images=16", "test_images=16", "draw_size=64", "threads=1", "checkpoint_seconds=1000",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    wait_for_lines(path, 7, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "concept-tuning resume" in error
    folder = RunFolder.open(path)
    assert folder.status()["state"] == "stopped"
    assert "Traceback" not in error
    stopped_at = folder.status()["step"]
    assert 0 < stopped_at < 160
    watcher = Recorder()
    resume_run(path, watcher)
    assert len(watcher.steps) <= 160 - stopped_at + 1
    same_run(folder, start_run(config, tmp_path / "undisturbed", Recorder()))


def test_a_finished_run_is_left_as_it_is(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "run", Recorder())
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    watcher = Recorder()
    resume_run(folder.path, watcher)
    assert "finished already" in watcher.messages[-1]
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_trial_that_is_resumed_by_hand_reads_no_test(tiny, tmp_path: Path) -> None:
    """It is there to choose settings, and whoever goes on with it knows no splits."""
    folder = start_run(tiny(epochs=1), tmp_path / "run", Recorder(), splits=())
    write_status(folder, state="stopped")
    shutil.rmtree(folder.path / "predictions", ignore_errors=True)
    (folder.path / "results.json").unlink()
    resume_run(folder.path, Recorder())
    assert folder.read_json("results.json")["splits"] == {}
    assert not list(folder.path.glob("predictions/*"))
    (folder.path / "predicts.json").write_text('{"splits": ["test", 3]}')
    write_status(folder, state="stopped")
    with pytest.raises(RunError, match=r"predicts\.json does not name splits"):
        resume_run(folder.path, Recorder())


def test_a_non_finite_loss_stops_with_the_last_good_checkpoint(tiny, tmp_path: Path) -> None:
    config = tiny(lr=1e2, backbone_lr_scale=100.0, weight_decay=1.0, sgd_momentum=0.99, epochs=50)
    with pytest.raises(TrainingError, match=r"non-finite at step \d+.*smaller learning rate"):
        start_run(config, tmp_path / "run", Recorder())
    folder = RunFolder.open(tmp_path / "run")
    assert folder.status()["state"] == "failed"
    assert "non-finite" in folder.status()["message"]
    newest = sorted(folder.checkpoints.iterdir())[-1]
    assert all(value.isfinite().all() for value in load_file(newest / "model.safetensors").values())


def test_a_full_disk_while_training_is_said_and_resume_ends_the_same(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    import concept_tuning.engine.trainer as trainer_module

    saves: list[int] = []
    real = trainer_module.save_checkpoint

    def full_after_three(*args: object, **kwargs: object) -> object:
        saves.append(1)
        if len(saves) == 4:
            raise TrainingError("The disk is full: checkpoint could not be written.")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer_module, "save_checkpoint", full_after_three)
    with pytest.raises(TrainingError, match="disk is full"):
        start_run(config, tmp_path / "run", Recorder())
    assert RunFolder.open(tmp_path / "run").status()["state"] == "failed"
    monkeypatch.undo()
    resumed = resume_run(tmp_path / "run", Recorder())
    same_run(resumed, start_run(config, tmp_path / "undisturbed", Recorder()))


def test_a_run_can_be_read_from_any_folder(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_listing(tmp_path, ("x",))
    monkeypatch.chdir(tmp_path)
    folder = start_run(csv_config(tiny, Path("list.csv"), epochs=1), tmp_path / "run", Recorder())
    monkeypatch.chdir("/")
    assert evaluate_run(load_run(folder.path), "test").n == 8


def test_a_start_that_failed_leaves_its_folder_free(tiny, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(WeightsError, match="no weights file"):
        start_run(tiny(weights=str(tmp_path / "none.pth")), path, Recorder())
    assert RunFolder.open(path).status()["state"] == "failed"
    assert start_run(tiny(epochs=1), path, Recorder()).status()["state"] == "finished"
    with pytest.raises(RunError, match="already holds a run"):
        start_run(tiny(epochs=1), path, Recorder())


def test_leftovers_of_a_killed_process_are_removed(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "one", Recorder())
    status = folder.read_json("status.json")
    folder.write_json("status.json", status | {"state": "training"})
    (folder.checkpoints / ".writing-123").mkdir()
    (folder.path / "best" / ".model.safetensors.123.tmp").write_bytes(b"half")
    resume_run(folder.path, Recorder())
    assert not [path for path in folder.path.rglob(".*") if path.name != ".lock"]


def test_metrics_that_lost_lines_are_refused(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=1), tmp_path / "one", Recorder())
    folder.write_json("status.json", {"state": "training"})
    folder.metrics_file.write_text("")
    with pytest.raises(RunError, match="shorter than the checkpoint says"):
        resume_run(folder.path, Recorder())


def test_best_epoch_is_chosen_on_validation_alone(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Force a known sequence of validation accuracies and see whose weights are kept."""
    accuracies = iter((0.5, 0.75, 0.5))
    kept: list[dict[str, torch.Tensor]] = []
    real = Trainer._validate

    def forced(self: Trainer):
        import dataclasses

        kept.append({name: value.clone() for name, value in self.method.state_dict().items()})
        return dataclasses.replace(real(self), accuracy=next(accuracies))

    monkeypatch.setattr(Trainer, "_validate", forced)
    folder = start_run(tiny(epochs=3), tmp_path / "run", Recorder())
    best = load_file(folder.best_weights)
    assert all(torch.equal(best[name], kept[1][name]) for name in best)
    assert any(not torch.equal(best[name], kept[2][name]) for name in best)


def test_a_validation_tie_is_broken_by_the_loss(tiny, tmp_path: Path) -> None:
    folder = start_run(tiny(epochs=4), tmp_path / "run", Recorder())
    evaluations = [entry for entry in metrics(folder) if entry["kind"] == "evaluation"]
    best = max(evaluations, key=lambda entry: (entry["accuracy"], -entry["loss"]))
    recorded = folder.read_json("results.json")["splits"]["val"]
    assert recorded["accuracy"] == best["accuracy"]
    assert recorded["loss"] == pytest.approx(best["loss"], rel=1e-5)


FAMILIES = {
    "resnet": "test_resnet",
    "efficientnet-lite": "tf_efficientnet_lite0",
    "convnext": "test_convnext",
    "vit": "test_vit",
    "swin": "swin_tiny_patch4_window7_224",
}


@pytest.mark.slow
@pytest.mark.parametrize("patches", ["encoder", "feature-map"])
@pytest.mark.parametrize("family", FAMILIES)
def test_concept_tuning_runs_on_every_backbone_family(family: str, patches: str, tiny, tmp_path: Path) -> None:
    config = tiny("concept-tuning", FAMILIES[family], patches=patches, epochs=1, max_steps=3)
    folder = start_run(config, tmp_path / "run", Recorder())
    steps = [entry for entry in metrics(folder) if entry["kind"] == "step"]
    assert len(steps) == 3
    # from the second step on the queues hold keys, so both contrasts are positive
    assert all(entry["image_contrast"] > 0 and entry["concept_contrast"] > 0 for entry in steps[1:])


TWO_RANKS = """
import json, os, sys, time
from concept_tuning.config import RunConfig
from concept_tuning.engine.session import start_run
from concept_tuning.progress import ConsoleWatcher
time.sleep(1.2 * int(os.environ["RANK"]))  # the clock must not name the folder on each process
start_run(RunConfig.from_dict(json.load(open(sys.argv[1]))), None, ConsoleWatcher(quiet=True))
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tiny, tmp_path: Path) -> None:
    """A network without batch norm, so that a batch cut in two is the same batch.

    All pairs of concepts are taken: between some of all but equal weight a rounding would choose, and from then on the
    two would be other networks.
    """
    every = {"positive_pairs": 100, "negative_pairs": 100}
    config = tiny("concept-tuning", "test_convnext", epochs=2, device="cpu", **every)
    (tmp_path / "settings.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "train.py").write_text(TWO_RANKS)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        str(tmp_path / "train.py"), str(tmp_path / "settings.json"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    one = start_run(config, tmp_path / "one", Recorder())
    (path,) = (tmp_path / "runs").iterdir()
    two = RunFolder.open(path)
    for single, shared in zip(metrics(one), metrics(two), strict=True):
        kind = single.pop("kind")
        assert (shared["step"], shared.pop("kind")) == (single["step"], kind)
        if kind == "step":
            assert shared == pytest.approx(single, rel=1e-5)


def test_half_precision_of_a_gpu_is_refused_on_a_cpu(tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision=fp16 needs a GPU"):
        start_run(tiny(precision="fp16", device="cpu"), tmp_path / "run", Recorder())
    assert not (tmp_path / "run").exists()


def test_steps_that_end_before_the_epochs_are_said(tiny, tmp_path: Path) -> None:
    watcher = Recorder()
    start_run(tiny(epochs=9, max_steps=2), tmp_path / "run", watcher)
    assert any("2 steps (max_steps; 9 epochs would be 36) of" in text for text in watcher.messages)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of two class folders with six pictures each."""
    root = tmp_path / "photos"
    for number in range(12):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "run_dir",
    [
        None,
        Path("runs/one"),
        Path("cat/deep/one"),
        Path("../photos/one"),
        Path(),
        Path("../link/one"),
        Path("shown/one"),
    ],
)
def test_a_run_folder_among_the_pictures_is_refused_before_anything_is_made(
    run_dir: Path | None, tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "link").symlink_to(photos)
    (photos / ".hidden").mkdir()
    (photos / "shown").symlink_to(".hidden")  # by which the hidden folder is listed
    monkeypatch.chdir(photos)
    with pytest.raises(RunError, match=r"would lie inside .*/photos, .* Name one outside, such as .*by --run-dir"):
        start_run(csv_config(tiny, Path(".")), run_dir, Recorder())
    assert sorted(path.name for path in photos.iterdir()) == [".hidden", "cat", "dog", "shown"]
    assert list((photos / ".hidden").iterdir()) == []


def test_beside_folders_of_splits_a_run_folder_is_no_class(tiny, photos: Path) -> None:
    parted = photos.parent / "parted"
    for split in ("Train", "test"):
        shutil.copytree(photos, parted / split)
    config = csv_config(tiny, parted)
    refuse_inside_source(config, parted / "runs" / "one")
    with pytest.raises(RunError, match="would lie inside"):
        refuse_inside_source(config, parted / "test" / "runs")


def test_a_cache_among_the_pictures_is_refused_before_anything_is_made(tiny, photos: Path) -> None:
    with pytest.raises(RunError, match=r"The cache .*photos/cache would lie inside .*Set data\.cache_dir to"):
        start_run(csv_config(tiny, photos, cache_dir=str(photos / "cache")), photos.parent / "run", Recorder())
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


@pytest.mark.parametrize("run_dir", ["photos/.runs/one", "photos/out/one", "run"])
def test_a_run_folder_that_the_listing_passes_over_is_no_class(run_dir: str, tiny, photos: Path) -> None:
    (photos.parent / "elsewhere").mkdir()
    (photos / "out").symlink_to("../elsewhere")
    folder = start_run(csv_config(tiny, photos, max_steps=1, batch_size=4), photos.parent / run_dir, Recorder())
    assert folder.read_json("data.json")["class_names"] == ["cat", "dog"]


def test_a_run_folder_beside_the_pictures_of_a_csv_file_is_no_class(tiny, tmp_path: Path) -> None:
    config = csv_config(tiny, write_listing(tmp_path, ("x",)), max_steps=1)
    folder = start_run(config, tmp_path / "runs" / "one", Recorder())
    assert folder.read_json("data.json")["class_names"] == ["cat", "dog"]
