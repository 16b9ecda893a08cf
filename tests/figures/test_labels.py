from __future__ import annotations

import math

import pytest

from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.labels import escape, interval_text, number, shorten, wrap


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("short", 5, "short"), ("0123456789", 5, "01…89"), ("0123456789", 6, "012…89"), ("a<b", 5, "a&lt;b")],
)
def test_a_long_text_loses_its_middle(text: str, length: int, expected: str) -> None:
    assert shorten(text, length) == expected


def test_a_text_is_wrapped_at_words_and_never_empty() -> None:
    assert wrap("blocks 5 to blocks 4", 8) == "blocks 5<br>to<br>blocks 4"
    assert wrap("") == " "


def test_mark_up_in_names_stays_text() -> None:
    assert escape("<b>&") == "&lt;b&gt;&amp;"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-0.12345, "−0.123"), (0.0, "0"), (math.nan, "not defined"), (-math.inf, "−∞"), (1280.0, "1.28e+03")],
)
def test_numbers_in_words(value: float, expected: str) -> None:
    assert number(value) == expected


def test_an_interval_tells_its_level_and_its_n() -> None:
    told = interval_text(Interval(value=0.5, low=-0.25, high=0.75, level=0.9, n=12))
    assert told == "0.5 (90 % interval −0.25 to 0.75, n = 12)"
