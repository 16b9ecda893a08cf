"""Settings of the rival fine-tuning methods, one section each.

Defaults are the papers' or their code's where these have one that fits; a section says where its default is another.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LpFtConfig:
    """LP-FT (arXiv 2202.10054): a linear probe first, then everything.

    The paper tunes two runs; one run cut in half is a choice made here.
    """

    probe_share: Annotated[
        float, Field(gt=0, lt=1, description="Share of the steps in which the classifier alone is trained.")
    ] = 0.5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class L2SpConfig:
    """L2-SP (arXiv 1802.01483): stay near the starting point."""

    backbone_decay: Annotated[
        float, Field(ge=0, description="Weight alpha of half the squared distance of the backbone from its start.")
    ] = 0.1
    head_decay: Annotated[float, Field(ge=0, description="Weight beta of half the squared norm of the new layers.")] = (
        0.01
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DeltaConfig:
    """DELTA (arXiv 1901.09229): keep the feature map, most of all the channels that matter.

    The code of the authors and of the Transfer-Learning-Library takes 0.01 for a sum over the batch, and the library a
    batch of 48; the default weight is their product, for here it is a mean. See the method's module.
    """

    weight: Annotated[
        float,
        Field(ge=0, description="Weight alpha of the feature map's distance from its start, a mean over the batch."),
    ] = 0.48
    head_decay: Annotated[float, Field(ge=0, description="Weight beta of half the squared norm of the new layers.")] = (
        0.01
    )
    attention: Annotated[
        bool, Field(description="Weigh channels by how much the loss rises without them; off: all alike.")
    ] = True


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BssConfig:
    """Batch spectral shrinkage (Chen et al., NeurIPS 2019)."""

    weight: Annotated[
        float, Field(ge=0, description="Weight eta of the smallest squared singular values of a batch's features.")
    ] = 1e-3
    singular_values: Annotated[int, Field(ge=1, description="How many of the smallest are penalised.")] = 1


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StochNormConfig:
    """Stochastic normalisation (Kou et al., NeurIPS 2020)."""

    probability: Annotated[
        float, Field(ge=0, le=1, description="Probability that a channel is normalised by its moving statistics.")
    ] = 0.5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CoTuningConfig:
    """Co-Tuning (You et al., NeurIPS 2020): the pre-trained classifier learns along."""

    weight: Annotated[float, Field(ge=0, description="Weight lambda of the source classes' cross-entropy.")] = 2.3


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BiTuningConfig:
    """Bi-Tuning (arXiv 2011.06182): two contrasts over queues of each class."""

    classifier_weight: Annotated[
        float, Field(ge=0, description="Weight of the contrast of the classifier's logits over stored features.")
    ] = 1.0
    projector_weight: Annotated[
        float, Field(ge=0, description="Weight of the contrast of projected features over stored ones.")
    ] = 1.0
    projection_dim: Annotated[int, Field(ge=1, le=65536, description="Width of the projection.")] = 128
    queue_size: Annotated[int, Field(ge=1, le=4096, description="Keys kept for each class.")] = 40
    temperature: Annotated[float, Field(gt=0, le=10, description="Temperature of both contrasts.")] = 0.07
    encoder_momentum: Annotated[
        float, Field(ge=0, le=1, description="Share of its old parameters the key encoder keeps at each step.")
    ] = 0.999


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LwfConfig:
    """Learning without forgetting (arXiv 1606.09282)."""

    weight: Annotated[float, Field(ge=0, description="Weight of the distillation from the network's start.")] = 1.0
    temperature: Annotated[float, Field(gt=0, le=100, description="Temperature of the distillation.")] = 2.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CoreTuningConfig:
    """Core-tuning (arXiv 2102.06605): contrast with mixed hard pairs, and a smooth classifier."""

    weight: Annotated[float, Field(ge=0, description="Weight eta of the focal contrast.")] = 1.0
    mixup: Annotated[float, Field(gt=0, description="Parameter alpha of the Beta distribution of mixing shares.")] = 1.0
    focal: Annotated[float, Field(ge=0, le=100, description="Exponent gamma of the focal weight.")] = 1.0
    projection_dim: Annotated[int, Field(ge=1, le=65536, description="Width of the projection.")] = 256
    temperature: Annotated[float, Field(gt=0, le=10, description="Temperature of the contrast.")] = 0.07


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GroupDroConfig:
    """Group DRO (arXiv 1911.08731): train for the worst group."""

    step_size: Annotated[float, Field(gt=0, le=100, description="Step size of the groups' weights.")] = 0.01
    adjustment: Annotated[
        float, Field(ge=0, description="Generalisation adjustment C: adds C over the root of the group's size.")
    ] = 0.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DfrConfig:
    """Deep feature reweighting (arXiv 2204.02937): the last layer anew, on groups of equal size."""

    subsets: Annotated[int, Field(ge=1, le=1000, description="Balanced samples whose classifiers are averaged.")] = 10
    data: Annotated[
        Literal["validation", "training"],
        Field(description="Which split is sampled: one the network was not fitted to, or its own."),
    ] = "validation"
