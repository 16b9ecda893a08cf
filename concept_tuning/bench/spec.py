"""What a bench compares, read from a YAML file and checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.settings import build_config

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
#: Key of the search space that every method has.
ALL = "all"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Range:
    """Values of a setting that the search draws from: a range, or a list of choices.

    Attributes:
        low: Least value.
        high: Greatest value.
        log: Whether it is drawn evenly in the logarithm.
        choices: The values, in place of a range.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        is_range = self.low is not None and self.high is not None and self.low < self.high
        if is_range == bool(self.choices) or (is_range and self.log and (self.low or 0) <= 0):
            raise ValueError("write low below high (above 0 if log), or choices")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataSpec:
    """Data of a bench.

    Attributes:
        name: What it is called in the tables.
        source: Value of ``data.source``.
        set: Settings by name, such as ``rho``.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,40}$")]
    source: str
    set: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BenchSpec:
    """A bench.

    Attributes:
        name: Of the bench.
        data: What is learnt.
        methods: By which methods; the first is what the others are compared with.
        backbones: With which networks.
        sample_rates: Shares of the training pictures, in percent.
        seeds: Of the final runs; not those of the search.
        preset: How long, as ``--preset``; None: the defaults.
        set: Settings that every run has.
        trials: Runs of the search for each method on each data, backbone and sample rate; 0 or 1: no search.
        search_seed: Of the draws and of the search's runs.
        search: Search space by method, and under ``all`` for every method.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]
    data: Annotated[tuple[DataSpec, ...], Field(min_length=1)]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = ("tf_efficientnet_lite0",)
    sample_rates: Annotated[tuple[float, ...], Field(min_length=1)] = (100.0,)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    preset: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    trials: Annotated[int, Field(ge=0, le=1000)] = 0
    search_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    search: dict[str, dict[str, Range]] = Field(default_factory=dict)

    def space(self, method: str) -> dict[str, Range]:
        """Return the search space of a method."""
        return {**self.search.get(ALL, {}), **self.search.get(method, {})}


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Setting:
    """One method on one data, backbone and sample rate: what is tuned by itself, and then run with every seed."""

    data: str
    backbone: str
    sample_rate: float
    method: str

    @property
    def place(self) -> str:
        """Its folder below the bench's."""
        return f"{self.data}/{self.backbone}/{self.sample_rate:g}/{self.method}"


def load_spec(path: Path) -> BenchSpec:
    """Read a bench and check that every run of it can be configured.

    Raises:
        ConfigError: if the file cannot be read, holds what is not known, or a run's settings are not valid.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The bench {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The bench {path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The bench {path} holds no settings; see benchmarks/specs for examples.")
    return check_spec(values)


def check_spec(values: Mapping[str, Any]) -> BenchSpec:
    """Return a bench from plain values; raises ConfigError as :func:`load_spec`."""
    try:
        spec = TypeAdapter(BenchSpec).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The bench's {where or 'settings'} cannot be used: {first['msg']}.") from error
    for what, names in (("methods", spec.methods), ("data", tuple(one.name for one in spec.data))):
        if len(set(names)) < len(names):
            raise ConfigError(f"The bench names one of its {what} twice: {', '.join(names)}.")
    unknown = set(spec.search) - {ALL, *spec.methods}
    if unknown:
        raise ConfigError(f"The bench's search names {min(unknown)!r}, which is none of its methods.")
    for setting in settings_of(spec):
        config_of(spec, setting, seed=spec.seeds[0], drawn={})
        for key, span in spec.space(setting.method).items():
            for value in span.choices or (span.low, span.high):
                config_of(spec, setting, seed=spec.seeds[0], drawn={key: value})
    return spec


def settings_of(spec: BenchSpec) -> list[Setting]:
    """Return what a bench tunes and runs, in the order of its file."""
    return [
        Setting(data=data.name, backbone=backbone, sample_rate=rate, method=method)
        for data in spec.data
        for backbone in spec.backbones
        for rate in spec.sample_rates
        for method in spec.methods
    ]


def config_of(spec: BenchSpec, setting: Setting, *, seed: int, drawn: Mapping[str, Any]) -> RunConfig:
    """Return the settings of one run.

    Args:
        spec: The bench.
        setting: What is run.
        seed: Of the run.
        drawn: What the search drew, by name of the setting.

    Raises:
        ConfigError: if they are not valid.
    """
    data = next(one for one in spec.data if one.name == setting.data)
    overrides = {**spec.set, **data.set, **drawn, "engine.seed": seed}
    if setting.sample_rate != 100:
        overrides["data.sample_rate"] = setting.sample_rate
    return build_config(
        data=data.source,
        backbone=setting.backbone,
        method=setting.method,
        preset=spec.preset,
        overrides=overrides,
    )
