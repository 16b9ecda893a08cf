"""What the documents say: numbers of the bench are those of its record, and every file, test and link is there."""

from __future__ import annotations

import re
from pathlib import Path

import bench_record
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/RESULTS.md",
)
#: Sections with rows of the record, with the data that they are of.
SECTIONS = [
    ("README.md", "### On planted birds", "planted"),
    ("benchmarks/RESULTS.md", "## All methods on planted birds", "planted"),
    ("benchmarks/RESULTS.md", "| `planted-rare` | accuracy", "planted-rare"),
]
#: What a document calls a method by other words than its name in the record.
CALLED = {"front-door head alone": "ct-no-contrast"}


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of the lines of a text that are rows of tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def rows_of(document: str, begin: str) -> list[list[str]]:
    """Return the cells of the rows from a line on to the next section or example of commands."""
    text = (ROOT / document).read_text(encoding="utf-8")
    part = text[text.index(begin) + len(begin) :]
    part = part[: min(place for mark in ("\n## ", "\n### ", "\n```") if (place := part.find(mark)) >= 0)]
    return [row for row in cells_of(part) if re.match(r"`|front-door", row[0])]


@pytest.mark.parametrize(("document", "begin", "data"), SECTIONS)
def test_rows_of_the_bench_are_those_of_its_record(document: str, begin: str, data: str) -> None:
    table = bench_record.table(bench_record.read_record("offline"), data)
    recorded = {row[0].split("`")[1]: row[2:] for row in cells_of(table) if row[0].startswith("`")}
    rows = rows_of(document, begin)
    assert len(rows) >= 7
    for first, *cells in rows:
        name = first.split("`")[1] if first.startswith("`") else CALLED[first]
        assert cells == recorded[name], first


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_and_specs_of_commands_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])((?:benchmarks|assets|app|tools)/[\w/.-]+\.(?:py|yaml))\b", text))
    assert not [name for name in named if not (ROOT / name).is_file()]
