"""Texts that fit: long names cut or wrapped for axes, the whole of them on hover, and intervals in words."""

from __future__ import annotations

import html
import math
import textwrap

from concept_tuning.diagnostics.results import Interval


def shorten(text: str, length: int = 18) -> str:
    """Return a text of at most ``length`` characters for an axis, its middle left out where it is longer."""
    if len(text) > length:
        tail = (length - 1) // 2
        text = f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
    return html.escape(text, quote=False)


def wrap(text: str, length: int = 12) -> str:
    """Return a text in lines of some ``length`` characters for an axis, joined with ``<br>``."""
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, length)) or " "


def escape(text: str) -> str:
    """Return a whole text for a hover, in which ``<`` starts no mark-up."""
    return html.escape(text, quote=False)


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits and a true minus sign, ``not defined`` for NaN."""
    if not math.isfinite(value):
        return "not defined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.{digits}g}".replace("-", "−")


def interval_text(interval: Interval, digits: int = 3) -> str:
    """Return an estimate, its interval and its n for a hover."""
    low, high = number(interval.low, digits), number(interval.high, digits)
    return f"{number(interval.value, digits)} ({100 * interval.level:g} % interval {low} to {high}, n = {interval.n})"
