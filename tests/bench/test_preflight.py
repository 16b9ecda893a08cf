"""What a bench needs of the machine, looked for before it runs: files, packages, groups, weights, networks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from concept_tuning.bench.preflight import _GROUPED, check_sources
from concept_tuning.bench.spec import BenchSpec, check_spec
from concept_tuning.config import KNOWN_DATA
from concept_tuning.data.known.catalogue import BY_NAME
from concept_tuning.data.registry import DATASETS
from concept_tuning.errors import ConfigError

BIRDS = {"name": "birds", "source": "planted"}
PLAIN = {"name": "plain", "data": [BIRDS, {"name": "cells", "source": "elpv"}], "methods": ["vanilla", "l2-sp"]}
SEARCHING = PLAIN | {"trials": 3, "search": {"all": {"lr": {"low": 0.001, "high": 0.1, "log": True}}}}
GROUPED = ["vanilla", "dfr", "group-dro"]


def bench_of(**values: object) -> BenchSpec:
    return check_spec(PLAIN | {"data": [BIRDS]} | values)


def write_pictures(folder: Path) -> None:
    for name in ("auk", "owl"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / name / f"{number}.png")


def lay_out(root: Path, name: str) -> None:
    """Make the paths that a known data set needs below a root, without content."""
    raw = "FashionMNIST/raw"
    idx = [f"{raw}/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for needed in idx if name == "fashion-mnist" else BY_NAME[name].needs:
        (root / needed).parent.mkdir(parents=True, exist_ok=True)
        (root / needed).touch()


def known(name: str, root: Path, **more: object) -> dict[str, object]:
    return {"name": "known", "source": name, "set": {"root": str(root)} | more}


def test_sources_and_paths_that_are_there_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "own")
    names = ["planted", "elpv", "hf:someone/birds", "own", str(tmp_path / "own")]
    data = [{"name": f"d{number}", "source": source} for number, source in enumerate(names)]
    check_sources(bench_of(data=data))


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_known_data_without_its_files_is_found_before_a_bench_runs(name: str, tmp_path: Path) -> None:
    fetchable, spec = BY_NAME[name].downloads, bench_of(data=[BIRDS, known(name, tmp_path)])
    missing = f"The bench's data 'known' cannot be learnt. The files of `{name}` are not there: {tmp_path} has no "
    with pytest.raises(ConfigError, match=re.escape(missing)) as caught:
        check_sources(spec)
    assert str(caught.value).endswith(" `--only` learns other data of the bench without it.")
    assert "Expected below data.root:" in str(caught.value)
    check_sources(spec, only=["birds"])
    fetched = bench_of(data=[known(name, tmp_path, download=True)])
    if fetchable:
        check_sources(fetched)
    else:
        with pytest.raises(ConfigError, match=re.escape(missing)) as caught:
            check_sources(fetched)
        assert "--only" not in str(caught.value)  # there is no other data
    assert not any(tmp_path.iterdir())  # nothing is fetched
    lay_out(tmp_path, name)
    check_sources(spec)


def test_one_missing_file_of_known_data_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "cub200")
    (tmp_path / "CUB_200_2011/classes.txt").unlink()
    with pytest.raises(ConfigError, match=r"has no CUB_200_2011/classes\.txt\. Expected"):
        check_sources(bench_of(data=[known("cub200", tmp_path)]))


@pytest.mark.parametrize("name", [*KNOWN_DATA, "hf:someone/birds"])
def test_methods_that_need_groups_are_refused_on_known_data_without(name: str, tmp_path: Path) -> None:
    data = known(name, tmp_path)
    if name in KNOWN_DATA:
        lay_out(tmp_path, name)
    spec = bench_of(data=[BIRDS, data], methods=GROUPED)
    check_sources(bench_of(data=[BIRDS, data | {"methods": ["vanilla"]}], methods=GROUPED))
    if name in ("isic", "waterbirds"):
        check_sources(spec)
        return
    with pytest.raises(ConfigError, match="data 'known' has no groups, without which dfr and group-dro cannot learn"):
        check_sources(spec)


def test_a_choice_by_the_worst_group_is_refused_on_data_without(tmp_path: Path) -> None:
    lay_out(tmp_path, "cifar10")
    data = known("cifar10", tmp_path)
    by_group = {"set": {"select_by": "worst-group"}}
    check_sources(bench_of(data=[BIRDS, data]))
    check_sources(bench_of(data=[BIRDS], **by_group))
    with pytest.raises(ConfigError, match="data 'known' has no groups, and select_by=worst-group chooses by them"):
        check_sources(bench_of(data=[BIRDS, data], **by_group))


def test_a_lack_of_groups_is_said_before_anybody_gets_the_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data 'known' has no groups"):
        check_sources(bench_of(data=[known("cifar10", tmp_path)], methods=GROUPED))


def test_sources_with_groups_are_those_that_are_said_to_have_them() -> None:
    assert set(_GROUPED) == {entry.name for entry in DATASETS if "groups are" in entry.description}


def test_cells_that_are_not_installed_are_found_before_a_bench_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concept_tuning.data.elpv.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data 'cells' cannot be learnt\. .*`pip install elpv-dataset`"):
        check_sources(check_spec(PLAIN))
    check_sources(check_spec(PLAIN), only=["birds"])


@pytest.mark.parametrize(
    "values",
    [
        {"set": {"weights": "random"}},
        {"data": [BIRDS | {"set": {"weights": "random"}}]},
        {"trials": 2, "search": {"all": {"weights": {"choices": ["auto", "random"]}}}},
        {"methods": ["vanilla", "own"], "variants": {"own": {"method": "l2-sp", "set": {"weights": "random"}}}},
    ],
)
def test_methods_that_keep_to_the_pre_trained_are_refused_random_weights(values: dict) -> None:
    words = (
        r"The bench's setting birds/tf_efficientnet_lite0/100/(l2-sp|own) cannot be run\. l2-sp keeps to what the pre"
    )
    with pytest.raises(ConfigError, match=words):
        check_sources(bench_of(**values))
    check_sources(bench_of(methods=["vanilla", "bss"], set={"weights": "random"}))


def test_only_what_is_learnt_now_must_have_its_weights() -> None:
    data = [BIRDS, {"name": "others", "source": "planted", "set": {"weights": "random"}}]
    check_sources(bench_of(data=data), only=["birds"])
    with pytest.raises(ConfigError, match="The bench's setting others/"):
        check_sources(bench_of(data=data), only=["others"])


@pytest.mark.parametrize(
    ("source", "words"),
    [("waterbird", "did you mean 'waterbirds'?"), ("lost/pictures", "There is no path 'lost/pictures'")],
)
def test_a_source_that_is_nowhere_is_found_before_a_bench_runs(source: str, words: str) -> None:
    spec = bench_of(data=[BIRDS, {"name": "more", "source": source}])
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        check_sources(spec)
    assert "The bench's data 'more' cannot be learnt" in str(caught.value)
    check_sources(spec, only=["birds"])


def test_a_folder_without_pictures_is_found_before_a_bench_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The bench's data 'own' cannot be learnt\. .*no pictures here"):
        check_sources(bench_of(data=[{"name": "own", "source": str(tmp_path)}]))


def test_methods_that_need_groups_are_refused_on_a_folder_before_a_bench_runs(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    own = {"name": "own", "source": str(tmp_path)}
    with pytest.raises(ConfigError, match="data 'own' has no groups, without which dfr and group-dro cannot learn"):
        check_sources(bench_of(data=[BIRDS, own], methods=GROUPED))
    check_sources(bench_of(data=[BIRDS, own | {"methods": ["vanilla"]}], methods=GROUPED))


def test_data_learnt_by_another_choice_needs_that_data_too() -> None:
    data = [{"name": "birds", "source": "lost"}, {"name": "more", "source": "planted", "tuned_on": "birds"}]
    spec = bench_of(data=data)
    with pytest.raises(ConfigError, match="data 'birds' cannot be learnt"):
        check_sources(spec, only=["more"])


def test_a_weights_file_that_is_nowhere_is_found_before_a_bench_runs(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    for values in (
        {"set": {"weights": str(file)}},
        {"methods": ["vanilla", "own"], "variants": {"own": {"method": "vanilla", "set": {"weights": str(file)}}}},
        {"trials": 2, "search": {"all": {"weights": {"choices": ["auto", str(file)]}}}},
    ):
        file.unlink(missing_ok=True)
        with pytest.raises(ConfigError, match=re.escape(f"There is no weights file {file}")) as caught:
            check_sources(bench_of(**values))
        assert "The bench's setting birds/tf_efficientnet_lite0/100/" in str(caught.value)
        file.touch()
        check_sources(bench_of(**values))
    with pytest.raises(ConfigError, match="nor the path of a weights file"):
        check_sources(bench_of(set={"weights": "imagenet"}))


def test_a_backbone_timm_has_not_is_found_before_a_bench_runs() -> None:
    check_sources(bench_of(backbones=["resnet50.tv_in1k", "test_vit"]))
    with pytest.raises(ConfigError, match=r"timm has no network 'resnet5O'\. Did you mean"):
        check_sources(bench_of(backbones=["resnet5O"]))


def test_a_bench_of_named_data_and_common_networks_is_checked_without_torch() -> None:
    code = (
        "import sys\nfrom concept_tuning.bench.preflight import check_sources\n"
        "from concept_tuning.bench.spec import check_spec\n"
        f"check_sources(check_spec({SEARCHING!r}))\nassert not {{'torch', 'timm'}} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
