from __future__ import annotations

import dataclasses

import pytest

from concept_tuning.config import METHOD_NAMES, PRESET_NAMES, RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.settings import build_config, resolve_key, settings


def test_values_are_read_from_text_with_their_types() -> None:
    config = build_config(
        method="concept-tuning",
        overrides=["rho=0.5", "views=2", "schedule=step", "step_points=0.3,0.6", "per_class=none", "beta=1e-3"],
    )
    assert config.planted.rho == 0.5
    assert config.concept_tuning.views == 2
    assert config.optim.step_points == (0.3, 0.6)
    assert config.data.per_class is None
    assert config.concept_tuning.beta == 1e-3


def test_none_is_read_as_a_choice_where_it_is_one() -> None:
    config = build_config(method="concept-tuning", overrides=["regulariser=none", "latent_dim=none"])
    assert (config.concept_tuning.regulariser, config.concept_tuning.latent_dim) == ("none", None)


def test_bare_and_full_names_mean_the_same() -> None:
    assert build_config(overrides=["lr=0.5"]) == build_config(overrides=["optim.lr=0.5"])


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_configuration_survives_json(method: str, preset: str) -> None:
    config = build_config(method=method, preset=preset)
    assert RunConfig.from_dict(config.to_dict()) == config


def test_overrides_win_over_presets_and_presets_over_defaults() -> None:
    assert build_config(preset="quick").optim.epochs != RunConfig().optim.epochs
    assert build_config(preset="quick", overrides=["epochs=77"]).optim.epochs == 77


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rhoo=1", "Did you mean 'rho'"),
        ("learning_rate=1", "Unknown setting 'learning_rate'. Did you mean 'lr'"),
        ("optim.lrr=1", "Did you mean 'optim.lr'"),
        ("lr=-1", "optim.lr"),
        ("lr=nan", "optim.lr"),
        ("rho=1.5", "less than or equal to 1"),
        ("epochs=two", "optim.epochs"),
        ("species=3", "multiple of 2"),
        ("horizontal_flip=maybe", "data.horizontal_flip"),
        ("lr", "key=value"),
        ("=3", "key=value"),
    ],
)
def test_bad_overrides_are_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        build_config(overrides=[override])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        build_config(overrides=["lr=0.1", "optim.lr=0.2"])


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"method": "concept_tuning"}, "Did you mean 'concept-tuning'"),
        ({"method": "vanila"}, "Did you mean 'vanilla'"),
        ({"preset": "quik"}, "Did you mean 'quick'"),
    ],
)
def test_unknown_choices_suggest_the_nearest(choice: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config(**choice)


@pytest.mark.parametrize(
    ("choice", "override"),
    [
        ({"method": "vanilla"}, "temperature=0.1"),
        ({"method": "concept-tuning"}, "front_door=false latent_dim=8"),
        ({"method": "concept-tuning"}, "front_door=false prediction=mean"),
        ({"method": "concept-tuning"}, "bottleneck=false beta=1"),
        ({"method": "concept-tuning"}, "channel_attention=false aggregate=concat"),
        ({"method": "concept-tuning"}, "concept_weight=0 views=2"),
        ({"method": "concept-tuning"}, "concept_weight=0 concept_channels=3"),
        ({"method": "concept-tuning"}, "concept_weight=0 image_weight=0 queue_size=3"),
        ({"method": "concept-tuning"}, "views=2 mild_scale_min=0.3"),
        ({"method": "vanilla"}, "mild_scale_min=0.3"),
        ({"data": "planted"}, "max_archive_bytes=100"),
        ({"data": "planted"}, "max_pixels=100000"),
        ({"data": "elpv"}, "rho=0.5"),
        ({"data": "planted"}, "task=four-class"),
        ({"method": "scratch"}, "weights=timm"),
        ({"method": "linear-probe"}, "backbone_lr_scale=1"),
        ({}, "step_factor=0.5"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(choice: dict[str, str], override: str) -> None:
    with pytest.raises(ConfigError, match="would do nothing"):
        build_config(**choice, overrides=override.split())


@pytest.mark.parametrize(
    "overrides",
    [
        ["concept_weight=0", "queue_size=3"],
        ["image_weight=0", "temperature=0.1", "views=4", "mild_scale_min=0.3"],
        ["front_door=false", "concept_step=7"],
        ["aggregate=concat", "latent_dim=8", "beta=0.1"],
    ],
)
def test_a_setting_that_does_something_is_taken(overrides: list[str]) -> None:
    config = build_config(method="concept-tuning", overrides=overrides)
    assert config != build_config(method="concept-tuning")


def test_front_door_without_any_attention_is_refused() -> None:
    with pytest.raises(ConfigError, match="front_door"):
        build_config(method="concept-tuning", overrides=["position_attention=false", "channel_attention=false"])


def test_predictions_of_a_front_door_that_is_off_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"prediction=front-door needs concept_tuning\.front_door=true"):
        build_config(method="concept-tuning", overrides=["front_door=false", "prediction=front-door"])


@pytest.mark.parametrize("point", ["0", "1", "1.5"])
def test_steps_of_the_schedule_outside_the_training_are_refused(point: str) -> None:
    with pytest.raises(ConfigError, match="step_points must lie between 0 and 1"):
        build_config(overrides=["schedule=step", f"step_points=0.3,{point}"])


def test_splits_that_leave_no_training_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        build_config(data="some/folder", overrides=["validation_fraction=0.6", "test_fraction=0.5"])


def test_unknown_keys_in_a_saved_configuration_are_refused() -> None:
    values = RunConfig().to_dict()
    values["optim"]["speed"] = 3
    with pytest.raises(ConfigError, match="speed"):
        RunConfig.from_dict(values)


def test_every_setting_has_help_and_is_found_by_its_full_name() -> None:
    for setting in settings():
        assert len(setting.help) > 10, setting.key
        assert setting.type, setting.key
        assert resolve_key(setting.key) == setting.key


def test_a_name_that_several_methods_have_needs_a_method() -> None:
    with pytest.raises(ConfigError, match=r"several sections: l2_sp\.head_decay, delta\.head_decay\. Give the full"):
        resolve_key("head_decay")
    assert resolve_key("head_decay", "delta") == "delta.head_decay"


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().optim.lr = 3  # type: ignore[misc]


def test_data_and_backbone_are_not_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"data\.source is given twice, as planted and as elpv"):
        build_config(data="planted", overrides=["data.source=elpv"])
    with pytest.raises(ConfigError, match=r"backbone\.architecture is given twice"):
        build_config(backbone="resnet18", overrides={"architecture": "resnet50"})
    assert build_config(data="planted", overrides=["data.source=planted"]).data.source == "planted"
