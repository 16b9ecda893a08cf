"""What the demo says and shows of two answers: sentences, pictures for the sliders, tables, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.demo.pair import BatchRow, Looked, Pair
from app.markdown import plain
from concept_tuning.diagnostics.given_picture import GivenAnswer
from concept_tuning.diagnostics.pair import what_differs
from concept_tuning.figures.style import laid_over
from concept_tuning.figures.tiles import merge_equal
from concept_tuning.report.predictions_csv import safe_cell

#: Sides in pixels of the pictures in the sliders and of those with a concept patch; brightness of what is not in it.
SIDE, PATCH_SIDE = 448, 192
_DIMMED = 0.35
#: The settings of the front-door switches by whether patch and channel attention are on.
SETTINGS = {
    (True, True): "everything on",
    (False, True): "position off",
    (True, False): "channel off",
    (False, False): "both off",
}
_ON = SETTINGS[True, True]
_OFF = {
    "position off": "attention over patches off",
    "channel off": "attention over channels off",
    "both off": "both attentions off",
}


def difference(looked: Looked, map_name: str) -> str:
    """Return, as Markdown, what differs, and of an example what it truly is."""
    return f"{_truth(looked)}### {plain(what_differs(*looked.answers, map_name))}"


def maps_for_slider(
    answers: tuple[GivenAnswer, GivenAnswer], map_name: str, opacity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return each run's map over what it sees, both (:data:`SIDE`, :data:`SIDE`, 3) uint8."""
    first, second = (laid_over(answer.view, answer.maps[map_name], opacity, side=SIDE) for answer in answers)
    return first, second


def patches(answer: GivenAnswer) -> list[tuple[np.ndarray, str]]:
    """Return the different concept patches of an answer with their captions, the rest of the picture dimmed.

    Concepts with the same patch share a picture, (:data:`PATCH_SIDE`, :data:`PATCH_SIDE`, 3) uint8.
    """
    large = laid_over(answer.view, None, side=PATCH_SIDE)
    found = []
    for box, places in merge_equal(answer.boxes):
        left, top, right, bottom = (round(edge * PATCH_SIDE) for edge in box)
        shown = (large * _DIMMED).astype(np.uint8)
        shown[top:bottom, left:right] = large[top:bottom, left:right]
        numbers = ", ".join(str(place + 1) for place in places)
        found.append((shown, f"concept {numbers}" if len(places) == 1 else f"concepts {numbers}"))
    return found


def switched_words(answer: GivenAnswer, *, patch_attention: bool, channel_attention: bool) -> str:
    """Return, as Markdown, what a run's prediction becomes under the switches."""
    setting = SETTINGS[patch_attention, channel_attention]
    name = plain(answer.run)
    if not answer.switched:
        return f"**{name}** has no front-door head, so there is nothing to switch."
    if setting not in answer.switched:
        return f"**{name}** has one of the two attentions alone; there is no such switch."
    before = answer.switched[_ON]
    label = int(before.argmax())
    if setting == _ON:
        return f"**{name}** says {_share(answer, before, label)} with everything on. Switch an attention off."
    after = answer.switched[setting]
    now = int(after.argmax())
    turned = "still says" if now == label else "now says"
    shift = float(np.abs(after - before).sum() / 2)
    return (
        f"**{name}**, {_OFF[setting]}: {turned} {_share(answer, after, now)}, before {_share(answer, before, label)}; "
        f"{100 * shift:.1f} % of the probability moves."
    )


def switched_for_slider(
    answer: GivenAnswer, *, patch_attention: bool, channel_attention: bool, opacity: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the front-door head's map with everything on and under the switches; None without the head."""
    setting = SETTINGS[patch_attention, channel_attention]
    if setting not in answer.switch_maps:
        return None
    first, second = (laid_over(answer.view, answer.switch_maps[name], opacity, side=SIDE) for name in (_ON, setting))
    return first, second


def batch_table(rows: Sequence[BatchRow]) -> list[list[str]]:
    """Return the rows of a batch as they are shown: picture, whether they agree, what each says, and a note."""
    return [
        [
            row.name,
            _agree(row),
            *(
                [f"{top} ({100 * value:.1f} %)" for top, value in zip(row.tops, row.probabilities, strict=True)]
                or ["", ""]
            ),
            row.reason,
        ]
        for row in rows
    ]


def _agree(row: BatchRow) -> str:
    if not row.tops:
        return ""
    return {True: "yes", False: "no", None: "cannot be compared"}[row.agree]


def batch_values(row: BatchRow) -> dict[str, Any]:
    """Return a row of a batch as plain values, for programs; ``a`` and ``b`` are None for a file of no use."""
    said: list[dict[str, Any] | None] = [
        {"top_class": top, "probability": value} for top, value in zip(row.tops, row.probabilities, strict=True)
    ]
    first, second = said or [None, None]
    return {"picture": row.name, "agree": row.agree, "a": first, "b": second, "note": row.reason}


def batch_summary(rows: Sequence[BatchRow], *, comparable: bool) -> str:
    """Return, as Markdown, how many pictures of a batch the runs disagree on."""
    usable = [row for row in rows if row.tops]
    apart = sum(row.agree is False for row in usable)
    counts = f"{len(usable)} picture{'' if len(usable) == 1 else 's'}"
    text = (
        f"**The runs disagree on {apart} of {counts}.**"
        if comparable
        else f"**{counts}; the runs know different classes, so agreement cannot be said.**"
    )
    unusable = len(rows) - len(usable)
    return text + (f" {unusable} could not be used; the last rows say why." if unusable else "")


def write_csv(pair: Pair, rows: Sequence[BatchRow], file: Path) -> Path:
    """Write a batch as CSV, probabilities 0..1; what a spreadsheet might take for a formula gets an apostrophe."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    heading = [f"{name} {what}" for name in pair.names for what in ("says", "probability")]
    table.writerow([safe_cell(cell) for cell in ("picture", "agree", *heading, "note")])
    for row in rows:
        said = [
            cell
            for top, value in zip(row.tops, row.probabilities, strict=True)
            for cell in (safe_cell(top), f"{value:.6f}")
        ]
        table.writerow([safe_cell(row.name), _agree(row), *(said or [""] * 4), safe_cell(row.reason)])
    file.write_text(out.getvalue(), encoding="utf-8-sig", newline="")
    return file


def _share(answer: GivenAnswer, probabilities: np.ndarray, label: int) -> str:
    return f"**{plain(answer.class_names[label])}** ({100 * float(probabilities[label]):.1f} %)"


def _truth(looked: Looked) -> str:
    """Return a line on what an example is in truth, and who is right."""
    if looked.example is None:
        return ""
    label, group = looked.example.label, looked.example.group
    text = f"In truth: {plain(label)}" + (f" ({plain(group)})" if group else "")
    if not all(label in answer.class_names for answer in looked.answers):
        return f"{text}, which not both were trained on.\n"
    right = [plain(answer.run) for answer in looked.answers if answer.top == label]
    who = {0: "Both are wrong", 1: f"Only {''.join(right)} is right", 2: "Both are right"}[len(right)]
    return f"{text}. {who}.\n"
