"""THIRD_PARTY_LICENSES.md lists every locked package, in the locked version, with the licence that it tells."""

from __future__ import annotations

from email.message import Message
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import licences
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "THIRD_PARTY_LICENSES.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]


def versions(heading: str) -> dict[str, str]:
    """Return the versions of the packages that a section lists."""
    lines = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| ") and not line.startswith("| package ")]
    return {name.removeprefix("| "): number for name, number, *_ in cells}


def test_every_locked_package_is_listed_in_its_version_and_those_that_are_named_apart() -> None:
    named = versions("Packages that `pyproject.toml` names")
    others = versions("Packages that those need in turn")
    assert set(named) == {licences.canonicalize_name(need.name) for need in licences.direct()}
    assert not set(named) & set(others)
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.partition(" ;")[0].split("==") for line in lines if line[0] != "#")
    assert named | others == locked


def test_every_line_is_what_the_installed_package_tells() -> None:
    checked = 0
    for row in ROWS:
        try:
            same = len(row) == 4 and version(row[0]).partition("+")[0] == row[1]
        except PackageNotFoundError:
            continue
        if same:  # another version may tell something else
            assert f"| {' | '.join(row)} |\n" == licences.row(row[0])
            checked += 1
    assert checked > 100


def test_what_is_nvidias_is_not_called_free() -> None:
    rows = [row for row in ROWS if row[0].startswith("nvidia-")]
    assert len(rows) > 10
    assert [row for row in rows if "roprietary" not in row[2]] == []


def test_weights_and_data_are_listed() -> None:
    for what, licence in (("EfficientNet-Lite0", "Apache-2.0"), ("elpv", "CC BY-NC-SA 4.0"), ("Fashion-MNIST", "MIT")):
        assert [row for row in ROWS if what in row[0] and licence in row[1]], what


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "x")], "BSD License"),
        ([("Classifier", "License :: OSI Approved"), ("License", "BSD-3")], "BSD-3"),
        (
            [("Classifier", "License :: Other/Proprietary License"), ("License", "LicenseRef-Own")],
            "LicenseRef-Own (Other/Proprietary License)",
        ),
        ([("Classifier", "License :: Other/Proprietary License")], "Other/Proprietary License"),
        ([("License", "UNKNOWN")], "not told in its metadata"),
        ([("License", "a whole licence text " * 50)], "not told in its metadata"),
        ([], "not told in its metadata"),
    ],
)
def test_a_licence_is_what_the_package_tells(fields: list[tuple[str, str]], licence: str) -> None:
    about = Message()
    for name, value in fields:
        about[name] = value
    assert licences.licence(about) == licence
