"""SECURITY.md keeps its word: every test that it names exists, and every attack in this folder is in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
#: Tests of documents and lists, which are no attacks.
OTHER = ("test_security_document.py", "test_lock_file.py", "test_licences.py")


def functions(file: Path) -> set[str]:
    """Return the names of the tests of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in functions(ROOT / file)


def test_every_threat_has_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "tests/" in line]
    threats = TEXT.partition("## Threats")[2].partition("## What is not held")[0]
    tables = [line for line in threats.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(tables) > 30
    assert [line for line in tables if line not in rows] == []


def test_every_attack_of_this_folder_is_in_the_document() -> None:
    named = {name for _, name in NAMED}
    files = [file for file in Path(__file__).parent.glob("test_*.py") if file.name not in OTHER]
    small = {  # what the attacks of the same file rest on
        "test_every_refusal_is_written_for_the_user",
        "test_uploads_of_a_trusting_group_are_offered_to_all_unless_they_are_private",
    }
    lacking = {name for file in files for name in functions(file)} - named - small
    assert lacking == set()


def test_every_rule_of_bandit_that_is_switched_off_is_answered() -> None:
    off = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["bandit"]["skips"])
    for folder in ("concept_tuning", "app"):
        for file in (ROOT / folder).rglob("*.py"):
            off |= set(re.findall(r"# nosec (B\d+)", file.read_text(encoding="utf-8")))
            assert not re.search(r"# nosec(?! B\d)", file.read_text(encoding="utf-8")), file
    answered = set(re.findall(r"\bB\d{3}\b", TEXT.partition("`bandit` finds nothing")[2]))
    assert off == answered


def test_bandit_finds_nothing_that_is_not_answered() -> None:
    command = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", "concept_tuning", "app"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
