"""The concepts of one view as rows, for tables and as a CSV file that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io

import numpy as np

from concept_tuning.diagnostics.rare_choice import RareChoice
from concept_tuning.diagnostics.rare_results import RareFeatures
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.figures.labels import listed
from concept_tuning.figures.rare_features import classes_with
from concept_tuning.report.predictions_csv import safe_cell

Row = dict[str, str | float | None]


def concept_rows(result: RareFeatures, choice: RareChoice | None = None) -> list[Row]:
    """Return a row for each concept, those furthest beyond their band first, rare ones before all others.

    Shares and frequencies are 0..1, information is in nats; a value that cannot be had is None.

    Args:
        result: The concepts.
        choice: Which are rare; None where that cannot be said.
    """
    presence = result.presence
    rare = np.zeros(len(result.concepts), bool) if choice is None else choice.rare
    order = np.lexsort((-(presence.information - presence.band), ~np.asarray(rare, bool)))
    return [_row(result, choice, int(place)) for place in order]


def concepts_csv(result: RareFeatures, choice: RareChoice | None = None) -> str:
    """Return :func:`concept_rows` with a heading; texts that look like formulas get an apostrophe in front."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    rows = concept_rows(result, choice)
    table.writerow([safe_cell(name) for name in (rows[0] if rows else ())])
    for row in rows:
        table.writerow([_cell(value) for value in row.values()])
    return out.getvalue()


def _row(result: RareFeatures, choice: RareChoice | None, place: int) -> Row:
    presence, marked = result.presence, int(result.marked_class[place])
    source = None if isinstance(result.source, Unavailable) else float(result.source.frequency[place])
    row: Row = {
        "concept": result.concepts[place],
        "kind": _kind(choice, place),
        "marks": listed(classes_with(result, place)),
        "in its pictures": _known(result.class_frequency[marked, place]),
        "seen in pre-training": source,
        "seen here": _known(result.target_frequency[place]),
        "information (nats)": _known(presence.information[place]),
        "band (nats)": _known(presence.band[place]),
        "p": _known(presence.p_value[place]),
        "p over all concepts": _known(presence.familywise[place]),
        "nearest-neighbour information (nats)": _known(result.knn[place]),
    }
    row |= {f"AUC {network.name}": _known(network.auc[place]) for network in result.networks}
    return row | {"channels": " ".join(str(channel) for channel in result.members[place])}


def _kind(choice: RareChoice | None, place: int) -> str:
    if choice is None:
        return "unknown"
    if choice.rare[place]:
        return "rare"
    return "seldom seen, not useful" if choice.low[place] else "other"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return safe_cell(value) if isinstance(value, str) else f"{value:.6g}"
