"""Diagnoses without some of their results, and the reason why."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path


def leave_out(folder: Path, analyses: Collection[str], reason: str) -> None:
    """Have a diagnosis say that analyses were not made, and why."""
    path = folder / "diagnosis.json"
    values = json.loads(path.read_text())
    for entry in values["entries"]:
        if entry["analysis"] in analyses:
            entry |= {"file": None, "reason": reason}
    path.write_text(json.dumps(values))
