"""A checkpoint or weights file of a stranger: it runs no code, and what is wrong with it is a sentence."""

from __future__ import annotations

import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_config

from concept_tuning.engine.checkpoint import STATE, WEIGHTS, list_checkpoints, load_checkpoint
from concept_tuning.engine.loading import load_run
from concept_tuning.engine.schedule import put_back
from concept_tuning.engine.session import resume_run
from concept_tuning.errors import RunError, StudioError, WeightsError
from concept_tuning.models.state import read_state
from concept_tuning.progress import ConsoleWatcher

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo" / "vanilla"


class Payload:
    """An object whose unpickling makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


@pytest.fixture
def stopped(subjects, tmp_path: Path) -> Path:
    """Return a run that could be resumed from its checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(subjects[0].run.folder.path, folder)
    (folder / "status.json").write_text('{"state": "stopped"}')
    assert list_checkpoints(folder / "checkpoints")
    return folder


def test_resuming_a_foreign_run_never_runs_the_code_of_its_pickle(stopped: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    for checkpoint in list_checkpoints(stopped / "checkpoints"):
        torch.save({"step": 1, "evil": Payload(trace)}, checkpoint / STATE)
    with pytest.raises(StudioError, match="cannot be read"):
        resume_run(stopped, ConsoleWatcher(quiet=True))
    assert not trace.exists()
    torch.load(list_checkpoints(stopped / "checkpoints")[0] / STATE, weights_only=False)
    assert trace.exists()  # the attack was a real one


def test_a_checkpoint_of_another_network_is_a_short_sentence(stopped: Path) -> None:
    for checkpoint in list_checkpoints(stopped / "checkpoints"):
        save_file({"alien": torch.zeros(1)}, checkpoint / WEIGHTS)
    with pytest.raises(RunError, match=r"is damaged, or of other settings\. .* start a new run") as found:
        resume_run(stopped, ConsoleWatcher(quiet=True))
    assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"step": 10**9},
        {"best": 5},
        {"best": {"step": 1}},
        {"metrics_bytes": None},
        {"metrics_bytes": 3.5},
        {"optimizer": []},
        {"random_states": []},
    ],
    ids=str,
)
def test_a_state_of_other_values_is_a_sentence(change: dict[str, object], stopped: Path) -> None:
    for checkpoint in list_checkpoints(stopped / "checkpoints"):
        torch.save(load_checkpoint(checkpoint)[1] | change, checkpoint / STATE)
    with pytest.raises(RunError, match="is damaged, or of other settings"):
        resume_run(stopped, ConsoleWatcher(quiet=True))


def _with_first_moment(optimizer: dict[str, dict[int, dict[str, object]]], value: object) -> dict[str, object]:
    first = min(optimizer["state"])
    name = next(name for name, moment in optimizer["state"][first].items() if isinstance(moment, torch.Tensor))
    return optimizer | {"state": optimizer["state"] | {first: optimizer["state"][first] | {name: value}}}


@pytest.mark.parametrize(
    "moment", [torch.zeros(7, 7), torch.zeros([]), "text", 3.0], ids=["other", "single", "text", "number"]
)
def test_moments_that_do_not_fit_their_parameters_are_a_sentence(moment: object, stopped: Path) -> None:
    for checkpoint in list_checkpoints(stopped / "checkpoints"):
        state = load_checkpoint(checkpoint)[1]
        torch.save(state | {"optimizer": _with_first_moment(state["optimizer"], moment)}, checkpoint / STATE)
    with pytest.raises(RunError, match=r"optimiser's moments do not fit .* damaged, or of other settings"):
        resume_run(stopped, ConsoleWatcher(quiet=True))


def test_moments_of_another_optimiser_are_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    put_back(optimizer, optimizer.state_dict())
    lacking = optimizer.state_dict()
    lacking["state"] = {name: {"step": torch.tensor(1.0)} for name in lacking["state"]}
    with pytest.raises(ValueError, match="moments do not fit"):
        put_back(optimizer, lacking)


def test_rates_and_decay_are_those_of_the_settings_and_not_of_a_foreign_state() -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": layer.parameters(), "base_lr": 0.1}], lr=0.1, momentum=0.9)
    foreign = optimizer.state_dict()
    foreign["param_groups"] = [foreign["param_groups"][0] | {"base_lr": "much", "momentum": -5, "weight_decay": 1e9}]
    put_back(optimizer, foreign)
    assert optimizer.param_groups[0]["base_lr"] == 0.1
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["weight_decay"]) == (0.9, 0)


def test_a_pickle_in_place_of_the_best_weights_is_not_run(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "run")
    (tmp_path / "run" / "best" / "model.safetensors").write_bytes(pickle.dumps({"a": Payload(tmp_path / "executed")}))
    with pytest.raises(RunError, match="cannot be read"):
        load_run(tmp_path / "run")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("claimed", [2**20, 2**40, 2**63, 2**64 - 1])
def test_a_safetensors_file_that_claims_a_huge_header_is_a_sentence(tmp_path: Path, claimed: int) -> None:
    content = struct.pack("<Q", claimed) + b"{}"
    shutil.copytree(DEMO, tmp_path / "run")
    best = tmp_path / "run" / "best" / "model.safetensors"
    best.write_bytes(content)
    with pytest.raises(RunError, match="cannot be read"):
        load_run(tmp_path / "run")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(best)


def test_a_safetensors_file_that_claims_a_huge_tensor_is_a_sentence(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[4,1000000000000],"data_offsets":[0,16000000000000]}}'
    path = tmp_path / "claims.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(path)


def test_best_weights_of_another_shape_are_a_sentence(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "run")
    best = tmp_path / "run" / "best" / "model.safetensors"
    weights = load_file(best)
    name = next(name for name, value in weights.items() if value.ndim == 4)
    save_file(weights | {name: torch.zeros(1, 1, 1, 1)}, best)
    with pytest.raises(RunError, match="does not fit the run's settings"):
        load_run(tmp_path / "run")


def test_settings_cannot_ask_for_a_latent_of_any_width(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="latent_dim"):
        tiny_config("concept-tuning", latent_dim=10**9)
