from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concept_tuning.data.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\x1b]0;pwn\x07.png", "a\\x1b]0;pwn\\x07.png"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x7f\x9b2J", "\\x7f\\x9b2J"),
        ("gnp.\u202eowl\u2066\u200f\u061c", "gnp.\\u202eowl\\u2066\\u200f\\u061c"),
        ("a\u2028b", "a\\u2028b"),
        ("\udce9", "\\udce9"),
    ],
)
def test_what_acts_is_written_out(text: str, told: str) -> None:
    assert printable(text) == told


@pytest.mark.parametrize(
    "text", ["", "owl/1.png", "K\u00e4uzchen \U0001f989", "\u0628\u200c\u06cc", "a\\b 'c' \"d\"", "x\u00a0y"]
)
def test_plain_texts_stay(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_acts_is_left_and_a_second_time_changes_nothing(text: str) -> None:
    told = printable(text)
    assert not [sign for sign in told if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [sign for sign in told if unicodedata.bidirectional(sign) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI")]
    assert printable(told) == told
    told.encode()


def test_lines_of_a_message_stay_lines() -> None:
    assert printable_lines("one\n  two\x1b[1m\n") == "one\n  two\\x1b[1m"
