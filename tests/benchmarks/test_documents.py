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
#: Sections with rows of a record, with its name, the data that they are of, and how many rows there are at least.
SECTIONS = [
    ("README.md", "### On planted birds", "offline", "planted", 7),
    ("benchmarks/RESULTS.md", "## All methods on planted birds", "offline", "planted", 7),
    ("benchmarks/RESULTS.md", "### DELTA, run anew", "delta", "planted", 2),
    ("benchmarks/RESULTS.md", "| `planted-rare` | accuracy", "offline", "planted-rare", 7),
]
#: What a document calls a method by other words than its name in the record.
CALLED = {"front-door head alone": "ct-no-contrast"}


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of the lines of a text that are rows of tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def rows_of(document: str, begin: str, first: str = "`|front-door") -> list[list[str]]:
    """Return the cells of the rows from a line on to the next section or example of commands."""
    text = (ROOT / document).read_text(encoding="utf-8")
    part = text[text.index(begin) + len(begin) :]
    part = part[: min(place for mark in ("\n## ", "\n### ", "\n```") if (place := part.find(mark)) >= 0)]
    return [row for row in cells_of(part) if re.match(first, row[0])]


@pytest.mark.parametrize(("document", "begin", "name", "data", "least"), SECTIONS)
def test_rows_of_the_bench_are_those_of_its_record(document: str, begin: str, name: str, data: str, least: int) -> None:
    table = bench_record.table(bench_record.read_record(name), data)
    recorded = {row[0].split("`")[1]: row[2:] for row in cells_of(table) if row[0].startswith("`")}
    rows = rows_of(document, begin)
    assert len(rows) >= least
    for first, *cells in rows:
        method = first.split("`")[1] if first.startswith("`") else CALLED[first]
        assert cells == recorded[method], first


def test_the_shortcut_maps_differences_are_those_of_the_record() -> None:
    record = bench_record.read_record("offline")
    rows = rows_of("benchmarks/RESULTS.md", "Accuracy against `vanilla`:\n", r"0\.\d\d, \d+")
    assert len(rows) == 6
    for place, *cells in rows:
        rho, count = place.removeprefix("0.").split(", ")
        table = cells_of(bench_record.table(record, f"map-{rho}-{count}"))
        recorded = {row[0].split("`")[1]: row[4] for row in table if row[0].startswith("`")}
        assert cells == [recorded[name] for name in ("ct-cheap", "ct-no-contrast", "group-dro")], place


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
