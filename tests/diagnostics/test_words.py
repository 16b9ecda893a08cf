from __future__ import annotations

import pytest

from concept_tuning.diagnostics.words import signed


@pytest.mark.parametrize(
    ("value", "expected"), [(-4.2, "−4.2"), (4.2, "+4.2"), (0.0, "0.0"), (-0.04, "0.0"), (0.04, "0.0")]
)
def test_signs_are_true_and_zero_has_none(value: float, expected: str) -> None:
    assert signed(value) == expected
