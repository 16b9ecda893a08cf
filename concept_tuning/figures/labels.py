"""Texts that fit: long names cut or wrapped for axes, the whole of them on hover, and intervals in words."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

from concept_tuning.config import MethodName
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.words import true_minus

#: Characters of a run's name that fit wherever charts name runs.
LONG = 18


def shorten(text: str, length: int = 18) -> str:
    """Return a text of at most ``length`` characters for an axis, its middle left out where it is longer."""
    if len(text) > length:
        tail = (length - 1) // 2
        text = f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
    return html.escape(text, quote=False)


def run_labels(names: Iterable[str]) -> dict[str, str]:
    """Return a text for each run of a chart: its name, or if some are long, its method or what is its own.

    The method stands where one run alone is of it. A run's name is taken to end with its method, as the names do that
    runs get by themselves. What runs of the same method have in common at either end of their names is left out. Not
    yet escaped, and of any length.

    Args:
        names: Of all runs that are shown together.
    """
    names = tuple(dict.fromkeys(names))
    if max(map(len, names), default=0) <= LONG:
        return {name: name for name in names}
    methods = {name: _method_of(name) for name in names}
    often = Counter(methods.values())
    labels = {name: method for name, method in methods.items() if method and often[method] == 1}
    labels |= _own_parts([name for name in names if name not in labels])
    unique = len(set(labels.values())) == len(names)
    return {name: labels[name] if unique else name for name in names}


def _method_of(name: str) -> str:
    found = [method for method in get_args(MethodName) if re.search(rf"(^|[-_/ ]){method}$", name)]
    return max(found, key=len, default="")


def _own_parts(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the words that all of them begin or end with; whole where nothing would be left."""
    words = [re.split(r"(?<=[-_/ ])", name) for name in names]
    if len(names) < 2:
        return {name: name for name in names}
    start = _common(words)
    end = _common([parts[start:][::-1] for parts in words])
    cut = ["".join(parts[start : len(parts) - end]).strip("-_/ ") for parts in words]
    return dict(zip(names, cut if all(cut) else names, strict=True))


def _common(words: Sequence[Sequence[str]]) -> int:
    """Return how many first words all have in common."""
    return next((place for place, found in enumerate(zip(*words, strict=False)) if len(set(found)) > 1), 0)


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
    return true_minus(f"{value:.{digits}g}")


def listed(names: Sequence[str]) -> str:
    """Return names as part of a sentence, the last two joined by ``and``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def percent(value: float, digits: int = 1) -> str:
    """Return a share 0..1 in percent, with a true minus sign."""
    return true_minus(f"{100 * value:.{digits}f} %")


def interval_text(interval: Interval, digits: int = 3) -> str:
    """Return an estimate, its interval and its n for a hover."""
    low, high = number(interval.low, digits), number(interval.high, digits)
    return f"{number(interval.value, digits)} ({100 * interval.level:g} % interval {low} to {high}, n = {interval.n})"
