"""What chapters of a report are made of: charts, tables, notes and folded parts, and the results they are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import plotly.graph_objects as go

from concept_tuning.diagnostics.diagnose import Diagnosis, Overview
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.thumbnails import Thumbnails
from concept_tuning.diagnostics.words import signed, true_minus
from concept_tuning.figures.labels import percent

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure.

    Attributes:
        figure: The figure.
        caption: What it shows and how to read it; also its text for those who cannot see it.
        heading: Above it, such as the name of a run; may be empty.
    """

    figure: go.Figure
    caption: str
    heading: str = ""
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text.

    Attributes:
        columns: Headings.
        rows: Cells, as many to a row as there are headings.
        caption: What it shows; may be empty.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: Literal["table"] = "table"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence: a caveat, or what could not be had and why."""

    text: str
    kind: Literal["note"] = "note"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks that the reader may open.

    Attributes:
        title: What is inside.
        blocks: The parts.
    """

    title: str
    blocks: Sequence[Block]
    kind: Literal["fold"] = "fold"


Block = Chart | Table | Note | Fold


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence of the summary.

    Attributes:
        text: The sentence.
        tone: Whether it is good news.
        chapter: Name of the chapter that shows it.
    """

    text: str
    tone: Tone
    chapter: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A part of the report.

    Attributes:
        name: Of its anchor.
        title: Its heading.
        lead: What question it answers and how to read the answer.
        blocks: The parts.
    """

    name: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default=())


#: Analyses whose intervals and p values take pictures as drawn one by one, even where several show one plant.
_BY_PICTURE = ("controls", "rare-features", "switches", "concept-effects", "slices")
_PICTURE_BY_PICTURE = (
    "The pictures show {units} units (plants, patients or the like). Here they are taken as drawn one by one, so that "
    "intervals are too narrow and p values too small."
)


def units_text(overview: Overview) -> str:
    """Return how many units a diagnosis looked at and what that means for its intervals; empty without units."""
    if overview.units is None:
        return ""
    return (
        f"They show {overview.units} units (plants, patients or the like), none of which is in another split; "
        "intervals of accuracies and of differences between methods are over whole units."
    )


@dataclass(frozen=True, eq=False)
class Source:
    """The results that chapters read."""

    diagnosis: Diagnosis

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(card.name for card in self.diagnosis.overview.runs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.diagnosis.overview.class_names

    @property
    def thumbnails(self) -> Thumbnails:
        """The pictures that results show."""
        return self.diagnosis.thumbnails

    def joint(self, analysis: str) -> Any:
        """Return the result of all runs together, or None."""
        return self.diagnosis.results.get((analysis, None))

    def each(self, analysis: str) -> dict[str, Any]:
        """Return the result of each run that has one, in the order of the runs."""
        found = self.diagnosis.results
        return {run: found[analysis, run] for run in self.runs if (analysis, run) in found}

    def closing(self, analysis: str) -> list[Note]:
        """Return what to say after a chapter: how to read its intervals, and what could not be had."""
        units = self.diagnosis.overview.units
        notes = [Note(text=_PICTURE_BY_PICTURE.format(units=units))] if units is not None else []
        return [*(notes if analysis in _BY_PICTURE else ()), *self.missing(analysis)]

    def missing(self, analysis: str) -> list[Note]:
        """Return a note for each result that could not be had; runs with the same reason share one."""
        reasons: dict[str, list[str]] = {}
        for entry in self.diagnosis.overview.entries:
            if entry.analysis == analysis and entry.reason is not None:
                reasons.setdefault(entry.reason, []).append(entry.run or "")
        return [
            Note(text=f"Not made for {', '.join(runs)}: {reason}" if any(runs) else f"Not made: {reason}")
            for reason, runs in reasons.items()
        ]


def percent_interval(interval: Interval) -> str:
    """Return a share with its interval in percent and its n."""
    low, high = (percent(end).removesuffix(" %") for end in (interval.low, interval.high))
    return f"{percent(interval.value)} [{low}, {high}], n = {interval.n}"


def of_all(interval: Interval, what: str) -> str:
    """Return a share with its count and interval as part of a sentence: 79.4 % of 500 pictures [75.6, 82.7]."""
    low, high = (percent(end).removesuffix(" %") for end in (interval.low, interval.high))
    return f"{percent(interval.value)} of {interval.n} {what} [{low}, {high}]"


def moved(difference: Interval, up: str, down: str) -> str:
    """Return by how much something changes, in percentage points, with a verb for each direction: falls by 4.2 points.

    An end of the interval below 0 is a change the other way.
    """
    sign = -1 if difference.value < 0 else 1
    low, high = sorted((100 * sign * difference.low, 100 * sign * difference.high))
    value = f"{100 * abs(difference.value):.1f}"
    return true_minus(f"{down if sign < 0 else up} by {value} points [{low:.1f}, {high:.1f}]")


def points(interval: Interval) -> str:
    """Return a difference of shares with its interval, in percentage points."""
    value, low, high = (signed(100 * part) for part in (interval.value, interval.low, interval.high))
    return f"{value} points [{low}, {high}]"
