"""What the fine-tuning methods are called on the pages."""

from __future__ import annotations

METHOD_LABELS = {
    "scratch": "From scratch",
    "linear-probe": "Linear probe",
    "vanilla": "Vanilla fine-tuning",
    "concept-tuning": "Concept-Tuning",
    "lp-ft": "LP-FT",
    "l2-sp": "L2-SP",
    "delta": "DELTA",
    "bss": "Batch spectral shrinkage",
    "stoch-norm": "Stochastic normalisation",
    "co-tuning": "Co-Tuning",
    "bi-tuning": "Bi-Tuning",
    "lwf": "Learning without forgetting",
    "core-tuning": "Core-tuning",
    "group-dro": "Group DRO",
    "dfr": "Deep feature reweighting",
}


def method_label(method: str) -> str:
    """Return a method's name for people; an unknown one as it is."""
    return METHOD_LABELS.get(method, method)
