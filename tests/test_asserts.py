"""Asserts are for the type checker alone, and SECURITY.md names where they are: input is checked by errors of ours."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_with_asserts_is_named_in_the_answer_to_bandit() -> None:
    files = [*(ROOT / "concept_tuning").rglob("*.py"), *(ROOT / "app").rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if re.search(r"^\s*assert ", file.read_text(), re.MULTILINE)}
    (row,) = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| B101")]
    named = {f"concept_tuning/{name}" for name in re.findall(r"`([a-z_]+/[a-z_]+\.py)`", row)}
    assert found - named == {name for name in found if name.startswith("app/views/")}  # "pages"
    assert named <= found
