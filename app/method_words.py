"""What the fine-tuning methods are called on the pages."""

from __future__ import annotations

METHOD_LABELS = {
    "scratch": "From scratch",
    "linear-probe": "Linear probe",
    "vanilla": "Vanilla fine-tuning",
    "concept-tuning": "Concept-Tuning",
}


def method_label(method: str) -> str:
    """Return a method's name for people; an unknown one as it is."""
    return METHOD_LABELS.get(method, method)
