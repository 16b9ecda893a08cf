from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from tiny_runs import tiny_config

from concept_tuning.config import RunConfig, validate
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.run_groups import group_runs, repeated_seed


def run(name: str, method: str = "vanilla", *, seed: int = 0, **overrides: object) -> Subject:
    return of_config(name, tiny_config(method, seed=seed, **overrides))


def of_config(name: str, config: RunConfig) -> Subject:
    return Subject(name=name, run=SimpleNamespace(config=config))


def grouped(*subjects: Subject) -> dict[str, list[str]]:
    return {name: [one.name for one in runs] for name, runs in group_runs(subjects).items()}


def test_seeds_of_one_configuration_are_a_group_called_by_its_method() -> None:
    subjects = run("b", seed=2), run("c", "concept-tuning"), run("a", seed=1)
    assert grouped(*subjects) == {"vanilla": ["a", "b"], "concept-tuning": ["c"]}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"views": 2}, ("views=4", "views=2")),
        ({"front_door": False}, ("front_door=true", "front_door=false")),
        ({"image_size": 96}, ("image_size=64", "image_size=96")),
        ({"lr": 0.5}, ("lr=0.01", "lr=0.5")),
        ({"sample_rate": 50.0}, ("sample_rate=100.0", "sample_rate=50.0")),
        ({"per_class": 3}, ("per_class=none", "per_class=3")),
        ({"backbone": "test_vit"}, ("architecture=test_resnet", "architecture=test_vit")),
        ({"rho": 0.5}, ("rho=0.93", "rho=0.5")),
        ({"select_by": "loss"}, ("select_by=accuracy", "select_by=loss")),
        ({"precision": "bf16"}, ("precision=no", "precision=bf16")),
        ({"views": 2, "lr": 0.5}, ("views=4, lr=0.01", "views=2, lr=0.5")),
    ],
)
def test_a_setting_that_may_change_the_result_makes_a_group_of_its_own(change, names) -> None:
    found = grouped(run("one", "concept-tuning"), run("other", "concept-tuning", seed=1, **change))
    assert found == {f"concept-tuning ({names[0]})": ["one"], f"concept-tuning ({names[1]})": ["other"]}


@pytest.mark.parametrize(
    "change",
    [{"device": "cpu"}, {"threads": 2}, {"workers": 1}, {"cache_dir": "elsewhere"}, {"eval_batch_size": 3}],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_that_changes_no_result_does_not(change) -> None:
    assert grouped(run("one"), run("other", seed=1, **change)) == {"vanilla": ["one", "other"]}


def test_settings_that_are_not_in_use_do_not_tell_runs_apart() -> None:
    """Settings of Concept-Tuning in a vanilla run, as a preset leaves them."""
    plain = tiny_config("vanilla").to_dict()
    other = plain | {"concept_tuning": plain["concept_tuning"] | {"image_weight": 1.0}}
    assert grouped(of_config("one", validate(plain)), of_config("other", validate(other))) == {
        "vanilla": ["one", "other"]
    }


def test_moved_pictures_are_the_same_pictures() -> None:
    config = tiny_config("vanilla")
    moved = [
        dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))
        for source in ("here", "there")
    ]
    assert grouped(*map(of_config, ("one", "other"), moved)) == {"vanilla": ["one", "other"]}


def test_groups_of_one_method_leave_the_name_of_another_alone() -> None:
    found = grouped(run("a", lr=0.5), run("b", "concept-tuning"), run("c", lr=0.1))
    assert found == {"vanilla (lr=0.5)": ["a"], "concept-tuning": ["b"], "vanilla (lr=0.1)": ["c"]}


def test_a_seed_given_again_is_named() -> None:
    assert repeated_seed("vanilla", [run("a", seed=1), run("b", seed=2)]) == ""
    told = repeated_seed("vanilla", [run("a", seed=1), run("b", seed=2), run("c", seed=1)])
    assert told.startswith("a and c are runs of vanilla with the same seed, 1")


@pytest.mark.parametrize(
    ("section", "setting"),
    [("lwf", {"temperature": 3.0}), ("data", {"root": "/elsewhere"}), ("data", {"download": True})],
    ids=str,
)
def test_settings_of_other_methods_and_places_of_files_do_not_tell_runs_apart(section, setting) -> None:
    plain = tiny_config("vanilla").to_dict()
    plain["data"] |= {"source": "cub200", "root": "/here"}
    other = plain | {section: plain[section] | setting}
    assert grouped(of_config("one", validate(plain)), of_config("other", validate(other))) == {
        "vanilla": ["one", "other"]
    }


def test_settings_of_a_rival_count_where_concept_tuning_takes_it_in() -> None:
    found = grouped(
        run("a", "concept-tuning", regulariser="delta"),
        run("b", "concept-tuning", regulariser="delta", **{"delta.weight": 0.5}),
    )
    assert len(found) == 2


@pytest.mark.parametrize("method", ["vanilla", "bss"])
def test_the_same_pictures_in_two_layouts_are_one_configuration(method: str) -> None:
    plain = tiny_config(method).to_dict()
    sources = [plain | {"data": plain["data"] | {"source": source}} for source in ("cub200", "/a/folder", "dtd")]
    runs = [of_config(name, validate(values)) for name, values in zip("abc", sources, strict=True)]
    assert grouped(*runs) == {method: ["a", "b", "c"]}


def test_weights_tell_no_runs_from_scratch_apart_and_no_run_is_lost() -> None:
    scratch = tiny_config("scratch").to_dict()
    other = scratch | {"backbone": scratch["backbone"] | {"weights": "auto"}}
    assert grouped(of_config("a", validate(scratch)), of_config("b", validate(other))) == {"scratch": ["a", "b"]}
    birds = tiny_config("vanilla").to_dict()
    folder = birds | {"data": birds["data"] | {"source": "/a/folder"}}
    found = grouped(of_config("a", validate(birds)), of_config("b", validate(folder)))
    assert found == {"vanilla": ["a"], "vanilla #2": ["b"]}
