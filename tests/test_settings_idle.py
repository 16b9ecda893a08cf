"""Settings that would do nothing with the others are refused where they are typed, and read from a file still."""

from __future__ import annotations

import json

import pytest

from concept_tuning.config import KNOWN_DATA, RunConfig
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import ConfigError
from concept_tuning.settings import GIVES_TEST, GIVES_VALIDATION, IN_ARRAYS, build_config, resolve_key

#: By method: settings that leave a part out, those that then do nothing, and one of the parts that still acts.
WITHOUT = [
    ("delta", "delta.weight=0", "attention=false", "head_decay=0.1"),
    ("bss", "bss.weight=0", "singular_values=2", "lr=0.1"),
    ("lwf", "lwf.weight=0", "temperature=3", "lr=0.1"),
    ("core-tuning", "core_tuning.weight=0", "focal=2", "mixup=0.5"),
    ("core-tuning", "core_tuning.weight=0", "projection_dim=8", "mixup=0.5"),
    ("core-tuning", "core_tuning.weight=0", "temperature=1", "mixup=0.5"),
    ("bi-tuning", "projector_weight=0", "projection_dim=8", "temperature=1"),
    ("bi-tuning", "projector_weight=0 classifier_weight=0", "temperature=1", "lr=0.1"),
    ("bi-tuning", "projector_weight=0 classifier_weight=0", "queue_size=3", "lr=0.1"),
    ("bi-tuning", "projector_weight=0 classifier_weight=0", "encoder_momentum=0.9", "lr=0.1"),
    ("bi-tuning", "classifier_weight=0", "", "projection_dim=8"),
    ("concept-tuning", "regulariser=delta delta.weight=0", "delta.attention=false", "delta.head_decay=0.1"),
]


@pytest.mark.parametrize(("method", "off", "idle", "acting"), WITHOUT)
def test_settings_of_a_term_without_weight_are_refused(method: str, off: str, idle: str, acting: str) -> None:
    build_config(method=method, overrides=[*off.split(), acting])
    if not idle:
        return
    with pytest.raises(ConfigError, match=r"would do nothing here: .*(weight is 0|contrasts have weight 0)\. Leave it"):
        build_config(method=method, overrides=[*off.split(), idle])
    on = [word.replace("=0", "=0.1") for word in off.split()]
    assert build_config(method=method, overrides=[*on, idle]) != build_config(method=method, overrides=on)


@pytest.mark.parametrize("source", [*KNOWN_DATA, "elpv", "hf:owner/name", "path/to/pictures"])
def test_shares_of_splits_are_refused_where_the_data_come_with_them(source: str) -> None:
    for key, given in (("validation_fraction", GIVES_VALIDATION), ("test_fraction", GIVES_TEST)):
        if source in given:
            with pytest.raises(ConfigError, match=rf"data\.{key} would do nothing here: .* come with a {key[:4]}"):
                build_config(data=source, overrides=[f"{key}=0.1"])
        else:
            assert getattr(build_config(data=source, overrides=[f"{key}=0.1"]).data, key) == 0.1


@pytest.mark.parametrize("source", [*KNOWN_DATA, "elpv", "hf:owner/name", "path/to/pictures"])
def test_the_most_pixels_are_refused_for_pictures_in_arrays(source: str) -> None:
    if source in IN_ARRAYS:
        with pytest.raises(ConfigError, match=r"data\.max_pixels would do nothing here: .* arrays of one small size"):
            build_config(data=source, overrides=["max_pixels=100"])
    else:
        assert build_config(data=source, overrides=["max_pixels=100"]).data.max_pixels == 100


@pytest.mark.parametrize("method", ["l2-sp", "delta"])
def test_one_weight_decay_may_be_given_to_all_methods_that_are_compared(method: str) -> None:
    """A bench and the Train page do so, also where a method has terms of its own in its place."""
    assert build_config(method=method, overrides={"optim.weight_decay": 0.1}).optim.weight_decay == 0.1
    overrides = ["weight_decay=0.1", f"regulariser={method}"]
    assert build_config(method="concept-tuning", overrides=overrides).optim.weight_decay == 0.1


def test_a_run_folder_with_settings_that_do_nothing_is_still_read(tmp_path) -> None:
    values = RunConfig().to_dict() | {"method": "bss"}
    values["data"] |= {"source": "aircraft", "validation_fraction": 0.1, "test_fraction": 0.1, "max_pixels": 100}
    values["bss"] |= {"weight": 0.0, "singular_values": 3}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = RunFolder(tmp_path).config()
    assert (config.data.test_fraction, config.bss.singular_values) == (0.1, 3)


@pytest.mark.parametrize("regulariser", ["regulariser", "concept_tuning.regulariser"])
@pytest.mark.parametrize("kind", ["delta", "l2-sp"])
def test_a_bare_name_means_the_regulariser_that_is_taken_in(kind: str, regulariser: str) -> None:
    section = kind.replace("-", "_")
    for overrides in (
        ["head_decay=0.3", f" {regulariser} = {kind}"],
        {"head_decay": 0.3, regulariser: kind},
    ):
        config = build_config(method="concept-tuning", overrides=overrides)
        assert getattr(config, section).head_decay == 0.3
        assert config.concept_tuning.regulariser == kind
    assert resolve_key("head_decay", "concept-tuning", kind) == f"{section}.head_decay"
    assert resolve_key("temperature", "concept-tuning", kind) == "concept_tuning.temperature"
    assert resolve_key("lr", "concept-tuning", kind) == "optim.lr"


def test_a_regulariser_that_is_not_taken_in_gives_a_bare_name_no_meaning() -> None:
    for method, more in (("concept-tuning", ["regulariser=none"]), ("concept-tuning", []), ("vanilla", [])):
        with pytest.raises(ConfigError, match=r"belongs to the method `l2-sp`\. Leave it out\.$"):
            build_config(method=method, overrides=["head_decay=0.3", *more])
    assert build_config(method="delta", overrides=["head_decay=0.3"]).delta.head_decay == 0.3


def test_a_refused_setting_of_another_method_names_its_namesake_that_acts() -> None:
    with pytest.raises(ConfigError, match=r"Leave it out, or give delta\.head_decay, which does something\.$"):
        build_config(method="concept-tuning", overrides={"l2_sp.head_decay": 0.3, "regulariser": "delta"})
    with pytest.raises(ConfigError, match=r"Leave it out, or give lwf\.temperature, which does something\.$"):
        build_config(method="lwf", overrides=["bi_tuning.temperature=1"])
    with pytest.raises(ConfigError, match=r"optim\.step_factor .* not step\. Leave it out\.$"):
        build_config(overrides=["step_factor=0.5"])
