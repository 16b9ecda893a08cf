"""Every setting of a run, validated, in one place.

A run is described by one frozen :class:`RunConfig`. Its sections are pydantic dataclasses, so that
ranges are checked where a value enters, and the field descriptions are the help texts that the
command line and the interface show. :mod:`concept_tuning.settings` builds one from presets and
``key=value`` overrides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from concept_tuning.config_methods import (
    BiTuningConfig,
    BssConfig,
    CoreTuningConfig,
    CoTuningConfig,
    DeltaConfig,
    DfrConfig,
    GroupDroConfig,
    L2SpConfig,
    LpFtConfig,
    LwfConfig,
    StochNormConfig,
)
from concept_tuning.errors import ConfigError

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

MethodName = Literal[
    "scratch",
    "linear-probe",
    "vanilla",
    "concept-tuning",
    "lp-ft",
    "l2-sp",
    "delta",
    "bss",
    "stoch-norm",
    "co-tuning",
    "bi-tuning",
    "lwf",
    "core-tuning",
    "group-dro",
    "dfr",
]
PresetName = Literal["smoke", "quick", "small", "paper"]
UnitRule = Literal["listed", "folder", "prefix", "none"]

#: Most that a message shows of a value or a name, in characters, and most lines of it.
_MOST_SHOWN, _MOST_ERRORS = 200, 20

METHOD_NAMES: tuple[str, ...] = get_args(MethodName)
PRESET_NAMES: tuple[str, ...] = get_args(PresetName)

#: By these endings a source is taken for an archive.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


#: Known data sets by name; :mod:`concept_tuning.data.known.catalogue` says what each is.
KNOWN_DATA = (
    "cub200",
    "stanford-cars",
    "aircraft",
    "cifar10",
    "cifar100",
    "caltech101",
    "dtd",
    "flowers102",
    "oxford-pets",
    "food101",
    "eurosat",
    "fashion-mnist",
    "isic",
    "waterbirds",
    "imagenet-folder",
)
#: With this before it, a source is a data set of the Hugging Face Hub.
HUB_PREFIX = "hf:"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Which pictures, and how they are split, cached and augmented."""

    source: Annotated[
        str,
        Field(
            min_length=1,
            description="`planted`, `elpv`, a known data set (`concept-tuning datasets` lists them), "
            "`hf:owner/name` of the Hugging Face Hub, or the path of a folder, a zip or tar archive, or a CSV file.",
        ),
    ] = "planted"
    root: Annotated[
        str | None,
        Field(
            description="Folder of a known data set's files; none: `datasets` in the user's cache folder, and for the "
            "Hub its own cache."
        ),
    ] = None
    download: Annotated[bool, Field(description="Download a known data set's files where they are not there.")] = False
    image_size: Annotated[int, Field(ge=16, le=2048, description="Side of the square network input, in pixels.")] = 128
    sample_rate: Annotated[
        float,
        Field(gt=0, le=100, description="Share of the training images of each class that is used, in percent."),
    ] = 100.0
    per_class: Annotated[
        int | None, Field(ge=1, description="At most this many training images of each class; none: all.")
    ] = None
    validation_fraction: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of the images for validation, where the data has no such split."),
    ] = 0.2
    test_fraction: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of the images for testing, where the data has no such split."),
    ] = 0.2
    units: Annotated[
        UnitRule,
        Field(
            description="Which pictures are of one unit (a plant, a patient, a place), which no split parts. `listed`: "
            "the column `unit` of a CSV file tells, else each picture is by itself; `folder`: those of one folder in "
            "their class folder; `prefix`: those whose names are alike up to the last `_`, `-` or blank, as of "
            "`plant7_2.jpg`; `none`: each picture is by itself, whatever a list says. What is called alike in two "
            "classes is one unit."
        ),
    ] = "listed"
    data_seed: Annotated[
        int,
        Field(ge=0, lt=2**32, description="Seed of the split, of the sample and of the planted pictures."),
    ] = 0
    strong_scale_min: Annotated[
        float, Field(gt=0, le=1, description="Smallest area share of a strong random crop (views 1 and 2).")
    ] = 0.2
    mild_scale_min: Annotated[
        float, Field(gt=0, le=1, description="Smallest area share of a mild random crop (views 3 and 4).")
    ] = 0.5
    horizontal_flip: Annotated[bool, Field(description="Mirror half of the training views.")] = True
    color_jitter: Annotated[
        float,
        Field(ge=0, le=1, description="Strength of brightness, contrast and saturation jitter; 0: none."),
    ] = 0.0
    max_pixels: Annotated[
        int, Field(ge=1, description="Images with more pixels are left out unread and listed as problems.")
    ] = 100_000_000
    max_archive_entries: Annotated[int, Field(ge=1, description="Most entries an archive may hold.")] = 200_000
    max_archive_bytes: Annotated[int, Field(ge=1, description="Most bytes an archive may unpack to.")] = 20_000_000_000
    max_archive_ratio: Annotated[
        float, Field(ge=1, description="Largest ratio of unpacked to packed bytes of an archive.")
    ] = 200.0
    cache_dir: Annotated[
        str | None,
        Field(description="Folder of the decoded-image cache; none: the user's cache folder."),
    ] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlantedConfig:
    """The planted birds: a drawn data set whose rare feature and shortcut are known."""

    species: Annotated[
        int,
        Field(ge=2, le=16, multiple_of=2, description="Number of bird species; they come in look-alike pairs."),
    ] = 4
    images: Annotated[int, Field(ge=8, le=1_000_000, description="Number of training images.")] = 600
    validation_images: Annotated[int, Field(ge=8, le=1_000_000, description="Number of validation images.")] = 200
    test_images: Annotated[
        int,
        Field(ge=8, le=1_000_000, description="Number of test images, balanced over species and habitats."),
    ] = 800
    rho: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Correlation of habitat with species in training: with this probability a bird is put "
            "in its species' own habitat, otherwise in any habitat alike.",
        ),
    ] = 0.93
    rarity: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of training images in which the discriminative part is visible; always so in the test.",
        ),
    ] = 1.0
    validation: Annotated[
        Literal["like-training", "balanced"],
        Field(
            description="How validation is drawn: `like-training` uses no knowledge of the shortcut; "
            "`balanced` over habitats does."
        ),
    ] = "like-training"
    draw_size: Annotated[int, Field(ge=48, le=1024, description="Side of the drawn pictures, in pixels.")] = 160


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ElpvConfig:
    """The solar cells of the ELPV data set."""

    task: Annotated[
        Literal["defective", "four-class"],
        Field(description="`defective`: defect probability over 0.5 or not; `four-class`: the four probabilities."),
    ] = "defective"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BackboneConfig:
    """The network that is fine-tuned."""

    architecture: Annotated[
        str, Field(min_length=1, description="Any timm model name that gives a spatial feature map.")
    ] = "tf_efficientnet_lite0"
    weights: Annotated[
        str,
        Field(
            min_length=1,
            description="`auto` (packaged where there are some, else timm's), `packaged`, `timm`, `random`, "
            "or the path of a .safetensors or .pth file.",
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ConceptTuningConfig:
    """Concept-Tuning (arXiv 2311.06868): every part can be switched off alone."""

    image_weight: Annotated[float, Field(ge=0, description="Weight of the image-level contrast; 0 leaves it out.")] = (
        0.1
    )
    concept_weight: Annotated[
        float, Field(ge=0, description="Weight of the concept-level contrast; 0 leaves it out.")
    ] = 0.1
    front_door: Annotated[
        bool, Field(description="Use the front-door head, a second classifier on the attended features.")
    ] = True
    position_attention: Annotated[bool, Field(description="Attention over patches in the front-door head.")] = True
    channel_attention: Annotated[bool, Field(description="Attention over channels in the front-door head.")] = True
    bottleneck: Annotated[
        bool, Field(description="Stochastic latent bottleneck in the front-door head; off: its mean alone.")
    ] = True
    aggregate: Annotated[
        Literal["sum", "concat"],
        Field(description="How the two attentions are joined (authors' code, paper)."),
    ] = "sum"
    latent_dim: Annotated[
        int | None,
        Field(ge=1, le=65536, description="Width of the latent bottleneck; none: 256, or the features' width if less."),
    ] = None
    beta: Annotated[float, Field(ge=0, description="Weight of the bottleneck's KL divergence.")] = 5e-3
    kl_deviation: Annotated[
        Literal["sigma", "exp-sigma"],
        Field(description="Deviation in the KL term: the sampled one, or its exponential as in the authors' code."),
    ] = "sigma"
    patches: Annotated[
        Literal["encoder", "feature-map"],
        Field(
            description="How concept patches are embedded: cut from the picture and run through the encoder "
            "(faithful), or RoIAlign on the feature map the network already has."
        ),
    ] = "encoder"
    views: Annotated[
        Literal[2, 4],
        Field(
            description="Augmented views of an image: 4 (faithful), or 2, the strong ones also giving the patches; the "
            "trained network then finds its concepts itself, which saves the momentum copy's third pass."
        ),
    ] = 4
    queue_size: Annotated[int, Field(ge=1, le=4096, description="Keys kept for each class.")] = 40
    temperature: Annotated[float, Field(gt=0, le=10, description="Temperature of both contrasts.")] = 0.07
    encoder_momentum: Annotated[
        float,
        Field(ge=0, le=1, description="Share of its old parameters the key encoder keeps at each step."),
    ] = 0.999
    key_precision: Annotated[
        Literal["same", "bf16"],
        Field(
            description="Precision of the key encoder, which has no gradient: the run's, or bfloat16, which is faster "
            "where the processor has it."
        ),
    ] = "same"
    concepts: Annotated[int, Field(ge=1, le=64, description="Concepts (groups of channels) of an image.")] = 9
    concept_channels: Annotated[int, Field(ge=1, description="Channels of a concept.")] = 30
    concept_step: Annotated[
        int | None,
        Field(
            ge=1,
            description="Ranks between the starts of two concepts; none: 250 at 2048 channels, in proportion.",
        ),
    ] = None
    confusing_for_score: Annotated[
        int,
        Field(ge=1, description="Most confusing classes in the channel score (fewer where there are fewer)."),
    ] = 3
    confusing_for_negatives: Annotated[
        int, Field(ge=1, description="Most confusing classes whose concept sets are the negatives.")
    ] = 100
    patch_fraction: Annotated[
        float, Field(gt=0, le=1, description="Side of a concept patch as a share of the image's side.")
    ] = 64 / 224
    positive_pairs: Annotated[
        int, Field(ge=1, description="Heaviest pairs of the transport plan a positive pair is drawn from.")
    ] = 3
    negative_pairs: Annotated[
        int, Field(ge=1, description="Heaviest pairs of the transport plan used as negatives.")
    ] = 10
    transport_epsilon: Annotated[
        float, Field(gt=0, le=10, description="Entropic regularisation of the transport plan.")
    ] = 0.01
    transport_iterations: Annotated[int, Field(ge=1, le=100_000, description="Most Sinkhorn iterations.")] = 200
    transport_tolerance: Annotated[
        float, Field(ge=0, description="Sinkhorn stops below this mean absolute change of the first dual.")
    ] = 1e-3
    regulariser: Annotated[
        Literal["none", "l2-sp", "delta"],
        Field(description="Keep the backbone near its start besides, by the settings of that method's section."),
    ] = "none"
    prediction: Annotated[
        Literal["mean", "classifier", "front-door"],
        Field(description="The fixed prediction rule: mean of both classifiers' probabilities, or one of them."),
    ] = "mean"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OptimConfig:
    """Optimiser, learning rates, schedule and length of training."""

    optimizer: Annotated[Literal["sgd", "adamw"], Field(description="SGD with Nesterov momentum, or AdamW.")] = "sgd"
    lr: Annotated[float, Field(gt=0, le=100, description="Peak learning rate of the heads.")] = 0.01
    backbone_lr_scale: Annotated[
        float, Field(ge=0, le=100, description="The backbone's learning rate as a multiple of the heads'.")
    ] = 0.1
    sgd_momentum: Annotated[float, Field(ge=0, lt=1, description="Momentum of SGD.")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1, description="Weight decay.")] = 5e-4
    schedule: Annotated[
        Literal["cosine", "step", "constant"], Field(description="How the learning rate falls over training.")
    ] = "cosine"
    step_points: Annotated[
        tuple[float, ...],
        Field(description="Shares of training after which the `step` schedule decays, e.g. 0.5,0.75."),
    ] = (0.5, 0.75)
    step_factor: Annotated[float, Field(gt=0, le=1, description="Factor of each decay of the `step` schedule.")] = 0.1
    warmup_fraction: Annotated[
        float, Field(ge=0, lt=1, description="Share of training in which the rate rises linearly from zero.")
    ] = 0.0
    epochs: Annotated[int, Field(ge=1, le=100_000, description="Passes over the training images.")] = 10
    max_steps: Annotated[
        int | None, Field(ge=1, description="Stop after this many optimiser steps, even within an epoch.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=65_536, description="Images a step, over all processes.")] = 32
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="Label smoothing of the cross-entropies.")] = 0.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EngineConfig:
    """How the computer does the work; none of it changes what is learnt, but for precision."""

    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="Seed of initialisation, order, augmentation and noise.")
    ] = 0
    device: Annotated[Literal["auto", "cpu"], Field(description="`auto` takes an accelerator where there is one.")] = (
        "auto"
    )
    precision: Annotated[Literal["no", "bf16", "fp16"], Field(description="Mixed precision.")] = "no"
    channels_last: Annotated[bool, Field(description="Channels-last memory format, faster on most machines.")] = True
    workers: Annotated[int, Field(ge=0, le=256, description="Loader processes; 0 loads in the training process.")] = 0
    threads: Annotated[
        int | None,
        Field(ge=1, le=1024, description="Computing threads; none: as many as torch takes by itself."),
    ] = None
    eval_batch_size: Annotated[int, Field(ge=1, le=65_536, description="Images a batch in evaluation.")] = 64
    evaluate_every: Annotated[int, Field(ge=1, description="Epochs between two evaluations on validation.")] = 1
    select_by: Annotated[
        Literal["accuracy", "loss", "worst-group"],
        Field(
            description="Validation measure that chooses the best epoch; `worst-group` is the accuracy of the worst "
            "class within a group, for data with groups, and also chooses a bench's trial."
        ),
    ] = "accuracy"
    checkpoint_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="A checkpoint at least this often, besides one at each evaluation; 0: each step.",
        ),
    ] = 30.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """All settings of one run."""

    method: MethodName = "vanilla"
    data: DataConfig = Field(default_factory=DataConfig)
    planted: PlantedConfig = Field(default_factory=PlantedConfig)
    elpv: ElpvConfig = Field(default_factory=ElpvConfig)
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    concept_tuning: ConceptTuningConfig = Field(default_factory=ConceptTuningConfig)
    lp_ft: LpFtConfig = Field(default_factory=LpFtConfig)
    l2_sp: L2SpConfig = Field(default_factory=L2SpConfig)
    delta: DeltaConfig = Field(default_factory=DeltaConfig)
    bss: BssConfig = Field(default_factory=BssConfig)
    stoch_norm: StochNormConfig = Field(default_factory=StochNormConfig)
    co_tuning: CoTuningConfig = Field(default_factory=CoTuningConfig)
    bi_tuning: BiTuningConfig = Field(default_factory=BiTuningConfig)
    lwf: LwfConfig = Field(default_factory=LwfConfig)
    core_tuning: CoreTuningConfig = Field(default_factory=CoreTuningConfig)
    group_dro: GroupDroConfig = Field(default_factory=GroupDroConfig)
    dfr: DfrConfig = Field(default_factory=DfrConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        if self.data.validation_fraction + self.data.test_fraction >= 1:
            raise ConfigError(
                "data.validation_fraction and data.test_fraction add up to "
                f"{self.data.validation_fraction + self.data.test_fraction:g}, which leaves nothing to train on; "
                "make them smaller."
            )
        if any(not 0 < point < 1 for point in self.optim.step_points):
            raise ConfigError(f"optim.step_points must lie between 0 and 1, got {_cut(str(self.optim.step_points))}.")
        parts = self.concept_tuning
        if parts.front_door and not (parts.position_attention or parts.channel_attention):
            raise ConfigError(
                "concept_tuning.front_door needs position_attention or channel_attention; "
                "switch one on, or front_door off."
            )
        if parts.prediction == "front-door" and not parts.front_door:
            raise ConfigError("concept_tuning.prediction=front-door needs concept_tuning.front_door=true.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested plain values, ready for JSON."""
        return TypeAdapter(RunConfig).dump_python(self, mode="json")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RunConfig:
        """Rebuild a configuration from :meth:`to_dict`; raises :class:`ConfigError` on anything unknown."""
        return validate(values)


_ADAPTER: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Check nested plain values and return them as a :class:`RunConfig`; raises :class:`ConfigError`."""
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        found = error.errors()
        lines = [_explain(item) for item in found[:_MOST_ERRORS]]
        lines += [f"{len(found) - _MOST_ERRORS} more are not valid either."] if len(found) > _MOST_ERRORS else []
        raise ConfigError("\n".join(lines)) from error


def _explain(item: Any) -> str:
    key = _cut(".".join(str(part) for part in item["loc"])) or "configuration"
    if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"Unknown setting {key!r}."
    shown = _cut(json.dumps(item["input"], default=str))
    return f"Setting {key} = {shown} is not valid: {item['msg'][0].lower()}{item['msg'][1:]}."


def _cut(text: str) -> str:
    """Return a text of somebody's settings as it is shown: a stranger's may be of any length."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
