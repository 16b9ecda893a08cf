"""The methods by name, and how one is built for a run."""

from __future__ import annotations

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.methods.base import Method
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.methods.linear_probe import LinearProbe
from concept_tuning.methods.scratch import Scratch
from concept_tuning.methods.vanilla import Vanilla
from concept_tuning.models.backbone import Backbone

METHODS: dict[str, type[Method]] = {method.name: method for method in (Scratch, LinearProbe, Vanilla, ConceptTuning)}

if tuple(METHODS) != METHOD_NAMES:
    raise RuntimeError("config.METHOD_NAMES and methods.registry.METHODS must list the same methods")


def build_method(config: RunConfig, backbone: Backbone, num_classes: int) -> Method:
    """Return the run's method around a backbone, its heads drawn from torch's current random state."""
    return METHODS[config.method](config, backbone, num_classes)
