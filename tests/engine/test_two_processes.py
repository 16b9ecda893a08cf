"""One run on two processes: killed and resumed it ends the same; LP-FT and group DRO give one process's losses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from loaded_processes import command, on_two_ranks
from process_family import descendants
from safetensors.torch import load_file
from tiny_runs import TINY, write_weights

from concept_tuning.engine.runs import RunFolder
from concept_tuning.methods.registry import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
)
#: --multi_gpu also where there is none: without it, or with --cpu, accelerate begins one process and says nothing.
ACCELERATE = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--num_cpu_threads_per_process=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
)
#: They look at a process's share of a batch as a whole, so that two shares are not one batch.
WHOLE_SHARES = ("bss", "core-tuning", "stoch-norm", "concept-tuning")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin in a folder of the test's own: a process that ends with an unexpected error leaves a file there."""
    monkeypatch.chdir(tmp_path)


def launched(launcher: tuple[str, ...], *words: str) -> subprocess.Popen[str]:
    """Start the command line under a launcher."""
    return subprocess.Popen(
        [*launcher, "-m", "concept_tuning", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train_words(path: Path, method: str, backbone: str, **values: object) -> list[str]:
    settings = {key: TINY[key] for key in TINY if key not in ("queue_size", "concept_channels")}
    settings |= {"device": "cpu", **values}
    pairs = [f"{key}={value}" for key, value in settings.items()]
    names = ["--data", "planted", "--method", method, "--backbone", backbone, "--run-dir", str(path), "--quiet"]
    return ["train", *names, "--set", *pairs]


def end(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error[-3000:]


def steps(path: Path) -> list[dict]:
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line.pop("kind") == "step"]


def wait_for_steps(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (
        (path / "metrics.jsonl").is_file() and (path / "metrics.jsonl").read_bytes().count(b'"kind": "step"') >= count
    ):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("launcher", "method", "rank"),
    [(TORCHRUN, "concept-tuning", 1), (ACCELERATE, "lp-ft", 0)],
    ids=["torchrun", "accelerate"],
)
def test_one_process_killed_the_run_goes_on_to_the_same_results(
    launcher: tuple[str, ...], method: str, rank: int, tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole", tmp_path / "killed"
    more: dict[str, object] = {"epochs": 4}
    if method == "concept-tuning":
        more |= {"queue_size": 4, "concept_channels": 6}
    end(launched(launcher, *train_words(whole, method, "test_resnet", **more)))
    process = launched(launcher, *train_words(path, method, "test_resnet", **more))
    wait_for_steps(path, 6, process)
    children = descendants(process.pid)
    assert len(children) == 2
    first = int(RunFolder.open(path).status()["pid"])
    others = [child.pid for child in children if child.pid != first]
    os.kill(first if rank == 0 else others[0], signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert not any(child.is_running() for child in children)  # the launcher has ended the other
    assert not (tmp_path / "concept-tuning-error.log").exists()  # which knew why, and needed no stack trace
    assert RunFolder.open(path).status()["state"] != "finished"
    end(launched(launcher, "resume", str(path), "--quiet"))
    assert RunFolder.open(path).status()["state"] == "finished"
    for name in ("metrics.jsonl", "results.json", "best/model.safetensors", "predictions/test.safetensors"):
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_probe_of_lp_ft_leaves_the_backbone_alone_on_two_processes_too(tmp_path: Path) -> None:
    """Weight decay would move it if its gradients were zero and not absent."""
    more = {"probe_share": 0.9, "max_steps": 4, "weight_decay": 0.5, "lr": 0.1, "backbone_lr_scale": 1.0}
    on_two_ranks(train_words(tmp_path / "run", "lp-ft", "test_resnet", **more), tmp_path)
    before, after = (load_file(path / "model.safetensors") for path in sorted((tmp_path / "run/checkpoints").iterdir()))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the tiny network's weights, classifier included, to begin with."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", "test_efficientnet_gn")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in (*WHOLE_SHARES, "scratch")])
def test_two_processes_give_the_losses_of_one(method: str, weights: Path, tmp_path: Path) -> None:
    """A network without batch norm, so that a batch cut in two is the same batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    more: dict[str, object] = {"lr": 0.1, "weights": weights}
    command(train_words(one, method, "test_efficientnet_gn", **more), tmp_path / "one.log").end()
    on_two_ranks(train_words(two, method, "test_efficientnet_gn", **more), tmp_path)
    assert len(steps(one)) == 8
    for single, shared in zip(steps(one), steps(two), strict=True):
        assert shared == pytest.approx(single, rel=1e-4, abs=1e-6)
