"""The lines of a CSV file of a stranger, read one at a time, with bounds on the file and on each line."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from concept_tuning.data.printable import printable
from concept_tuning.errors import DataError

COLUMNS = {
    "path": ("path", "image", "file", "filename", "filepath", "imagepath"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "group": ("group",),
    "mask": ("mask", "maskpath"),
    "unit": ("unit", "unitid", "subject", "subjectid", "patient", "patientid"),
}
#: Most bytes of a list, and most characters of one of its records.
MOST_BYTES, MOST_CHARACTERS = 1 << 28, 1 << 20
_HEAD_BYTES = 1 << 16
_CHUNK = 1 << 18
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What the first line of a list says.

    Attributes:
        columns: Place of each known column, from 0.
        delimiter: What separates cells.
        width: Number of columns.
        encoding: Of the text.
    """

    columns: dict[str, int]
    delimiter: str
    width: int
    encoding: str


def read_heading(path: Path) -> Heading:
    """Read the names of the columns, and no more of the file than its first 64 KiB.

    Raises:
        DataError: The file cannot be read, is empty, or names no columns of paths and labels there.
    """
    name = printable(str(path))
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            whole = not stream.read(1)
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head, final=whole)
    lines = re.split(r"[\r\n]+", text)
    first = next((line for line in (lines if whole else lines[:-1]) if line.strip(" ,;\t")), None)
    if first is None:
        fault = "is empty" if whole else f"has no whole line that is filled within {_HEAD_BYTES} bytes"
        raise DataError(f"{name} {fault}; its first line must name the columns path and label.")
    columns, delimiter, width = _columns(name, first.removeprefix("\ufeff"))
    return Heading(columns=columns, delimiter=delimiter, width=width, encoding=encoding)


def filled_lines(path: Path, heading: Heading) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line that each record starts on, from 1, and its cells; empty lines are passed over.

    The first is the heading. No more than a record is held.

    Raises:
        DataError: The file is larger than :data:`MOST_BYTES` or cannot be read; or, with its line, a record is longer
            than :data:`MOST_CHARACTERS`, no CSV, or no text of the encoding.
    """
    name, line = printable(str(path)), 1
    try:
        with path.open(encoding=heading.encoding, newline="") as stream:
            if os.fstat(stream.fileno()).st_size > MOST_BYTES:
                raise DataError(f"{name} is larger than {MOST_BYTES >> 20} MiB, more than a list of pictures may be.")
            bounded = _Bounded(stream)
            reader = csv.reader(bounded, delimiter=heading.delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                if any(stripped := [cell.strip() for cell in cells]):
                    yield line, stripped
                line, bounded.taken = reader.line_num + 1, 0
    except csv.Error as error:
        raise DataError(f"{name}, line {line}: it cannot be read as CSV ({error}); look for a stray quote.") from error
    except UnicodeDecodeError as error:
        line, kind = _bad_line(path, heading.encoding), heading.encoding.removesuffix("-sig").upper()
        raise DataError(f"{name}, line {line}: not {kind} text; save the file as CSV in UTF-8.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error


def _columns(name: str, first: str) -> tuple[dict[str, int], str, int]:
    """Return the place of each known column, the separator, and the number of columns."""
    for delimiter in _DELIMITERS:
        header = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))
        plain = [re.sub(r"[\s_-]", "", cell).lower() for cell in header]
        places = {column: [n for n, cell in enumerate(plain) if cell in known] for column, known in COLUMNS.items()}
        if places["path"] and places["label"]:
            for column, where in places.items():
                if len(where) > 1:
                    several = " and ".join(repr(header[n].strip()) for n in where)
                    raise DataError(f"{name}, line 1: {several} both name the {column}; rename or remove one of them.")
            return {column: where[0] for column, where in places.items() if where}, delimiter, len(header)
    raise DataError(
        f"{name}, line 1: it must name the columns path and label (and perhaps split, group, mask, unit), separated by "
        f"comma, semicolon or tab; found {first[:80]!r}."
    )


class _Bounded:
    """Lines of a text for a reader of CSV, whose records may take only so many characters.

    Attributes:
        taken: Characters since the last record; whoever takes the records sets it back to 0.
    """

    def __init__(self, stream: TextIO) -> None:
        self.taken = 0
        self._stream = stream

    def __iter__(self) -> _Bounded:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MOST_CHARACTERS + 1)
        self.taken += len(line)
        if self.taken > MOST_CHARACTERS:
            raise csv.Error(f"longer than {MOST_CHARACTERS} characters")
        if not line:
            raise StopIteration
        return line


def _bad_line(path: Path, encoding: str) -> int:
    """Return the number of the first line, from 1, that is not text of an encoding; the last one if all others are."""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with path.open("rb") as stream:
        for chunk in iter(partial(stream.read, _CHUNK), b""):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return line + error.object.count(b"\n", 0, error.start)
            line += chunk.count(b"\n")
    return line
