from __future__ import annotations

import math

import pytest

from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.labels import escape, interval_text, listed, number, percent, run_labels, shorten, wrap


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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("vanilla", "my-vanilla"), ("vanilla", "my-vanilla")),
        (("good-3180ffb2-1125-concept-tuning", "good-3180ffb2-1125-vanilla"), ("concept-tuning", "vanilla")),
        (("good-3180ffb2-1125-130502-vanilla",), ("vanilla",)),
        (("birds-seed-11-long-vanilla", "birds-seed-12-long-vanilla", "b-scratch"), ("11", "12", "scratch")),
        (("pre-trained", "good-3180ffb2-1125-vanilla"), ("pre-trained", "vanilla")),
        (("runs/of/a/long/name/a", "runs/of/a/long/name/b"), ("a", "b")),
        (("concept-tuning-with-rho-0.95", "concept-tuning-with-rho-0.80"), ("0.95", "0.80")),
        ((), ()),
    ],
)
def test_long_names_of_runs_are_told_by_method_or_by_what_is_their_own(names, expected) -> None:
    assert tuple(run_labels(names).values()) == expected
    assert tuple(run_labels(names)) == names


def test_names_and_shares_in_sentences() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert (percent(0.125), percent(-0.5, 0)) == ("12.5 %", "−50 %")


def test_an_interval_tells_its_level_and_its_n() -> None:
    told = interval_text(Interval(value=0.5, low=-0.25, high=0.75, level=0.9, n=12))
    assert told == "0.5 (90 % interval −0.25 to 0.75, n = 12)"
