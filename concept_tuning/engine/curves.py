"""The curves of a run, read line by line from a file that may be a stranger's."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_tuning.engine.runs import read_whole
from concept_tuning.errors import RunError

#: Larger integers are no counts, and neither floats nor figures hold them.
LARGEST_INTEGER = 1 << 53
#: Most columns of a table, values of it with the missing ones, bytes of a line and characters of a name.
_COLUMNS, _VALUES, _LINE, _NAME = 200, 1 << 25, 1 << 16, 100


@dataclass(frozen=True)
class Metrics:
    """The curves of a run so far, column by column.

    Attributes:
        steps: ``step``, ``epoch``, ``loss`` and each loss term, one value an optimiser step.
        evaluations: ``step``, ``accuracy``, ``loss``, ``worst_group_accuracy`` and the others, one value an
            evaluation on validation; accuracies of single heads as ``heads.NAME``.

    The columns of one table are equally long; a row that lacks a value has None in its place. Values are numbers, and
    steps are finite.
    """

    steps: Mapping[str, Sequence[float | None]]
    evaluations: Mapping[str, Sequence[float | None]]


class _Curves:
    """Columns that grow row by row, within bounds: the lines may be a stranger's."""

    def __init__(self) -> None:
        self._columns: dict[str, list[float | None]] = {}
        self._rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of numbers; raises KeyError, TypeError, ValueError or OverflowError for anything else."""
        if not math.isfinite(row["step"]):
            raise ValueError("a step is a finite number")
        for name, value in row.items():
            if value is not None and not is_number(value):
                raise ValueError("a curve has values that are no numbers")
            if name not in self._columns:
                self._refuse_large(len(self._columns) + 1)
                if len(name.encode("utf-8")) > _NAME:  # which refuses halves of characters, too
                    raise ValueError("a curve has too long a name")
            column = self._columns.setdefault(name, [])
            column += [None] * (self._rows - len(column))
            column.append(value)
        self._refuse_large(len(self._columns))
        self._rows += 1

    def _refuse_large(self, columns: int) -> None:
        """Raise ValueError if a table of so many columns, with one more row, is more than any run writes."""
        if columns > _COLUMNS or columns * (self._rows + 1) > _VALUES:
            raise ValueError("there are too many curves")

    def columns(self) -> dict[str, list[float | None]]:
        """Return the columns, equally long."""
        return {name: column + [None] * (self._rows - len(column)) for name, column in self._columns.items()}


def read_curves(file: Path) -> Metrics:
    """Return the curves in a file of metrics; empty ones if there is none.

    A last line that is still being written is left out.

    Raises:
        RunError: if the file cannot be read, is no plain file or larger than that of a run, or another line than the
            last is damaged: no JSON, values that are no numbers, or more of them than a run writes.
    """
    try:
        content = read_whole(file)
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}.") from error
    curves = {"step": _Curves(), "evaluation": _Curves()}
    for number, line in enumerate(io.BytesIO(content), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            if len(line) > _LINE:
                raise ValueError("a line is too long")
            row = json.loads(line.decode("utf-8", errors="replace"))
            row.pop("split", None)  # the one text, the same in every evaluation
            curves[row.pop("kind")].add(_flat(row))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise RunError(f"Line {number} of {file} is damaged; the curves cannot be drawn.") from error
    return Metrics(curves["step"].columns(), curves["evaluation"].columns())


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number, finite or not, that can be reckoned with and drawn."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    return isinstance(value, float)


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
