"""THIRD_PARTY_LICENSES.md lists every package that pyproject.toml names, in the locked version, with a licence."""

from __future__ import annotations

import importlib.util
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "THIRD_PARTY_LICENSES.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """Return the script that makes the listing."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return module


def test_every_package_that_is_named_is_listed_in_its_locked_version(tools: ModuleType) -> None:
    listed = {row[0]: row[1] for row in ROWS if len(row) == 4}
    names = {tools.canonicalize_name(need.name) for need in tools.direct()}
    assert names <= set(listed)
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    versions = dict(line.partition(" ;")[0].split("==") for line in locked if "==" in line and line[0] != "#")
    assert {name: listed[name] for name in names} == {name: versions[name] for name in names}


def test_weights_and_data_are_listed() -> None:
    for what, licence in (("EfficientNet-Lite0", "Apache-2.0"), ("elpv", "CC BY-NC-SA 4.0"), ("Fashion-MNIST", "MIT")):
        assert [row for row in ROWS if what in row[0] and licence in row[1]], what


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "x")], "BSD License"),
        ([("Classifier", "License :: OSI Approved"), ("License", "BSD-3")], "BSD-3"),
        ([("License", "UNKNOWN")], "not told in its metadata"),
        ([("License", "a whole licence text " * 50)], "not told in its metadata"),
        ([], "not told in its metadata"),
    ],
)
def test_a_licence_is_what_the_package_tells(tools: ModuleType, fields: list[tuple[str, str]], licence: str) -> None:
    about = Message()
    for name, value in fields:
        about[name] = value
    assert tools.licence(about) == licence
