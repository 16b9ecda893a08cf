"""The predictions of a diagnosis as a CSV file, one row a picture, that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import re

from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.report.blocks import Source

#: What a formula begins with, full-width forms included (OWASP, CSV injection).
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
#: Invisible signs that a spreadsheet passes over before it looks for one.
_BLANK = " \t\r\n\0\ufeff\u00a0\u200b"
#: A formula within a text, where a spreadsheet that separates cells by semicolon or tab begins a cell, or a row.
_INNER = re.compile(rf"([;\t\r\n][{_BLANK}\"]*)(?=[{re.escape(_FORMULA)}])")


def predictions_csv(source: Source) -> str:
    """Return a row for each picture: its name, class and group, and of each run the answer and two probabilities.

    The probabilities, 0..1, are those of the run's answer and of the true class. A text that a spreadsheet might take
    for a formula gets an apostrophe (:func:`safe_cell`), and every cell is in quotes. Without predictions there is the
    heading alone.
    """
    found: dict[str, Predictions] = source.each("predictions")
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    first = next(iter(found.values()), None)
    grouped = first is not None and first.groups is not None
    columns = ("predicts", "is right", "probability of its answer", "probability of the class")
    heading = ["picture", "class", *(["group"] if grouped else [])]
    table.writerow([safe_cell(text) for text in [*heading, *(f"{run} {what}" for run in found for what in columns)]])
    for place, key in enumerate(first.keys if first is not None else ()):
        table.writerow(_row(found, place, key, grouped=grouped))
    return out.getvalue()


def safe_cell(text: str) -> str:
    """Return a text with an apostrophe before whatever in it might be taken for a formula, else as it is.

    That is at its beginning, and after a semicolon, tab or line break in it, where a spreadsheet that separates by
    those begins another cell (OWASP, CSV injection); Excel does so by semicolons in many languages.
    """
    inner = text.lstrip(_BLANK)
    begins = text[:1] in ("\t", "\r", "\n", "\0") or inner[:1] in tuple(_FORMULA)
    return ("'" if begins else "") + _INNER.sub(r"\1'", text)


def _row(found: dict[str, Predictions], place: int, key: str, *, grouped: bool) -> list[str]:
    first = next(iter(found.values()))
    row = [safe_cell(key), safe_cell(first.class_names[int(first.labels[place])])]
    if grouped and first.groups is not None:
        row.append(safe_cell(first.group_names[int(first.groups[place])]))
    for one in found.values():
        said, label = int(one.predicted[place]), int(one.labels[place])
        row += [
            safe_cell(one.class_names[said]),
            "yes" if said == label else "no",
            *(f"{float(one.probabilities[place, which]):.6f}" for which in (said, label)),
        ]
    return row
