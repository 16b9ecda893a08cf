"""Settings of the rival methods out of range are refused by name, before anything is trained."""

from __future__ import annotations

import re

import pytest

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.settings import METHOD_SECTIONS, build_config, settings

#: Values that each number of a rival's section may not have, below and above.
BAD: dict[str, tuple[float, ...]] = {
    "lp_ft.probe_share": (0, 1, -0.1, 1.5),
    "l2_sp.backbone_decay": (-1e-9,),
    "l2_sp.head_decay": (-0.01,),
    "delta.weight": (-0.48,),
    "delta.head_decay": (-0.01,),
    "bss.weight": (-0.001,),
    "bss.singular_values": (0, -1, 1.5),
    "stoch_norm.probability": (-0.1, 1.1),
    "co_tuning.weight": (-2.3,),
    "bi_tuning.classifier_weight": (-1,),
    "bi_tuning.projector_weight": (-1,),
    "bi_tuning.projection_dim": (0, 10**12),
    "bi_tuning.queue_size": (0, -40, 10**9),
    "bi_tuning.temperature": (0, -0.07, 11),
    "bi_tuning.encoder_momentum": (-0.1, 1.001),
    "lwf.weight": (-1,),
    "lwf.temperature": (0, -2, 101),
    "core_tuning.weight": (-1,),
    "core_tuning.mixup": (0, -1),
    "core_tuning.focal": (-1, 1e30),
    "core_tuning.projection_dim": (0, 10**12),
    "core_tuning.temperature": (0, -0.07, 11),
    "group_dro.step_size": (0, -0.01, 1e39),
    "group_dro.adjustment": (-1,),
    "dfr.subsets": (0, -10, 10**6),
}
CASES = [(key, value) for key, values in BAD.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_a_value_out_of_range_is_refused_with_the_settings_name(key: str, value: float) -> None:
    (method,) = METHOD_SECTIONS[key.split(".")[0]]
    words = re.escape(f"Setting {key} = {value} is not valid: ")
    with pytest.raises(ConfigError, match=words):
        build_config(method=method, overrides={key: value})
    with pytest.raises(ConfigError, match=re.escape(f"Setting {key} = ")):  # as the command line gives it
        build_config(method=method, overrides=[f"{key}={value}"])
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=words):  # as a run's config.json gives it
        RunConfig.from_dict({"method": method, section: {name: value}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", BAD)
def test_what_is_no_finite_number_is_refused_with_the_settings_name(key: str, value: float) -> None:
    (method,) = METHOD_SECTIONS[key.split(".")[0]]
    with pytest.raises(ConfigError, match=re.escape(f"Setting {key} = ")):
        build_config(method=method, overrides={key: value})


def test_every_number_of_a_rivals_section_is_among_these() -> None:
    sections = [section for section in METHOD_SECTIONS if section != "concept_tuning"]
    numbers = {
        one.key
        for one in settings()
        if one.key.split(".")[0] in sections and one.type.split()[0] in {"integer", "number"}
    }
    assert numbers == BAD.keys()
