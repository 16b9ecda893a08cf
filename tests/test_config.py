"""What is wrong with settings is told in a few words, however long the settings are: they may be a stranger's."""

from __future__ import annotations

from typing import Any

import pytest

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError

LONG = "a" * 100_000


def told(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        RunConfig.from_dict(values)
    return str(refused.value)


def test_a_short_value_is_shown_whole() -> None:
    value = "b" * 198
    assert told({"optim": {"lr": value}}).startswith(f'Setting optim.lr = "{value}" is not valid: ')
    assert told({"colour": 1}) == "Unknown setting 'colour'."


@pytest.mark.parametrize("value", [LONG, [LONG], {"a": LONG}, [1] * 100_000])
def test_a_long_value_is_cut(value: object) -> None:
    message = told({"optim": {"lr": value}})
    assert "… is not valid: input should be a valid number" in message
    assert len(message) < 350


def test_a_long_name_is_cut() -> None:
    assert told({LONG: 1}) == f"Unknown setting '{'a' * 199}…'."
    assert len(told({"optim": {LONG: 1}})) < 300


def test_of_many_faults_the_first_are_told_and_the_others_counted() -> None:
    lines = told({f"x{number}": 1 for number in range(1000)}).splitlines()
    assert lines[0] == "Unknown setting 'x0'."
    assert (len(lines), lines[-1]) == (21, "980 more are not valid either.")


def test_steps_of_a_schedule_are_told_in_part() -> None:
    message = told({"optim": {"step_points": [7.0] * 100_000}})
    assert message.startswith("optim.step_points must lie between 0 and 1, got (7.0, 7.0")
    assert len(message) < 300


def test_more_threads_than_any_machine_starts_are_refused() -> None:
    assert RunConfig.from_dict({"engine": {"threads": 1024}}).engine.threads == 1024
    assert "engine.threads = 100000 is not valid" in told({"engine": {"threads": 100_000}})
