"""The methods by name, and how one is built for a run."""

from __future__ import annotations

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.methods.base import Method
from concept_tuning.methods.bi_tuning import BiTuning
from concept_tuning.methods.bss import Bss
from concept_tuning.methods.co_tuning import CoTuning
from concept_tuning.methods.concept_tuning import ConceptTuning
from concept_tuning.methods.core_tuning import CoreTuning
from concept_tuning.methods.delta import Delta
from concept_tuning.methods.dfr import Dfr
from concept_tuning.methods.group_dro import GroupDro
from concept_tuning.methods.l2_sp import L2Sp
from concept_tuning.methods.linear_probe import LinearProbe
from concept_tuning.methods.lp_ft import LpFt
from concept_tuning.methods.lwf import Lwf
from concept_tuning.methods.scratch import Scratch
from concept_tuning.methods.stoch_norm import StochNorm
from concept_tuning.methods.vanilla import Vanilla
from concept_tuning.models.backbone import Backbone

_ALL: tuple[type[Method], ...] = (
    *(Scratch, LinearProbe, Vanilla, ConceptTuning),
    *(LpFt, L2Sp, Delta, Bss, StochNorm, CoTuning, BiTuning, Lwf, CoreTuning),
    *(GroupDro, Dfr),
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}

if tuple(METHODS) != METHOD_NAMES:
    raise RuntimeError("config.METHOD_NAMES and methods.registry.METHODS must list the same methods")


def build_method(config: RunConfig, backbone: Backbone, num_classes: int) -> Method:
    """Return the run's method around a backbone, its heads drawn from torch's current random state."""
    return METHODS[config.method](config, backbone, num_classes)
